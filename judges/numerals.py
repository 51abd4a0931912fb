"""Numbers in words: English (``one hundred and five``, ``third``) and Chinese (``二十五``, ``一九九〇``, ``第三``)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ENGLISH: dict[str, int] = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}

_DIGITS = {character: n for n, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_PLACES = {"十": 10, "百": 100, "千": 1000}
_CHINESE = "".join((*_DIGITS, *_PLACES, "万亿"))


def english_number(words: Sequence[str]) -> int | None:
    """The number that all of the words spell together, or None."""
    total, part, spelled = 0, 0, False
    last = 10**15  # scales must fall; ones and tens fill a part from its left
    room = 10**3
    for word in words:
        if word == "and" and spelled and room <= 100:
            continue
        if word in _ENGLISH and _ENGLISH[word] < room and (room > 10 or 0 < _ENGLISH[word] < 10):
            part += _ENGLISH[word]
            room = 10 if _ENGLISH[word] >= 20 else 0
        elif word == "hundred" and 0 < part < 10 and room == 0:
            part, room = part * 100, 100
        elif word in _SCALES and part > 0 and _SCALES[word] < last:
            total, part, last, room = total + part * _SCALES[word], 0, _SCALES[word], 10**3
        else:
            return None
        spelled = True
    return total + part if spelled and (not words or words[-1] != "and") else None


def english_ordinal(text: str) -> int | None:
    """``3rd``, ``third``, ``twenty-first``, ``thirtieth``; None for anything else."""
    digits = re.fullmatch(r"(\d+)(?:st|nd|rd|th)", text)
    if digits:
        return int(digits[1])
    *front, last = text.replace("-", " ").split() or [""]
    if last in _ORDINALS:
        return english_number([*front, _ONES[_ORDINALS[last]]])
    stem = last.removesuffix("th")
    stem = stem[:-2] + "y" if stem.endswith("ie") else stem
    return english_number([*front, stem]) if last.endswith("th") and stem in (*_ENGLISH, "hundred", *_SCALES) else None


def chinese_number(text: str) -> int | None:
    """``二十五`` 25, ``三千零一十`` 3010, ``一亿两千万``, ``一九九〇`` 1990; None for anything else."""
    if not text or any(character not in _CHINESE for character in text):
        return None
    if all(character in _DIGITS for character in text):
        return int("".join(str(_DIGITS[character]) for character in text))
    total, section = 0, 0
    digit: int | None = None
    for character in text:
        if character in _DIGITS:
            if digit:  # two digits side by side: 三五 within a placed number is "three or five"
                return None
            digit = _DIGITS[character]
        elif character in _PLACES:
            section += (1 if digit is None else digit) * _PLACES[character]
            digit = None
        elif character == "万":
            total, section, digit = total + (section + (digit or 0)) * 10**4, 0, None
        else:  # 亿 counts everything before it
            total, section, digit = (total + section + (digit or 0)) * 10**8, 0, None
    if digit and text[-2] not in "十零〇":
        return None  # 一百五 is 150 in speech; too unsure to read
    return total + section + (digit or 0)


def chinese_digits(text: str) -> str:
    """The text with Chinese numerals before 年, 月, 日, 号 as digits; ``十`` alone counts as 10."""

    def as_digits(found: re.Match[str]) -> str:
        number = chinese_number(found[0])
        return found[0] if number is None else str(number)

    return re.sub(rf"[{_CHINESE}]+(?=\s*[年月日号])", as_digits, text)
