"""``harness reproduce``: the paper's tables and figures in small, the paper's numbers beside ours.

What each one runs is data (``reproductions.toml``). Every arm is an ordinary ``harness run``, ``harness eval`` or ``harness diagnose`` in a
folder that is named by its settings, so tables share finished runs, and an interrupted reproduction continues where it was.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from harness.cli.reproduced import GUIDED, Done, report
from harness.cli.study import Training, digest, fitting, setting_name, setting_names, settings_of, train
from harness.errors import HarnessError, UsageError, nearest, unknown
from harness.events import finished

OF_AN_EVALUATION = {name: name for name in ("agent", "search", "generation", "judge", "web", "engine", "episodes")} | {
    "eval_limit": "limit",
    "eval_split": "split",
}
"""Settings of a run, by what ``harness eval`` calls them; the others decide training alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One row: a training run, the untrained model (``trainer`` empty), or another evaluation of the run of arm ``of``.

    ``guidance``: the paper's number is the reward of the untrained model while it is guided so (settings of ``harness diagnose``); empty:
    while it is not guided, as the diagnoses of the other arms measure it too. ``on``: settings that one model needs besides ``set``.
    """

    name: str
    trainer: str = ""
    of: str = ""
    set: tuple[str, ...] = ()
    on: Mapping[str, Sequence[str]] = field(default_factory=dict)
    guidance: tuple[str, ...] | None = None
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
    grows: tuple[str, ...] = ()
    diagnoses: tuple[str, ...] = ()
    diagnosis: tuple[str, ...] = ()
    finding: str = ""
    not_applicable: str = ""
    remark: str = ""


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
            on=row.get("on", {}),
            guidance=tuple(row["guidance"]) if "guidance" in row else None,
            paper=tuple(row.get("paper", ())),
            shown=row.get("shown", True),
        )
        for row in entry.get("arms", ())
    )
    names = {arm.name for arm in arms}
    claims = tuple((better, worse) for better, worse in entry.get("claims", ()))
    missing = {arm.of for arm in arms if arm.of} | {part for claim in claims for part in claim} | set(entry.get("grows", ()))
    if missing - names:
        raise HarnessError(f"reproductions.toml, {name}: no arm is called {', '.join(sorted(missing - names))}")
    rest = {key: value for key, value in entry.items() if key not in ("arms", "claims")}
    for key in ("columns", "diagnoses", "diagnosis", "grows"):
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
    measuring: tuple[str, ...] = ()  # settings of every diagnosis

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

    def check(self, arms: Sequence[Arm]) -> None:
        """Refuse a wrong value, as ``harness run`` would, before the first run begins."""
        from harness.cli.run import FLAGS, resolve

        none = dict.fromkeys((*FLAGS, "preset", "config_file", "ranks"))
        for arm in arms:
            if arm.trainer:
                resolve({**none, "trainer": arm.trainer, "model": self.model, "tasks": self.tasks, "assignments": self._settings(arm)})

    def _training(self, arm: Arm) -> Training:
        return Training(
            trainer=arm.trainer,
            model=self.model,
            tasks=self.tasks,
            steps=self.steps,
            settings=self._settings(arm),
            data=self.data,
        )

    def _settings(self, arm: Arm) -> tuple[str, ...]:
        given = fitting(arm.trainer, self.assignments) if arm.trainer else self.assignments
        return (*arm.on.get(self.model, ()), *given, *arm.set)

    def _evaluate(self, folder: Path, weights: str, arm: Arm, seed: int) -> None:
        command = [sys.executable, "-m", "harness.cli.main", "eval", "--model", weights, "--benchmarks", self.tasks, "--seed", str(seed)]
        for text in self.data:
            command += ["--data", text]
        for text in self._settings(arm):
            if renamed := OF_AN_EVALUATION.get(section := _section(text)):
                command += ["--set", renamed + text.removeprefix(section)]
        click.echo(f"{folder.name}: evaluating")
        done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, env=_environment(self.threads), check=False)
        if done.returncode:
            raise HarnessError(f"{folder.name} failed: {done.stderr.strip()}")

    def diagnose(self, name: str, settings: Sequence[str], seed: int) -> Path:
        """Run one diagnostic of the untrained model, unless that was done; returns its folder."""
        chosen = (*settings, *self.measuring)
        words = (self.model, self.tasks, name, *sorted(chosen), *self.data)
        folder = self.folder / f"{name}-{Path(self.model).name}-{self.tasks}-{digest(words)}-s{seed}"
        if finished(folder):
            click.echo(f"{folder.name}: finished already")
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # it was cut short, and holds nothing to go on from
        command = [sys.executable, "-m", "harness.cli.main", "diagnose", name, "--model", self.model, "--tasks", self.tasks]
        command += ["--seed", str(seed), "--out", str(folder)]
        command += [part for text in self.data for part in ("--data", text)] + [part for text in chosen for part in ("--set", text)]
        click.echo(f"{folder.name}: diagnosing")
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(self.threads), check=False)
        if done.returncode:
            raise HarnessError(f"harness diagnose {name} failed: {done.stderr.strip()}")
        return folder


@click.command(short_help="Run a table or figure of the paper in small, and print both.")
@click.argument("name")
@click.option("--model", default="tiny", show_default=True)
@click.option("--tasks", default="miniweb", show_default=True, help="Question set.")
@click.option("--data", multiple=True, metavar="NAME=PATH", help="Where a question set's files lie; may be repeated.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How many seeds, from 0.")
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True, help="Training steps of every arm.")
@click.option(
    "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Runs at a time, sharing the cores; 1 where a run fills the GPUs."
)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting of every run or diagnosis that has it; may be repeated."
)
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
    chosen = known[name]
    trained, measured = _assigned(assignments, chosen)
    exceptions = _exceptions(trained, chosen)
    for line in exceptions:
        click.echo(line)
    bench = Bench(
        folder=home() / "studies" / "shared",
        model=model,
        tasks=tasks,
        steps=steps,
        data=data,
        assignments=trained,
        threads=max(1, (os.cpu_count() or 1) // jobs),
        measuring=measured,
    )
    bench.check(chosen.arms)
    command = f"harness reproduce {name} --model {model} --tasks {tasks} --seeds {seeds}" + (f" --steps {steps}" if chosen.arms else "")
    command += "".join(f" --data {shlex.quote(part)}" for part in data) + "".join(f" --set {shlex.quote(part)}" for part in assignments)
    lines = [
        f"# {chosen.title}",
        "",
        f"`{command}`",
        "",
        *(line for text in exceptions for line in (text, "")),
        *report(chosen, bench, _run_all(chosen, bench, seeds, jobs)),
    ]
    text = "\n".join(lines) + "\n"
    click.echo("\n" + text)
    if out is not None:
        out.write_text(text, encoding="utf-8")
        click.echo(f"written: {out}")


def _assigned(assignments: Sequence[str], chosen: Reproduction) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of the settings go to runs and which to diagnoses; a setting that both have goes to both. Raises ``UsageError`` for one that
    none of them has."""
    from harness.cli.diagnose import DiagnoseConfig

    measured = bool(chosen.diagnoses) or any(arm.guidance is not None for arm in chosen.arms)
    of_runs = {key for arm in chosen.arms if arm.trainer for key in settings_of(arm.trainer)}
    of_diagnoses = setting_names(DiagnoseConfig) if measured else set()
    for text in assignments:
        if (key := setting_name(text)) not in of_runs | of_diagnoses:
            known = of_runs | of_diagnoses
            raise UsageError(f"--set {text}: no run or diagnosis here has the setting {key!r}.{nearest(key, sorted(known))}")
    return tuple(t for t in assignments if setting_name(t) in of_runs), tuple(t for t in assignments if setting_name(t) in of_diagnoses)


