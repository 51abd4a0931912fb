"""What an engine is: something that continues token ids, and can take new weights.

Engines know nothing of tasks, tools or training. Capabilities say what an engine can do; a caller that needs one it lacks
gets an error before any work starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from harness.types import Ids, Span

if TYPE_CHECKING:
    import torch

Weights = Iterable[tuple[str, "torch.Tensor"]]
"""HF parameter names and full tensors, tied ones included, as ``Learner.weights()`` yields them."""


class Capability(StrEnum):
    GENERATE = "generate"  # continue token ids, returning ids and log-probabilities
    SCORE = "score"  # log-probabilities of given tokens
    SYNC = "sync"  # swap weights in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One continuation. ``seed`` fixes the sample: the same request gives the same span whatever runs beside it (``deterministic``)."""

    ids: Ids
    max_tokens: int
    temperature: float = 1.0  # 0 = greedy; log-probabilities are always those of the distribution sampled from (T=0: of T=1)
    seed: int = 0
    session: str = ""  # requests of one episode share it, so that an engine can keep their prefix cached


class Engine(Protocol):
    """Generates with a model; safe to call from many coroutines of one event loop."""

    capabilities: frozenset[Capability]
    version: int  # number of syncs taken; stamped on every span

    async def generate(self, request: Request) -> Span:
        """Continue ``request.ids`` until an end-of-turn token (kept as the last id) or ``max_tokens``.

        Raises ``EngineError`` if the engine cannot serve it (e.g. the prompt exceeds the context).
        """
        ...

    async def score(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        """Log-probability of each token given those before it (first token excluded: length T - 1 each)."""
        ...

    async def sync(self, weights: Weights, version: int) -> str:
        """Swap weights in memory, drop every cache built with the old ones, return a checksum of what is now loaded."""
        ...

    async def close(self) -> None: ...


def request_seed(run_seed: int, *parts: str | int) -> int:
    """A 63-bit seed from (run, purpose, step, task, level, index, turn): stable across processes and Python versions."""
    text = "\x1f".join(str(p) for p in (run_seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
