"""Which results may be compared: a code made of named parts, so that two unlike codes can say in what they differ.

Two results share a code exactly when they asked the same questions, in the same words, with the same tools, budgets, judge and
extraction of the answer. The training temperature is no part of it: evaluation has its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.answer import EXTRACTOR

PARTS = ("data", "prompt", "tools", "limits", "judge", "extractor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparability:
    """``parts`` holds one short text for each of ``PARTS``: a name where there is one, else a hash."""

    parts: Mapping[str, str]

    @property
    def code(self) -> str:
        """12 hex digits; empty where nothing is known."""
        return short_hash(dict(self.parts), 6) if self.parts else ""

    def judged_by(self, judge: str) -> Comparability:
        """The same result under another judge."""
        return replace(self, parts={**self.parts, "judge": judge})

    def differing(self, other: Comparability) -> tuple[str, ...]:
        """Names of the parts in which two results differ, in the order of ``PARTS``."""
        names = [*PARTS, *sorted({*self.parts, *other.parts} - set(PARTS))]
        return tuple(name for name in names if self.parts.get(name) != other.parts.get(name))


def parts_of(*, data: Any, prompt: Any, tools: Any, limits: Any, judge: str) -> Comparability:
    """Each part from plain JSON data; the extractor is the harness's own."""
    hashed = {"data": data, "prompt": prompt, "tools": tools, "limits": limits}
    return Comparability(parts={**{name: short_hash(value, 4) for name, value in hashed.items()}, "judge": judge, "extractor": EXTRACTOR})


def short_hash(value: Any, size: int) -> str:
    """``size`` bytes of BLAKE2b over canonical JSON, as hex digits."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True, ensure_ascii=False).encode(), digest_size=size).hexdigest()
