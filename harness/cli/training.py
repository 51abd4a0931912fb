"""One training run from its configuration to its row on the board."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluate import Evaluation, Part, comparability, evaluate
from benchmarks.result import Result
from harness.chat import Chat
from harness.cli.assemble import (
    QuestionSet,
    environments,
    open_engine,
    open_judge,
    parse_data,
    provenance,
    question_set,
    refuse_evaluated,
)
from harness.cli.board import put_on_board
from harness.cli.progress import RunProgress
from harness.cli.run import RunPlace
from harness.config import to_json
from harness.errors import HarnessError
from harness.events import Kind, Recorder
from harness.models import model_directory
from harness.registry import load
from harness.trackers import check_trackers, tracking
from harness.types import Task
from harness.web import open_web
from judges.attempts import Sampler
from judges.base import close_judge
from trainers.checkpoints import Checkpoints
from trainers.config import RunConfig
from trainers.guidance.noise import with_plan_noise
from trainers.learner.deepspeed import DeepSpeedLearner
from trainers.loop import Schedule, Training, train
from trainers.state import RunState, with_foreign_plans


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a run reads: questions and a model's directory."""

    questions: QuestionSet
    directory: Path


def find_sources(config: RunConfig, data: Sequence[str]) -> Sources:
    """Load the questions and find the model; whatever is wrong with either is said here, before a run exists."""
    load("judges", config.judge.partition(":")[0]), load("engines", config.engine)
    check_trackers(config.trackers)
    paths = parse_data(data)
    questions = question_set(config.tasks, paths)
    questions.tasks.split("train"), questions.tasks.split(config.eval_split)
    refuse_evaluated(questions.tasks, config.eval_split, [question_set(name, paths).tasks for name in paths if name != config.tasks])
    return Sources(questions=questions, directory=model_directory(config.model)[1])


async def run_training(config: RunConfig, place: RunPlace, sources: Sources) -> str:
    """Build the parts, train, evaluate, ingest; returns the closing words. The log says how the run ended, also when it fails."""
    with tracking(config.trackers, place.folder, to_json(config)) as feed, Recorder(place.folder, listener=feed) as log:
        log.record(Kind.RUN, run_record(config, place, "started"))
        try:
            result = await _train(config, place, sources.questions, sources.directory, log)
        except HarnessError as error:
            log.record(Kind.RUN, {**run_record(config, place, "failed"), "error": str(error)})
            raise
        log.record(Kind.RUN, run_record(config, place, "finished"))
    put_on_board(place.folder)
    return f"{config.trainer} on {config.model}, {config.tasks}/{config.eval_split}: {result.words()}. Run: {place.folder}"


def run_record(config: RunConfig, place: RunPlace, phase: str) -> dict[str, object]:
    return {
        "phase": phase,
        "run_id": place.run_id,
        "command": "run",
        "model": config.model,
        "method": config.trainer,
        "seed": config.seed,
        "config": to_json(config),
        "provenance": provenance() if phase == "started" else {},
        "parent": None,
        "error": None,
    }


