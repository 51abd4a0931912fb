"""One training run from its configuration to its row on the board."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparability import Conditions
from benchmarks.evaluate import TEMPERATURE, Evaluation, Part, evaluate
from benchmarks.result import Result
from harness.chat import Chat
from harness.cli.assemble import (
    QuestionSet,
    asked_by,
    environments,
    open_engine,
    open_judge,
    parse_data,
    planned,
    provenance,
    question_set,
    refuse_evaluated,
    require_judge,
)
from harness.cli.board import on_board
from harness.cli.progress import RunProgress
from harness.cli.run import RunPlace
from harness.config import to_json
from harness.errors import HarnessError, UsageError
from harness.events import Kind, Recorder
from harness.models import model_directory
from harness.registry import load
from harness.trackers import check_trackers, tracking
from harness.types import Task
from harness.web import identity, open_web
from judges.attempts import Sampler
from judges.base import close_judge
from trainers.checkpoints import Checkpoints
from trainers.checkup import AGREE
from trainers.config import RunConfig
from trainers.demonstrations import check, fingerprint, read_conversations
from trainers.learner.deepspeed import DeepSpeedLearner
from trainers.loop import Schedule, Training, train
from trainers.phases import Material, Timeline, Trainer
from trainers.state import RunState

CONVERSATIONS = "sft"
"""The name under which ``--data`` takes a file of expert conversations (its form: trainers/demonstrations.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a run reads: questions, tasks to train on, a model's directory; the phases that use them, and the judge's full name."""

    questions: QuestionSet
    directory: Path
    timeline: Timeline
    tasks: Mapping[Material, tuple[Task, ...]]
    judge: str


def with_conversations(config: RunConfig, data: Sequence[str]) -> RunConfig:
    """The configuration with the hash of the file that ``--data sft=FILE`` gives; a run that names another hash is refused."""
    path = parse_data(data, (CONVERSATIONS,)).get(CONVERSATIONS)
    found = None if path is None else fingerprint(path)
    if config.conversations not in (None, found):
        given = f"--data {CONVERSATIONS}={path} has {found}" if path else f"no --data {CONVERSATIONS}=FILE is given"
        raise UsageError(f"conversations is {config.conversations}, but {given}; give the file that the setting means, or leave it out")
    return config.model_copy(update={"conversations": found})


def find_sources(config: RunConfig, data: Sequence[str]) -> Sources:
    """Load the questions and find the model; whatever is wrong with either is said here, before a run exists."""
    load("judges", config.judge.partition(":")[0]), load("engines", config.engine)
    check_trackers(config.trackers)
    paths = parse_data(data, (CONVERSATIONS,))
    conversations = paths.pop(CONVERSATIONS, None)
    questions = question_set(config.tasks, paths)
    questions.tasks.split("train"), questions.tasks.split(config.eval_split)
    judge = require_judge(config.judge, questions.tasks.closed)
    others = {name: asked_by(name, path) for name, path in paths.items() if name != config.tasks}
    directory = model_directory(config.model)[1]
    trainer: Trainer = load("trainers", config.trainer)(config.algorithm)
    timeline = Timeline(phases=tuple(trainer.phases()))
    wanted = {phase.material for phase in timeline.phases}
    if conversations is not None and Material.DEMONSTRATIONS not in wanted:
        raise UsageError(f"--data {CONVERSATIONS}=FILE: {config.trainer} trains on no conversations; leave it out, or take sft")
    tasks: dict[Material, tuple[Task, ...]] = {}
    if Material.QUESTIONS in wanted:
        tasks[Material.QUESTIONS] = planned(questions.tasks.split("train"), config.plans, config.plan_noise, config.seed)
    if Material.DEMONSTRATIONS in wanted:
        tasks[Material.DEMONSTRATIONS] = _conversations(config, questions, conversations, directory)
    refuse_evaluated([task for found in tasks.values() for task in found], questions.tasks, config.eval_split, others)
    for material, found in tasks.items():
        if len(found) < config.tasks_per_step:
            raise UsageError(f"tasks_per_step is {config.tasks_per_step}, but there are {len(found)} {material} to train on; lower it")
    return Sources(questions=questions, directory=directory, timeline=timeline, tasks=tasks, judge=judge)


async def run_training(config: RunConfig, place: RunPlace, sources: Sources) -> str:
    """Build the parts, train, evaluate, ingest; returns the closing words. The log says how the run ended, also when it fails."""
    with tracking(config.trackers, place.folder, place.run_id, to_json(config)) as feed, Recorder(place.folder, listener=feed) as log:
        log.record(Kind.RUN, run_record(config, place, "started"))
        with on_board(place.folder):
            try:
                result = await _train(config, place, sources, log)
            except (HarnessError, OSError) as error:
                log.record(Kind.RUN, {**run_record(config, place, "failed"), "error": str(error)})
                raise
            log.record(Kind.RUN, run_record(config, place, "finished"))
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


async def _train(config: RunConfig, place: RunPlace, sources: Sources, log: Recorder) -> Result:
    questions, timeline = sources.questions, sources.timeline
    steps = config.steps + (timeline.starts[-1] if timeline.starts else 0)
    checkpoints = Checkpoints(
        folder=place.folder / "checkpoints", keep=config.keep_checkpoints, pinned=timeline.starts, origin=_origin(config, place)
    )
    found = checkpoints.latest() if place.resumed else None
    state = found[1] if found else RunState()
    async with AsyncExitStack() as stack:
        engine = open_engine(config.engine, sources.directory, config.generation)
        stack.push_async_callback(engine.close)
        learner = _open_learner(config, sources, checkpoints, state)
        stack.callback(learner.close)
        if found:
            learner.load(found[0])
        if place.resumed:
            log.record(Kind.REWIND, {"step": state.step})
        dtype = config.generation.dtype
        gap = "mismatch/logprob_max" if dtype == "float32" else "mismatch/logprob_mean"
        title = f"{config.trainer} · {config.model}"
        progress = stack.enter_context(RunProgress(title, steps, state.step, accepted=AGREE[dtype], gap=gap))
        judge = open_judge(config.judge, questions.tasks.closed)
        stack.push_async_callback(close_judge, judge)
        web = open_web(config.web) if config.web else None
        sampler = Sampler(
            engine=engine,
            chat=Chat.load(sources.directory),
            env=environments(questions.tasks, config.search, web),
            judge=judge,
            agent=config.agent,
            log=log,
            gate=asyncio.Semaphore(config.episodes or config.generation.slots),
            outages=config.outage,
            notice=progress.notice,
        )
        web_name = identity(config.web, web) if config.web and web else ""
        evaluator = Evaluator(config=config, place=place, questions=questions, sampler=sampler, progress=progress, web=web_name)
        schedule = Schedule(
            steps=steps,
            tasks_per_step=config.tasks_per_step,
            minibatch_tasks=config.minibatch_tasks,
            checkpoint_every=config.checkpoint_every,
            evaluate_every=config.evaluate_every,
            token_budget=config.token_budget,
            seed=config.seed,
        )
        training = Training(
            timeline=timeline,
            tasks=sources.tasks,
            sampler=sampler,
            learner=learner,
            engine=engine,
            context=config.generation.context,
            log=log,
            schedule=schedule,
            denominator=config.denominator,
            checkpoints=checkpoints,
            evaluate=evaluator.after,
            progress=progress.step,
        )
        state = await train(training, state)
        result = await evaluator.result(state)
        if progress.agreed is not None:
            progress.say(f"sampler and learner agreed within {progress.agreed:.1e} nats a token ({dtype}) in every step")
        if best := checkpoints.best():
            progress.say(f"best on validation tasks: step {best.step} ({best.score:.1%}), {checkpoints.path(best.step)}")
        return result


def _origin(config: RunConfig, place: RunPlace) -> dict[str, object]:
    """What a checkpoint says of where it comes from, so that ``harness eval --model CHECKPOINT`` names the right row."""
    return {"model": config.model, "method": config.trainer, "seed": config.seed, "run_id": place.run_id}


def _conversations(config: RunConfig, questions: QuestionSet, path: Path | None, directory: Path) -> tuple[Task, ...]:
    """The file's conversations, or those that the question set brings; each is known to fit the model before a run exists."""
    if path is not None:
        tasks = read_conversations(path, web=next(iter(questions.tasks.webs)))
    else:
        tasks = tuple(task for task in questions.tasks.split("train") if task.demonstration)
    if not tasks:
        raise UsageError(f"{config.tasks} brings no expert conversations; give a file of them with --data {CONVERSATIONS}=FILE")
    asyncio.run(check(tasks, environments(questions.tasks, config.search), Chat.load(directory), config.agent.context_tokens))
    return tasks


def _open_learner(config: RunConfig, sources: Sources, checkpoints: Checkpoints, state: RunState) -> DeepSpeedLearner:
    """A learner of the phase that the last update belongs to: of the run's model, or of the checkpoint that this phase began from."""
    origin = sources.timeline.origin(state.step)
    directory = sources.directory if origin is None else checkpoints.path(origin) / "hf"
    lr = sources.timeline.at(max(state.step - 1, 0)).lr
    return DeepSpeedLearner(directory, config.learner if lr is None else config.learner.model_copy(update={"lr": lr}))


@dataclass(slots=True, kw_only=True)
class Evaluator:
    """Evaluates the run's own held-out split, after some steps and at the end, and before it the validation tasks."""

    config: RunConfig
    place: RunPlace
    questions: QuestionSet
    sampler: Sampler
    progress: RunProgress
    web: str  # what replaced the question set's own web, by content
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
            comparability=Conditions(
                questions=self.questions.tasks.fingerprint,
                judge=self.sampler.judge.name,
                agent=config.agent,
                search=config.search,
                temperature=TEMPERATURE,
                taken=limit,
                web=self.web,
            ).comparability(),
        )
        result = await evaluate(Part(evaluation=evaluation, tasks=tasks, sampler=self.sampler), self.place.folder)
        self.progress.say(f"step {state.step}: {config.tasks}/{split}: {result.words()}")
        return result
