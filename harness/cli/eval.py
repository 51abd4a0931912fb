"""``harness eval``: evaluate a model on benchmarks, without guidance, and put the scores on the board."""

from __future__ import annotations

import asyncio
import glob
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks.lm_eval.config import LMEvalConfig
from harness.budget import Limits
from harness.cli.folders import begun, name_of_run
from harness.config import Section, build, differences, home, identity, load_yaml, operational, parse_assignment, restore
from harness.engines.base import EngineConfig
from harness.engines.http import EndpointConfig
from harness.envs.search import SearchLimits
from harness.episode import AgentConfig
from harness.errors import HarnessError, UsageError
from harness.events import being_written, finished
from harness.trackers import TrackerName, check_trackers
from judges.attempts import OutageConfig


class EvalConfig(Section):
    """Settings of ``harness eval``; what a model's entry says about training is left out."""

    model: str = identity("tiny")
    """Name in the model table, a local directory (a checkpoint's ``hf`` folder too), a hub id, or the URL of an endpoint."""
    model_name: str | None = identity(None)
    """For an endpoint, the model's id there (null: the one that /models lists)."""
    benchmarks: tuple[str, ...] = identity(("miniweb",))
    """Which, in this order; NAME/SPLIT (gpqa/diamond) has a split of its own, whatever ``split`` says."""
    split: str | None = identity(None)
    """Which split (null: the benchmark's held-out one)."""
    limit: int | None = identity(None, ge=1)
    """Only the first so many tasks of each."""
    sample: tuple[str, ...] = identity(())
    """Only the tasks with these ids (empty: all)."""
    epochs: int = identity(1, ge=1)
    """Times that each task is attempted: reported as avg@k, pass@k and pass^k. At temperature 0 most engines repeat themselves."""
    turns: tuple[int, ...] = identity(())
    """Turn limits to evaluate one after another, each as an evaluation of its own (empty: agent.max_turns)."""
    temperature: float = identity(0.0, ge=0)
    """Sampling temperature (the paper evaluates at 0)."""
    seed: int = identity(0)
    """Seeds sampling where the temperature is above zero."""
    engine: str = operational("hf")
    """Which engine generates, for a model that is no endpoint."""
    judge: str = identity("exact")
    """Which judge scores."""
    web: str | None = identity(None)
    """The web that the tools search: corpus:PATH or live (null: the question set's own)."""
    episodes: int | None = operational(None, ge=1)
    """Episodes open at once (null: as many as the engine serves together; more only help where tools are slow)."""
    trackers: tuple[TrackerName, ...] = operational(())
    """Dashboards that get the scores as well: tensorboard, wandb (offline) or trackio."""
    agent: AgentConfig = AgentConfig()
    search: SearchLimits = SearchLimits()
    generation: EngineConfig = EngineConfig()
    endpoint: EndpointConfig = EndpointConfig()
    limits: Limits = Limits()
    outage: OutageConfig = OutageConfig()
    lm_eval: LMEvalConfig = LMEvalConfig()

    @property
    def remote(self) -> bool:
        return self.model.startswith(("http://", "https://"))


FLAGS = ("model", "model_name", "limit", "split", "epochs", "seed", "engine", "judge", "web")


