"""What one check of a model says: what was seen, what would go wrong in training because of it, and what to set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """ERROR: training, or the use of what it made, would be corrupted. WARNING: know it before you go on."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """One check: what was seen, and unless all is well, its consequence and the remedy."""

    name: str
    verdict: Verdict
    found: str
    consequence: str = ""
    remedy: str = ""


def worst(checks: Sequence[Checkup]) -> Verdict:
    """ERROR if any is one, else WARNING if any is, else OK; what was skipped says nothing."""
    found = {check.verdict for check in checks}
    return next((verdict for verdict in (Verdict.ERROR, Verdict.WARNING) if verdict in found), Verdict.OK)


def plain(check: Checkup) -> dict[str, str]:
    """A row for JSON."""
    return {
        "name": check.name,
        "verdict": str(check.verdict),
        "found": check.found,
        "consequence": check.consequence,
        "remedy": check.remedy,
    }
