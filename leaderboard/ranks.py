"""Many comparisons at once: Holm's correction, and the ranks that the data allow. Pure functions.

A rank is an interval. An entry can stand no higher than one place below all that are significantly better, and no lower than one above
all that are significantly worse; entries whose intervals overlap are tied as far as these questions can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import bdtr

from leaderboard.stats import LEVEL, Verdicts, compare

Arm = Sequence[Verdicts]
"""The runs of one entry: one mapping a seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Places, from 1, that an entry may hold among ``of`` entries."""

    low: int
    high: int
    of: int

    @property
    def words(self) -> str:
        """``1`` or ``2 to 4``."""
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """Entry ``first`` against entry ``second``: mean difference on shared questions and its unadjusted p-value."""

    first: int
    second: int
    delta: float
    p: float


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order: they hold the family-wise error rate.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, worst = [1.0] * len(p_values), 0.0
    for position, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - position) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def ranks(arms: Sequence[Arm]) -> list[Rank]:
    """Rank interval of each entry: every pair is tested, Holm over all pairs, at 95%."""
    fights = duels(arms)
    better, worse = [0] * len(arms), [0] * len(arms)
    for duel, p in zip(fights, holm([d.p for d in fights]), strict=True):
        if p < 1 - LEVEL and duel.delta:
            winner, loser = (duel.first, duel.second) if duel.delta > 0 else (duel.second, duel.first)
            better[loser] += 1
            worse[winner] += 1
    return [Rank(low=1 + better[i], high=len(arms) - worse[i], of=len(arms)) for i in range(len(arms))]


def duels(arms: Sequence[Arm]) -> list[Duel]:
    """Every pair that shares questions. Single binary runs are tested all at once, as one matrix product."""
    single = [i for i, arm in enumerate(arms) if len(arm) == 1 and all(v in (0.0, 1.0) for v in arm[0].values())]
    found = _binary_duels(single, [arms[i][0] for i in single])
    quick = set(single)
    for i, j in combinations(range(len(arms)), 2):
        if i in quick and j in quick:
            continue
        outcome = compare(arms[i], arms[j])
        if outcome is not None and outcome.p is not None:
            found.append(Duel(first=i, second=j, delta=outcome.delta, p=outcome.p))
    return found


def _binary_duels(names: Sequence[int], runs: Sequence[Verdicts]) -> list[Duel]:
    place = {task: k for k, task in enumerate(sorted({t for run in runs for t in run}))}
    right, wrong = (np.zeros((len(runs), len(place)), dtype=np.float64) for _ in range(2))
    for row, run in enumerate(runs):
        for task, value in run.items():
            (right if value else wrong)[row, place[task]] = 1.0
    wins, shared = right @ wrong.T, (right + wrong) @ (right + wrong).T
    losses = wins.T
    p = np.minimum(1.0, 2.0 * bdtr(np.minimum(wins, losses), (wins + losses).astype(np.int64), 0.5))
    return [
        Duel(first=names[i], second=names[j], delta=float((wins[i, j] - losses[i, j]) / shared[i, j]), p=float(p[i, j]))
        for i, j in combinations(range(len(runs)), 2)
        if shared[i, j]
    ]
