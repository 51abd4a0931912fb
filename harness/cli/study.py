"""``harness study``: a comparison of trainers over seeds, with its negative control, resumable, reported with intervals.

``actguide-vs-zero-rl``: for each seed three runs. ActGuide for ``--steps`` steps; zero-RL for as many steps *and on until it has generated
as many tokens* as that ActGuide run (probes counted); ActGuide with the plans of other tasks (the control, which must gain nothing).
Every run is evaluated unguided on the held-out split.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import click

from harness.config import Section, describe, parse_assignment
from harness.errors import HarnessError, UsageError, nearest
from harness.events import finished
from harness.wording import plural

Verdicts = dict[str, float]


@click.group()
def study() -> None:
    """Run a comparison of trainers over several seeds."""


@study.command("actguide-vs-zero-rl")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How many seeds, from 0.")
@click.option("--model", default="tiny", show_default=True)
@click.option("--tasks", default="miniweb", show_default=True, help="Question set.")
@click.option("--split", default="test", show_default=True, help="Held-out split that is reported; settings are chosen on validation.")
@click.option(
    "--steps", type=click.IntRange(1), default=40, show_default=True, help="Training steps of ActGuide, and of zero-RL at equal steps."
)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Runs at a time; the cores are shared among them.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of report and runs (default: below $HARNESS_HOME/studies; studies share runs).",
)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting of every run; may be repeated.")
def actguide_vs_zero_rl(
    seeds: int, model: str, tasks: str, split: str, steps: int, jobs: int, out: Path | None, assignments: tuple[str, ...]
) -> None:
    """ActGuide against zero-RL at equal steps and at equal generated tokens, and against plans of other tasks."""
    from harness.config import home

    plan = Plan(
        folder=out or home() / "studies" / f"actguide-vs-zero-rl-{model}-{tasks}-{split}",
        runs=out or home() / "studies" / "shared",
        model=model,
        tasks=tasks,
        split=split,
        steps=steps,
        threads=max(1, (os.cpu_count() or 1) // jobs),
        assignments=assignments,
    )
    for text in assignments:
        if not fitting("actguide", (text,)):
            raise UsageError(
                f"--set {text}: no run of this study has such a setting.{nearest(setting_name(text), settings_of('actguide'))}"
            )
        if not fitting("zero-rl", (text,)):
            click.echo(f"{text} holds for ActGuide's runs; zero-rl has no such setting")
    with ThreadPoolExecutor(jobs) as pool:
        pending = [pool.submit(plan.pair, seed) for seed in range(seeds)]
        pending += [pool.submit(plan.run, "foreign-plans", seed) for seed in range(seeds)]
        for future in pending:
            future.result()
    report(plan, seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which runs a study consists of, and where they lie."""

    folder: Path  # of the report
    runs: Path  # what other studies may share
    model: str
    tasks: str
    split: str
    steps: int
    threads: int
    assignments: tuple[str, ...]

    def run_dir(self, method: str, seed: int) -> Path:
        return self._arm(method).folder(self.runs, seed)

    def pair(self, seed: int) -> None:
        """ActGuide, then zero-RL on the same budget of tokens."""
        self.run("actguide", seed)
        budget = int(last_evaluation(self.run_dir("actguide", seed))["generated_tokens_total"])
        train(self._arm("zero-rl"), self.runs, seed, self.threads, "--token-budget", str(budget))

    def run(self, method: str, seed: int) -> None:
        train(self._arm(method), self.runs, seed, self.threads)

    def _arm(self, method: str) -> Training:
        """``foreign-plans`` is ActGuide with the plans of other tasks. Zero-RL ends by its token budget, long before its steps."""
        own: dict[str, tuple[str, int, tuple[str, ...]]] = {
            "actguide": ("actguide", self.steps, ()),
            "foreign-plans": ("actguide", self.steps, ("plans=other",)),
            "zero-rl": ("zero-rl", 20 * self.steps, (f"evaluate_every={self.steps}",)),
        }
        trainer, steps, settings = own[method]
        split = () if self.split == "test" else (f"eval_split={self.split}",)
        given = (*fitting(trainer, self.assignments), *split, *settings)
        return Training(trainer=trainer, model=self.model, tasks=self.tasks, steps=steps, settings=given, label=method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What decides a training run, its seed and folder apart; studies that need the same one share it."""

    trainer: str
    model: str
    tasks: str
    steps: int
    settings: tuple[str, ...] = ()  # KEY=VALUE
    data: tuple[str, ...] = ()  # NAME=PATH
    label: str = ""  # begins the folder's name; default: the trainer

    def folder(self, runs: Path, seed: int) -> Path:
        """Its place below ``runs``, named by everything that decides it."""
        words = [self.model, self.tasks, str(self.steps), self.trainer, *sorted(self.settings), *self.data]
        return runs / f"{self.label or self.trainer or 'base'}-{Path(self.model).name}-{self.tasks}-{digest(words)}-s{seed}"

    def arguments(self, seed: int) -> tuple[str, ...]:
        """Of ``harness run``."""
        named = (("--trainer", self.trainer), ("--model", self.model), ("--tasks", self.tasks), ("--seed", str(seed)))
        repeated = (*(("--data", text) for text in self.data), *(("--set", text) for text in self.settings))
        return tuple(part for pair in (*named, ("--steps", str(self.steps)), *repeated) for part in pair)


def digest(words: Sequence[str]) -> str:
    """Eight hex digits that name a folder by everything that decides its content."""
    return hashlib.sha256("\x1f".join(words).encode()).hexdigest()[:8]


def setting_name(assignment: str) -> str:
    """The key of ``KEY=VALUE``. Raises ``UsageError`` if it is no such text."""
    parse_assignment(assignment)
    return assignment.partition("=")[0].strip()


def settings_of(trainer: str) -> set[str]:
    """The settings of this trainer's runs, by dotted name."""
    from harness.registry import load
    from trainers.config import run_config_type

    return setting_names(run_config_type(load("trainers", trainer).config_type))


def fitting(trainer: str, assignments: Sequence[str]) -> tuple[str, ...]:
    """Those of the assignments that runs of this trainer have a setting for."""
    return tuple(text for text in assignments if setting_name(text) in settings_of(trainer))


def setting_names(kind: type[Section]) -> set[str]:
    """Every setting of a section and of those inside it, and the names of these sections, which ``--set`` takes as well."""
    keys = [row.key.split(".") for row in describe(kind)]
    return {".".join(key[: n + 1]) for key in keys for n in range(len(key))}


def train(training: Training, runs: Path, seed: int, threads: int, *more: str) -> Path:
    """``harness run`` in a process of its own, unless its folder holds that run, finished; a begun one is resumed. Returns the folder."""
    folder = training.folder(runs, seed)
    if finished(folder):
        click.echo(f"{folder.name}: finished already")
        return folder
    command = [sys.executable, "-m", "harness.cli.main", "run", *training.arguments(seed), *more, "--out", str(folder)]
    command += ["--resume"] if (folder / "config.json").exists() else []
    click.echo(f"{folder.name}: started ({folder})")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a", encoding="utf-8") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        raise HarnessError(
            f"{folder.name} failed with exit code {done.returncode}; see {folder / 'output.txt'}, then run the same command again"
        )
    click.echo(f"{folder.name}: done")
    return folder


