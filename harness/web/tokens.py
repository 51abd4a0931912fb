"""Search tokens of a text: words for scripts that space them, character bigrams (and single characters) for those that do not.

Case, width and accents are folded (``Ａｌû`` -> ``alu``). No stemming and no stop words: the pages that an agent looks for
are told apart by names.
"""

from __future__ import annotations

import re
import unicodedata

_CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_RUNS = re.compile(rf"[{_CJK}]+|[^\W{_CJK}]+")
_IS_CJK = re.compile(f"[{_CJK}]")


def tokens(text: str) -> list[str]:
    """
    >>> tokens("Alû, 1990年代的歌")
    ['alu', '1990', '年', '年代', '代', '代的', '的', '的歌', '歌']
    """
    found: list[str] = []
    for run in _RUNS.findall(_fold(text)):
        if _IS_CJK.match(run):
            for here, after in zip(run, (*run[1:], ""), strict=True):
                found.extend((here, here + after) if after else (here,))
        else:
            found.append(run)
    return found


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFKC", "".join(c for c in apart if unicodedata.category(c) != "Mn")).casefold()
