"""The judge that needs no model: it decides only where a careful person would not hesitate, and names the rule that decided.

Accepted is an answer that *is* an accepted form: the same words, date, number with unit, or list, give or take what carries
no meaning (width, case, quotes, articles, markup, ``The answer is``). An answer that merely contains the gold is never accepted.
Refused for sure are non-answers, another number, another date, the other of two options. The rest is undecided, unless the
task is closed: then the gold lists every form, and what matches none is wrong.

Deliberately absent: similarity, stemming, transliteration, knowledge of aliases.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.types import Score, ScoreStatus
from judges.guards import alternatives, non_answer, orders_the_judge
from judges.rules import RULES
from judges.text import bare, fold, unwrapped, words

LONGEST_ANSWER = 1000  # characters; a longer text is a report, not an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactJudge:
    """``closed``: the gold lists every accepted form (mini web, MuSiQue, HotpotQA), so no match is wrong rather than undecided."""

    closed: bool = False

    @property
    def name(self) -> str:
        return "exact-closed" if self.closed else "exact"

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        return self.decide(question, gold, answer)

    def decide(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        """The verdict, without waiting for anything."""
        accepted = tuple(form for form in gold if form.strip())
        if not accepted:
            return _undecided("no-gold", "the task has no gold answer to compare with")
        if any(form.strip() == answer.strip() for form in accepted):
            return _judged(True, "alias")
        if len(answer) > LONGEST_ANSWER:
            if orders_the_judge(answer[:20_000]):
                return _judged(False, "injection")
            return self._unmatched("too-long", f"{len(answer)} characters, at most {LONGEST_ANSWER} are compared")
        return self._decide(question, accepted, answer)

    def _decide(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        reason = non_answer(question, tuple(words(fold(form)) for form in gold), answer)
        if reason == "injection":
            return _judged(False, reason)
        verdicts = [("case", None) if _case_decides(form, answer) else _compare(question, form, answer) for form in gold]
        layer = next((layer for layer, verdict in verdicts if verdict), None)
        if layer:
            return _judged(True, layer)
        if reason:
            return _judged(False, reason)
        if all(verdict is False for _, verdict in verdicts):
            return _judged(False, verdicts[0][0])
        if _is_shotgun(question, gold, answer):
            return _judged(False, "hedge")
        return self._unmatched("no-match", "")

    def _unmatched(self, layer: str, detail: str) -> Score:
        return _judged(False, layer) if self.closed else _undecided(layer, detail)


def _compare(question: str, gold: str, answer: str) -> tuple[str, bool | None]:
    """The first rule with a verdict on one accepted form, and the verdict. An announcement in front of the answer may be part of it."""
    asked, form = fold(question), unwrapped(gold)
    given = dict.fromkeys((unwrapped(answer), bare(answer)))
    for layer, rule in RULES.items():
        verdicts = [rule(asked, form, text) for text in given]
        if True in verdicts:
            return layer, True
        if False in verdicts:
            return layer, False
    return "no-match", None


def _is_shotgun(question: str, gold: tuple[str, ...], answer: str) -> bool:
    """Several answers where one was asked for: three or more alternatives, or two that exclude each other."""
    parts = alternatives(answer)
    if len(parts) < 2 or any(_SEVERAL.search(form) for form in gold):
        return False
    first, second = (unwrapped(part) for part in parts[:2])
    return len(parts) > 2 or any(RULES[name](fold(question), first, second) is False for name in _EXCLUSIVE)


def _case_decides(gold: str, answer: str) -> bool:
    """Whether two texts differ in case where case has a meaning: ``CO`` and ``Co``, ``5 mW`` and ``5 MW``."""
    first = "".join(gold.strip(_AROUND).split())
    second = "".join(answer.strip(_AROUND).split())[-len(first) :]
    if first == second or first.casefold() != second.casefold():
        return False
    return _SCALED.search(first) is not None or (len(first) <= 2 and not first.islower() and not second.islower())


_SEVERAL = re.compile(r"[,;、，；]|\b(?:and|or)\b|和|及|或")
_SCALED = re.compile(r"\d(?:m|g|k|t)?(?:w|wh|b|bps|pa|v|a|j|hz)$", re.IGNORECASE)
_AROUND = " .。*`\"'“”‘’()（）"
_EXCLUSIVE = ("date", "number", "yes-no", "choice")


def _judged(right: bool, layer: str) -> Score:
    return Score(value=float(right), status=ScoreStatus.JUDGED, layer=f"exact:{layer}")


def _undecided(layer: str, detail: str) -> Score:
    return Score(value=None, status=ScoreStatus.UNDECIDED, layer=f"exact:{layer}", detail=detail)
