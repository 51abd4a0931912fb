"""Answers as comparable words: width, case, accents, quotes, middle dots and spacing folded, everything that carries meaning kept.

What carries meaning stays a word of its own: a minus before a digit, ``% $ ° + / = ^ # ~``, decimal points, colons in times. So
``C#`` is not ``C``, ``-5`` is not ``5`` and ``10²`` is not ``102``. Nothing here compares or decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"

Words = tuple[str, ...]


def fold(text: str) -> str:
    """One line of lower-case NFKC text with plain quotes, dashes and dots; superscripts become ``^n``, ``½`` becomes `` 1/2``."""
    text = _VULGAR.sub(lambda mark: f" {unicodedata.normalize('NFKC', mark[0])}", text)
    text = _SUPERSCRIPTS.sub(lambda mark: "^" + unicodedata.normalize("NFKC", mark[0]), text)
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    text = unicodedata.normalize("NFKC", _ACCENTS.sub(r"\1", unicodedata.normalize("NFD", text)))
    return " ".join(text.casefold().split())


def unwrapped(text: str) -> str:
    """The folded text without quotes, brackets, markup or a full stop around the whole of it."""
    return _until_stable(fold(text), _unwrap_once)


def bare(answer: str) -> str:
    """``unwrapped``, and without an announcement in front: ``The final answer is: **Paris**.`` and ``答案：“Paris”。`` give ``paris``."""
    return _until_stable(fold(answer), lambda text: _unwrap_once(_LEADS.sub("", text, count=1)))


def words(text: str) -> Words:
    """Words of a folded text: runs of letters, numbers, single CJK characters and the symbols that carry meaning.

    >>> words(fold("J. R. R. Tolkien's “C++”, −1,000.5 km²"))
    ('jrr', 'tolkiens', 'c', '+', '+', '-', '1000.5', 'km', '^', '2')
    """
    text = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    text = _APOSTROPHES.sub("", text)
    if is_interval(text):
        text = re.sub(r"\s*,\s*", ", ", text)  # the comma separates: "(1,3)" is "(1, 3)"
    kept = _IN_FORMULA if _OPERATORS.search(text) or is_interval(text) else _IN_PROSE
    return tuple(_initials(kept.findall(text)))


def is_interval(text: str) -> bool:
    """Whether the brackets of a text mean something: ``[1, 3)`` is not ``(1, 3)``."""
    return _INTERVAL.fullmatch(text.strip()) is not None


def without_article(found: Words) -> tuple[str | None, Words]:
    """The leading English article, if any, and the rest; a text that is nothing but an article keeps it."""
    if len(found) > 1 and found[0] in _ARTICLES and found[1] not in _ARTICLES and len(found[1]) > 1:
        return found[0], found[1:]
    return None, found


def same_words(gold: Words, answer: Words) -> bool:
    """Equal words, give or take an article (``The Beatles``); two different articles differ."""
    if not gold or not answer:
        return False
    (article, rest), (other, others) = without_article(gold), without_article(answer)
    return rest == others and (article == other or article is None or other is None)


_ARTICLES = ("the", "a", "an")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹⁺⁻]+")
_ACCENTS = re.compile("([A-Za-z])[\u0300-\u036f]+")  # Latin only: in other scripts a mark can make another letter
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("“”„‟″〝〞«»「」『』《》〈〉", '"'),
        **dict.fromkeys("‘’‚‛′`´", "'"),
        **dict.fromkeys("‐‑‒–—―−－", "-"),
        **dict.fromkeys("·•・‧∙⋅", "·"),
        "⁄": "/",
        "。": ".",
        "、": "、",
        "∶": ":",
        "ß": "ss",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
        "\u200b": "",
        "\ufeff": "",
    }
)
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_INTERVAL = re.compile(r"[(\[][^()\[\],]*\d[^()\[\],]*,[^()\[\],]*[)\]]")
_OPERATORS = re.compile(r"[=^*+/<>√∫∑]")
_APOSTROPHES = re.compile(r"(?<=[^\W\d])'|'(?=[^\W\d])")  # of words; after a digit they are feet, inches or minutes
_NUMBER = r"\d+(?:\.\d+)*"
_COMMON = rf"{_NUMBER}|[{CJK}]|[^\W\d_{CJK}]+|(?:(?<=^)|(?<=[\s(\[,;:]))-(?=[\d.])|(?<=\d)[-:!,](?=\d)|(?<=\d)[!'\"]"
_IN_PROSE = re.compile(rf"{_COMMON}|[^\w\s,;:.!?\"'()\[\]{{}}·…_、-]")
_IN_FORMULA = re.compile(rf"{_COMMON}|[^\w\s,;:.!?\"'·…_、]")

_LEADS = re.compile(
    r"^\s*(?:(?:so|thus|therefore|hence),?\s+)?(?:the|my)?\s*(?:final|correct|short|right)?\s*answer\s*(?:is\b|:|=)\s*:?\s*"
    r"|^\s*(?:所以|因此)?[,，]?\s*(?:最终|正确|最后的?)?(?:答案|结论|回答)\s*(?:应该)?(?:是|为|:)\s*:?\s*"
    r"|^\s*答\s*:\s*"
)
_WRAPS = (
    re.compile(r"<answer>(.*)</answer>"),
    re.compile(r"\$?\\boxed\{([^{}]*)\}\$?"),
    re.compile(r"\\text\{([^{}]*)\}"),
    re.compile(r"\*{1,3}([^*]+)\*{1,3}"),
    re.compile(r"__([^_]+)__"),
    re.compile(r'"([^"]+)"'),
    re.compile(r"'([^']+)'"),
    re.compile(r"\$([^$]+)\$"),
    re.compile(r"\(([^()]+)\)"),
    re.compile(r"\[([^\[\]]+)\]"),
)


def _until_stable(text: str, change: Callable[[str], str]) -> str:
    while (changed := change(text)) != text:
        text = changed
    return text


def _unwrap_once(text: str) -> str:
    text = text.strip()
    if is_interval(text):
        return text
    for wrap in _WRAPS:
        inner = wrap.fullmatch(text)
        if inner:
            return inner[1].strip()
    return text[:-1].rstrip() if text.endswith(".") and len(text) > 1 else text


def _initials(found: list[str]) -> list[str]:
    """Join runs of single Latin letters: ``u. s.`` and ``us``, ``j. r. r.`` and ``jrr`` are the same words."""
    joined: list[str] = []
    open_run = False
    for word in found:
        single = len(word) == 1 and word.isascii() and word.isalpha()
        if single and open_run:
            joined[-1] += word
        else:
            joined.append(word)
        open_run = single
    return joined
