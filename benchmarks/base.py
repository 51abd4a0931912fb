"""What a benchmark is: a question set that our agent answers and a judge scores, or a suite that brings its own prompts and scores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.resume import Fate
from harness.budget import Budget
from harness.chat import Chat
from harness.config import Section
from harness.engines.base import ChatEngine, Engine
from harness.tasks.base import TaskLoader
from harness.types import Task
from judges.attempts import Log, OutageConfig, OutageWatch

OWN_RULES = "lm-eval "
"""How the name of a suite's scoring begins: rules of its own, which no judge replaces."""


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


class Progress(Protocol):
    def finished(self, done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteAsk:
    """What of a suite is asked for."""

    settings: Section  # the suite's own section of the configuration
    data: Path | None = None  # a local copy; None: the hub, or its cache
    split: str | None = None  # None: every part of the suite
    limit: int | None = None  # the first so many samples of each part
    sample: tuple[str, ...] = ()  # of those only these ids; empty: all
    messages: bool = False  # of an endpoint that takes and gives messages: no token ids, no log-probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRun:
    """All that a suite is given: the model, what of the suite is asked for, and where its records go."""

    ask: SuiteAsk
    engine: Engine | ChatEngine
    chat: Chat | None  # None beside a ``ChatEngine``, which has its own
    context: int | None  # longest sequence that the engine takes, in tokens; None where an endpoint does not say
    log: Log
    folder: Path  # the run directory; what its log holds already is not run again
    run_id: str  # what the run is called: evaluations are named after it
    who: Mapping[str, Any]  # model, method and seed, as an ``Evaluation`` records them
    gate: asyncio.Semaphore  # samples open at once
    progress: Callable[[str, int], AbstractContextManager[Progress]]  # (title, number of samples)
    budget: Budget = field(default_factory=Budget)  # what all samples of the command may spend together
    watch: OutageWatch = field(default_factory=lambda: OutageWatch(config=OutageConfig(tolerate=1.0)))


class Suite(Protocol):
    """A benchmark that is no question set: it makes its own requests and scores the answers by its own rules, never by a judge.

    Each sample becomes an attempt and a judgement under an evaluation, like any other, so that the board needs to know nothing of suites.
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    def check(self, ask: SuiteAsk) -> None:
        """Raise a ``HarnessError`` for what is missing or wrong before a model is loaded."""
        ...

    def ids(self, ask: SuiteAsk) -> tuple[str, ...]:
        """Of the samples that are asked for."""
        ...

    def questions(self, data: Path | None) -> tuple[Task, ...]:
        """What all its samples ask, for a comparison with training tasks; of the local copy ``data``, or of the hub."""
        ...

    def forecast(self, ask: SuiteAsk, folder: Path, run_id: str) -> Iterator[tuple[str, Fate, str]]:
        """(place and id, what becomes of it, why) of each sample, given what the log of ``folder`` holds of ``run_id``; needs no model."""
        ...

    async def evaluate(self, run: SuiteRun) -> list[str]:
        """Run what the log lacks and record it; one line of words per part."""
        ...
