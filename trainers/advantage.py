"""Group-relative advantages (Algorithm 1, step 3): how much better a row did than the other rows of its group. Pure.

Deliberately knows nothing of tasks, guidance or tensors, and drops no row: what to do with a group of zero variance is the
algorithm's choice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Literal

from harness.errors import HarnessError


def group_advantages(
    rewards: Sequence[float | None],
    groups: Sequence[Hashable],
    *,
    scale: Literal["std", "none"] = "std",
    eps: float = 1e-6,
) -> list[float | None]:
    """One advantage per row: ``(r - mean) / (std + eps)`` over the rows of its group that have a reward (unbiased std).

    ``rewards`` and ``groups`` have one entry a row. A row without a reward (None, or NaN) gets None and moves nobody's
    baseline. Rows alone in their group, or in a group of equal rewards, get exactly 0. ``scale="none"`` only centres.

    >>> group_advantages([1.0, 0.0, None], ["a", "a", "a"], scale="none")
    [0.5, -0.5, None]
    """
    if len(rewards) != len(groups):
        raise HarnessError(f"advantages need one group per reward, got {len(rewards)} rewards and {len(groups)} groups")
    if scale not in ("std", "none"):
        raise HarnessError(f"unknown advantage scale {scale!r}; use 'std' or 'none'")
    scored: dict[Hashable, list[tuple[int, float]]] = defaultdict(list)
    for row, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        if reward is not None and not math.isnan(reward):
            scored[group].append((row, float(reward)))
    advantages: list[float | None] = [None] * len(rewards)
    for members in scored.values():
        for (row, _), value in zip(members, _centred([r for _, r in members], scale == "std", eps), strict=True):
            advantages[row] = value
    return advantages


def _centred(rewards: list[float], scaled: bool, eps: float) -> list[float]:
    if max(rewards) == min(rewards):  # also a group of one; decided before rounding can make the variance tiny, not zero
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    if not scaled:
        return [r - mean for r in rewards]
    std = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (std + eps) for r in rewards]
