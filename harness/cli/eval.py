"""``harness eval``: evaluate a model on benchmarks, without guidance, and put the scores on the board."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.config import Section, build, home, identity, load_yaml, merge, operational, parse_assignment, restore, store, to_json
from harness.engines.base import EngineConfig
from harness.envs.search import SearchLimits
from harness.episode import AgentConfig
from harness.errors import HarnessError, UsageError
from harness.trackers import TrackerName, check_trackers, tracking

if TYPE_CHECKING:
    from harness.cli.assemble import QuestionSet
    from harness.events import Recorder


class EvalConfig(Section):
    """Settings of ``harness eval``; what a model's entry says about training is left out."""

    model: str = identity("tiny")
    """Name in the model table, a local directory (a checkpoint's ``hf`` folder too), or a hub id."""
    benchmarks: tuple[str, ...] = identity(("miniweb",))
    """Which question sets, in this order."""
    split: str | None = identity(None)
    """Which split (null: the benchmark's held-out one)."""
    limit: int | None = identity(None, ge=1)
    """Only the first so many tasks of each."""
    seed: int = identity(0)
    """Seeds sampling where the temperature is above zero."""
    engine: str = operational("hf")
    """Which engine generates."""
    judge: str = identity("exact")
    """Which judge scores."""
    episodes: int | None = operational(None, ge=1)
    """Episodes open at once (null: as many as the engine has slots; more only help where tools are slow)."""
    trackers: tuple[TrackerName, ...] = operational(())
    """Dashboards that get the scores as well: tensorboard, wandb (offline) or trackio."""
    agent: AgentConfig = AgentConfig()
    search: SearchLimits = SearchLimits()
    generation: EngineConfig = EngineConfig()


@click.command(short_help="Evaluate a model on benchmarks, without guidance.")
@click.option("--model", required=True, help="Name in the model table, a local directory, or a hub id.")
@click.option("--benchmarks", required=True, metavar="A,B", help="Benchmarks, separated by commas (harness list benchmarks).")
@click.option("--data", multiple=True, metavar="NAME=PATH", help="Where a question set's files lie; may be repeated.")
@click.option("--limit", type=int, help="Only the first so many tasks of each benchmark.")
@click.option("--split", help="Another split than the held-out one.")
@click.option("--seed", type=int, help="Seed of sampling.")
@click.option("--engine", help="hf or vllm (harness list engines).")
@click.option("--judge", help="Which judge scores (harness list judges).")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory; an interrupted evaluation there is continued.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file of settings.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
def evaluate(**options: Any) -> None:
    """Evaluate MODEL on BENCHMARKS: every task once, greedily, never with guidance."""
    from harness.cli.assemble import parse_data, question_set
    from harness.models import model_directory

    config = resolve(options)
    check_trackers(config.trackers)
    paths = parse_data(options["data"])
    sets = [question_set(name, paths) for name in config.benchmarks]
    _, directory = model_directory(config.model)
    folder = (
        options["out"]
        or home() / "runs" / f"eval-{Path(config.model).name}-{'-'.join(config.benchmarks)}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    )
    if (folder / "config.json").exists():
        if to_json(restore(EvalConfig, folder / "config.json")) != to_json(config):
            raise UsageError(f"{folder} holds an evaluation with other settings; choose another --out")
    else:
        store(config, folder / "config.json")
    for line in asyncio.run(_run(config, folder, sets, directory)):
        click.echo(line)


def resolve(options: Mapping[str, Any]) -> EvalConfig:
    """Defaults < the model's settings (as far as they concern evaluation) < file < --set < flags."""
    from harness.cli.run import nested
    from harness.models import find_model

    names = tuple(name.strip() for name in options["benchmarks"].split(",") if name.strip())
    settings = {
        k: v for k, v in find_model(options["model"]).settings.items() if k.split(".")[0] in ("agent", "search", "generation", "engine")
    }
    flags = {key: options[key] for key in ("model", "limit", "split", "seed", "engine", "judge") if options[key] is not None}
    file = load_yaml(options["config_file"]) if options["config_file"] else {}
    sets = [parse_assignment(text) for text in options["assignments"]]
    return build(EvalConfig, merge(nested(settings), file, *sets, flags, {"benchmarks": names}))


async def _run(config: EvalConfig, folder: Path, sets: Sequence[QuestionSet], directory: Path) -> list[str]:
    from harness.cli.assemble import provenance
    from harness.cli.board import put_on_board
    from harness.events import Kind, Recorder

    origin = trained_by(directory)
    who = {"model": origin.get("model", config.model), "method": origin.get("method", "base"), "seed": origin.get("seed", config.seed)}
    with tracking(config.trackers, folder, to_json(config)) as feed, Recorder(folder, listener=feed) as log:
        started = {
            "phase": "started",
            "run_id": folder.name,
            "command": "eval",
            **who,
            "config": to_json(config),
            "parent": origin.get("run_id"),
            "error": None,
        }
        log.record(Kind.RUN, {**started, "provenance": provenance()})
        try:
            lines = await _evaluate(config, folder, sets, directory, log, who)
        except HarnessError as error:
            log.record(Kind.RUN, {**started, "phase": "failed", "provenance": {}, "error": str(error)})
            raise
        log.record(Kind.RUN, {**started, "phase": "finished", "provenance": {}})
    put_on_board(folder)
    return lines


async def _evaluate(
    config: EvalConfig, folder: Path, sets: Sequence[QuestionSet], directory: Path, log: Recorder, who: Mapping[str, Any]
) -> list[str]:
    from benchmarks.evaluate import Evaluation, comparability, evaluate, recorded_scores
    from harness.chat import Chat
    from harness.cli.assemble import environments, open_engine, open_judge
    from harness.cli.progress import EvalProgress
    from judges.attempts import Sampler

    lines = []
    async with AsyncExitStack() as stack:
        engine = open_engine(config.engine, directory, config.generation)
        stack.push_async_callback(engine.close)
        chat = Chat.load(directory)
        for questions in sets:
            split = config.split or questions.benchmark.split
            tasks = questions.tasks.split(split)[: config.limit]
            sampler = Sampler(
                engine=engine,
                chat=chat,
                env=environments(questions.tasks, config.search),
                judge=open_judge(config.judge, questions.tasks.closed),
                agent=config.agent,
                log=log,
                gate=asyncio.Semaphore(config.episodes or config.generation.slots),
            )
            evaluation = Evaluation(
                id=f"{folder.name}/{questions.benchmark.name}/{split}",
                benchmark=questions.benchmark.name,
                split=split,
                comparability=comparability(questions.tasks.fingerprint, sampler.judge.name, config.agent, config.search, config.limit),
                **who,
            )
            done = recorded_scores(folder, evaluation.id)
            with EvalProgress(f"{questions.benchmark.name}/{split}", len(tasks)) as progress:
                result = await evaluate(evaluation, tasks, sampler, done=done, progress=progress.finished)
            lines.append(f"{questions.benchmark.name}/{split}: {result.words()}. Run: {folder}")
    return lines


def trained_by(directory: Path) -> dict[str, Any]:
    """Which run a checkpoint belongs to (``harness.json`` beside its weights); empty for any other model."""
    path = Path(directory) / "harness.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
