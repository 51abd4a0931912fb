"""Which results may be compared: a code made of named parts, so that two unlike codes can say in what they differ.

Two results share a code exactly when they asked the same questions, in the same words, with the same tools over the same pages, the same
limits, judge and extraction of the answer. Limits of a whole evaluation (its time, tokens and cost) are no part of it: they leave samples
out, which the coverage shows, and change no score of those that ran. The training temperature is none either: evaluation has its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.answer import EXTRACTOR
from harness.config import to_json
from harness.envs.search import SYSTEM, TOOLS, SearchLimits
from harness.episode import AgentConfig

PARTS = ("data", "prompt", "tools", "limits", "judge", "extractor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparability:
    """``parts`` holds for each of ``PARTS`` a name, a hash, or a mapping of settings by name."""

    parts: Mapping[str, Any]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what a question set is answered by the search agent: all that can change a score, save the model."""

    questions: str  # fingerprint of the question set with its own pages
    judge: str
    agent: AgentConfig
    search: SearchLimits
    temperature: float
    taken: Any = None  # whatever says which part of the questions was asked
    web: str = ""  # what replaced the question set's own web, by content (``harness.web.identity``)
    sample_seconds: float | None = None

    def comparability(self) -> Comparability:
        limits = {
            "agent": {**to_json(self.agent), "temperature": self.temperature},
            "search": to_json(self.search),
            "sample_seconds": self.sample_seconds,
        }
        tools = {"definitions": short_hash(TOOLS, 4), "web": self.web or "the question set's own"}
        return parts_of(data=[self.questions, self.taken], prompt=SYSTEM, tools=tools, limits=limits, judge=self.judge)


def parts_of(*, data: Any, prompt: Any, tools: Mapping[str, Any], limits: Mapping[str, Any], judge: str) -> Comparability:
    """Data and prompt become hashes of their plain JSON; the extractor is the harness's own."""
    hashed = {"data": short_hash(data, 4), "prompt": short_hash(prompt, 4)}
    return Comparability(parts={**hashed, "tools": dict(tools), "limits": dict(limits), "judge": judge, "extractor": EXTRACTOR})


def short_hash(value: Any, size: int) -> str:
    """``size`` bytes of BLAKE2b over canonical JSON, as hex digits."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True, ensure_ascii=False).encode(), digest_size=size).hexdigest()
