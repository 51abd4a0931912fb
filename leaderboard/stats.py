"""Intervals and tests behind every number of the board. Pure functions; nothing here reads the database.

What is random decides the method. One run, one attempt a question: Wilson. Several attempts a question: the questions are the
clusters. Several seeds: questions and seeds both vary, so their variances are added (each is estimated with its own degrees of
freedom, Welch-Satterthwaite). Two runs on the same questions: paired, exact McNemar when the verdicts are binary, else a permutation
test that flips the sign of each question's difference. Many tests at once are ``leaderboard.ranks``.
``scipy.special`` rather than ``scipy.stats``: the same distributions, a quarter of the import time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, lcm, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri, stdtr, stdtrit

Verdicts = Mapping[str, float]
"""Mean reward in [0, 1] of each scored question, by task id."""

Floats = NDArray[np.float64]

LEVEL = 0.95
POWER = 0.80
GRID = 10_000  # finest common denominator of rewards at which the permutation distribution is enumerated
REACH = 200_000  # largest sum of absolute differences, in grid units, that is enumerated
FLIPS = 9_999  # random sign flips where enumeration is out of reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95% interval; ``method`` names how it was reached. Bounds are None where one value cannot give them."""

    value: float
    low: float | None
    high: float | None
    n: int
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A minus B on the questions that both answered; ``gap`` is the smallest difference that 80% of such studies would find.

    ``adjusted`` is the p-value after ``correction`` for the other tests of its family, None where it stands alone.
    """

    delta: float
    low: float | None
    high: float | None
    p: float | None
    wins: int
    losses: int
    ties: int
    gap: float | None
    more: int | None
    method: str
    adjusted: float | None = None
    correction: str = ""  # a name of ``leaderboard.ranks.CORRECTIONS``

    @property
    def n(self) -> int:
        return self.wins + self.losses + self.ties

    @property
    def decisive_p(self) -> float | None:
        """The p-value that decides: the adjusted one where there is one."""
        return self.p if self.adjusted is None else self.adjusted

    @property
    def distinguishable(self) -> bool:
        p = self.decisive_p
        return p is not None and p < 1 - LEVEL


def wilson(successes: float, n: int, level: float = LEVEL) -> Interval:
    """Wilson score interval of a proportion."""
    if n == 0:
        return Interval(value=0.0, low=None, high=None, n=0, method="none")
    z, p = _z(level), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(value=p, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n, method="Wilson")


def clustered(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean of per-question means with the questions as clusters (t interval), kept inside [0, 1]."""
    n = len(values)
    if n < 2:
        return Interval(value=sum(values) / max(n, 1), low=None, high=None, n=n, method="none")
    mean, half = sum(values) / n, t_half_width(values, level)
    return Interval(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half), n=n, method="clustered by question")


def t_half_width(values: Sequence[float], level: float = LEVEL) -> float:
    """Half-width of the t interval of the mean of two or more values.

    >>> round(t_half_width([1.0, 3.0, 5.0]), 3)
    4.968
    """
    return float(stdtrit(len(values) - 1, 0.5 + level / 2)) * sqrt(_variance(values) / len(values))


def interval(runs: Sequence[Verdicts]) -> Interval:
    """The right interval for one run or for several seeds of one recipe, each given as its verdicts."""
    if len(runs) == 1:
        values = list(runs[0].values())
        return wilson(sum(values), len(values)) if _binary(values) else clustered(values)
    shared = _shared(runs)
    if len(shared) < 2:
        return clustered([v for run in runs for v in run.values()])
    rewards = _rewards(runs, shared)
    means = rewards.mean(axis=0)
    centre = float(means.mean())
    half, _ = _crossed(means, [rewards.mean(axis=1)])
    method = f"{len(runs)} seeds, by question and seed"
    return Interval(value=centre, low=max(0.0, centre - half), high=min(1.0, centre + half), n=len(shared), method=method)


def compare(runs: Sequence[Verdicts], base: Sequence[Verdicts]) -> Comparison | None:
    """Paired difference on shared questions; None when nothing is shared.

    One run a side: exact McNemar for binary verdicts, else a permutation test. Several: t over questions and seeds.
    """
    shared = _shared([*runs, *base])
    if not shared or not runs or not base:
        return None
    a, b = _rewards(runs, shared), _rewards(base, shared)
    diffs = a.mean(axis=0) - b.mean(axis=0)
    if len(runs) == len(base) == 1:
        return _mcnemar(diffs) if _binary(a) and _binary(b) else _permuted(diffs)
    return _crossed_difference(diffs, a.mean(axis=1), b.mean(axis=1))


def mcnemar_p(wins: int, losses: int) -> float:
    """Two-sided exact p-value for ``wins`` against ``losses`` among discordant pairs (binomial, one half)."""
    pairs = wins + losses
    return 1.0 if pairs == 0 else min(1.0, 2.0 * float(bdtr(min(wins, losses), pairs, 0.5)))


def sign_flip_p(diffs: Sequence[float]) -> float:
    """Two-sided p-value of the mean of paired differences when each sign is as likely as the other.

    Exact wherever the differences are multiples of a common fraction (k attempts a question); else 9,999 seeded random flips.

    >>> sign_flip_p([0.5, 0.5, 0.25])
    0.25
    """
    moved = [d for d in diffs if d]
    if not moved:
        return 1.0
    parts = [Fraction(d).limit_denominator(GRID) for d in moved]
    grid = lcm(*(f.denominator for f in parts)) if all(abs(float(f) - d) < 1e-9 for f, d in zip(parts, moved, strict=True)) else GRID + 1
    if grid <= GRID and sum(abs(f) for f in parts) * grid <= REACH:
        return _enumerated_p([int(f * grid) for f in parts])
    values = np.asarray(moved)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(FLIPS, len(moved)))
    extreme = np.count_nonzero(np.abs(signs @ values) >= abs(values.sum()) - 1e-12)
    return float(extreme + 1) / (FLIPS + 1)


