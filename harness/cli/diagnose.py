"""``harness diagnose``: what guidance does to a model, as the paper measures it (Figures 3, 4, 6, 8, Table 7); nothing is trained.

Of a run: its newest checkpoint, over its own tasks and with its own settings; the result joins the run's log and page. Of a model: a run
of its own, which holds nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from harness.cli.folders import begun, name_of_run
from harness.config import Section, build, home, identity, load_yaml, operational, parse_assignment, store, to_json
from harness.engines.base import EngineConfig
from harness.envs.search import SearchLimits
from harness.episode import AgentConfig
from harness.errors import HarnessError, RunLogError, UsageError, unknown
from trainers.guidance.inject import Injected, Injection, injection

if TYPE_CHECKING:
    from harness.events import Recorder
    from harness.figures import Finding
    from harness.tasks import TaskSet
    from trainers.diagnostics.lab import Lab

OF_A_RUN = ("tasks", "seed", "engine", "judge", "web", "plans", "plan_noise", "agent", "search", "generation")
"""Settings that a diagnosis takes over from the run that it looks at."""


class DiagnoseConfig(Section):
    """Settings of ``harness diagnose``."""

    model: str = identity("tiny")
    """Name in the model table, a local directory, or a hub id; of a run, its checkpoint."""
    tasks: str = identity("miniweb")
    """Question set whose expert actions guide."""
    split: str = identity("train")
    """Which split of it."""
    limit: int = identity(16, ge=1)
    """Only the first so many tasks."""
    plans: Literal["own", "other"] = identity("own")
    """Whose expert actions guide a task: its own, or another task's (the negative control)."""
    plan_noise: float = identity(0.0, ge=0, lt=1)
    """Task-irrelevant actions put at random places of each plan, as a share of its actions (Table 5)."""
    injection: Injection = identity("plan")
    """How the actions are given (Table 7): plan, assistant-prefix, messages or step."""
    injected: Injected | None = identity(None)
    """Only for injection messages: whether the unguided view keeps the replayed turns (keep) or not (drop)."""
    seed: int = identity(0)
    """Seeds every sampled token, and what plan_noise puts in."""
    samples: int = identity(8, ge=1)
    """Trajectories per group (N)."""
    groups: int = identity(4, ge=1)
    """off-policy-risk: groups per task and level, for the variance R_k and the recovery probability Q_k (Eq. 24: how many)."""
    levels: int = identity(8, ge=2)
    """off-policy-risk: at most so many levels of each task, evenly spaced; none of the plan and all of it are always among them."""
    continuations: int = identity(32, ge=1)
    """prefix-pass: unguided continuations from every state (K)."""
    level: int | None = identity(None, ge=1)
    """delta-logit, prefix-pass and guided-reward: expert actions given to the trajectories that are looked at (null: all)."""
    clip: float = identity(0.2, gt=0, lt=1)
    """off-policy-risk: the epsilon of Eq. 11 beyond which a ratio counts as clipped."""
    recovery: float = identity(0.5, gt=0, le=1)
    """off-policy-risk: the recovery probability rho that the smallest sufficient level must reach (Eq. 22)."""
    engine: str = operational("hf")
    """Which engine generates."""
    judge: str = identity("exact")
    """Which judge scores."""
    web: str | None = identity(None)
    """The web that the tools search: corpus:PATH or live (null: the question set's own)."""
    agent: AgentConfig = AgentConfig()
    search: SearchLimits = SearchLimits()
    generation: EngineConfig = EngineConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a diagnosis writes, and the training steps behind its weights; ``trained`` is whether that is a run of ``harness run``."""

    folder: Path
    step: int
    trained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a diagnosis reads: a question set and a model's directory."""

    questions: TaskSet
    directory: Path


