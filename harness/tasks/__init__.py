"""Question sets that training and evaluation share; ``base`` says what one is, the other modules read one published form each."""

from harness.tasks.base import TaskLoader, TaskSet, split_of
from harness.tasks.browsecomp_zh import BROWSECOMP_ZH
from harness.tasks.gaia import GAIA
from harness.tasks.hotpotqa import HOTPOTQA
from harness.tasks.miniweb import MINIWEB
from harness.tasks.musique import MUSIQUE
from harness.tasks.webwalkerqa import WEBWALKERQA
from harness.tasks.xbench import XBENCH

__all__ = ["BROWSECOMP_ZH", "GAIA", "HOTPOTQA", "MINIWEB", "MUSIQUE", "WEBWALKERQA", "XBENCH", "TaskLoader", "TaskSet", "split_of"]
