"""One thread that owns a model, and the orders that coroutines leave for it.

Whatever goes wrong on the thread reaches those who wait as an ``EngineError``; nobody waits for a thread that has ended. What
the thread does with its orders is the engine's affair.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from harness.engines.base import Request
from harness.errors import EngineError
from harness.types import Ids

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedConfig

_TIDY = 4096  # answered orders are dropped from the list of taken ones whenever it has grown to this length


class Order:
    """Something asked of the thread, and the future that its caller awaits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def succeed(self, result: object) -> None:
        """Called on the thread."""
        self._later(lambda: self.future.set_result(result))

    def fail(self, error: EngineError) -> None:
        """Called on the thread."""
        self._later(lambda: self.future.set_exception(error))

    def _later(self, settle: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the caller's event loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(lambda: None if self.future.done() else settle())


class Generation(Order):
    """A request, with the number of tokens that it may take."""

    def __init__(self, request: Request, limit: int) -> None:
        super().__init__()
        self.request = request
        self.limit = limit


class Call(Order):
    """A function for the thread; ``alone``: only while no span is under way."""

    def __init__(self, function: Callable[[], object], alone: bool = False) -> None:
        super().__init__()
        self.alone = alone
        self._function = function

    def run(self) -> None:
        try:
            self.succeed(self._function())
        except Exception as error:  # noqa: BLE001 - a bad call (weights that do not fit) is its caller's affair; the engine goes on
            self.fail(_as_engine_error(error))


class EngineThread:
    """Runs ``set_up`` and then ``serve``, which takes orders by ``receive`` until that returns None."""

    def __init__(self, name: str, set_up: Callable[[], None], serve: Callable[[EngineThread], None]) -> None:
        """Returns when ``set_up`` has; its failure is raised here as ``EngineError``."""
        self._inbox: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._taken: list[Order] = []
        self._closed = False
        self._why = "the engine was closed"
        self._gate = threading.Lock()  # nothing enters the inbox after its last clearing
        self._set_up, self._serve = set_up, serve
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, args=(ready,), name=name, daemon=True)
        self._thread.start()
        ready.result()

    async def ask(self, order: Order) -> Any:
        """Hand the order to the thread and wait for its answer."""
        with self._gate:
            if self._closed:
                raise EngineError(self._why)
            self._inbox.put(order)
        return await order.future

    def receive(self, wait: bool) -> list[Order] | None:
        """On the thread: the orders that have arrived, at least one if ``wait``; None once closed."""
        orders: list[Order] = []
        while wait or not self._inbox.empty():
            order = self._inbox.get()
            wait = False
            if order is None:
                return None
            orders.append(order)
            self._taken.append(order)
        if len(self._taken) > _TIDY:
            self._taken = [order for order in self._taken if not order.future.done()]
        return orders

    async def close(self) -> None:
        """End the thread; whatever still waits gets an ``EngineError``."""
        with self._gate:
            self._closed = True
            self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _main(self, ready: Future[None]) -> None:
        try:
            self._set_up()
        except Exception as error:  # noqa: BLE001 - the thread's boundary: whatever it is belongs to the caller of the constructor
            ready.set_exception(_as_engine_error(error))
            return
        ready.set_result(None)
        try:
            self._serve(self)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: callers must not wait for a thread that has died
            with self._gate:
                self._closed, self._why = True, f"the engine stopped: {type(error).__name__}: {error}"
        while not self._inbox.empty():
            self._taken.extend(order for order in [self._inbox.get()] if order)
        for order in self._taken:
            order.fail(EngineError(self._why))


def checked_room(request: Request, context: int) -> int:
    """Tokens that the request may take: ``max_tokens``, or what the context still holds. Raises ``EngineError`` if that is none."""
    room = context - len(request.ids)
    if not request.ids or room < 1:
        raise EngineError(
            f"a prompt of {len(request.ids)} tokens does not fit: it needs at least 1 token and room for one more in "
            f"generation.context={context}; raise generation.context or shorten the prompt"
        )
    if request.max_tokens < 1:
        raise EngineError(f"max_tokens is {request.max_tokens}, it must be at least 1")
    return min(request.max_tokens, room)


def check_lengths(sequences: Sequence[Ids], context: int) -> None:
    """Raise ``EngineError`` if a sequence to be scored exceeds the context."""
    longest = max((len(ids) for ids in sequences), default=0)
    if longest > context:
        raise EngineError(f"a sequence of {longest} tokens exceeds generation.context={context}; raise it or cut the sequence")


def check_fit(given: Mapping[str, torch.Tensor], held: Mapping[str, torch.Tensor]) -> None:
    """Raise ``EngineError`` unless names and shapes are the same, tied tensors included."""
    missing, extra = sorted(held.keys() - given.keys()), sorted(given.keys() - held.keys())
    if missing or extra:
        raise EngineError(
            f"weights do not fit the model; missing: {missing[:4] or 'none'}, unexpected: {extra[:4] or 'none'} (nothing was loaded)"
        )
    for name, tensor in held.items():
        if tensor.shape != given[name].shape:
            raise EngineError(
                f"weight {name} has shape {tuple(given[name].shape)}, the model's is {tuple(tensor.shape)} (nothing was loaded)"
            )


def end_ids(generation: GenerationConfig | None, config: PreTrainedConfig) -> list[int]:
    """Ids that end a turn: those of generation_config.json, else the configuration's. Raises ``EngineError`` if there are none."""
    ends = generation.eos_token_id if generation is not None and generation.eos_token_id is not None else config.eos_token_id
    if ends is None:
        raise EngineError("the model names no end-of-turn token; set eos_token_id in its generation_config.json")
    return list(ends) if isinstance(ends, list) else [ends]


def _as_engine_error(error: Exception) -> EngineError:
    return error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")
