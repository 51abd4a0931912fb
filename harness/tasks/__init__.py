"""Question sets that training and evaluation share; ``base`` says what one is, the other modules read one published form each."""

from harness.tasks.base import TaskLoader, TaskSet, split_of
from harness.tasks.hotpotqa import HOTPOTQA
from harness.tasks.miniweb import MINIWEB
from harness.tasks.musique import MUSIQUE

__all__ = ["HOTPOTQA", "MINIWEB", "MUSIQUE", "TaskLoader", "TaskSet", "split_of"]