def _exceptions(assignments: Sequence[str], chosen: Reproduction) -> list[str]:
    """A sentence for each setting that only some of the trained arms have."""
    trained = [arm for arm in chosen.arms if arm.trainer]
    lines = []
    for text in assignments:
        without = [arm.name for arm in trained if not fitting(arm.trainer, (text,))]
        if without:
            having = [arm.name for arm in trained if arm.name not in without]
            lines.append(f"`{text}` holds for {', '.join(having)}; the trainer of {', '.join(without)} has no such setting.")
    return lines


def _run_all(chosen: Reproduction, bench: Bench, seeds: int, jobs: int) -> Done:
    """Everything that the report needs, one folder a seed; trained arms first, since others evaluate their checkpoints."""
    runs: dict[str, list[Path]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for own in (True, False):
            pending = {
                arm.name: [pool.submit(bench.run, arm, seed, runs[arm.of][seed] if arm.of else None) for seed in range(seeds)]
                for arm in chosen.arms
                if (not arm.of) is own
            }
            runs |= {arm: [future.result() for future in futures] for arm, futures in pending.items()}
        wanted = {name: (name, chosen.diagnosis) for name in chosen.diagnoses}
        wanted |= {arm.name: (GUIDED, (*chosen.diagnosis, *arm.guidance)) for arm in chosen.arms if arm.guidance}
        pending = {key: [pool.submit(bench.diagnose, *what, seed) for seed in range(seeds)] for key, what in wanted.items()}
        return Done(runs=runs, diagnoses={key: [future.result() for future in futures] for key, futures in pending.items()})


def _newest_checkpoint(run: Path) -> Path:
    found = sorted((run / "checkpoints").glob("step-*/hf"))
    if not found:
        raise HarnessError(f"{run} has no checkpoint to evaluate; remove the folder and run this again")
    return found[-1]


def _section(assignment: str) -> str:
    return re.split(r"[.=]", assignment, maxsplit=1)[0]


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}
