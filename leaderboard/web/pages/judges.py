"""What the judges did, and how far they agree."""

from __future__ import annotations

from dataclasses import dataclass

from leaderboard.web.pages.shared import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeLine:
    """One judge: how far it was checked against known answers, and what it did here."""

    name: str
    verdicts: str
    accepted: str
    undecided: str
    false_accepts: str
    false_rejects: str
    cases: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementLine:
    """Two judges on the same attempts."""

    a: str
    b: str
    n: int
    both_right: int
    both_wrong: int
    only_a: int
    only_b: int
    agreement: str
    kappa: str
    bar: tuple[tuple[str, float, int], ...]
    examples: tuple[Link, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgesPage:
    """Can the judges be believed?"""

    judges: tuple[JudgeLine, ...]
    agreements: tuple[AgreementLine, ...]
