"""In what an evaluation departs from a published benchmark, in words: why no published result compares with it.

Beside the comparability code, which says only whether two of our own results compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

RULES_ALONE = "judged by rules alone"  # published results of open questions have a model's verdicts


def departures(*, asked: int, published: int, searches: bool = False, web: str | None = None) -> tuple[str, ...]:
    """Of a published set of ``published`` questions. ``searches``: the open web, for which ``web`` (as ``--web`` names it) stood."""
    words = [f"{asked:,} of {published:,} questions"] if asked < published else []
    if searches and web is None:
        words.append("nothing to search")
    elif searches and web is not None and web.startswith("corpus:"):
        words.append(f"searched {Path(web).name} instead of the web")
    return tuple(words)


def judged_by(judge: str, departs: Sequence[str]) -> tuple[str, ...]:
    """The same under another judge (``exact`` is the name of the rules over open questions)."""
    return (*(words for words in departs if words != RULES_ALONE), *((RULES_ALONE,) if judge == "exact" else ()))


def caveat(departs: Sequence[str]) -> str:
    """One line; empty where the benchmark was run as published."""
    return f"not comparable with published results: {'; '.join(departs)}" if departs else ""
