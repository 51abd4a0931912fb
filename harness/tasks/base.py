"""Question sets that training and evaluation share: what one is, how it is loaded, how its questions are split.

A loader knows one published form; it asserts that the form fits (a misfit is a ``DataError``) and never how many rows there are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import unknown
from harness.rows import Row
from harness.types import Task
from harness.web.base import Web

SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSet:
    """Tasks by split, and the webs that their tools search. A web is opened when it is first asked for, then kept by its function."""

    name: str
    tasks: Mapping[str, tuple[Task, ...]]  # split -> tasks, in the order of the file
    webs: Mapping[str, Callable[[], Web]]  # Task.web -> how to open it; each function returns the same web every time
    fingerprint: str  # hash of tasks and pages: two sets with one fingerprint ask the same questions over the same pages
    closed: bool = False  # the gold lists every accepted form, so an answer that matches none is wrong, not undecided

    def split(self, name: str) -> tuple[Task, ...]:
        """The tasks of one split."""
        if name not in self.tasks:
            raise unknown(f"split of {self.name}", name, self.tasks)
        return self.tasks[name]

    def web(self, name: str) -> Web:
        """The web called ``name`` (a task's ``web``)."""
        if name not in self.webs:
            raise unknown(f"web of {self.name}", name, self.webs)
        return self.webs[name]()


class TaskLoader(Protocol):
    """A named source of a task set, as the registry lists it."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str:
        """One line for ``harness list``."""
        ...

    @property
    def needs_path(self) -> bool:
        """Whether the user must say where the data lies (``--data NAME=PATH``)."""
        ...

    def load(self, path: Path | None) -> TaskSet: ...


def split_of(task_id: str, fractions: Mapping[str, float]) -> str:
    """The split of a task, by a hash of its id alone: stable across machines, file orders and larger versions of a file.

    >>> split_of("2hop__150763_14904", SPLITS)
    'train'
    """
    point = int.from_bytes(hashlib.blake2b(task_id.encode(), digest_size=8).digest(), "big") / 2**64 * sum(fractions.values())
    edge = 0.0
    for name, fraction in fractions.items():
        edge += fraction
        if point < edge:
            return name
    return name  # rounding put the last edge a hair below the sum


def distinct(found: Iterable[tuple[Row, Task]]) -> tuple[Task, ...]:
    """The tasks, each given with the row that it comes from. Raises ``DataError`` naming both rows of an id that stands twice."""
    seen: dict[str, Row] = {}
    tasks = []
    for row, task in found:
        if task.id in seen:
            raise row.error(f"the question {task.id!r} stands in row {seen[task.id].number} already, expected each once")
        seen[task.id] = row
        tasks.append(task)
    return tuple(tasks)


def by_split(tasks: Iterable[Task], fractions: Mapping[str, float]) -> dict[str, tuple[Task, ...]]:
    """Tasks grouped by their ``split`` tag; every split of ``fractions`` is there, if only empty."""
    groups: dict[str, list[Task]] = {name: [] for name in fractions}
    for task in tasks:
        groups[task.tags["split"]].append(task)
    return {name: tuple(group) for name, group in groups.items()}


def fingerprint_of(tasks: Iterable[Task], pages: str) -> str:
    """A hash of all that tasks hold, and of ``pages`` (the fingerprint of their web), 16 hex digits."""
    digest = hashlib.blake2b(pages.encode(), digest_size=8)
    for task in tasks:
        actions = [[action.name, dict(action.arguments)] for action in task.actions]
        demonstration = [dict(message) for message in task.demonstration]
        whole = [task.id, task.question, list(task.gold), actions, demonstration, task.web, dict(task.tags)]
        whole += [task.closing] if task.closing else []
        digest.update(json.dumps(whole, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
