"""What all episodes of an evaluation may spend together, and how long one of them may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from harness.config import Section, identity, operational
from harness.errors import LimitError


class Limits(Section):
    """Where an evaluation stops, resumed ones with what was spent before. What a limit ended has no score; resuming with a higher limit
    runs it."""

    sample_seconds: float | None = identity(None, gt=0)
    """Longest time of one episode, waiting for the endpoint included (null: no limit)."""
    seconds: float | None = operational(None, gt=0)
    """Longest time of the whole evaluation, earlier sittings of a resumed one included (null: no limit)."""
    tokens: int | None = operational(None, ge=1)
    """Generated tokens of the whole evaluation, earlier sittings included; turns under way are finished (null: no limit)."""
    cost: float | None = operational(None, gt=0)
    """Cost of the whole evaluation at the endpoint's prices (endpoint.price_prompt, endpoint.price_generated), earlier sittings included;
    turns under way are finished (null: no limit)."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """The running sums. ``reached`` says in words which limit ended the evaluation, None while there is room."""

    limits: Limits = field(default_factory=Limits)
    tokens: int = 0
    cost: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def reached(self) -> str | None:
        limits = self.limits
        if limits.seconds is not None and time.monotonic() - self.began >= limits.seconds:
            return f"the evaluation's time limit of {limits.seconds:g} s (limits.seconds)"
        if limits.tokens is not None and self.tokens >= limits.tokens:
            return f"the evaluation's limit of {limits.tokens:,} generated tokens (limits.tokens)"
        if limits.cost is not None and self.cost >= limits.cost:
            return f"the evaluation's cost limit of {limits.cost:g} (limits.cost)"
        return None

    def check(self) -> None:
        """Raises ``LimitError`` once a limit is reached."""
        if words := self.reached:
            raise LimitError(f"{words} was reached")

    def spend(self, *, tokens: int, cost: float) -> None:
        self.tokens += tokens
        self.cost += cost

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """One episode's time. Raises ``LimitError`` when its own limit or the evaluation's has passed."""
        limits = self.limits
        left = None if limits.seconds is None else max(self.began + limits.seconds - time.monotonic(), 0.0)
        seconds = min((s for s in (left, limits.sample_seconds) if s is not None), default=None)
        try:
            async with asyncio.timeout(seconds) as clock:
                yield
        except TimeoutError as error:
            if not clock.expired():
                raise
            words = self.reached or f"an episode's time limit of {limits.sample_seconds:g} s (limits.sample_seconds)"
            raise LimitError(f"{words} was reached") from error
