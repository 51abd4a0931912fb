"""One evaluation from its configuration to its rows on the board; ``harness eval`` is its command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.base import SuiteAsk, SuiteRun
from benchmarks.departures import caveat, departures, judged_by
from benchmarks.evaluate import Evaluation, Part, evaluate_all
from benchmarks.resume import resumed_budget
from harness.budget import Budget
from harness.chat import Chat
from harness.cli.assemble import (
    environments,
    open_engine,
    open_judge,
    provenance,
)
from harness.cli.board import on_board
from harness.cli.eval_plan import Variant, Wanted, agent_of, conditions, variants
from harness.cli.progress import EvalProgress
from harness.config import store, to_json
from harness.engines.base import ChatEngine, Engine
from harness.engines.client import Served
from harness.engines.completions import CompletionsEngine
from harness.engines.http import Endpoint
from harness.errors import HarnessError, UsageError
from harness.events import Kind, Recorder, current_events
from harness.models import model_directory
from harness.tasks.published import OPEN_WEB
from harness.trackers import tracking
from harness.web import open_web
from harness.web.base import Web
from judges.attempts import OutageWatch, Sampler
from judges.base import Judge, check_judge, close_judge
from judges.llm import for_benchmark

if TYPE_CHECKING:
    from harness.cli.eval import EvalConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an evaluation lives, what it is called, and which files the model is in (None for an endpoint)."""

    folder: Path
    run_id: str
    directory: Path | None
    origin: Mapping[str, Any] = field(default_factory=dict)  # the training run that the model comes from


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What answers: an engine with its chat format, or an endpoint; ``at_once`` is how many episodes it serves together."""

    engine: Engine | ChatEngine
    chat: Chat | None
    name: str
    at_once: int
    context: int | None = None


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
    budget: Budget
    watch: OutageWatch


async def run_evaluation(config: EvalConfig, place: Place, wanted: Wanted, say: Callable[[str], None]) -> None:
    """Build the parts, run on the board. The log says how the evaluation ended, also when it fails.

    ``say`` takes closing words as soon as there are any: those of the question sets, which run as one, then those of each suite.
    """
    plan = variants(config, wanted)
    web = open_web(config.web) if config.web else None
    async with AsyncExitStack() as stack:
        judges = {closed: open_judge(config.judge, closed) for closed in {variant.questions.tasks.closed for variant in plan}}
        for judge in judges.values():
            stack.push_async_callback(close_judge, judge)
            await check_judge(judge)
        model = await _open_model(config, place)
        stack.push_async_callback(model.engine.close)
        if config.remote:
            check_same_model(place.folder, config.model, model.name)
        store(config, place.folder / "config.json")
        feed = stack.enter_context(tracking(config.trackers, place.folder, place.run_id, to_json(config)))
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
            budget=resumed_budget(place.folder, config.limits),
            watch=OutageWatch(config=config.outage),
        )
        await _recorded(session, plan, wanted, say)


async def _recorded(session: Session, plan: Sequence[Variant], wanted: Wanted, say: Callable[[str], None]) -> None:
    """Run everything between the events that open and close a run."""
    started = {
        "phase": "started",
        "run_id": session.place.run_id,
        "command": "eval",
        **session.who,
        "config": to_json(session.config),
        "parent": session.place.origin.get("run_id"),
        "error": None,
    }
    session.log.record(Kind.RUN, {**started, "provenance": provenance()})
    with on_board(session.place.folder):
        try:
            for line in await _evaluate(session, plan) if plan else ():
                say(line)
            for suite, ask in wanted.suites:
                for line in await suite.evaluate(_suite_run(session, ask)):
                    say(line)
        except (HarnessError, OSError) as error:
            session.log.record(Kind.RUN, {**started, "phase": "failed", "provenance": {}, "error": str(error)})
            raise
        session.log.record(Kind.RUN, {**started, "phase": "finished", "provenance": {}})


async def _evaluate(session: Session, plan: Sequence[Variant]) -> list[str]:
    """All question sets as one run, under one budget."""
    config, model = session.config, session.model
    budget = session.budget
    samples = sum(len(variant.tasks) * config.epochs for variant in plan)
    title = ", ".join(variant.name for variant in plan)
    with EvalProgress(title, samples, lambda: f"{budget.tokens:,} tokens" + (f", cost {budget.cost:.4g}" if budget.cost else "")) as bar:
        parts = [_part(session, variant, bar.notice) for variant in plan]
        at_once = 2 * (config.episodes or model.at_once)
        results = await evaluate_all(parts, session.place.folder, bar.finished, at_once=at_once, watch=session.watch)
    caveats = [caveat(part.evaluation.departs) for part in parts]
    return [
        "\n  ".join(filter(None, (f"{v.name}: {r.words()}", r.details(), _without_web(v, session.web), more)))
        for v, r, more in zip(plan, results, caveats, strict=True)
    ]


def _without_web(variant: Variant, web: Web | None) -> str:
    """That the tools had nothing to search, where that is so."""
    if web is not None or all(task.web != OPEN_WEB for task in variant.tasks):
        return ""
    return "without a web: search and visit answered with an error (--web corpus:PATH or live)"


def _departs(variant: Variant, judge: str, web: str | None) -> tuple[str, ...]:
    """Only sets of the open web are published benchmarks; the others bring their own pages and lists of accepted answers."""
    if all(task.web != OPEN_WEB for task in variant.tasks):
        return ()
    published = len(variant.questions.tasks.split(variant.split))
    return judged_by(judge, departures(asked=len(variant.tasks), published=published, searches=True, web=web))


def _part(session: Session, variant: Variant, notice: Callable[[str], None]) -> Part:
    config, model, tasks = session.config, session.model, variant.questions.tasks
    sampler = Sampler(
        engine=model.engine,
        chat=model.chat,
        env=environments(tasks, config.search, session.web),
        judge=for_benchmark(session.judges[tasks.closed], variant.questions.benchmark.name),
        agent=agent_of(config, variant, model.context),
        log=session.log,
        gate=session.room,
        budget=session.budget,
        outages=config.outage,
        notice=notice,
    )
    evaluation = Evaluation(
        id=f"{session.place.run_id}/{variant.name}",
        benchmark=variant.questions.benchmark.name,
        split=variant.split,
        comparability=conditions(config, variant, judge=sampler.judge.name, context=model.context, web=session.web),
        scope=f"{variant.questions.benchmark.name}{variant.suffix}",
        data=tasks.fingerprint,
        epochs=config.epochs,
        temperature=config.temperature,
        departs=_departs(variant, sampler.judge.name, config.web),
        **session.who,
    )
    return Part(evaluation=evaluation, tasks=variant.tasks, sampler=sampler)


def _suite_run(session: Session, ask: SuiteAsk) -> SuiteRun:
    config, model = session.config, session.model
    return SuiteRun(
        ask=ask,
        engine=model.engine,
        chat=model.chat,
        context=model.context if ask.messages else model.context or config.generation.context,
        log=session.log,
        folder=session.place.folder,
        run_id=session.place.run_id,
        who=session.who,
        gate=session.room,
        progress=EvalProgress,
        budget=session.budget,
        watch=session.watch,
    )


async def _open_model(config: EvalConfig, place: Place) -> Model:
    if place.directory is not None:
        engine = open_engine(config.engine, place.directory, config.generation)
        return Model(
            engine=engine,
            chat=Chat.load(place.directory),
            name=config.model,
            at_once=config.generation.slots,
            context=config.generation.context,
        )
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


def check_same_model(folder: Path, url: str, served: str) -> None:
    """Raise ``UsageError`` if the log of ``folder`` is of another model than the one that the endpoint serves now."""
    before = {str(event.data["model"]) for event in current_events(folder) if event.kind is Kind.RUN}
    if before and served not in before:
        raise UsageError(
            f"{folder} holds an evaluation of {', '.join(sorted(before))}, and {url} serves {served}. Serve the same model there (its id "
            "counts, not the URL), name it with --model-name, or choose another --out"
        )


def _choose(listed: Sequence[Served], config: EvalConfig) -> Served:
    """The model to ask for; an id that is given need not be listed (some endpoints list none)."""
    if config.model_name is not None:
        return next((served for served in listed if served.id == config.model_name), Served(id=config.model_name))
    if len(listed) != 1:
        names = ", ".join(served.id for served in listed) or "none"
        raise UsageError(f"{config.model} serves several models or none ({names}); say which with --model-name")
    return listed[0]
