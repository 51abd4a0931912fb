"""No web at all: both tools answer with an error that the model sees, so that a search set can be run, and the run can say so."""

from __future__ import annotations

from harness.errors import WebError
from harness.web.base import Hit, Page

_WORDS = "the web cannot be reached in this session"


class AbsentWeb:
    """Stands where no corpus and no live back end was named."""

    async def search(self, query: str, limit: int) -> list[Hit]:
        raise WebError(_WORDS)

    async def fetch(self, url: str) -> Page:
        raise WebError(_WORDS)
