"""From what a model gave as its answer to what a judge compares, and to how sure the model said it was.

The answer is what stands in the last ``<answer>`` of a turn (``harness.chat.parse_turn``); a line of its own that states a confidence is
taken off it here. A confidence that was not stated is None, never 100.
"""

from __future__ import annotations

import re
import unicodedata

EXTRACTOR = "answer-tag+confidence/1"
"""Name and version of the rule; part of a result's comparability."""

ASK_CONFIDENCE = "\n\n请在 <answer> 内先写答案，再另起一行写“置信度：”和一个 0% 到 100% 之间的数，表示你对该答案的把握。"
"""Said after a question where calibration is measured."""

_STATED = re.compile(
    r"^[\s*_#>-]*(?:confidence(?:\s+(?:level|score))?|置信度|信心|把握)[\s*_]*[:=是为]?[\s*_]*"
    r"(?P<number>\d{1,3}(?:\.\d+)?)\s*(?P<percent>%|/\s*100|percent)?[\s*_.。]*$",
    re.IGNORECASE,
)


def split_confidence(text: str) -> tuple[str, float | None]:
    """The answer without its confidence line, and the confidence in [0, 1] or None.

    A number without ``%`` counts as percent unless it is below 1 and has a decimal point; one above 100 is no confidence.

    >>> split_confidence("杭州\\n置信度：85%")
    ('杭州', 0.85)
    >>> split_confidence("42")
    ('42', None)
    """
    lines = text.strip().splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    found = _STATED.match(unicodedata.normalize("NFKC", lines[-1])) if len(lines) > 1 else None
    if not found:
        return text.strip(), None
    number = float(found["number"])
    share = number if not found["percent"] and "." in found["number"] and number <= 1 else number / 100
    return "\n".join(lines[:-1]).strip(), share if share <= 1 else None
