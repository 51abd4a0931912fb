"""The whole configuration of a training run: one frozen tree, built once from layers and stored with the run."""

from __future__ import annotations

from typing import Literal

from pydantic import SerializeAsAny, create_model, model_validator

from harness.config import Section, identity, operational
from harness.engines.base import EngineConfig
from harness.envs.search import SearchLimits
from harness.episode import AgentConfig
from harness.trackers import TrackerName
from judges.attempts import OutageConfig
from trainers.learner.base import LearnerConfig


class RunConfig(Section):
    """Settings of ``harness run``; the defaults are the paper's (Table 6)."""

    trainer: str = identity("actguide")
    """Which algorithm (``harness list trainers``)."""
    model: str = identity("tiny")
    """Name in the model table, a local directory, or a hub id."""
    tasks: str = identity("miniweb")
    """Question set to train on; its held-out split is evaluated at the end."""
    seed: int = identity(0)
    """Seeds the order of tasks and every sampled token."""
    steps: int = operational(64, ge=1)
    """Training steps (where a trainer has several phases: those of the last)."""
    token_budget: int | None = operational(None, ge=1)
    """End the run once this many tokens were generated, probes counted (null: no such limit)."""
    tasks_per_step: int = identity(32, ge=1)
    """Tasks per step (batch)."""
    minibatch_tasks: int = identity(16, ge=1)
    """Tasks, with all their trajectories, per optimiser update."""
    plans: Literal["own", "other"] = identity("own")
    """Whose expert actions guide a task: its own, or another task's (the negative control)."""
    plan_noise: float = identity(0.0, ge=0, lt=1)
    """Task-irrelevant actions, taken from other tasks, put at random places of each plan; as a share of its actions (Table 5: 0.1, 0.2)."""
    conversations: str | None = identity(None)
    """SHA-256 of the file of expert conversations, filled in from ``--data sft=FILE`` (null: the question set's own conversations)."""
    denominator: Literal["engine", "learner"] = identity("engine")
    """Whose log-probabilities are the denominator of the ratio: those recorded when the engine sampled, or the learner's own, recomputed in
    the same context before the update (the authors' code)."""
    engine: str = operational("hf")
    """Which engine generates (``harness list engines``)."""
    judge: str = identity("exact")
    """Which judge gives the reward."""
    web: str | None = identity(None)
    """The web that the tools search: corpus:PATH or live (null: the question set's own)."""
    eval_split: str = identity("test")
    """Held-out split that is evaluated at the end."""
    eval_limit: int | None = identity(None, ge=1)
    """Evaluate only the first so many held-out tasks."""
    evaluate_every: int = operational(0, ge=0)
    """Evaluate every so many steps as well, and keep the checkpoint that does best on validation tasks (0: only after the last)."""
    validation_limit: int = identity(64, ge=0)
    """Validation tasks, evaluated every ``evaluate_every`` steps, that choose the best checkpoint (0: none is chosen)."""
    checkpoint_every: int = operational(10, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = operational(2, ge=1)
    """How many checkpoints stay on disk."""
    episodes: int | None = operational(None, ge=1)
    """Episodes open at once (null: as many as the engine has slots; more only help where tools are slow)."""
    trackers: tuple[TrackerName, ...] = operational(())
    """Dashboards that get the run's numbers as well: tensorboard, wandb (offline) or trackio."""
    agent: AgentConfig = AgentConfig()
    search: SearchLimits = SearchLimits()
    generation: EngineConfig = EngineConfig()
    learner: LearnerConfig = LearnerConfig()
    outage: OutageConfig = OutageConfig()
    algorithm: SerializeAsAny[Section] = Section()

    @model_validator(mode="after")
    def _minibatch_fits(self) -> RunConfig:
        if self.minibatch_tasks > self.tasks_per_step:
            raise ValueError(f"minibatch_tasks is {self.minibatch_tasks}, more than tasks_per_step ({self.tasks_per_step}); lower it")
        return self


def run_config_type(algorithm: type[Section]) -> type[RunConfig]:
    """RunConfig whose ``algorithm`` section is that of one trainer."""
    return create_model("RunConfig", __base__=RunConfig, __doc__=RunConfig.__doc__, algorithm=(algorithm, algorithm()))
