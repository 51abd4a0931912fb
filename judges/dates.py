"""Dates as people write them in English and Chinese, with parts that may be absent. A text that is more than a date is none.

``03/05/1990`` reads as March or May, so it is no date here; neither are decades (``1990s``), seasons, or ``90年``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from judges.numerals import chinese_digits

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")


@dataclass(frozen=True, slots=True, kw_only=True)
class Date:
    """A date of the Gregorian calendar; a year before the common era is negative. At least one part is given."""

    year: int | None = None
    month: int | None = None
    day: int | None = None

    def agrees(self, other: Date) -> bool | None:
        """True if equal, False if a part that both give differs, None if one only says more than the other."""
        pairs = ((self.year, other.year), (self.month, other.month), (self.day, other.day))
        if any(a is not None and b is not None and a != b for a, b in pairs):
            return False
        return True if self == other else None


def parse_date(text: str) -> Date | None:
    """The date that a folded text is, or None."""
    text = _WEEKDAY.sub("", text.strip(" .,"))
    for form in _FORMS:
        found = form.fullmatch(text)
        if found:
            return _date(found.groupdict())
    spoken = chinese_digits(text)
    return parse_date(spoken) if spoken != text else None


def _date(parts: dict[str, str | None]) -> Date | None:
    year, month, day = (_number(parts.get(key)) for key in ("year", "month", "day"))
    if not 1 <= (month or 1) <= 12 or not 1 <= (day or 1) <= 31 or 0 in (month, day):
        return None
    if year is not None and (parts.get("era") or parts.get("zh_era")):
        year = -year if _BEFORE.search(f"{parts.get('era')}{parts.get('zh_era')}") else year
    return Date(year=year, month=month, day=day)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    return int(text) if text.isdigit() else next(n for n, name in enumerate(_MONTHS, start=1) if name.startswith(text.rstrip(".")[:3]))


_NAMES = "|".join(rf"{name}|{name[:3]}\.?" for name in _MONTHS) + r"|sept\.?"
_MONTH, _DAY = rf"(?P<month>{_NAMES})", r"(?:the )?(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_ERA = r"(?:\s*(?P<era>b\.?c\.?(?:e\.?)?|a\.?d\.?|c\.?e\.?))"
_YEAR = r"(?P<year>[12]\d{3})"
_BEFORE = re.compile(r"b|公元前|西元前|前")
_WEEKDAY = re.compile(
    r"^(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?[.,]\s*|^(?:on|in)\s+|[,\s]*\(?(?:星期|周|礼拜)[一二三四五六日天]\)?$"
)
_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"{_MONTH} {_DAY},? {_YEAR}",
        rf"{_DAY}(?: of)? {_MONTH},? {_YEAR}",
        rf"{_YEAR},? {_MONTH} {_DAY}",
        rf"{_MONTH},?(?: of)? {_YEAR}",
        rf"{_MONTH} {_DAY}",
        rf"{_DAY}(?: of)? {_MONTH}",
        rf"{_YEAR}[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}})",
        rf"{_YEAR}[-/](?P<month>0\d|1[0-2])",
        r"(?:the )?(?:year )?(?P<year>[12]\d{3})",
        rf"(?P<year>\d{{1,4}}){_ERA}",
        r"a\.?d\.? (?P<year>\d{1,4})",
        r"(?P<zh_era>公元前?|西元前?|前)?(?P<year>[12]\d{3}) ?年(?: ?(?P<month>\d{1,2}) ?月(?:份| ?(?P<day>\d{1,2}) ?[日号])?)?",
        r"(?P<zh_era>公元前?|西元前?)(?P<year>\d{1,4}) ?年",
        r"(?P<month>\d{1,2}) ?月(?:份| ?(?P<day>\d{1,2}) ?[日号])?",
    )
)
