"""A training run without a model, for tests of the loop: scripted engine, learner without a network, made-up tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fakes import FakeLearner, MemoryLog, PolicyEngine, Say, tiny_chat

from harness.engines.base import Request
from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig
from harness.events import Kind
from harness.types import Action, Task
from harness.web.base import Page, Web
from harness.web.corpus import CorpusWeb
from judges.attempts import OutageConfig, Sampler
from judges.base import Judge
from judges.exact import ExactJudge
from trainers.algorithms.grpo import ZeroRL, ZeroRLConfig
from trainers.checkpoints import Checkpoints
from trainers.loop import Schedule, Training, train
from trainers.phases import Material, Timeline, Trainer
from trainers.state import RunState

WEB = CorpusWeb([Page(url="page://0", title="Fern", text="A fern.")])
TASKS = tuple(
    Task(id=f"t{i}", question=f"Question {i}?", gold=("yes",), actions=(Action(name="search", arguments={"query": ["fern"]}),))
    for i in range(6)
)
SHOWN = tuple(
    replace(task, demonstration=({"role": "user", "content": task.question}, {"role": "assistant", "content": "<answer>yes</answer>"}))
    for task in TASKS
)
RIGHT, WRONG = "<answer>yes</answer>", "<answer>no</answer>"
PER_ANSWER = {text: len(tiny_chat().encode(text)) + 1 for text in (RIGHT, WRONG)}


def by_seed(request: Request, prompt: str) -> str:
    """Right or wrong by the seed of the request: mixed groups, the same ones in every run."""
    return RIGHT if request.seed % 2 else WRONG


def by_index(request: Request, prompt: str) -> str:
    """The first member of each group is right."""
    return RIGHT if request.session.endswith("/0") else WRONG


@dataclass
class Bench:
    """One run whose parts can be looked at afterwards."""

    folder: Path
    say: Say = by_seed
    delay: Callable[[Request], int] = lambda request: 0
    algorithm: Trainer = field(default_factory=lambda: ZeroRL(ZeroRLConfig.model_validate({"group": {"group_size": 4}})))
    engine_type: type[PolicyEngine] = PolicyEngine
    web: Web = WEB
    denominator: Literal["engine", "learner"] = "engine"
    judge: Judge = field(default_factory=lambda: ExactJudge(closed=True))
    outages: OutageConfig = field(default_factory=lambda: OutageConfig(retries=0))
    evaluated: list[int] = field(default_factory=list)
    shown: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    log: MemoryLog = field(default_factory=MemoryLog)
    learner: FakeLearner = field(default_factory=FakeLearner)
    validation: Mapping[int, float] = field(default_factory=dict)

    def run(self, state: RunState | None = None, keep: int = 2, **schedule: Any) -> RunState:
        self.engine = self.engine_type(self.say, delay=self.delay)
        timeline = Timeline(phases=tuple(self.algorithm.phases()))
        self.checkpoints = Checkpoints(folder=self.folder / "checkpoints", keep=keep, pinned=timeline.starts)
        settings: dict[str, Any] = {"steps": 1, "tasks_per_step": 3, "minibatch_tasks": 3, "checkpoint_every": 100, **schedule}
        sampler = Sampler(
            engine=self.engine,
            chat=tiny_chat(),
            env=lambda task: SearchEnv(self.web, SearchLimits()),
            judge=self.judge,
            agent=AgentConfig(),
            log=self.log,
            outages=self.outages,
        )
        training = Training(
            timeline=timeline,
            tasks={Material.QUESTIONS: TASKS, Material.DEMONSTRATIONS: SHOWN},
            sampler=sampler,
            learner=self.learner,
            engine=self.engine,
            context=4096,
            log=self.log,
            schedule=Schedule(**settings),
            checkpoints=self.checkpoints,
            evaluate=self._evaluate,
            progress=lambda state, metrics: self.shown.append((state.step, metrics)),
            denominator=self.denominator,
        )
        return asyncio.run(train(training, state or RunState()))

    async def _evaluate(self, state: RunState) -> float | None:
        self.evaluated.append(state.step)
        return self.validation.get(state.step)

    @property
    def saved(self) -> list[int]:
        return [entry["step"] for entry in self.log.of(Kind.CHECKPOINT)]
