"""The smallest sufficient guidance level by binary search (paper, Eq. 10 and Algorithm 1), assuming monotone recovery.

``search`` is a generator: it yields a level to try and receives whether it sufficed, so that the same code is driven by a
synchronous oracle here and by asynchronous rollouts in the trainer. It never returns a level that was not tried and found sufficient.
Level 0 is never tried: the unguided group has just failed. ``release_search`` does as the authors' code, which keeps neither promise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from fractions import Fraction

from harness.errors import HarnessError

Probe = Generator[int, bool, "Found"]
"""Yields levels, receives whether each sufficed, returns what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """``level`` is None where no level sufficed or the budget ended first; ``probed`` lists (level, sufficed) in order."""

    level: int | None
    probed: tuple[tuple[int, bool], ...] = ()


def default_budget(levels: int) -> int:
    """ceil(log2 L) + 1 probes: enough to end the search over 1..L, level L included."""
    return math.ceil(math.log2(levels)) + 1 if levels > 0 else 0


def fixed_level(levels: int, level: int | None, ratio: float | None) -> int | None:
    """The level without a search: ``level`` where the task has as many actions, else all of them; or ceil(ratio * L). None: search.

    >>> fixed_level(5, None, 0.2), fixed_level(5, None, 0.21), fixed_level(5, 9, None)
    (1, 2, 5)
    """
    if level is not None:
        return min(level, levels)
    return None if ratio is None else math.ceil(Fraction(str(ratio)) * levels)  # in binary, 0.07 * 100 would be more than 7


def search(levels: int, budget: int) -> Probe:
    """Yield levels of 1..``levels`` (at most ``budget`` of them), receive whether each sufficed, return what was found.

    >>> probe = search(4, 3)
    >>> next(probe), probe.send(False)
    (3, 4)
    """
    _check(levels, budget)
    low, high = 1, levels + 1  # the answer lies in low..high, where high = levels + 1 stands for "none"
    verified: int | None = None
    probed: list[tuple[int, bool]] = []
    while low < high and len(probed) < budget:
        level = (low + high) // 2
        sufficed = yield level
        probed.append((level, sufficed))
        if sufficed:
            verified = high = level
        else:
            low = level + 1
    return Found(level=verified, probed=tuple(probed))


def release_search(levels: int, budget: int) -> Probe:
    """The authors' search: it tries 0..L-1, never L, and returns the lower end of what is left when it or its budget ends, tried
    or not (0 where it settles on no guidance).

    >>> probe = release_search(4, 5)
    >>> next(probe), probe.send(False)
    (2, 3)
    """
    _check(levels, budget)
    low, high = 0, levels
    probed: list[tuple[int, bool]] = []
    while low < high and len(probed) < budget:
        level = (low + high) // 2
        sufficed = yield level
        probed.append((level, sufficed))
        low, high = (low, level) if sufficed else (level + 1, high)
    return Found(level=low, probed=tuple(probed))


def smallest_sufficient_level(succeeds: Callable[[int], bool], levels: int, budget: int) -> Found:
    """Drive ``search`` with a synchronous oracle.

    >>> smallest_sufficient_level(lambda k: k >= 3, 5, 4).level
    3
    """
    return drive(search(levels, budget), succeeds)


def drive(probe: Probe, succeeds: Callable[[int], bool]) -> Found:
    """Answer every level that a search yields with an oracle."""
    try:
        level = next(probe)
        while True:
            level = probe.send(succeeds(level))
    except StopIteration as end:
        found: Found = end.value
        return found


def _check(levels: int, budget: int) -> None:
    if levels < 0 or budget < 0:
        raise HarnessError(f"guidance search needs levels >= 0 and budget >= 0, got {levels} and {budget}")
