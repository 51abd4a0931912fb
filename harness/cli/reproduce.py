"""``harness reproduce``: the paper's tables and figures in small, the paper's numbers beside ours.

What each one runs is data (``reproductions.toml``). Every arm is an ordinary ``harness run`` or ``harness eval`` in a folder that is named
by its settings, so tables share finished runs, and an interrupted reproduction continues where it was.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from harness.cli.study import Training, Verdicts, finished, last_evaluation, steps_of, train, verdicts
from harness.errors import HarnessError, unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One row: a training run, the untrained model (``trainer`` empty), or another evaluation of the run of arm ``of``."""

    name: str
    trainer: str = ""
    of: str = ""
    set: tuple[str, ...] = ()
    paper: tuple[float, ...] = ()
    shown: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """One table or figure of the paper; see the file of data."""

    title: str
    columns: tuple[str, ...] = ()
    arms: tuple[Arm, ...] = ()
    claims: tuple[tuple[str, str], ...] = ()
    curves: Mapping[str, str] = field(default_factory=dict)
    diagnoses: tuple[str, ...] = ()
    finding: str = ""
    not_applicable: str = ""


def reproductions() -> dict[str, Reproduction]:
    """Every table and figure by name. Raises ``HarnessError`` if an arm or claim names one that is not there."""
    data = tomllib.loads((Path(__file__).parent / "reproductions.toml").read_text(encoding="utf-8"))
    return {name: _parse(name, entry) for name, entry in data.items()}


