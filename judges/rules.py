"""The comparisons of the exact judge, one function each: (question, gold, answer), all folded -> True, False, or None for not sure.

The order of ``RULES`` matters: the first verdict counts. A rule that does not apply says None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from judges.dates import parse_date
from judges.numerals import chinese_number, english_ordinal
from judges.quantity import parse_quantity, same_quantity
from judges.text import Words, is_interval, same_words, words

Rule = Callable[[str, str, str], bool | None]


def alias(question: str, gold: str, answer: str) -> bool | None:
    """The same words, articles aside. ``100,200`` may be a list, so it has to keep its comma where one was asked for."""
    if _GROUPED.search(gold + " " + answer) and _LISTING.search(question):
        return True if gold == answer else None
    return True if same_words(words(gold), words(answer)) else None


def date(question: str, gold: str, answer: str) -> bool | None:
    """The same date; False if a part that both give differs."""
    first, second = parse_date(gold), parse_date(answer)
    if first is None or second is None or (_COUNTED.search(question) and not (gold.isdigit() and answer.isdigit())):
        return None
    return first.agrees(second)


def number(question: str, gold: str, answer: str) -> bool | None:
    """The same quantity; ``1,000`` is one number unless the question asks for a list."""
    if _GROUPED.search(gold + " " + answer) and _LISTING.search(question):
        return None
    first, second = parse_quantity(gold), parse_quantity(answer)
    return None if first is None or second is None else same_quantity(question, first, second)


def ordinal(question: str, gold: str, answer: str) -> bool | None:
    """``3rd``, ``third``, ``第三``: the same place."""
    first, second = _ordinal(gold), _ordinal(answer)
    return None if first is None or second is None else first == second


def yes_no(question: str, gold: str, answer: str) -> bool | None:
    """The same of yes and no; true and false are a pair of their own (``yes`` to "is it false that ..." is not ``true``)."""
    for pair in _POLAR:
        first, second = (next((side for side, forms in pair.items() if text.strip(" .!") in forms), None) for text in (gold, answer))
        if first is not None and second is not None:
            return first == second
    return None


def choice(question: str, gold: str, answer: str) -> bool | None:
    """The same letter of a multiple choice; ``Option B``, ``选B`` and ``B)`` are ``B``."""
    first, second = _CHOICE.fullmatch(gold), _CHOICE.fullmatch(answer)
    return None if first is None or second is None else first[1] == second[1]


def listed(question: str, gold: str, answer: str) -> bool | None:
    """Lists of equal length whose elements agree in order; None where only the order differs, False where an element surely does."""
    if is_interval(gold) or is_interval(answer):
        return None
    for split in (_elements, _elements_with_and):
        first, second = split(gold), split(answer)
        if len(first) < 2 or len(first) != len(second):
            continue
        verdicts = [_element(question, a, b) for a, b in zip(first, second, strict=True)]
        if all(verdicts):
            return True
        shuffled = all(any(_element(question, a, b) for b in second) for a in first)
        if False in verdicts and not shuffled and _LIST_MARK.search(gold):
            return False
    return None


def spacing(question: str, gold: str, answer: str) -> bool | None:
    """The same letters with other spaces (``sea gull``), where no digits and no negation could change meaning."""
    first, second = words(gold), words(answer)
    plain = all(word.isalpha() for word in (*first, *second)) and not {*first, *second} & {"no", "not", "non", "un", "in", "a", "the"}
    return True if plain and len("".join(first)) >= 6 and "".join(first) == "".join(second) else None


def negated(question: str, gold: str, answer: str) -> bool | None:
    """``not X`` where the gold is X."""
    positive = re.sub(
        r"^(?:definitely |certainly )?(?:not|isn't|is not|it is not|it's not|anything but|anyone but|不是|并非|绝不是)\s*", "", answer
    )
    return False if positive != answer and same_words(words(gold), words(positive)) else None


def other_option(question: str, gold: str, answer: str) -> bool | None:
    """The other of two options that the question itself offers: ``Which came first, X or Y?``"""
    asked, right, given = (tuple(word for word in words(text) if word != "the") for text in (question, gold, answer))
    if not right or not given or right == given:
        return None
    offered = any(_offers(asked, pair, middle) for pair in ((right, given), (given, right)) for middle in _BETWEEN)
    return False if offered else None


RULES: Mapping[str, Rule] = {
    "alias": alias,
    "date": date,
    "number": number,
    "ordinal": ordinal,
    "yes-no": yes_no,
    "choice": choice,
    "list": listed,
    "spacing": spacing,
    "negation": negated,
    "other-option": other_option,
}

_GROUPED = re.compile(r"(?<!\d)\d{1,3}(?:,\d{3})+(?!\d)")
_LISTING = re.compile(r"\blists?\b|comma|separated|in (?:ascending|descending|alphabetical) order|逗号|分隔|列出|依次")
_COUNTED = re.compile(r"\bhow (?:many|much|long|old|far|tall|high)\b|多少|几[个人次名只条家座]")
_POLAR = (
    {True: {"yes", "yep", "yeah", "是", "是的", "对", "对的"}, False: {"no", "nope", "否", "不", "不是", "不对"}},
    {True: {"true", "correct", "正确", "真"}, False: {"false", "incorrect", "错误", "错", "假", "不正确"}},
)
_CHOICE = re.compile(r"(?:option|choice|选项?|\()?\s*([a-j])(?:\s*[).:])?")
_LIST_MARK = re.compile(r"[;、]|,(?!\d{3}(?:\D|$)).*,(?!\d{3}(?:\D|$))|^[\d.,\s-]+$")
_SEPARATOR = r"\s*[;、]\s*|\s*,(?!\d{3}(?:\D|$))\s*"
_BETWEEN: tuple[Words, ...] = (("or",), ("还", "是"), ("或",), ("或", "者"), ("和",), ("and",), ("与",))


def _ordinal(text: str) -> int | None:
    found = re.fullmatch(r"第\s*(\d+|[^\d\s]+?)\s*[届次名位个任代版季集卷部]?", text)
    if not found:
        return english_ordinal(text.removeprefix("the "))
    return int(found[1]) if found[1].isdigit() else chinese_number(found[1])


def _elements(text: str) -> list[str]:
    return [part for part in re.split(_SEPARATOR, text) if part]


def _elements_with_and(text: str) -> list[str]:
    parts = re.split(rf"\s*,?\s*(?:\band\b|&|和|及|与|以及)\s*|{_SEPARATOR}", text)
    return [part for part in parts if part]


def _element(question: str, gold: str, answer: str) -> bool | None:
    verdicts = (rule(question, gold, answer) for rule in (alias, date, number, ordinal, spacing))
    return next((verdict for verdict in verdicts if verdict is not None), None)


def _offers(asked: Words, pair: tuple[Words, Words], middle: Words) -> bool:
    sought = (*pair[0], *middle, *pair[1])
    return any(asked[start : start + len(sought)] == sought for start in range(len(asked) - len(sought) + 1))
