"""``harness run``: train a model on a question set, evaluate it unguided on the held-out part, put the result on the board."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.folders import begun, name_of_run
from harness.config import Difference, build, describe, differences, home, load_yaml, parse_assignment, restore, store
from harness.errors import RunLogError, UsageError
from harness.events import Kind, current_events
from harness.registry import load

if TYPE_CHECKING:
    from trainers.config import RunConfig

FLAGS = ("steps", "seed", "engine", "judge", "tasks", "token_budget", "web")


@click.command(short_help="Train a model on a question set, then evaluate it.")
@click.option("--trainer", required=True, help="Algorithm (harness list trainers).")
@click.option("--model", required=True, help="Name in the model table, a local directory, or a hub id.")
@click.option("--preset", help="Named settings laid over the model's own (harness list presets).")
@click.option("--tasks", help="Question set to train on (default: miniweb).")
@click.option(
    "--data",
    multiple=True,
    metavar="NAME=PATH",
    help="Where a benchmark's files lie, or sft=FILE with conversations; may be repeated. To train on what one of them asks is refused.",
)
@click.option("--steps", type=int, help="Training steps.")
@click.option("--token-budget", type=int, help="End once this many tokens were generated, probes counted.")
@click.option("--seed", type=int, help="Seed of task order and sampling.")
@click.option("--engine", help="hf or vllm (harness list engines).")
@click.option("--judge", help="Judge that gives the reward (harness list judges).")
@click.option("--web", metavar="SPEC", help="What the tools search instead of the question set's own web: corpus:PATH or live.")
@click.option("--ranks", type=int, help="Processes that share the update.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory (default: a new one under $HARNESS_HOME/runs).")
@click.option(
    "--resume", is_flag=True, help="Continue the run in --out (or the newest run of this trainer, model and seed) from its last checkpoint."
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file of settings.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting, e.g. learner.lr=1e-4; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Print the resolved settings and the memory that each GPU would need, and stop.")
@click.option(
    "--gpu-gib", type=click.FloatRange(min=1), default=80.0, show_default=True, help="Memory of one GPU, for the plan of --dry-run."
)
def run(**options: Any) -> None:
    """Train MODEL with TRAINER, evaluate it unguided on held-out tasks, and put the result on the leaderboard."""
    if int(os.environ.get("RANK", "0")):  # started by torchrun: every rank but the first only obeys
        from trainers.learner.follow import follow

        follow()
        return
    from harness.cli.training import find_sources, run_training, with_conversations

    config = with_conversations(resolve(options), options["data"])
    if options["dry_run"]:
        _explain(config, options["gpu_gib"])
        return
    sources = find_sources(config, options["data"])  # first: wrong input must leave no folder behind
    place = _place(config, options["out"], options["resume"], sources.judge)
    click.echo(asyncio.run(run_training(config, place, sources)))


def _explain(config: RunConfig, gpu_gib: float) -> None:
    """Settings as JSON on stdout; the memory plan beside them on stderr, so that stdout can be piped."""
    import json

    from harness.config import to_json
    from harness.models import find_model, shape_of
    from trainers.memory import memory_plan

    click.echo(json.dumps(to_json(config), indent=2))
    shape = shape_of(find_model(config.model))
    said = memory_plan(config, shape, gpu_gib).words() if shape else ["no memory plan: the model's sizes are not known before its download"]
    for line in said:
        click.echo(line, err=True)


def resolve(options: Mapping[str, Any]) -> RunConfig:
    """One configuration from layers: defaults < model < preset < file < --set < flags."""
    from harness.models import find_model
    from trainers.config import run_config_type
    from trainers.presets import preset_layer

    kind = run_config_type(load("trainers", options["trainer"]).config_type)
    spec = find_model(options["model"])
    flags: dict[str, Any] = {"trainer": options["trainer"], "model": options["model"]}
    flags |= {name: options[name] for name in FLAGS if options[name] is not None}
    if options["ranks"] is not None:
        flags["learner"] = {"ranks": options["ranks"]}
    known = {row.key for row in describe(kind)}
    layers = [
        nested({key: value for key, value in spec.settings.items() if key in known}),  # a trainer need not have every section
        nested(preset_layer(options["preset"], kind)) if options["preset"] else {},
        load_yaml(options["config_file"]) if options["config_file"] else {},
        *(parse_assignment(text) for text in options["assignments"]),
        flags,
    ]
    return build(kind, *layers)


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as a layer."""
    layer: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, last = key.split(".")
        at = layer
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
    return layer


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlace:
    """Where a run lives, and whether it was there before."""

    folder: Path
    run_id: str
    resumed: bool


def _place(config: RunConfig, out: Path | None, resume: bool, judge: str) -> RunPlace:
    """A new folder, or the one to resume, whose stored identity settings must be the same. The same judge (``judge`` is its full name) may
    have moved to another URL."""
    runs = home() / "runs"
    stem = f"{config.trainer}-{Path(config.model).name}-{config.tasks}-s{config.seed}"
    if resume:
        folder = out or _newest(runs, stem)
        begun(folder, "run")
        stored = restore(type(config), folder / "config.json")
        changed = [d for d in differences(stored, config) if d.tag == "identity" and not (d.key == "judge" and _moved(d, folder, judge))]
        if changed:
            words = "; ".join(f"{d.key} was {d.first}, is now {d.second}" for d in changed)
            raise UsageError(f"cannot resume {folder}: {words}. Leave these as they were, or start a new run.")
        return RunPlace(folder=folder, run_id=name_of_run(folder), resumed=True)
    folder = out or runs / f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if begun(folder, "run"):
        raise UsageError(f"{folder} holds a run already; add --resume to continue it, or choose another --out.")
    store(config, folder / "config.json")
    return RunPlace(folder=folder, run_id=name_of_run(folder), resumed=False)


def _moved(judge: Difference, folder: Path, name: str) -> bool:
    """Whether a judge behind a URL has another URL now and is the one that began to judge this run."""
    if not all(str(spec).startswith("llm:") and "://" in str(spec) for spec in (judge.first, judge.second)):
        return False
    return next((event.data["judge"] for event in current_events(folder) if event.kind is Kind.JUDGEMENT), name) == name


def _newest(runs: Path, stem: str) -> Path:
    found = sorted(runs.glob(f"{stem}-2*"))
    if not found:
        raise RunLogError(f"nothing to resume: no run {stem}-* under {runs}; start it without --resume")
    return found[-1]