@click.command("diagnose", short_help="Measure what guidance does to a model: figures 3, 4, 6, 8 and table 7 of the paper.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--run", "run_dir", type=click.Path(path_type=Path), help="A training run: its directory, or its name under $HARNESS_HOME/runs."
)
@click.option("--model", help="Instead of a run: name in the model table, a local directory, or a hub id.")
@click.option("--tasks", help="Question set (default: the run's, or miniweb).")
@click.option("--data", multiple=True, metavar="NAME=PATH", help="Where a question set's files lie; may be repeated.")
@click.option("--limit", type=int, help="Only the first so many tasks.  [default: 16]")
@click.option("--seed", type=int, help="Seed of sampling.")
@click.option("--engine", help="hf or vllm (harness list engines).")
@click.option("--out", type=click.Path(path_type=Path), help="With --model: the run directory to write.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file of settings.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting, e.g. continuations=8; may be repeated.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def diagnose(names: tuple[str, ...], form: str, **options: Any) -> None:
    """Diagnose a run or a model. NAME: delta-logit, prefix-pass, off-policy-risk, guided-reward, turns; several share one start.

    Each writes diagnostics/NAME.json and NAME.png into the run directory, prints what it found, and stands on the run's page.
    """
    from trainers.diagnostics import DIAGNOSTICS

    for name in names:
        if name not in DIAGNOSTICS:
            raise unknown("diagnostic", name, DIAGNOSTICS)
    if (options["run_dir"] is None) == (options["model"] is None):
        raise UsageError("name what to diagnose: either --run DIR or --model NAME")
    found, folder = asyncio.run(_of_run(names, options) if options["run_dir"] else _of_model(names, options))
    for finding in found:
        shown = json.dumps({"name": finding.name, "step": finding.step, "summary": list(finding.summary), "data": dict(finding.data)})
        click.echo(shown if form == "json" else _words(finding, folder))


def _words(finding: Finding, folder: Path) -> str:
    lines = [f"{finding.name}: {finding.title} (weights after {finding.step} training steps)", *(f"  {line}" for line in finding.summary)]
    return "\n".join([*lines, f"  {folder / 'diagnostics' / finding.name}.json, .png"])


async def _of_run(names: Sequence[str], options: Mapping[str, Any]) -> tuple[list[Finding], Path]:
    folder = options["run_dir"] if options["run_dir"].is_dir() else home() / "runs" / options["run_dir"]
    stored = _stored(folder)
    if options["out"]:
        raise UsageError("--out goes with --model; what is found of a run is written into the run")
    layer: dict[str, Any] = {key: stored[key] for key in OF_A_RUN if key in stored}
    clip = stored.get("algorithm", {}).get("objective", {}).get("clip_low")
    guidance = stored.get("algorithm", {}).get("guidance", {})
    layer |= {key: guidance[key] for key in ("injection", "injected") if key in guidance}
    layer |= {"samples": stored.get("algorithm", {}).get("group", {}).get("group_size", 8)} | ({"clip": clip} if clip else {})
    if set(names) == {"turns"}:  # the log alone tells
        from trainers.diagnostics.turns import of_run

        step = _last_step(folder)
        found = of_run(folder, step)
        with _log(folder, _resolve(options, layer, str(stored["model"])), trained=True) as log:
            return _keep([found], folder, log), folder
    checkpoint, step = _newest_checkpoint(folder)
    config = _resolve(options, layer, str(checkpoint))
    sources = _find_sources(config, options["data"])
    with _log(folder, config, trained=True) as log:
        return await _examine(names, config, Place(folder=folder, step=step, trained=True), sources, log), folder


async def _of_model(names: Sequence[str], options: Mapping[str, Any]) -> tuple[list[Finding], Path]:
    from harness.cli.run import nested
    from harness.models import find_model

    settings = {k: v for k, v in find_model(options["model"]).settings.items() if k.split(".")[0] in OF_A_RUN}
    config = _resolve(options, nested(settings), options["model"])
    folder = options["out"] or home() / "runs" / f"diagnose-{Path(config.model).name}-{config.tasks}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if (folder / "events").exists() or begun(folder, "diagnose"):
        raise UsageError(f"{folder} holds a run already; diagnose it with --run, or choose another --out")
    sources = _find_sources(config, options["data"])  # first: wrong input must leave no folder behind
    with _log(folder, config, trained=False) as log:
        return await _examine(names, config, Place(folder=folder, step=0, trained=False), sources, log), folder


def _resolve(options: Mapping[str, Any], layer: Mapping[str, Any], model: str) -> DiagnoseConfig:
    """Defaults < the run's or the model's settings < file < --set < flags."""
    flags = {key: options[key] for key in ("tasks", "limit", "seed", "engine") if options[key] is not None}
    file = load_yaml(options["config_file"]) if options["config_file"] else {}
    return build(DiagnoseConfig, layer, file, *map(parse_assignment, options["assignments"]), flags, {"model": model})


def _find_sources(config: DiagnoseConfig, data: Sequence[str]) -> Sources:
    from harness.cli.assemble import parse_data, question_set
    from harness.models import model_directory
    from harness.registry import load

    load("judges", config.judge.partition(":")[0]), load("engines", config.engine)
    questions = question_set(config.tasks, parse_data(data)).tasks
    questions.split(config.split)
    return Sources(questions=questions, directory=model_directory(config.model)[1])


async def _examine(names: Sequence[str], config: DiagnoseConfig, place: Place, sources: Sources, log: Recorder) -> list[Finding]:
    """Open the parts, run the diagnostics one after the other, keep each as soon as it is there."""
    from harness.chat import Chat
    from harness.cli.assemble import environments, open_engine, open_judge, planned
    from harness.web import open_web
    from judges.attempts import Sampler
    from judges.base import close_judge
    from trainers.diagnostics import load_diagnostic
    from trainers.diagnostics.lab import Amounts, Lab, Unrecorded
    from trainers.diagnostics.logits import ModelLogits

    questions, directory = sources.questions, sources.directory
    tasks = planned(questions.split(config.split), config.plans, config.plan_noise, config.seed)
    chat = Chat.load(directory)
    engine, judge = open_engine(config.engine, directory, config.generation), open_judge(config.judge, questions.closed)
    try:
        lab = Lab(
            sampler=Sampler(
                engine=engine,
                chat=chat,
                env=environments(questions, config.search, open_web(config.web) if config.web else None),
                judge=judge,
                agent=config.agent,
                log=Unrecorded(),
                gate=asyncio.Semaphore(config.generation.slots),
            ),
            engine=engine,
            tasks=tasks[: config.limit],
            everything=tasks,
            logits=ModelLogits(directory),
            amounts=Amounts(**{key: getattr(config, key) for key in Amounts.__dataclass_fields__}),
            inject=injection(config.injection, config.injected),
            seed=config.seed,
            step=place.step,
            run_dir=place.folder if place.trained else None,
            pieces=chat.pieces,
        )
        found = []
        for name in names:
            found += _keep([await _diagnosed(load_diagnostic(name), lab, config)], place.folder, log)
        return found
    finally:
        await engine.close()
        await close_judge(judge)


async def _diagnosed(diagnostic: Any, lab: Lab, config: DiagnoseConfig) -> Finding:
    from dataclasses import replace

    finding: Finding = await diagnostic(lab)
    return replace(finding, data={**finding.data, "settings": to_json(config)})


def _keep(found: Sequence[Finding], folder: Path, log: Recorder) -> list[Finding]:
    """Write data and plot, then the event that names them."""
    from harness.events import Kind
    from harness.plots import draw

    for finding in found:
        path = folder / "diagnostics" / f"{finding.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {"name": finding.name, "step": finding.step, "summary": list(finding.summary), "data": dict(finding.data)}
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draw(finding.charts, path.with_suffix(".png"), finding.title)
        log.record(Kind.DIAGNOSTIC, finding.event(str(path.relative_to(folder))))
    return list(found)


@contextmanager
def _log(folder: Path, config: DiagnoseConfig, *, trained: bool) -> Iterator[Recorder]:
    """The run's log, written to beside its own writer; a model that belongs to no run gets one. At the end the board is told."""
    from harness.cli.assemble import provenance
    from harness.cli.board import put_on_board
    from harness.events import Kind, Recorder

    with Recorder(folder, writer="diagnose") as log:
        if trained:
            yield log
        else:
            who = {"model": config.model, "method": "base", "seed": config.seed}
            started: dict[str, Any] = {"run_id": name_of_run(folder), "command": "diagnose", **who}
            store(config, folder / "config.json")
            log.record(Kind.RUN, {"phase": "started", **started, "config": to_json(config), "provenance": provenance()})
            try:
                yield log
            except HarnessError as error:
                log.record(Kind.RUN, {"phase": "failed", **started, "error": str(error)})
                raise
            log.record(Kind.RUN, {"phase": "finished", **started})
    put_on_board(folder)


def _stored(folder: Path) -> dict[str, Any]:
    """The settings that a training run stored."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError) as error:
        raise RunLogError(f"{folder} is no run directory: {path} cannot be read ({error}); give the folder of a run, or --model") from error
    if "trainer" not in config:
        raise UsageError(f"{folder} is no training run; diagnose its model with --model {config.get('model', 'NAME')}")
    return config


def _newest_checkpoint(folder: Path) -> tuple[Path, int]:
    from trainers.checkpoints import Checkpoints

    found = Checkpoints(folder=folder / "checkpoints").latest()
    if found is None:
        raise HarnessError(f"{folder} has no whole checkpoint yet; wait for its first one, or diagnose the base with --model")
    return found[0] / "hf", found[1].step


def _last_step(folder: Path) -> int:
    from harness.events import Kind, current_events

    return max((int(e.data["step"]) + 1 for e in current_events(folder) if e.kind is Kind.STEP), default=0)
