"""Intervals and tests behind every number of the board. Pure functions; nothing here reads the database.

What is random decides the method. One run, one attempt a question: Wilson. Several attempts a question: the questions are the
clusters. Several seeds: questions and seeds both vary, so their variances are added (each is estimated with its own degrees of
freedom, Welch-Satterthwaite). Two runs on the same questions: paired, exact McNemar when the verdicts are binary.
``scipy.special`` rather than ``scipy.stats``: the same distributions, a quarter of the import time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from scipy.special import bdtr, ndtri, stdtr, stdtrit

Verdicts = Mapping[str, float]
"""Mean reward in [0, 1] of each scored question, by task id."""

LEVEL = 0.95
POWER = 0.80


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
    """A minus B on the questions that both answered; ``gap`` is the smallest difference that 80% of such studies would find."""

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

    @property
    def n(self) -> int:
        return self.wins + self.losses + self.ties

    @property
    def distinguishable(self) -> bool:
        return self.p is not None and self.p < 1 - LEVEL


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
    mean, half = sum(values) / n, float(stdtrit(n - 1, 0.5 + level / 2)) * sqrt(_variance(values) / n)
    return Interval(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half), n=n, method="clustered by question")


def interval(runs: Sequence[Verdicts]) -> Interval:
    """The right interval for one run or for several seeds of one recipe, each given as its verdicts."""
    if len(runs) == 1:
        values = list(runs[0].values())
        return wilson(sum(values), len(values)) if _binary(values) else clustered(values)
    shared = _shared(runs)
    if len(shared) < 2:
        return clustered([v for run in runs for v in run.values()])
    means = [sum(run[t] for run in runs) / len(runs) for t in shared]
    centre = sum(means) / len(means)
    half, _ = _crossed(means, [[sum(run[t] for t in shared) / len(shared) for run in runs]])
    method = f"{len(runs)} seeds, by question and seed"
    return Interval(value=centre, low=max(0.0, centre - half), high=min(1.0, centre + half), n=len(shared), method=method)


def compare(runs: Sequence[Verdicts], base: Sequence[Verdicts]) -> Comparison | None:
    """Paired difference on shared questions; None when nothing is shared. One run a side with binary verdicts: exact McNemar."""
    shared = _shared([*runs, *base])
    if not shared or not runs or not base:
        return None
    a = [sum(r[t] for r in runs) / len(runs) for t in shared]
    b = [sum(r[t] for r in base) / len(base) for t in shared]
    diffs = [x - y for x, y in zip(a, b, strict=True)]
    if len(runs) == len(base) == 1 and _binary([*a, *b]):
        return _mcnemar(diffs)
    return _crossed_difference(diffs, _seed_means(runs, shared), _seed_means(base, shared))


def mcnemar_p(wins: int, losses: int) -> float:
    """Two-sided exact p-value for ``wins`` against ``losses`` among discordant pairs (binomial, one half)."""
    pairs = wins + losses
    return 1.0 if pairs == 0 else min(1.0, 2.0 * float(bdtr(min(wins, losses), pairs, 0.5)))


def smallest_gap(discordant: float, n: int) -> float | None:
    """Difference that a paired study of ``n`` questions finds with 80% power, ``discordant`` being the share of split pairs."""
    return (_z(LEVEL) + float(ndtri(POWER))) * sqrt(discordant / n) if n and discordant > 0 else None


def questions_needed(delta: float, variance: float) -> int | None:
    """Questions at which a paired difference ``delta`` (per-question variance ``variance``) is found with 80% power."""
    if delta == 0 or variance <= 0:
        return None
    return ceil(((_z(LEVEL) + float(ndtri(POWER))) / delta) ** 2 * variance)


def _mcnemar(diffs: Sequence[float]) -> Comparison:
    n, wins, losses = len(diffs), sum(d > 0 for d in diffs), sum(d < 0 for d in diffs)
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


def _crossed_difference(diffs: Sequence[float], a_means: Sequence[float], b_means: Sequence[float]) -> Comparison:
    n, delta = len(diffs), sum(diffs) / len(diffs)
    half, p = _crossed(diffs, [a_means, b_means]) if n > 1 else (None, None)
    spread = _variance(diffs) if n > 1 else 0.0
    needed = questions_needed(delta, spread)
    return Comparison(
        delta=delta,
        low=None if half is None else max(-1.0, delta - half),
        high=None if half is None else min(1.0, delta + half),
        p=p,
        wins=sum(d > 0 for d in diffs),
        losses=sum(d < 0 for d in diffs),
        ties=sum(d == 0 for d in diffs),
        gap=smallest_gap(spread, n),
        more=None if needed is None else max(needed - n, 0),
        method=f"paired t over questions and {max(len(a_means), len(b_means))} seeds",
    )


def _crossed(values: Sequence[float], arms: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Half-width and two-sided p of the mean of ``values``: question variance plus the seed variance of every arm.

    Adding both counts their interaction twice: wider than needed, never too narrow.
    """
    parts = [(_variance(values) / len(values), len(values) - 1)]
    parts += [(_variance(arm) / len(arm), len(arm) - 1) for arm in arms if len(arm) > 1]
    total = sum(v for v, _ in parts)
    mean = sum(values) / len(values)
    if total == 0:
        return 0.0, 1.0 if mean == 0 else 0.0
    freedom = total * total / sum(v * v / df for v, df in parts)
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * sqrt(total)
    return half, 2.0 * float(stdtr(freedom, -abs(mean) / sqrt(total)))


def _seed_means(runs: Sequence[Verdicts], shared: Sequence[str]) -> list[float]:
    return [sum(run[t] for t in shared) / len(shared) for run in runs]


def _shared(runs: Sequence[Verdicts]) -> list[str]:
    return sorted(set.intersection(*(set(run) for run in runs))) if runs else []


def _binary(values: Sequence[float]) -> bool:
    return all(v in (0.0, 1.0) for v in values)


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / (len(values) - 1)


def _z(level: float) -> float:
    return float(ndtri(0.5 + level / 2))
