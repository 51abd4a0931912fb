"""One evaluation from its configuration to its rows on the board; ``harness eval`` is its command line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.base import Benchmark, Suite, SuiteRun
from benchmarks.evaluate import Evaluation, Part, comparability, evaluate_all
from benchmarks.resume import Fate, fate, recorded
from harness.budget import Budget
from harness.chat import Chat
from harness.cli.assemble import (
    QuestionSet,
    environments,
    open_benchmark,
    open_engine,
    open_judge,
    parse_data,
    provenance,
    question_set,
)
from harness.cli.board import put_on_board
from harness.cli.progress import EvalProgress
from harness.config import store, to_json
from harness.engines.base import ChatEngine, Engine
from harness.engines.client import Served
from harness.engines.completions import CompletionsEngine
from harness.engines.http import Endpoint
from harness.errors import HarnessError, UsageError, unknown
from harness.events import Kind, Recorder
from harness.models import model_directory
from harness.tasks.published import OPEN_WEB
from harness.trackers import tracking
from harness.types import Task
from harness.web import open_web
from harness.web.base import Web
from judges.attempts import Sampler
from judges.base import Judge, check_judge, close_judge

if TYPE_CHECKING:
    from harness.cli.eval import EvalConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an evaluation lives, and which files the model is in (None for an endpoint)."""

    folder: Path
    directory: Path | None
    origin: Mapping[str, Any] = field(default_factory=dict)  # the training run that the model comes from


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One evaluation of the plan: a benchmark's tasks under one turn limit."""

    questions: QuestionSet
    split: str
    tasks: tuple[Task, ...]
    max_turns: int
    suffix: str  # of its id and its scope; empty for the only turn limit

    @property
    def name(self) -> str:
        return f"{self.questions.benchmark.name}/{self.split}{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What answers: an engine with its chat format, or an endpoint; ``at_once`` is how many episodes it serves together."""

    engine: Engine | ChatEngine
    chat: Chat | None
    name: str
    at_once: int
    context: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for: question sets that our agent answers, suites that bring their own prompts, and where data lies."""

    sets: tuple[QuestionSet, ...]
    suites: tuple[Suite, ...]
    data: Mapping[str, Path]


def find_benchmarks(config: EvalConfig, data: Sequence[str]) -> Wanted:
    """The benchmarks with their data; whatever is wrong with one is said here, before a model is loaded."""
    paths = parse_data(data)
    found = {name: open_benchmark(name) for name in config.benchmarks}
    suites = {name: each for name, each in found.items() if not isinstance(each, Benchmark)}
    for name, suite in suites.items():
        suite.check(paths.get(name), config.split)
        if config.remote and config.endpoint.tokenizer is None:
            raise UsageError(f"{name} needs token ids of the endpoint: name the model's tokenizer with --set endpoint.tokenizer=NAME|DIR")
    sets = tuple(question_set(name, paths) for name in found if name not in suites)
    return Wanted(sets=sets, suites=tuple(suites.values()), data=paths)


def variants(config: EvalConfig, sets: Sequence[QuestionSet]) -> list[Variant]:
    """The plan: every benchmark under every turn limit."""
    found = []
    for questions in sets:
        split = config.split or questions.benchmark.split
        tasks = questions.tasks.split(split)[: config.limit]
        if config.sample:
            tasks = tuple(task for task in tasks if task.id in config.sample)
        for turns in config.turns or (config.agent.max_turns,):
            suffix = f"/turns-{turns}" if config.turns else ""
            found.append(Variant(questions=questions, split=split, tasks=tasks, max_turns=turns, suffix=suffix))
    if missing := set(config.sample) - {task.id for variant in found for task in variant.tasks}:
        every = [task.id for questions in sets for task in questions.tasks.split(config.split or questions.benchmark.split)]
        raise unknown("sample", sorted(missing)[0], every if len(every) <= 20 else [])
    return found


def forecast(config: EvalConfig, folder: Path, wanted: Wanted) -> Iterator[str]:
    """Per sample what would be reused, judged again or run, and why; then the sums. Loads no model and writes nothing.

    Suites keep their own account of what is recorded, so of them only the name is said.
    """
    known = recorded(folder)
    counts = dict.fromkeys(Fate, 0)
    for variant in variants(config, wanted.sets):
        judge = open_judge(config.judge, variant.questions.tasks.closed).name
        for epoch in range(config.epochs):
            for task in variant.tasks:
                kept = known.sample(f"{folder.name}/{variant.name}", (task.id, epoch))
                what, why = fate(kept, judge=judge, data=variant.questions.tasks.fingerprint)
                counts[what] += 1
                yield f"{what:<8} {variant.name}/{task.id}{f' epoch {epoch}' if config.epochs > 1 else ''}: {why}"
    for suite in wanted.suites:
        yield f"{suite.name}: what its log lacks would be run"
    yield "; ".join(f"{what} {count}" for what, count in counts.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What the parts of one evaluation share. ``who``: model, method and seed, as the board names them; ``room``: episodes open at once."""

    config: EvalConfig
    place: Place
    model: Model
    log: Recorder
    who: Mapping[str, Any]
    room: asyncio.Semaphore
    judges: Mapping[bool, Judge]  # by whether the question set is closed
    web: Web | None


