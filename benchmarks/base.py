"""What a benchmark is: a question set, the split that is reported, and how its answers are judged."""

from __future__ import annotations

from dataclasses import dataclass

from harness.tasks.base import TaskLoader


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """``split`` is the held-out part; training tasks, where there are any, come from the loader's ``train`` split."""

    loader: TaskLoader
    split: str = "test"

    @property
    def name(self) -> str:
        return self.loader.name

    @property
    def summary(self) -> str:
        return self.loader.summary
