"""Off-policy risk by level of guidance (paper, Eq. 8-9, 14-25 and Figure 4): what learning from guided rollouts costs, and what it buys.

For every task and level k, groups of trajectories are drawn under g_k. The shift of a trajectory is L_k = sum_j log r_j (Eq. 15); the risk
R_k is its variance within a task, split into token variances and covariances (Eq. 18). Beside it: the importance ratios' effective sample
size, what clipping and small ratios take away, and the recovery probability Q_k over repeated groups (Eq. 19).
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from harness.figures import Chart, Finding, Series, bars
from harness.types import Task
from trainers.diagnostics.lab import Lab, succeeded

TITLE = "Off-policy risk by level of guidance"
SMALL = (0.1, 0.01)  # ratios below these are counted, beside those below 1 - clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """L_k over the trajectories of one task at one level: mean, variance (unbiased), and the parts of the variance."""

    mean: float
    variance: float
    token_variances: float
    covariances: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Importance ratios of one task at one level; all but the first are shares of tokens.

    ``ess`` is the effective sample size of whole trajectories, (sum w)^2 / sum w^2 with w = exp(L_k), as a share of their number;
    ``token_ess`` the same over tokens. ``clipped`` tokens get no gradient in the first update (r above 1 + clip where the trajectory
    succeeded, below 1 - clip where it failed); ``lost`` is 1 - min(r, 1) averaged over the tokens of successful trajectories: what small
    ratios take from the gradient (None where none succeeded). ``below`` maps thresholds to shares.
    """

    ess: float
    token_ess: float
    mean: float
    clipped: float
    lost: float | None
    below: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One task at one level. ``recovered`` has one entry a group that could be scored."""

    task_id: str
    level: int
    levels: int
    trajectories: int
    rewards: tuple[float, ...]
    recovered: tuple[bool, ...]
    shifts: tuple[float, ...]
    risk: Risk
    ratios: Ratios

    @property
    def proportion(self) -> int:
        """Guidance proportion k / K in percent, to the nearest 5."""
        return 5 * round(20 * self.level / self.levels)

    @property
    def recovery(self) -> float | None:
        """The estimate of Q_k, None without a scored group."""
        return fmean(self.recovered) if self.recovered else None


async def diagnose(lab: Lab) -> Finding:
    """Every task at levels from 0 to its whole plan, ``groups`` groups of ``samples`` trajectories each."""
    levels = [(task, level) for task in lab.guided_tasks for level in spaced(len(task.actions), lab.amounts.levels)]
    drawn = await asyncio.gather(*(_cell(lab, task, level) for task, level in levels))
    cells = [cell for cell in drawn if cell is not None]
    rows = by_proportion(cells)
    return Finding(
        name="off-policy-risk",
        title=TITLE,
        step=lab.step,
        summary=tuple(_summary(cells, rows, lab)),
        charts=(*_charts(rows, lab.amounts.clip), _needed(cells, lab.amounts.recovery)),
        data={"by_proportion": rows, "cells": [asdict(cell) for cell in cells]},
    )


def spaced(most: int, count: int) -> list[int]:
    """At most ``count`` levels of 0..``most``, evenly spaced, both ends included.

    >>> spaced(3, 8), spaced(10, 3)
    ([0, 1, 2, 3], [0, 5, 10])
    """
    return list(range(most + 1)) if most < count else sorted({round(i * most / (count - 1)) for i in range(count)})


def risk(shifts: Sequence[Sequence[float]]) -> Risk:
    """Mean and variance of L_k over trajectories of log-ratios, and Eq. 18: a trajectory that has ended adds nothing (log r = 0).

    The parts add up to the variance exactly. One trajectory alone has no variance: 0.

    >>> risk([(1.0, 1.0), (-1.0, -1.0)])
    Risk(mean=0.0, variance=8.0, token_variances=4.0, covariances=4.0)
    """
    totals = [math.fsum(row) for row in shifts]
    longest = max(map(len, shifts), default=0)
    columns = [[row[j] if j < len(row) else 0.0 for row in shifts] for j in range(longest)]
    variance, tokens = _variance(totals), math.fsum(_variance(column) for column in columns)
    return Risk(mean=fmean(totals) if totals else 0.0, variance=variance, token_variances=tokens, covariances=variance - tokens)


def ratios(shifts: Sequence[Sequence[float]], successes: Sequence[bool], clip: float) -> Ratios:
    """Statistics of r = exp(log r) over the tokens of trajectories, of which some succeeded."""
    flat = [(math.exp(min(x, 20.0)), success) for row, success in zip(shifts, successes, strict=True) for x in row]
    values, n = [r for r, _ in flat], max(len(flat), 1)
    learned = [1 - min(r, 1.0) for r, success in flat if success]
    totals = [math.fsum(row) for row in shifts]
    top = max(totals, default=0.0)  # the share does not depend on the scale, and the largest weight must not overflow
    return Ratios(
        ess=effective_share([math.exp(total - top) for total in totals]),
        token_ess=effective_share(values),
        mean=fmean(values) if values else 1.0,
        clipped=sum(r > 1 + clip if success else r < 1 - clip for r, success in flat) / n,
        lost=fmean(learned) if learned else None,
        below={f"{limit:g}": sum(r < limit for r in values) / n for limit in (1 - clip, *SMALL)},
    )


def effective_share(weights: Sequence[float]) -> float:
    """(sum w)^2 / (n sum w^2): 1 where all weights are equal, 1/n where one carries everything.

    >>> effective_share([1.0, 1.0, 0.0, 0.0])
    0.5
    """
    squares = math.fsum(w * w for w in weights)
    return math.fsum(weights) ** 2 / (len(weights) * squares) if squares else 0.0


def recovered(rewards: Sequence[float | None], size: int) -> tuple[bool, ...]:
    """Of consecutive groups of ``size`` rewards: whether the best is a success. Groups without any score are left out."""
    groups = [rewards[start : start + size] for start in range(0, len(rewards), size)]
    scored = [[r for r in group if r is not None] for group in groups]
    return tuple(max(group) >= 1.0 for group in scored if group)


def smallest_sufficient(cells: Sequence[Cell], rho: float) -> dict[str, int | None]:
    """The estimate of k*_rho for every task (Eq. 25): its first level whose recovery reaches ``rho``; None where none does."""
    found: dict[str, int | None] = {}
    for cell in sorted(cells, key=lambda c: (c.task_id, c.level)):
        found.setdefault(cell.task_id, None)
        if found[cell.task_id] is None and cell.recovery is not None and cell.recovery >= rho:
            found[cell.task_id] = cell.level
    return found


def by_proportion(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Means over tasks, a row a guidance proportion. Every task counts once, however long its trajectories are."""
    rows = []
    for proportion in sorted({cell.proportion for cell in cells}):
        here = [cell for cell in cells if cell.proportion == proportion]
        lost = [cell.ratios.lost for cell in here if cell.ratios.lost is not None]
        recovery = [cell.recovery for cell in here if cell.recovery is not None]
        rewards = [fmean(cell.rewards) for cell in here if cell.rewards]
        row: dict[str, Any] = {"percent": proportion, "tasks": len({cell.task_id for cell in here})}
        row |= {name: fmean(getattr(cell.risk, name) for cell in here) for name in ("mean", "variance", "token_variances", "covariances")}
        row |= {name: fmean(getattr(cell.ratios, name) for cell in here) for name in ("ess", "token_ess", "clipped")}
        row["below"] = {limit: fmean(cell.ratios.below[limit] for cell in here) for limit in here[0].ratios.below}
        row |= {"lost": fmean(lost) if lost else None, "recovery": fmean(recovery) if recovery else None}
        rows.append(row | {"reward": fmean(rewards) if rewards else None})
    return rows


