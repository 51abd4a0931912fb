"""GAIA's own rule, quasi-exact match: the board's way to score GAIA, without any model. It decides every answer.

A gold number is compared as a number, a gold list (``,`` or ``;``) element by element in order, anything else without case, white space
and ASCII punctuation. Mended where the published rule slips: full-width forms are folded first, ``1,000`` is one thousand as well as a
list, ``inf`` and ``nan`` are words, ``1_000`` is no number, an empty answer matches nothing. A leading article still counts, as it does
there.
"""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from harness.types import Score, ScoreStatus

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,3})?", re.IGNORECASE)
_GROUPED = re.compile(r"[$€£¥]?[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?%?")
_SEPARATORS = re.compile(r"[,;]")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuasiExactJudge:
    """``closed`` changes nothing: this rule never leaves an answer undecided."""

    closed: bool = False
    name: str = "gaia"

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        accepted = [form for form in gold if form.strip()]
        if not accepted:
            return Score(
                value=None, status=ScoreStatus.UNDECIDED, layer="gaia:no-gold", detail="the task has no gold answer to compare with"
            )
        right = any(quasi_exact(form, answer) for form in accepted)
        return Score(value=float(right), status=ScoreStatus.JUDGED, layer="gaia:quasi-exact")


def quasi_exact(gold: str, answer: str) -> bool:
    """Whether an answer matches a gold answer by GAIA's rule.

    >>> quasi_exact("17", "$17.0"), quasi_exact("3, 4; b", "3.0,４，B"), quasi_exact("St. Petersburg", "st petersburg")
    (True, True, True)
    """
    gold, answer = (unicodedata.normalize("NFKC", text).strip() for text in (gold, answer))
    if not answer:
        return False
    number = _number(gold)
    if number is not None:
        return _number(_stripped(answer)) == number
    if _GROUPED.fullmatch(gold) and _number(_stripped(gold)) == _number(_stripped(answer)):
        return True
    if _SEPARATORS.search(gold):
        return _same_list(_SEPARATORS.split(gold), _SEPARATORS.split(answer))
    return _same_text(gold, answer)


def _same_list(gold: list[str], answer: list[str]) -> bool:
    return len(gold) == len(answer) and all(_same_element(a, b) for a, b in zip(gold, answer, strict=True))


def _same_element(gold: str, answer: str) -> bool:
    number = _number(gold)
    return _squeezed(gold) == _squeezed(answer) if number is None else _number(_stripped(answer)) == number


def _same_text(gold: str, answer: str) -> bool:
    first, second = (_squeezed(text).translate(_NO_PUNCTUATION) for text in (gold, answer))
    return first == second if first else _squeezed(gold) == _squeezed(answer)


def _stripped(text: str) -> str:
    return re.sub(r"[$%,]", "", text)


def _squeezed(text: str) -> str:
    return re.sub(r"\s", "", text).lower()


def _number(text: str) -> Fraction | None:
    text = text.strip()
    return Fraction(text) if len(text) <= 100 and _NUMBER.fullmatch(text) else None
