"""Quantities: a number in figures or words, a multiplier (``million``, ``万``), a unit or a counted noun, and nothing else.

``about 5``, ``5 or 6`` and ``5-6`` are no quantities: only an exact statement can be compared exactly. Values are fractions,
so ``0.1 + 0.2`` never matters, and ``inf`` and ``nan`` do not exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from judges.numerals import chinese_number, english_number
from judges.text import CJK, words
from judges.units import Unit, find_unit, mentions, rivals


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """``value`` has its multiplier applied, not its unit; ``noun`` holds words after the number that are no unit."""

    value: Fraction
    figures: str  # the number as written, without separators
    unit: Unit | None = None
    noun: tuple[str, ...] = ()
    spelled: bool = False  # written in words
    multiplied: bool = False

    @property
    def is_bare(self) -> bool:
        return self.unit is None and not self.noun


def parse_quantity(text: str) -> Quantity | None:
    """The quantity that a folded text is, or None."""
    text = text.strip().rstrip(" .")
    sign, text = _sign(text)
    prefix, text = _prefix(text)
    if not sign:
        sign, text = _sign(text)
    read = _figures(text) or _spelled(text)
    if read is None:
        return None
    value, figures, rest = read
    multiplier, rest = _multiplier(rest)
    described = _described(rest, prefix)
    if described is None:
        return None
    unit, noun = described
    if unit and unit.dimension == "time" and unit.factor == 1 and re.fullmatch(r"[12]\d{2}0s", text):
        return None  # a decade
    value = value * multiplier * (-1 if sign else 1)
    return Quantity(
        value=value, figures=figures, unit=unit, noun=noun, spelled=not figures.lstrip(".")[:1].isdigit(), multiplied=multiplier != 1
    )


def same_quantity(question: str, gold: Quantity, answer: Quantity) -> bool | None:
    """Whether two quantities are the same: True and False only where that is sure. ``question`` is folded."""
    if gold.unit and answer.unit and gold.unit is not answer.unit:
        return _other_units(gold, gold.unit, answer, answer.unit)
    if gold.noun and answer.noun and _singular(gold.noun) != _singular(answer.noun):
        return None
    if (gold.is_bare != answer.is_bare) and not _implied(question, answer if gold.is_bare else gold):
        return None
    if bool(gold.unit) != bool(answer.unit) and not (gold.is_bare or answer.is_bare):
        return None  # "5 km" beside "5 laps"
    if _is_code(gold.figures) or _is_code(answer.figures) or (_LITERAL.search(question) and "." in gold.figures + answer.figures):
        return None  # 007, 02134, version 3.10: the figures are a name
    if gold.value == answer.value:
        counted = gold.spelled == answer.spelled or not gold.is_bare or not answer.is_bare or _COUNTING.search(question)
        return True if counted else None  # a song called One is not 1
    if gold.is_bare != answer.is_bare and gold.value in (answer.value * 100, answer.value / 100):
        return None  # 0.5 beside 50%
    unsure = _could_be_rounded(gold, answer) or _in_thousands(gold, gold.value, answer, answer.value) or _MULTIPLIERS.search(question)
    return None if unsure else False


def _other_units(gold: Quantity, unit: Unit, answer: Quantity, other: Unit) -> bool | None:
    if unit.dimension != other.dimension:
        money = {unit.dimension, other.dimension}
        return False if all(name.startswith("money ") for name in money) and "money ¥" not in money else None
    left, right = gold.value * unit.factor, answer.value * other.factor
    if left == right:
        return True
    if _in_thousands(gold, left, answer, right):
        return None
    return None if left and abs(right / left - 1) < Fraction(1, 20) else False  # 5 miles and 8 km: a rounded conversion


def _implied(question: str, described: Quantity) -> bool:
    """Whether the question itself says what is measured or counted, so that a bare number means the same."""
    if described.unit:
        if described.unit.dimension.startswith("money ") and _PRICE.search(question) and not rivals(question, described.unit):
            return True
        return mentions(question, described.unit) and not rivals(question, described.unit)
    windows = [found[1] or found[2] or "" for found in _ASKED.finditer(question)]
    return len(windows) == 1 and set(_singular(described.noun)) <= set(_singular(words(windows[0])))


def _could_be_rounded(gold: Quantity, answer: Quantity) -> bool:
    """Whether one value may be the other, rounded. Plain integers of up to four figures are exact."""
    plain = all(q.value.denominator == 1 and abs(q.value) < 10_000 and not q.multiplied for q in (gold, answer))
    if plain:
        return gold.figures[-2:] == answer.figures and len(gold.figures) == 4  # a year's last two figures
    if not gold.value or not answer.value:
        return False
    return abs(gold.value - answer.value) <= Fraction(1, 50) * max(abs(gold.value), abs(answer.value))


def _in_thousands(gold: Quantity, left: Fraction, answer: Quantity, right: Fraction) -> bool:
    """Whether the two are the same once the point of one of them marks thousands, as in much of Europe: ``1.000`` beside 1,000."""
    return (left * 1000 == right and _POINTED.fullmatch(gold.figures) is not None) or (
        right * 1000 == left and _POINTED.fullmatch(answer.figures) is not None
    )


def _is_code(figures: str) -> bool:
    return len(figures) > 1 and figures[0] == "0" and figures.isdigit()


def _singular(found: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in found)


def _sign(text: str) -> tuple[bool, str]:
    found = re.match(r"(-|minus |negative |负|零下)\s*(?=\S)", text)
    return (True, text[found.end() :]) if found else (False, text)


def _prefix(text: str) -> tuple[str, str]:
    found = re.match(r"(us\$|\$|€|£|¥|usd|eur|gbp|rmb|cny|人民币|百分之)\s*(?=\S)", text)
    return (found[1], text[found.end() :]) if found else ("", text)


def _figures(text: str) -> tuple[Fraction, str, str] | None:
    found = _FIGURES.match(text)
    if not found:
        return None
    figures = found["number"].replace(",", "")
    if len(found[0]) > 100:
        return None  # no answer, and slow to compute with
    value = Fraction(figures)
    if found["power"]:
        value *= Fraction(10) ** int(found["power"])
    if found["over"]:
        if int(found["over"]) == 0 or not figures.isdigit():
            return None
        value /= int(found["over"])
        value += int(found["whole"] or 0)
    return value, found[0].replace(",", ""), text[found.end() :]


def _spelled(text: str) -> tuple[Fraction, str, str] | None:
    chinese = re.match(r"[零〇一二两三四五六七八九十百千万亿]+", text)
    if chinese:
        number = chinese_number(chinese[0])
        return None if number is None else (Fraction(number), chinese[0], text[chinese.end() :])
    parts = text.replace("-", " ").split()
    for end in range(len(parts), 0, -1):
        number = english_number(parts[:end])
        if number is not None:
            return Fraction(number), " ".join(parts[:end]), " ".join(parts[end:])
    return None


def _multiplier(rest: str) -> tuple[int, str]:
    found = re.match(r"\s*(thousand|million|billion|trillion|bn|百万|千万|十亿|百亿|千亿|万亿|百|千|万|亿)(?![a-z米克瓦赫])", rest)
    return (_SIZES[found[1]], rest[found.end() :]) if found else (1, rest)


def _described(rest: str, prefix: str) -> tuple[Unit | None, tuple[str, ...]] | None:
    """What follows the number: a unit, or up to three words that could be a counted noun. None if it is anything else."""
    rest = rest.strip(" -").removeprefix("of ").strip()
    named = find_unit(prefix) if prefix else None
    if not rest:
        return named, ()
    unit = find_unit(rest)
    if unit:
        return None if named and named is not unit else (unit, ())
    noun = words(rest)
    short = len(noun) <= 3 if rest.isascii() else len(noun) <= 4
    if (
        named
        or not noun
        or not short
        or not all(re.fullmatch(rf"[a-z]+|[{CJK}]", word) for word in noun)
        or re.search(r"[,;:!?()、/\"]", rest)
    ):
        return None
    return None if set(noun) & _NO_NOUN else (None, noun)


_FIGURES = re.compile(
    r"(?:(?P<whole>\d+)\s+(?=\d+/\d))?(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d+(?:\.\d+)?|\.\d+)(?![\d:]|[.,]\d|-\d)"
    r"(?:\s*[x×*]\s*10\s*\^\s*(?P<power>-?\d{1,2})(?!\d)|/(?P<over>\d+)(?![\d/]))?"
)
_POINTED = re.compile(r"[1-9]\d{0,2}\.\d{3}")
_SIZES = {
    **dict(zip(("thousand", "million", "billion", "trillion"), (10**3, 10**6, 10**9, 10**12), strict=True)),
    **dict(zip(("bn", "百", "千", "万", "百万", "千万"), (10**9, 100, 10**3, 10**4, 10**6, 10**7), strict=True)),
    **dict(zip(("亿", "十亿", "百亿", "千亿", "万亿"), (10**8, 10**9, 10**10, 10**11, 10**12), strict=True)),
}
_NO_NOUN = frozenset(  # words after a number that make it something else than an exact count
    [
        *("or", "and", "to", "not", "no", "about", "approximately", "around", "over", "under", "more", "less", "most", "least"),
        *("almost", "nearly", "other", "than", "if", "maybe", "st", "nd", "rd", "th", *"或多余几约左右不非上下"),
    ]
)
_MULTIPLIERS = re.compile(r"hundred|thousand|million|billion|trillion|百|千|万|亿|scientific|rounded|四舍五入|保留")
_COUNTING = re.compile(r"\b(?:how many|how much|number of|count|how old|how long|how often|what number)\b|几|多少|数量|总数|人数|次数|个数")
_ASKED = re.compile(r"(?:how many|number of|count of)((?:\s+[\w'-]+){1,4})|(?:几|多少)(?=(.{1,5}))")
_LITERAL = re.compile(r"\b(?:version|release|section|chapter|model|code|firmware)\b|版本|章节|型号|编号|代码")
_PRICE = re.compile(
    r"\b(?:price|cost|costs|salary|budget|revenue|paid|pay|worth|money|sales|fee|fine|income|profit)\b|价格|多少钱|票房|工资|收入|费用|预算"
)