async def _cell(lab: Lab, task: Task, level: int) -> Cell | None:
    """One task at one level; None where no trajectory has tokens and a score (an outage)."""
    size = lab.amounts.samples
    members = await lab.draw(task, level, lab.amounts.groups * size)
    usable = [m for m in members if m.attempt.trajectory.spans and m.score.value is not None]
    if not usable:
        return None
    shifts = await lab.shifts([m.attempt for m in usable])
    return Cell(
        task_id=task.id,
        level=level,
        levels=len(task.actions),
        trajectories=len(usable),
        rewards=tuple(m.score.value for m in usable if m.score.value is not None),
        recovered=recovered([m.score.value for m in members], size),
        shifts=tuple(math.fsum(row) for row in shifts),
        risk=risk(shifts),
        ratios=ratios(shifts, [succeeded(m) for m in usable], lab.amounts.clip),
    )


def _variance(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)


def _charts(rows: Sequence[Mapping[str, Any]], clip: float) -> tuple[Chart, ...]:
    def chart(title: str, y: str, *lines: tuple[str, str]) -> Chart:
        series = [
            Series(name=words, points=tuple((float(r["percent"]), r[key]) for r in rows if r[key] is not None)) for words, key in lines
        ]
        return Chart(title=title, x="% of the plan", y=y, series=tuple(series))

    below = tuple(
        Series(name=f"r < {limit}", points=tuple((float(r["percent"]), r["below"][limit]) for r in rows))
        for limit in (f"{1 - clip:g}", "0.01")
    )
    return (
        chart("Mean log-ratio shift", "mean of L_k, nats", ("shift", "mean")),
        chart("Off-policy risk", "variance of L_k", ("R_k", "variance"), ("token variances alone", "token_variances")),
        chart("Recovery", "probability", ("group of N", "recovery"), ("one trajectory", "reward")),
        chart("Effective sample size", "share", ("of trajectories", "ess"), ("of tokens", "token_ess")),
        chart("Lost gradient", "share over tokens", ("to small ratios", "lost"), ("to the clip", "clipped")),
        Chart(title="Small ratios", x="% of the plan", y="share of tokens", series=below),
    )


