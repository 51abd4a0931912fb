"""How many repeated groups a level needs before the smallest sufficient one is known (paper, Appendix C, Eq. 24). Pure.

Q_k is the probability that a group at level k recovers reward. If every Q_k lies at least a margin D away from the threshold rho,
Hoeffding's inequality and a union bound over the levels 0..K give: with m >= ln(2 (K + 1) / xi) / (2 D^2) groups at every level, the
smallest level whose observed share reaches rho is the right one with probability at least 1 - xi.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from harness.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """Eq. 24 in its pieces: ``groups`` is ``log_term / twice_margin_squared``, rounded up."""

    levels: int  # K
    margin: float  # D
    xi: float  # the probability of a wrong level that is accepted
    events: int  # 2 (K + 1): each level may err upwards or downwards
    log_term: float  # ln(events / xi)
    twice_margin_squared: float
    bound: float
    groups: int


def groups_to_identify(levels: int, margin: float, confidence: float) -> Identification:
    """Groups per level by Eq. 24, with ``confidence`` = 1 - xi. Raises ``UsageError`` outside the domain of the bound.

    >>> groups_to_identify(5, 0.1, 0.95).groups
    275
    """
    if levels < 1:
        raise UsageError(f"levels is {levels}, expected at least 1: K counts the levels above the unguided one")
    if not 0 < margin <= 0.5:
        raise UsageError(f"margin is {margin}, expected above 0 and at most 0.5: probabilities lie that far on both sides of the threshold")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}, expected between 0 and 1, both excluded (e.g. 0.95)")
    xi = float(1 - Decimal(str(confidence)))
    events, twice = 2 * (levels + 1), 2 * margin**2
    log_term = math.log(events / xi)
    bound = log_term / twice
    return Identification(
        levels=levels,
        margin=margin,
        xi=xi,
        events=events,
        log_term=log_term,
        twice_margin_squared=twice,
        bound=bound,
        groups=math.ceil(bound),
    )
