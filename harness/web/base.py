"""The web as an agent's tools see it: search and fetch, behind one seam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One search result."""

    title: str
    url: str
    snippet: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page as plain text."""

    url: str
    title: str
    text: str


class Web(Protocol):
    """Raises ``WebError`` for what the model did wrong (unknown URL) and ``OutageError`` for what it did not."""

    async def search(self, query: str, limit: int) -> list[Hit]: ...

    async def fetch(self, url: str) -> Page: ...