def _needed(cells: Sequence[Cell], rho: float) -> Chart:
    """How many tasks need which level for a recovery probability of ``rho``."""
    needed = Counter(smallest_sufficient(cells, rho).values())
    top = max((level for level in needed if level is not None), default=0)
    counts = [(str(level), needed[level]) for level in range(top + 1)]
    return bars(f"Smallest level with recovery of {rho:.0%}", "level", "tasks", [*counts, ("none", needed[None])])


def _summary(cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]], lab: Lab) -> list[str]:
    a = lab.amounts
    lines = [f"{len({c.task_id for c in cells})} tasks, {a.groups} groups of {a.samples} trajectories at every level"]
    for row in rows:
        lost = "-" if row["lost"] is None else f"{row['lost']:.0%}"
        recovery = "-" if row["recovery"] is None else f"{row['recovery']:.0%}"
        lines.append(
            f"{row['percent']}% of the plan: shift {round(row['mean'], 2) + 0.0:.2f}, R_k {row['variance']:.2f} "
            f"(tokens {row['token_variances']:.2f}, covariances {row['covariances']:+.2f}), ESS {row['ess']:.0%} of trajectories, "
            f"lost to small ratios {lost}, clipped {row['clipped']:.0%}, recovery {recovery}"
        )
    variances = [row["variance"] for row in rows]
    rises = all(x <= y for x, y in pairwise(variances))
    lines.append(f"R_k {'rises' if rises else 'does not rise'} at every level; the paper finds that it keeps rising")
    needed = Counter(smallest_sufficient(cells, a.recovery).values())
    shown = ", ".join(f"{level}: {needed[level]}" for level in sorted(k for k in needed if k is not None))
    lines.append(f"smallest level with recovery of at least {a.recovery:.0%} (tasks): {shown or 'none'}; no level: {needed[None]}")
    return lines