def smallest_gap(discordant: float, n: int) -> float | None:
    """Difference that a paired study of ``n`` questions finds with 80% power, ``discordant`` being the share of split pairs.

    None where no pair was split: nothing is then known of how much two such runs vary.
    """
    return (_z(LEVEL) + float(ndtri(POWER))) * sqrt(discordant / n) if n and discordant > 0 else None


def questions_needed(delta: float, variance: float, fixed: float = 0.0) -> int | None:
    """Questions at which a paired difference ``delta`` (per-question variance ``variance``) is found with 80% power.

    ``fixed`` is the variance of the mean that more questions do not lower: that of the seeds. None where no number is enough.
    """
    room = (delta / (_z(LEVEL) + float(ndtri(POWER)))) ** 2 - fixed
    return ceil(variance / room) if room > 0 and variance > 0 else None


def _mcnemar(diffs: Floats) -> Comparison:
    n, wins, losses = len(diffs), int(np.count_nonzero(diffs > 0)), int(np.count_nonzero(diffs < 0))
    delta, discordant = (wins - losses) / n, (wins + losses) / n
    half = _z(LEVEL) * sqrt(max(discordant - delta * delta, 0.0) / n)
    needed = questions_needed(delta, discordant - delta * delta)
    return Comparison(
        delta=delta,
        low=max(-1.0, delta - half),
        high=min(1.0, delta + half),
        p=mcnemar_p(wins, losses),
        wins=wins,
        losses=losses,
        ties=n - wins - losses,
        gap=smallest_gap(discordant, n),
        more=None if needed is None else max(needed - n, 0),
        method="exact McNemar",
    )


def _permuted(diffs: Floats) -> Comparison:
    found = _crossed_difference(diffs, np.empty(0), np.empty(0))
    return replace(found, p=sign_flip_p(diffs.tolist()), method="permutation of signs")


def _enumerated_p(steps: Sequence[int]) -> float:
    """Share of sign patterns whose sum is at least as far from 0 as that of ``steps`` (whole numbers, none of them 0)."""
    total, seen = sum(map(abs, steps)), abs(sum(steps))
    chance = np.zeros(total + 1)  # of the sum of the steps taken as positive; the signed sum is twice that minus the total
    chance[0] = 1.0
    for size in map(abs, steps):
        chance[size:] = (chance[size:] + chance[:-size]) / 2
        chance[:size] /= 2
    sums = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(chance[sums >= seen].sum()))


def _crossed_difference(diffs: Floats, a_means: Floats, b_means: Floats) -> Comparison:
    n, delta = len(diffs), float(diffs.mean())
    half, p = _crossed(diffs, [a_means, b_means]) if n > 1 else (None, None)
    spread = _variance(diffs) if n > 1 else 0.0
    seeds = sum(_variance(arm) / len(arm) for arm in (a_means, b_means) if len(arm) > 1)
    needed, gap = questions_needed(delta, spread, seeds), smallest_gap(spread + n * seeds, n)
    return Comparison(
        delta=delta,
        low=None if half is None else max(-1.0, delta - half),
        high=None if half is None else min(1.0, delta + half),
        p=p,
        wins=int(np.count_nonzero(diffs > 0)),
        losses=int(np.count_nonzero(diffs < 0)),
        ties=int(np.count_nonzero(diffs == 0)),
        gap=None if gap is None or gap > 1 else gap,  # no two scores lie further apart
        more=None if needed is None else max(needed - n, 0),
        method=f"paired t over questions and {max(len(a_means), len(b_means))} seeds",
    )


def _crossed(values: Floats, arms: Sequence[Floats]) -> tuple[float, float]:
    """Half-width and two-sided p of the mean of ``values``: question variance plus the seed variance of every arm.

    Adding both counts their interaction twice: wider than needed, never too narrow.
    """
    parts = [(_variance(values) / len(values), len(values) - 1)]
    parts += [(_variance(arm) / len(arm), len(arm) - 1) for arm in arms if len(arm) > 1]
    total = sum(v for v, _ in parts)
    mean = float(values.mean())
    if total == 0:
        return 0.0, 1.0 if mean == 0 else 0.0
    freedom = total * total / sum(v * v / df for v, df in parts)
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * sqrt(total)
    return half, 2.0 * float(stdtr(freedom, -abs(mean) / sqrt(total)))


def _rewards(runs: Sequence[Verdicts], shared: Sequence[str]) -> Floats:
    """Runs x questions."""
    return np.array([[run[t] for t in shared] for run in runs], dtype=np.float64)


def _shared(runs: Sequence[Verdicts]) -> list[str]:
    return sorted(set.intersection(*(set(run) for run in runs))) if runs else []


def _binary(values: Sequence[float] | Floats) -> bool:
    array = np.asarray(values)
    return bool(((array == 0.0) | (array == 1.0)).all())


def _variance(values: Sequence[float] | Floats) -> float:
    return float(np.var(values, ddof=1))


def _z(level: float) -> float:
    return float(ndtri(0.5 + level / 2))