def _parse(name: str, entry: Mapping[str, Any]) -> Reproduction:
    arms = tuple(
        Arm(
            name=row["name"],
            trainer=row.get("trainer", ""),
            of=row.get("of", ""),
            set=tuple(row.get("set", ())),
            paper=tuple(row.get("paper", ())),
            shown=row.get("shown", True),
        )
        for row in entry.get("arms", ())
    )
    names = {arm.name for arm in arms}
    claims = tuple((better, worse) for better, worse in entry.get("claims", ()))
    missing = {arm.of for arm in arms if arm.of} | {part for claim in claims for part in claim}
    if missing - names:
        raise HarnessError(f"reproductions.toml, {name}: no arm is called {', '.join(sorted(missing - names))}")
    rest = {key: value for key, value in entry.items() if key not in ("arms", "claims")}
    for key in ("columns", "diagnoses"):
        rest[key] = tuple(rest.get(key, ()))
    return Reproduction(arms=arms, claims=claims, **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where the runs of all reproductions lie, and what they have in common."""

    folder: Path
    model: str
    tasks: str
    steps: int
    data: tuple[str, ...]
    assignments: tuple[str, ...]
    threads: int

    def run_dir(self, arm: Arm, seed: int) -> Path:
        """Named by everything that decides the run, so that two tables with the same arm share it."""
        return self._training(arm).folder(self.folder, seed)

    def run(self, arm: Arm, seed: int, parent: Path | None = None) -> Path:
        """Train or evaluate one arm, unless that was done; returns its folder. ``parent`` is the run whose checkpoint is evaluated."""
        if arm.trainer:
            return train(self._training(arm), self.folder, seed, self.threads)
        weights = self.model if parent is None else str(_newest_checkpoint(parent))
        folder = self.run_dir(arm, seed) if parent is None else parent.with_name(f"{parent.name}-{_slug(arm.name)}")
        if not finished(folder):
            self._evaluate(folder, weights, arm, seed)
        return folder

    def _training(self, arm: Arm) -> Training:
        return Training(
            trainer=arm.trainer,
            model=self.model,
            tasks=self.tasks,
            steps=self.steps,
            settings=(*self.assignments, *arm.set),
            data=self.data,
        )

    def _evaluate(self, folder: Path, weights: str, arm: Arm, seed: int) -> None:
        command = [sys.executable, "-m", "harness.cli.main", "eval", "--model", weights, "--benchmarks", self.tasks, "--seed", str(seed)]
        for text in self.data:
            command += ["--data", text]
        for text in (*self.assignments, *arm.set):
            if text.split(".")[0] in ("agent", "search", "generation"):
                command += ["--set", text]
        click.echo(f"{folder.name}: evaluating")
        done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, env=_environment(self.threads), check=False)
        if done.returncode:
            raise HarnessError(f"{folder.name} failed: {done.stderr.strip()}")


@click.command(short_help="Run a table or figure of the paper in small, and print both.")
@click.argument("name")
@click.option("--model", default="tiny", show_default=True)
@click.option("--tasks", default="miniweb", show_default=True, help="Question set.")
@click.option("--data", multiple=True, metavar="NAME=PATH", help="Where a question set's files lie; may be repeated.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How many seeds, from 0.")
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True, help="Training steps of every arm.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Runs at a time; the cores are shared among them.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting of every run; may be repeated.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report there as Markdown.")
def reproduce(
    name: str,
    model: str,
    tasks: str,
    data: tuple[str, ...],
    seeds: int,
    steps: int,
    jobs: int,
    assignments: tuple[str, ...],
    out: Path | None,
) -> None:
    """Run NAME (table1-5, 7, 8, fig3-8) over several seeds and print the paper's numbers beside ours, with intervals."""
    from harness.config import home

    known = reproductions()
    if name not in known:
        raise unknown("table or figure", name, known)
    bench = Bench(
        folder=home() / "studies" / "shared",
        model=model,
        tasks=tasks,
        steps=steps,
        data=data,
        assignments=assignments,
        threads=max(1, (os.cpu_count() or 1) // jobs),
    )
    chosen = known[name]
    folders = _run_all(chosen, bench, seeds, jobs)
    command = f"harness reproduce {name} --model {model} --tasks {tasks} --seeds {seeds} --steps {steps}"
    command += "".join(f" --set {text}" for text in assignments)
    lines = [f"# {chosen.title}", "", f"`{command}`", "", *_report(chosen, bench, folders)]
    for kind in chosen.diagnoses:
        lines += ["", f"## {kind}", "", "```", *_diagnose(kind, bench).splitlines(), "```"]
    text = "\n".join(lines) + "\n"
    click.echo("\n" + text)
    if out is not None:
        out.write_text(text, encoding="utf-8")
        click.echo(f"written: {out}")


def _run_all(chosen: Reproduction, bench: Bench, seeds: int, jobs: int) -> dict[str, list[Path]]:
    """Folders by arm, one a seed; trained arms first, since others evaluate their checkpoints."""
    folders: dict[str, list[Path]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for own in (True, False):
            arms = [arm for arm in chosen.arms if (not arm.of) is own]
            pending = {
                arm.name: [pool.submit(bench.run, arm, seed, folders[arm.of][seed] if arm.of else None) for seed in range(seeds)]
                for arm in arms
            }
            folders |= {arm: [future.result() for future in futures] for arm, futures in pending.items()}
    return folders


def _report(chosen: Reproduction, bench: Bench, folders: Mapping[str, Sequence[Path]]) -> list[str]:
    from leaderboard.stats import compare, interval

    lines: list[str] = []
    shown = [arm for arm in chosen.arms if arm.shown]
    scores = {arm.name: [_verdicts_of(folder) for folder in folders[arm.name]] for arm in shown}
    if shown and not chosen.curves:
        ours = f"ours: {bench.model}, {bench.tasks}"
        header = ["method", *(f"paper: {column}" for column in chosen.columns), ours, "by seed"]
        lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        for arm in shown:
            found = interval(scores[arm.name])
            paper = [f"{value:.2f}" for value in arm.paper] or ["not reported"] * len(chosen.columns)
            bounds = "" if found.low is None or found.high is None else f" [{found.low:.1%}, {found.high:.1%}]"
            seeds = ", ".join(f"{sum(v.values()) / len(v):.1%}" for v in scores[arm.name])
            lines.append("| " + " | ".join([arm.name, *paper, f"{found.value:.1%}{bounds}", seeds]) + " |")
    if chosen.claims:
        lines += ["", "Orderings of the paper, and ours (difference of means, 95% interval over questions and seeds):", ""]
        lines += [f"- {_claim(better, worse, compare(scores[better], scores[worse]))}" for better, worse in chosen.claims]
    if chosen.curves:
        lines += _curves(chosen, folders)
    if chosen.finding:
        lines += ["", f"The paper's finding: {chosen.finding}"]
    if chosen.not_applicable:
        lines += ["", f"Not applicable here: {chosen.not_applicable}"]
    return lines


def _claim(better: str, worse: str, found: Any) -> str:
    if found is None:
        return f"{better} over {worse}: not comparable, no question was answered by both"
    bounds = "no interval" if found.low is None or found.high is None else f"{found.low:+.1%} to {found.high:+.1%}"
    if not found.distinguishable:
        verdict = "undecided: our difference cannot be told from zero"
    else:
        verdict = "agrees" if found.delta > 0 else "DISAGREES: here it is the other way round"
    return f"{better} over {worse}: {found.delta:+.1%} ({bounds}); {verdict}"


def _curves(chosen: Reproduction, folders: Mapping[str, Sequence[Path]], parts: int = 4) -> list[str]:
    """Means of each metric over quarters of the training, averaged over the seeds."""
    lines: list[str] = []
    for metric, words in chosen.curves.items():
        header = [words, *(f"quarter {part + 1}" for part in range(parts))]
        lines += ["", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        for name, runs in folders.items():
            series = [[float(step[metric]) for step in steps_of(run) if metric in step] for run in runs]
            cut = [[values[len(values) * p // parts : len(values) * (p + 1) // parts] for values in series] for p in range(parts)]
            means = [[sum(piece) / len(piece) for piece in pieces if piece] for pieces in cut]
            lines.append("| " + " | ".join([name, *(f"{sum(m) / len(m):.2f}" if m else "too few steps" for m in means)]) + " |")
    return lines


def _diagnose(kind: str, bench: Bench) -> str:
    command = [sys.executable, "-m", "harness.cli.main", "diagnose", kind, "--model", bench.model, "--tasks", bench.tasks]
    for text in bench.data:
        command += ["--data", text]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(bench.threads), check=False)
    if done.returncode:
        raise HarnessError(f"harness diagnose {kind} failed: {done.stderr.strip()}")
    return done.stdout


def _verdicts_of(folder: Path) -> Verdicts:
    return verdicts(folder, last_evaluation(folder)["evaluation_id"])


def _newest_checkpoint(run: Path) -> Path:
    found = sorted((run / "checkpoints").glob("step-*/hf"))
    if not found:
        raise HarnessError(f"{run} has no checkpoint to evaluate; remove the folder and run this again")
    return found[-1]


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}