def evaluations(run_dir: Path, split: str | None = None) -> list[dict[str, Any]]:
    """Finished evaluations of a run, on one split or on any, in the order of their steps; those that chose a checkpoint come before
    those that are reported."""
    from harness.events import Kind, current_events

    found: dict[str, dict[str, Any]] = {}
    for event in current_events(run_dir):
        if event.kind is Kind.EVALUATION and event.data["phase"] == "finished" and split in (None, event.data["split"]):
            found[event.data["evaluation_id"]] = dict(event.data)
    return sorted(found.values(), key=lambda data: data["step"])


def last_evaluation(run_dir: Path, split: str | None = None) -> dict[str, Any]:
    return evaluations(run_dir, split)[-1]


def verdicts(run_dir: Path, evaluation_id: str) -> Verdicts:
    """Score by task of one evaluation; what could not be scored is left out."""
    from benchmarks.evaluate import recorded_scores

    return {task: score for task, score in recorded_scores(run_dir, evaluation_id).items() if score is not None}


def report(plan: Plan, seeds: int) -> None:
    """Print the tables and write ``report.json`` and ``training.png`` into the study's folder."""
    from leaderboard.stats import compare

    arms = {name: [verdicts(*where) for where in places] for name, places in _arms(plan, seeds).items()}
    click.echo(f"\n{plan.model}, {plan.tasks}/{plan.split}, unguided, {plan.steps} {plural(plan.steps, 'step')} of ActGuide; score by seed")
    rows = []
    for name, runs in arms.items():
        means = [sum(v.values()) / len(v) for v in runs]
        rows.append({"arm": name, "scores": means, "n": len(runs[0])})
        click.echo(f"  {name:32}" + "  ".join(f"{m:6.1%}" for m in means) + f"   mean {sum(means) / len(means):6.1%}")
    click.echo("\nDifference of means, 95% interval (questions and seeds both vary)")
    deltas = []
    for left, right in (
        ("actguide", "zero-rl, equal steps"),
        ("actguide", "zero-rl, equal tokens"),
        ("foreign plans", "zero-rl, equal steps"),
        ("foreign plans", "zero-rl, equal tokens"),
    ):
        found = compare(arms[left], arms[right])
        if found is None:
            raise HarnessError(f"{left} and {right} were evaluated on no common question; look at their runs below {plan.runs}")
        bounds = "no interval" if found.low is None or found.high is None else f"{found.low:+.1%} to {found.high:+.1%}"
        deltas.append({"left": left, "right": right, "delta": found.delta, "low": found.low, "high": found.high, "p": found.p})
        click.echo(f"  {left} minus {right:24} {found.delta:+6.1%}   {bounds}")
    costs = _costs(plan, seeds)
    click.echo("\nCost by seed: generated tokens (probes counted), steps, minutes, peak memory")
    for name, cells in costs.items():
        click.echo(
            f"  {name:16}"
            + "  ".join(
                f"{c['tokens']:,} tok, {c['steps']} {plural(c['steps'], 'step')}, {c['minutes']:.1f} min, {c['peak_mb']:.0f} MB"
                for c in cells
            )
        )
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / "report.json").write_text(json.dumps({"scores": rows, "differences": deltas, "costs": costs}, indent=2) + "\n")
    _plot(plan, seeds)
    click.echo(f"\n{plan.folder / 'report.json'}\n{plan.folder / 'training.png'}")


