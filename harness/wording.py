"""Words that depend on a number."""

from __future__ import annotations


def plural(n: float, noun: str, many: str = "") -> str:
    """The noun as it stands behind ``n``; ``many`` where an s is not enough.

    >>> f"{1} {plural(1, 'question')}, {2} {plural(2, 'question')}, {0} {plural(0, 'try', 'tries')}"
    '1 question, 2 questions, 0 tries'
    """
    return noun if n == 1 else many or f"{noun}s"
