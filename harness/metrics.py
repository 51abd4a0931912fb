"""Metrics over the repeated attempts of one task: avg@k, pass@k, pass^k; and how well stated confidence fits. Pure arithmetic.

It does not know tasks, files or intervals (those are ``leaderboard.stats``), and it never sees an unscorable attempt: callers
leave those out first, because a missing verdict is neither a success nor a failure.

>>> pass_at_k(4, 1, 2)               # four attempts, one right: chance that two drawn at random hold it
0.5
>>> pass_hat_k(4, 2, 2)              # chance that two drawn at random are both right
0.16666666666666666
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import comb

from harness.errors import HarnessError


def avg_at_k(values: Sequence[float]) -> float:
    """Mean reward of a task's attempts; needs at least one."""
    if not values:
        raise HarnessError("avg@k needs at least one scored attempt, got none; leave tasks without a verdict out")
    return sum(values) / len(values)


def bounds(values: Iterable[float | None]) -> tuple[float, float]:
    """The mean if every open value were wrong (0), and if every one were right (1); of nothing, all is open.

    None is an attempt that no judge decided (outage, limit, undecided), or whose answer was cut off.

    >>> bounds([1.0, None])
    (0.5, 1.0)
    """
    rows = list(values)
    known = [value for value in rows if value is not None]
    n = max(len(rows), 1)
    return sum(known) / n, (sum(known) + n - len(known)) / n


def pass_at_k(n: int, successes: int, k: int) -> float:
    """Unbiased chance that at least one of ``k`` attempts succeeds, from ``successes`` among ``n``: 1 - C(n-c, k) / C(n, k)."""
    _check(n, successes, k)
    return 1.0 - comb(n - successes, k) / comb(n, k)


def pass_hat_k(n: int, successes: int, k: int) -> float:
    """Unbiased chance that all of ``k`` attempts succeed (reliability): C(c, k) / C(n, k)."""
    _check(n, successes, k)
    return comb(successes, k) / comb(n, k)


def calibration_error(confidences: Sequence[float], correct: Sequence[float], bins: int = 5) -> float:
    """Gap between stated confidence and accuracy: the sum over equal bins of share x |accuracy - mean confidence|, in [0, 1].

    A confidence on an edge belongs to the upper bin. Needs at least one answer that stated its confidence.
    """
    if not confidences:
        raise HarnessError("the calibration error needs confidences, and no answer stated one")
    filled: dict[int, list[tuple[float, float]]] = {}
    for confidence, value in zip(confidences, correct, strict=True):
        filled.setdefault(min(int(confidence * bins + 1e-9), bins - 1), []).append((confidence, value))
    gaps = [abs(sum(v for _, v in pairs) - sum(c for c, _ in pairs)) for pairs in filled.values()]
    return sum(gaps) / len(confidences)


def _check(n: int, successes: int, k: int) -> None:
    if not 0 <= successes <= n:
        raise HarnessError(f"{successes} successes among {n} attempts is impossible; expected 0 to {n}")
    if not 1 <= k <= n:
        raise HarnessError(f"k = {k} draws from {n} attempts is impossible; expected 1 to {n}: sample more attempts or lower k")
