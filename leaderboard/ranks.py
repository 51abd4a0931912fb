"""Many comparisons at once: corrections by Holm or Benjamini-Hochberg, and the ranks that the data allow. Pure functions.

A rank is an interval. An entry can stand no higher than one place below all that are significantly better, and no lower than one above
all that are significantly worse; entries whose intervals overlap are tied as far as these questions can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, stdtr

from leaderboard.stats import LEVEL, Floats, Verdicts, compare

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


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values, in the given order: they hold the expected share of false findings.

    >>> [round(p, 3) for p in benjamini_hochberg([0.01, 0.04, 0.03])]
    [0.03, 0.04, 0.04]
    """
    from scipy.stats import false_discovery_control  # a second to import, and most boards are asked for Holm

    return [float(p) for p in false_discovery_control(p_values)] if p_values else []


CORRECTIONS: Mapping[str, Callable[[Sequence[float]], list[float]]] = {"holm": holm, "bh": benjamini_hochberg}
"""By the name that an address gives them; the first is the usual one."""


def ranks(arms: Sequence[Arm], correction: str = "holm") -> list[Rank]:
    """Rank interval of each entry: every pair is tested, corrected over all pairs, at 95%."""
    fights = duels(arms)
    better, worse = [0] * len(arms), [0] * len(arms)
    for duel, p in zip(fights, CORRECTIONS[correction]([d.p for d in fights]), strict=True):
        if p < 1 - LEVEL and duel.delta:
            winner, loser = (duel.first, duel.second) if duel.delta > 0 else (duel.second, duel.first)
            better[loser] += 1
            worse[winner] += 1
    return [Rank(low=1 + better[i], high=len(arms) - worse[i], of=len(arms)) for i in range(len(arms))]


def duels(arms: Sequence[Arm]) -> list[Duel]:
    """Every pair that shares questions, tested as ``compare`` does; whole families of pairs at once where that is possible."""
    single = [i for i, arm in enumerate(arms) if len(arm) == 1]
    binary = [i for i in single if all(v in (0.0, 1.0) for v in arms[i][0].values())]
    found = [*_binary_duels(binary, [arms[i][0] for i in binary]), *_seeded_duels(arms)]
    quick = set(binary)
    for i, j in combinations(single, 2):
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


def _seeded_duels(arms: Sequence[Arm]) -> list[Duel]:
    """Pairs of which at least one has several seeds: the paired t over questions and seeds, one row of the table of pairs at a time.

    Shapes: A arms, R runs of all arms in order, T questions.
    """
    place = {task: k for k, task in enumerate(sorted({t for arm in arms for run in arm for t in run}))}
    asked_AT, rewards_RT = _table(arms, place)
    sizes = [len(arm) for arm in arms]
    ends = np.cumsum(sizes)
    means_AT = np.stack([rewards_RT[end - size : end].mean(axis=0) for size, end in zip(sizes, ends, strict=True)])
    asked = asked_AT.astype(np.float64)
    shared_AA, sums_RA = asked @ asked.T, rewards_RT @ asked.T
    noise_AA, freedom_AA = _seed_noise(sizes, sums_RA, shared_AA)
    found = []
    for i in range(len(arms) - 1):
        rivals = [j for j in range(i + 1, len(arms)) if (sizes[i] > 1 or sizes[j] > 1) and shared_AA[i, j] > 1]
        if not rivals:
            continue
        both, n = asked_AT[i] & asked_AT[rivals], shared_AA[i, rivals]
        diffs = np.where(both, means_AT[i] - means_AT[rivals], 0.0)
        delta = diffs.sum(axis=1) / n
        spread = (np.where(both, diffs - delta[:, None], 0.0) ** 2).sum(axis=1) / (n - 1) / n
        noise = spread + noise_AA[i, rivals] + noise_AA[rivals, i]
        share = spread**2 / (n - 1) + freedom_AA[i, rivals] + freedom_AA[rivals, i]
        still = noise == 0
        freedom = noise**2 / np.where(still, 1.0, share)
        p = 2.0 * stdtr(np.where(still, 1.0, freedom), -np.abs(delta) / np.sqrt(np.where(still, 1.0, noise)))
        p = np.where(still, (delta == 0).astype(np.float64), p)
        found += [Duel(first=i, second=j, delta=float(d), p=float(q)) for j, d, q in zip(rivals, delta, p, strict=True)]
    return found


def _table(arms: Sequence[Arm], place: Mapping[str, int]) -> tuple[NDArray[np.bool_], Floats]:
    """Which questions all runs of an arm answered (A x T), and the rewards of every run there (R x T, 0 elsewhere)."""
    asked = np.ones((len(arms), len(place)), dtype=np.bool_)
    rewards = np.zeros((sum(len(arm) for arm in arms), len(place)), dtype=np.float64)
    row = 0
    for i, arm in enumerate(arms):
        first = row
        for run in arm:
            where = [place[task] for task in run]
            rewards[row, where] = list(run.values())
            answered = np.zeros(len(place), dtype=np.bool_)
            answered[where] = True
            asked[i] &= answered
            row += 1
        rewards[first:row, ~asked[i]] = 0.0
    return asked, rewards


def _seed_noise(sizes: Sequence[int], sums_RA: Floats, shared_AA: Floats) -> tuple[Floats, Floats]:
    """Of each arm, on the questions shared with each other: variance of its mean over seeds, and what it adds to 1 / freedom (A x A)."""
    noise, freedom = np.zeros_like(shared_AA), np.zeros_like(shared_AA)
    row = 0
    for i, size in enumerate(sizes):
        if size > 1:
            noise[i] = np.var(sums_RA[row : row + size] / np.maximum(shared_AA[i], 1.0), axis=0, ddof=1) / size
            freedom[i] = noise[i] ** 2 / (size - 1)
        row += size
    return noise, freedom
