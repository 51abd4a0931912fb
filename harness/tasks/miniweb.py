"""The mini web as a question set: multi-hop questions over train, validation and test worlds that share no link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness.errors import UsageError
from harness.tasks.base import TaskSet, fingerprint_of
from harness.tiny.world import make_tasks, make_world
from harness.types import Task
from harness.web.corpus import CorpusWeb


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniWeb:
    """Loader of the mini web; ``worlds`` per split, ``questions`` per world and number of hops."""

    name: str = "miniweb"
    summary: str = "mini web: made-up pages of linked people, multi-hop questions, expert actions; needs no data"
    needs_path: bool = False
    hops: tuple[int, ...] = (3,)
    questions: int = 32
    worlds: Mapping[str, int] = field(default_factory=lambda: {"train": 32, "validation": 8, "test": 8})

    def load(self, path: Path | None) -> TaskSet:
        if path is not None:
            raise UsageError(f"{self.name} is generated and takes no data, got --data {self.name}={path}; leave it out.")
        tasks = {
            split: tuple(task for world in names for task in _tasks(world, self.hops, self.questions, split))
            for split, names in self._names().items()
        }
        webs = {world: (lambda world=world: _web(world)) for names in self._names().values() for world in names}
        return TaskSet(
            name=self.name,
            tasks=tasks,
            webs=webs,
            fingerprint=fingerprint_of([task for split in tasks.values() for task in split], "mini web"),
            closed=True,
        )

    def _names(self) -> dict[str, list[str]]:
        return {split: [f"{split}-{number:02d}" for number in range(count)] for split, count in self.worlds.items()}


MINIWEB = MiniWeb()


def _tasks(world: str, hops: tuple[int, ...], questions: int, split: str) -> list[Task]:
    made = make_world(world)
    return [task for h in hops for task in make_tasks(made, h, questions, {"split": split})]


@cache
def _web(world: str) -> CorpusWeb:
    return CorpusWeb(make_world(world).pages())