async def _train(config: RunConfig, place: RunPlace, questions: QuestionSet, directory: Path, log: Recorder) -> Result:
    async with AsyncExitStack() as stack:
        engine = open_engine(config.engine, directory, config.generation)
        stack.push_async_callback(engine.close)
        learner = DeepSpeedLearner(directory, config.learner)
        stack.callback(learner.close)
        judge = open_judge(config.judge, questions.tasks.closed)
        stack.push_async_callback(close_judge, judge)
        sampler = Sampler(
            engine=engine,
            chat=Chat.load(directory),
            env=environments(questions.tasks, config.search, open_web(config.web) if config.web else None),
            judge=judge,
            agent=config.agent,
            log=log,
            gate=asyncio.Semaphore(config.episodes or config.generation.slots),
        )
        checkpoints = Checkpoints(folder=place.folder / "checkpoints", keep=config.keep_checkpoints, origin=_origin(config, place))
        state = _resume(checkpoints, learner, log) if place.resumed else RunState()
        progress = stack.enter_context(RunProgress(f"{config.trainer} · {config.model}", config.steps, state.step))
        evaluator = Evaluator(config=config, place=place, questions=questions, sampler=sampler, progress=progress)
        schedule = Schedule(
            steps=config.steps,
            tasks_per_step=config.tasks_per_step,
            minibatch_tasks=config.minibatch_tasks,
            checkpoint_every=config.checkpoint_every,
            evaluate_every=config.evaluate_every,
            token_budget=config.token_budget,
            seed=config.seed,
        )

        training = Training(
            tasks=_training_tasks(config, questions),
            algorithm=load("trainers", config.trainer)(config.algorithm),
            sampler=sampler,
            learner=learner,
            engine=engine,
            log=log,
            schedule=schedule,
            denominator=config.denominator,
            checkpoints=checkpoints,
            evaluate=evaluator.after,
            progress=progress.step,
        )
        state = await train(training, state)
        result = await evaluator.result(state)
        if best := checkpoints.best():
            progress.say(f"best on validation tasks: step {best.step} ({best.score:.1%}), {checkpoints.path(best.step)}")
        return result


def _origin(config: RunConfig, place: RunPlace) -> dict[str, object]:
    """What a checkpoint says of where it comes from, so that ``harness eval --model CHECKPOINT`` names the right row."""
    return {"model": config.model, "method": config.trainer, "seed": config.seed, "run_id": place.run_id}


def _training_tasks(config: RunConfig, questions: QuestionSet) -> tuple[Task, ...]:
    tasks = questions.tasks.split("train")
    planned = with_foreign_plans(tasks) if config.plans == "other" else tasks
    return with_plan_noise(planned, config.plan_noise, config.seed)


def _resume(checkpoints: Checkpoints, learner: DeepSpeedLearner, log: Recorder) -> RunState:
    found = checkpoints.latest()
    state = RunState()
    if found:
        folder, state = found
        learner.load(folder)
    log.record(Kind.REWIND, {"step": state.step})
    return state


@dataclass(slots=True, kw_only=True)
class Evaluator:
    """Evaluates the run's own held-out split, after some steps and at the end, and before it the validation tasks."""

    config: RunConfig
    place: RunPlace
    questions: QuestionSet
    sampler: Sampler
    progress: RunProgress
    latest: tuple[int, Result] | None = None

    async def after(self, state: RunState) -> float | None:
        """Evaluate the weights that the engine holds now, with the state's step as their name; the score on validation tasks."""
        chosen = self.questions.tasks.tasks.get("validation", ())[: self.config.validation_limit]
        validation = await self._evaluate(state, "validation", chosen) if chosen and self.config.evaluate_every else None
        tasks = self.questions.tasks.split(self.config.eval_split)[: self.config.eval_limit]
        self.latest = (state.step, await self._evaluate(state, self.config.eval_split, tasks))
        return None if validation is None else validation.mean

    async def result(self, state: RunState) -> Result:
        """The last evaluation, made now if a resumed run had nothing left to do."""
        if self.latest is None or self.latest[0] != state.step:
            await self.after(state)
        assert self.latest is not None
        return self.latest[1]

    async def _evaluate(self, state: RunState, split: str, tasks: Sequence[Task]) -> Result:
        config, limit = self.config, self.config.validation_limit if split == "validation" else self.config.eval_limit
        evaluation = Evaluation(
            id=f"{self.place.run_id}/{config.tasks}/{split}/{state.step}",
            benchmark=config.tasks,
            split=split,
            model=config.model,
            method=config.trainer,
            seed=config.seed,
            step=state.step,
            generated_tokens_total=state.generated_tokens,
            data=self.questions.tasks.fingerprint,
            comparability=comparability(
                self.questions.tasks.fingerprint, self.sampler.judge.name, config.agent, config.search, limit, web=config.web or ""
            ),
        )
        result = await evaluate(Part(evaluation=evaluation, tasks=tasks, sampler=self.sampler), self.place.folder)
        self.progress.say(f"step {state.step}: {config.tasks}/{split}: {result.words()}")
        return result
