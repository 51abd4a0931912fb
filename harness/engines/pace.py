"""How many requests are in flight at one endpoint, and when the next may start. No network, no retries.

The limit begins at half of ``most``, grows by one with every success (it doubles each round trip) until the endpoint first says that it is
overloaded, and by one a round trip after that. An overload halves it, once for all requests that were under way together.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(slots=True)
class Ticket:
    """A request under way; ``cut`` is how often the limit had been halved when it started."""

    cut: int


class Pace:
    """Admits requests in the order in which they ask. Use within one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(max(1, most // 2))
        self.flying = 0
        self.halved = 0
        self._not_before = 0.0  # loop time, from a Retry-After
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Ticket]:
        """Holds one place; waits for it, and for the time that the endpoint named."""
        await self._admitted()
        try:
            loop = asyncio.get_running_loop()
            while (wait := self._not_before - loop.time()) > 0:
                await asyncio.sleep(wait)
            yield Ticket(self.halved)
        finally:
            self._leave()

    def succeeded(self) -> None:
        self.limit = min(float(self.most), self.limit + (1 if self.halved == 0 else 1 / self.limit))
        self._admit()

    def overloaded(self, ticket: Ticket) -> None:
        """The endpoint refused or did not answer in time."""
        if ticket.cut == self.halved:
            self.halved += 1
            self.limit = max(1.0, self.limit / 2)

    def hold(self, seconds: float) -> None:
        """No request starts for so long: what a Retry-After says of one holds for all."""
        self._not_before = max(self._not_before, asyncio.get_running_loop().time() + seconds)

    async def _admitted(self) -> None:
        if self.flying < int(self.limit) and not self._waiting:
            self.flying += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # admitted and cancelled at once: the place goes to the next
            raise

    def _leave(self) -> None:
        self.flying -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.flying < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self.flying += 1
                turn.set_result(None)


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header, of a number or an HTTP date, as seconds from now (at least 0); None without one that can be read."""
    if retry_after is None:
        return None
    try:
        wait = float(retry_after)
        return max(wait, 0.0) if math.isfinite(wait) else None
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