def _arms(plan: Plan, seeds: int) -> dict[str, list[tuple[Path, str]]]:
    arms: dict[str, list[tuple[Path, str]]] = {}
    for seed in range(seeds):
        zero = plan.run_dir("zero-rl", seed)
        reported = evaluations(zero, plan.split)
        equal_steps = next((e for e in reported if e["step"] >= plan.steps), reported[-1])
        places = {
            "actguide": plan.run_dir("actguide", seed),
            "zero-rl, equal steps": zero,
            "zero-rl, equal tokens": zero,
            "foreign plans": plan.run_dir("foreign-plans", seed),
        }
        for name, folder in places.items():
            chosen = equal_steps if name.endswith("equal steps") else last_evaluation(folder, plan.split)
            arms.setdefault(name, []).append((folder, chosen["evaluation_id"]))
    return arms


def steps_of(run_dir: Path) -> list[dict[str, float]]:
    """Metrics of every training step, in order."""
    from harness.events import Kind, current_events

    return [e.data["metrics"] for e in current_events(run_dir) if e.kind is Kind.STEP]


def _costs(plan: Plan, seeds: int) -> dict[str, list[dict[str, float]]]:
    def cost(run_dir: Path) -> dict[str, float]:
        steps = steps_of(run_dir)
        return {
            "tokens": int(steps[-1]["tokens/generated_total"]),
            "steps": len(steps),
            "minutes": sum(s["time/step"] for s in steps) / 60,
            "peak_mb": max(s["memory/peak_mb"] for s in steps),
        }

    return {name: [cost(plan.run_dir(name, seed)) for seed in range(seeds)] for name in ("actguide", "zero-rl", "foreign-plans")}


def _plot(plan: Plan, seeds: int) -> None:
    """Trainable groups, guided share and unguided reward per step, a thin line a seed."""
    from harness.plots import panels, save

    shown = {"groups/trainable": "trainable groups", "guided/share": "share of guided rows", "reward/unguided_mean": "unguided reward"}
    colours = {"actguide": "#0a6b5d", "zero-rl": "#b3541e", "foreign-plans": "#777777"}
    figure, axes = panels(len(shown))
    for axis, (metric, title) in zip(axes, shown.items(), strict=True):
        for method, colour in colours.items():
            for seed in range(seeds):
                values = [s.get(metric, nan) for s in steps_of(plan.run_dir(method, seed))][: plan.steps]
                axis.plot(values, color=colour, linewidth=1, alpha=0.8, label=method if seed == 0 else None)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("training step")
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left")
    save(figure, plan.folder / "training.png")
