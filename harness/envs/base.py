"""What an environment is: it opens a task, executes actions, and closes. Single use; it owns its tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.types import Action, Message, PublicTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The first messages (system, user) and the JSON schemas of the tools on offer."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The result of one action, cut to the observation budget; ``error`` marks a call that failed."""

    text: str
    error: bool = False


class Env(Protocol):
    """Raises ``OutageError`` when a tool back end is down; every other tool failure is an error observation."""

    async def start(self, task: PublicTask) -> Opening: ...

    async def step(self, actions: Sequence[Action]) -> tuple[Observation, ...]:
        """Execute the actions of one turn, one observation each, in order."""
        ...

    async def close(self) -> None: ...