async def run_evaluation(config: EvalConfig, place: Place, wanted: Wanted) -> list[str]:
    """Build the parts, run, ingest; returns the closing words. The log says how the evaluation ended, also when it fails."""
    plan = variants(config, wanted.sets)
    web = open_web(config.web) if config.web else None
    async with AsyncExitStack() as stack:
        judges = {closed: open_judge(config.judge, closed) for closed in {variant.questions.tasks.closed for variant in plan}}
        for judge in judges.values():
            stack.push_async_callback(close_judge, judge)
            await check_judge(judge)
        model = await _open_model(config, place)
        stack.push_async_callback(model.engine.close)
        store(config, place.folder / "config.json")
        feed = stack.enter_context(tracking(config.trackers, place.folder, to_json(config)))
        origin = place.origin
        session = Session(
            config=config,
            place=place,
            model=model,
            log=stack.enter_context(Recorder(place.folder, listener=feed)),
            who={"model": origin.get("model", model.name), "method": origin.get("method", "base"), "seed": origin.get("seed", config.seed)},
            room=asyncio.Semaphore(config.episodes or model.at_once),
            judges=judges,
            web=web,
        )
        lines = await _recorded(session, plan, wanted)
    put_on_board(place.folder)
    return [*lines, f"Run: {place.folder}"]


async def _recorded(session: Session, plan: Sequence[Variant], wanted: Wanted) -> list[str]:
    """Run everything between the events that open and close a run."""
    started = {
        "phase": "started",
        "run_id": session.place.folder.name,
        "command": "eval",
        **session.who,
        "config": to_json(session.config),
        "parent": session.place.origin.get("run_id"),
        "error": None,
    }
    session.log.record(Kind.RUN, {**started, "provenance": provenance()})
    try:
        lines = await _evaluate(session, plan) if plan else []
        for suite in wanted.suites:
            lines += await suite.evaluate(_suite_run(session, suite, wanted.data))
    except HarnessError as error:
        session.log.record(Kind.RUN, {**started, "phase": "failed", "provenance": {}, "error": str(error)})
        raise
    session.log.record(Kind.RUN, {**started, "phase": "finished", "provenance": {}})
    return lines


async def _evaluate(session: Session, plan: Sequence[Variant]) -> list[str]:
    """All question sets as one run, under one budget."""
    config, model = session.config, session.model
    budget = Budget(limits=config.limits)
    parts = [_part(session, variant, budget) for variant in plan]
    samples = sum(len(part.tasks) * config.epochs for part in parts)
    title = ", ".join(variant.name for variant in plan)
    with EvalProgress(title, samples, lambda: f"{budget.tokens:,} tokens" + (f", cost {budget.cost:.4g}" if budget.cost else "")) as bar:
        results = await evaluate_all(parts, session.place.folder, bar.finished, at_once=2 * (config.episodes or model.at_once))
    return [f"{v.name}: {r.words()}\n  {r.details()}{_without_web(v, session.web)}" for v, r in zip(plan, results, strict=True)]


