"""The search environment: two tools, ``search`` and ``visit``, over any ``Web``.

A failed call is an observation that says what was wrong; only an outage of the back end ends the episode. The wording of the
prompts below is part of every result's identity (and of the tiny model's manifest).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.config import Section, identity
from harness.envs.base import Observation, Opening
from harness.errors import WebError
from harness.types import Action, PublicTask
from harness.web.base import Web

SYSTEM = (
    "Answer the question with the help of the tools. Before each call, think about what you still need. "
    "When you know the answer, give it as <answer>...</answer>."
)

TOOLS: tuple[Mapping[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Search the web with one or more queries.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "array", "items": {"type": "string"}}},
                "required": ["query"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "visit",
            "description": "Read one or more pages.",
            "parameters": {
                "type": "object",
                "properties": {"url": {"type": "array", "items": {"type": "string"}}, "goal": {"type": "string"}},
                "required": ["url"],
            },
        },
    },
)


class SearchLimits(Section):
    """Budgets of the two tools."""

    results: int = identity(5, ge=1)
    """Search results shown per query."""
    snippet_characters: int = identity(160, ge=0)
    """Characters of page text shown per search result; 0 shows titles and addresses only."""
    observation_characters: int = identity(8000, ge=1)
    """Characters kept of each item of a tool result: the hits of one query, or one page (the authors' code cuts characters)."""
    queries_per_call: int = identity(5, ge=1)
    """Queries or addresses taken from one call; more get an error observation."""


class SearchEnv:
    """One episode of search. Unknown tools and bad arguments are error observations."""

    def __init__(self, web: Web, limits: SearchLimits) -> None:
        self._web = web
        self._limits = limits

    async def start(self, task: PublicTask) -> Opening:
        return Opening(
            messages=({"role": "system", "content": SYSTEM}, {"role": "user", "content": task.question + task.closing}), tools=TOOLS
        )

    async def step(self, actions: Sequence[Action]) -> tuple[Observation, ...]:
        return tuple([await self._execute(action) for action in actions])

    async def close(self) -> None:
        return None

    async def _execute(self, action: Action) -> Observation:
        try:
            match action.name:
                case "search":
                    parts = [await self._search(q) for q in self._strings(action, "query")]
                case "visit":
                    parts = [await self._visit(u) for u in self._strings(action, "url")]
                case other:
                    raise WebError(f"there is no tool {other!r}; use search or visit")
        except WebError as error:
            return Observation(text=f"Error: {error}"[: self._limits.observation_characters], error=True)
        return Observation(text="\n\n".join(part[: self._limits.observation_characters] for part in parts))

    def _strings(self, action: Action, key: str) -> list[str]:
        value = action.arguments.get(key)
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not value or not all(isinstance(v, str) and v.strip() for v in value):
            raise WebError(f'{action.name} needs "{key}": a list of non-empty strings')
        if len(value) > self._limits.queries_per_call:
            raise WebError(f"{action.name} takes at most {self._limits.queries_per_call} at once, got {len(value)}")
        return [str(v) for v in value]

    async def _search(self, query: str) -> str:
        hits = await self._web.search(query, self._limits.results)
        shown = [f"[{h.title}]({h.url})\n{h.snippet[: self._limits.snippet_characters]}".strip() for h in hits]
        return "\n\n".join(shown) if shown else f"No results for {query!r}."

    async def _visit(self, url: str) -> str:
        page = await self._web.fetch(url)
        return f"{page.title}\n{page.text}"
