"""Turns and lengths: along a training run (paper, Figure 6), or of a model as it is; and how long the experts' plans are (Figure 8).

A run's numbers come from its log alone: nothing is sampled and no weights are needed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.errors import HarnessError
from harness.events import Kind, current_events
from harness.figures import Chart, Finding, Series, bars
from harness.records import usage
from trainers.diagnostics.lab import Lab

TITLE = "Turns and lengths"


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """One training trajectory."""

    step: int
    guided: bool
    turns: int
    tokens: int
    truncated: bool


async def diagnose(lab: Lab) -> Finding:
    """Of the lab's run, or where it belongs to none, of fresh unguided rollouts."""
    if lab.run_dir is not None:
        return of_run(lab.run_dir, lab.step)
    groups = await asyncio.gather(*(lab.draw(task, 0, lab.amounts.samples) for task in lab.tasks))
    lengths = []
    for attempt in (m.attempt for group in groups for m in group if m.attempt.trajectory.spans):
        used = usage(attempt, 0.0)
        lengths.append(_length(lab.step, 0, used, str(attempt.status)))
    return _finding(lengths, Counter(len(task.actions) for task in lab.everything or lab.tasks), lab.step)


def of_run(run_dir: Path, step: int) -> Finding:
    """Of every training trajectory in a run's log. Raises ``HarnessError`` where it has none."""
    lengths: list[Length] = []
    plans: dict[str, int] = {}
    for event in current_events(run_dir):
        if event.kind is Kind.ATTEMPT and event.data["purpose"] != "eval":
            lengths.append(_length(event.data["step"], event.data["level"], event.data["usage"], event.data["status"]))
        elif event.kind is Kind.GROUP:
            plans[event.data["task_id"]] = event.data["max_level"]
    if not lengths:
        raise HarnessError(f"{run_dir} holds no training trajectories; give a run of `harness run`, or --model for a model as it is")
    return _finding(lengths, Counter(plans.values()), step)


def by_step(lengths: Iterable[Length]) -> list[dict[str, Any]]:
    """Means of each step over its unguided trajectories (the policy as it is) and over its guided ones (None where it has none)."""
    steps: dict[int, list[Length]] = defaultdict(list)
    for length in lengths:
        steps[length.step].append(length)
    rows = []
    for step, all_of_it in sorted(steps.items()):
        row: dict[str, Any] = {"step": step}
        for kind, some in (("unguided", [x for x in all_of_it if not x.guided]), ("guided", [x for x in all_of_it if x.guided])):
            row[f"{kind}_turns"] = fmean(x.turns for x in some) if some else None
            row[f"{kind}_tokens"] = fmean(x.tokens for x in some) if some else None
            row[f"{kind}_truncated"] = fmean(x.truncated for x in some) if some else None
        rows.append(row)
    return rows


def _length(step: int, level: int, used: Mapping[str, Any], status: str) -> Length:
    return Length(
        step=step, guided=level > 0, turns=int(used["turns"]), tokens=int(used["generated_tokens"]), truncated=status == "truncated"
    )


def _finding(lengths: Sequence[Length], plans: Counter[int], step: int) -> Finding:
    rows = by_step(lengths)
    unguided = Counter(length.turns for length in lengths if not length.guided)
    charts = [
        _curves(rows, "Turns per trajectory", "mean assistant turns", "turns"),
        _curves(rows, "Response length", "mean sampled tokens", "tokens"),
        _counts("Turns of unguided trajectories", "assistant turns", "trajectories", unguided),
        _counts("Actions of the experts' plans", "tool calls", "tasks", plans),
    ]
    data = {"by_step": rows, "turns": _plain(unguided), "plan_actions": _plain(plans), "trajectories": [asdict(x) for x in lengths]}
    shown = charts if len(rows) > 1 else charts[2:]
    return Finding(name="turns", title=TITLE, step=step, summary=tuple(_summary(rows, plans)), charts=tuple(shown), data=data)


def _curves(rows: Sequence[Mapping[str, Any]], title: str, y: str, what: str) -> Chart:
    series = [
        Series(name=kind, points=tuple((float(r["step"]), r[f"{kind}_{what}"]) for r in rows if r[f"{kind}_{what}"] is not None))
        for kind in ("unguided", "guided")
    ]
    return Chart(title=title, x="step", y=y, series=tuple(series))


def _counts(title: str, x: str, y: str, counts: Counter[int]) -> Chart:
    span = range(min(counts), max(counts) + 1) if counts else range(0)
    return bars(title, x, y, [(str(n), counts[n]) for n in span])


def _plain(counts: Counter[int]) -> dict[str, int]:
    return {str(n): counts[n] for n in sorted(counts)}


def _summary(rows: Sequence[Mapping[str, Any]], plans: Counter[int]) -> list[str]:
    known = [row for row in rows if row["unguided_turns"] is not None]
    lines = []
    if known:
        tenth = max(1, len(known) // 10)
        for words, some in (("first", known[:tenth]), ("last", known[-tenth:]))[: 2 if len(known) > 1 else 1]:
            turns, tokens, cut = (fmean(row[f"unguided_{what}"] for row in some) for what in ("turns", "tokens", "truncated"))
            where = f"{words} {len(some)} step{'s' if len(some) > 1 else ''}" if len(known) > 1 else "as it is"
            lines.append(f"unguided, {where}: {turns:.2f} turns, {tokens:.1f} sampled tokens, {cut:.0%} truncated")
    if len(known) > 1:
        lines.append("the paper finds that both grow steadily over training with ActGuide-RL")
    if plans:
        lines.append(f"plans of the data: {min(plans)} to {max(plans)} actions, mean {fmean(plans.elements()):.1f}")
    return lines