@click.command(short_help="Evaluate a model on benchmarks, without guidance.")
@click.option("--model", required=True, help="Name in the model table, a local directory, a hub id, or the URL of an endpoint.")
@click.option("--model-name", metavar="ID", help="The model's id at the endpoint.  [default: the one that /models lists]")
@click.option(
    "--benchmarks",
    required=True,
    metavar="A,B",
    help="Benchmarks (harness list benchmarks), separated by commas; NAME/SPLIT for a split of its own, e.g. gpqa/diamond.",
)
@click.option("--data", multiple=True, metavar="NAME=PATH", help="Where a question set's files lie; may be repeated.")
@click.option("--limit", type=int, help="Only the first so many tasks of each benchmark.")
@click.option("--sample", multiple=True, metavar="ID", help="Only the task of this id; may be repeated.")
@click.option("--split", help="Another split than the held-out one, for all benchmarks that are named without theirs.")
@click.option("--epochs", type=int, metavar="K", help="Attempt each task so many times: avg@k, pass@k, pass^k.")
@click.option("--turns", metavar="N[,N...]", help="Turn limits, each an evaluation of its own; 2,4,8,16,32 is the paper's Table 3.")
@click.option("--seed", type=int, help="Seed of sampling.")
@click.option("--engine", help="hf or vllm (harness list engines); not for endpoints.")
@click.option("--judge", help="Which judge scores (harness list judges).")
@click.option("--web", metavar="SPEC", help="What the tools search instead of the question set's own web: corpus:PATH or live.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run directory; an evaluation that was stopped there is continued.  [default: the newest of these settings if it was stopped]",
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file of settings.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Say of each sample what would be reused, judged again or run, and why; then stop.")
def evaluate(**options: Any) -> None:
    """Evaluate MODEL on BENCHMARKS, greedily unless told otherwise, never with guidance."""
    from harness.cli.eval_plan import find_benchmarks, forecast
    from harness.cli.evaluation import Place, run_evaluation

    config = resolve(options)
    check_trackers(config.trackers)
    wanted = find_benchmarks(config, options["data"])
    folder = options["out"] or _stopped(config) or home() / "runs" / f"eval-{_stem(config)}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if begun(folder, "eval"):
        check_continues(restore(EvalConfig, folder / "config.json"), config, folder)
    run_id = name_of_run(folder)
    if options["dry_run"]:
        for line in forecast(config, folder, run_id, wanted):
            click.echo(line)
        return
    directory = None
    if not config.remote:
        from harness.models import model_directory

        directory = model_directory(config.model)[1]
    place = Place(folder=folder, run_id=run_id, directory=directory, origin=trained_by(directory) if directory else {})
    asyncio.run(run_evaluation(config, place, wanted, click.echo))
    click.echo(f"Run: {folder}")


def resolve(options: Mapping[str, Any]) -> EvalConfig:
    """Defaults < the model's settings (as far as they concern evaluation) < file < --set < flags."""
    from harness.cli.run import nested
    from harness.models import find_model

    file = load_yaml(options["config_file"]) if options["config_file"] else {}
    sets = [parse_assignment(text) for text in options["assignments"]]
    flags: dict[str, Any] = {key: options[key] for key in FLAGS if options[key] is not None}
    flags["benchmarks"] = tuple(dict.fromkeys(name.strip() for name in options["benchmarks"].split(",") if name.strip()))
    if not flags["benchmarks"]:
        raise UsageError(f"--benchmarks {options['benchmarks']!r} names none; expected names separated by commas (harness list benchmarks)")
    if options["sample"]:
        flags["sample"] = options["sample"]
    if options["turns"] is not None:
        flags["turns"] = _turns(options["turns"])
    entry: dict[str, object] = {}
    if not options["model"].startswith(("http://", "https://")):
        known = ("agent", "search", "generation", "engine")
        entry = {k: v for k, v in find_model(options["model"]).settings.items() if k.split(".")[0] in known}
    return build(EvalConfig, nested(entry), file, *sets, flags)


def check_continues(stored: EvalConfig, config: EvalConfig, folder: Path) -> None:
    """Whether the evaluation in ``folder`` can go on with ``config``: it may grow and get another judge, but no number may change.

    An endpoint may have moved to another URL; that it serves the same model is known when it is asked (``evaluation.check_same_model``).
    Raises ``UsageError`` naming every setting that stands in the way.
    """
    moved = stored.remote and config.remote
    grown = {
        "judge": True,
        "model": moved,
        "model_name": moved and None in (stored.model_name, config.model_name),
        "benchmarks": set(stored.benchmarks) <= set(config.benchmarks),
        "turns": set(stored.turns) <= set(config.turns) and bool(stored.turns) == bool(config.turns),
        "epochs": stored.epochs <= config.epochs,
        "limit": stored.limit is not None and (config.limit is None or stored.limit <= config.limit),
    }
    wrong = [d for d in differences(stored, config) if d.tag == "identity" and not grown.get(d.key, False)]
    if wrong:
        words = "; ".join(f"{d.key} was {d.first}, is now {d.second}" for d in wrong)
        raise UsageError(f"{folder} holds an evaluation with other settings: {words}. Leave them as they were, or choose another --out.")


def _stopped(config: EvalConfig) -> Path | None:
    """The newest evaluation under $HARNESS_HOME with these very settings, if it was stopped before its end; said aloud."""
    for folder in sorted((home() / "runs").glob(f"{glob.escape(f'eval-{_stem(config)}')}-2*"), reverse=True):
        with suppress(HarnessError, OSError):
            if any(d.tag == "identity" for d in differences(restore(EvalConfig, folder / "config.json"), config)):
                continue
            if finished(folder) or being_written(folder):
                return None
            click.echo(f"Continuing {folder}, which was stopped before its end (--out FOLDER starts anew).", err=True)
            return folder
    return None


def trained_by(directory: Path) -> dict[str, Any]:
    """Which run a checkpoint belongs to (``harness.json`` beside its weights); empty for any other model."""
    path = Path(directory) / "harness.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _turns(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--turns {text!r}: expected whole numbers above 0, separated by commas, e.g. 2,4,8,16,32")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _stem(config: EvalConfig) -> str:
    from urllib.parse import urlsplit

    name = (config.model_name or urlsplit(config.model).hostname or "") if config.remote else config.model
    return f"{Path(name).name}-{'-'.join(config.benchmarks)}".replace("/", "-")