def _without_web(variant: Variant, web: Web | None) -> str:
    """That the tools had nothing to search, where that is so."""
    if web is not None or all(task.web != OPEN_WEB for task in variant.tasks):
        return ""
    return "\n  without a web: search and visit answered with an error (--web corpus:PATH or live)"


def _part(session: Session, variant: Variant, budget: Budget) -> Part:
    config, model, tasks = session.config, session.model, variant.questions.tasks
    context = min(config.agent.context_tokens, model.context or config.agent.context_tokens)
    agent = config.agent.model_copy(update={"max_turns": variant.max_turns, "context_tokens": context})
    sampler = Sampler(
        engine=model.engine,
        chat=model.chat,
        env=environments(tasks, config.search, session.web),
        judge=session.judges[tasks.closed],
        agent=agent,
        log=session.log,
        gate=session.room,
        budget=budget,
    )
    taken = [config.limit, list(config.sample)] if config.sample else config.limit
    evaluation = Evaluation(
        id=f"{session.place.folder.name}/{variant.name}",
        benchmark=variant.questions.benchmark.name,
        split=variant.split,
        comparability=comparability(
            tasks.fingerprint, sampler.judge.name, agent, config.search, taken, config.temperature, config.web or ""
        ),
        scope=f"{variant.questions.benchmark.name}{variant.suffix}",
        data=tasks.fingerprint,
        epochs=config.epochs,
        temperature=config.temperature,
        **session.who,
    )
    return Part(evaluation=evaluation, tasks=variant.tasks, sampler=sampler)


def _suite_run(session: Session, suite: Suite, data: Mapping[str, Path]) -> SuiteRun:
    config, model = session.config, session.model
    if isinstance(model.engine, ChatEngine) or model.chat is None:
        raise UsageError(f"{suite.name} needs an engine of token ids, and {config.model} was opened as a chat endpoint")
    return SuiteRun(
        engine=model.engine,
        chat=model.chat,
        context=model.context or config.generation.context,
        log=session.log,
        folder=session.place.folder,
        who=session.who,
        settings=config.lm_eval,
        data=data.get(suite.name),
        split=config.split,
        limit=config.limit,
        gate=session.room,
        progress=EvalProgress,
    )


async def _open_model(config: EvalConfig, place: Place) -> Model:
    if place.directory is not None:
        engine = open_engine(config.engine, place.directory, config.generation)
        return Model(engine=engine, chat=Chat.load(place.directory), name=config.model, at_once=config.generation.slots)
    endpoint = Endpoint(config.model, config.model_name or "", config.endpoint)
    try:
        served = _choose(await endpoint.models(), config)
    except HarnessError:
        await endpoint.close()
        raise
    endpoint.model = served.id
    common: dict[str, Any] = {"name": served.id, "at_once": config.endpoint.concurrency, "context": served.context}
    if config.endpoint.tokenizer is None:
        return Model(engine=endpoint, chat=None, **common)
    return Model(engine=CompletionsEngine(endpoint), chat=Chat.load(model_directory(config.endpoint.tokenizer)[1]), **common)


def _choose(listed: Sequence[Served], config: EvalConfig) -> Served:
    """The model to ask for; an id that is given need not be listed (some endpoints list none)."""
    if config.model_name is not None:
        return next((served for served in listed if served.id == config.model_name), Served(id=config.model_name))
    if len(listed) != 1:
        names = ", ".join(served.id for served in listed) or "none"
        raise UsageError(f"{config.model} serves several models or none ({names}); say which with --model-name")
    return listed[0]
