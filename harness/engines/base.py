"""What an engine is: something that continues token ids, and can take new weights.

Engines know nothing of tasks, tools or training. Capabilities say what an engine can do; a caller that needs one it lacks
gets an error before any work starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from harness.config import Section, identity, operational
from harness.types import FinishReason, Ids, Message, Span, Usage

if TYPE_CHECKING:
    import torch

Weights = Iterable[tuple[str, "torch.Tensor"]]
"""HF parameter names and full tensors, tied ones included, as ``Learner.weights()`` yields them."""


class Capability(StrEnum):
    GENERATE = "generate"  # continue token ids, returning ids and log-probabilities
    SCORE = "score"  # log-probabilities of given tokens
    SYNC = "sync"  # swap weights in memory
    CHAT = "chat"  # continue messages, returning text: such turns cannot be trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One continuation. ``seed`` fixes the sample: the same request gives the same span whatever runs beside it (``deterministic``)."""

    ids: Ids
    max_tokens: int
    temperature: float = 1.0  # 0 = greedy; log-probabilities are always those of the distribution sampled from (T=0: of T=1)
    seed: int = 0
    session: str = ""  # requests of one episode share it, so that an engine can keep their prefix cached


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One turn of a conversation held in messages; fields as in ``Request``."""

    messages: tuple[Message, ...]
    max_tokens: int | None  # None: as many as the model's context leaves
    temperature: float = 1.0
    seed: int = 0
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """One assistant turn as text; ``usage`` is that of this request alone."""

    text: str
    finish: FinishReason
    usage: Usage


class EngineConfig(Section):
    """Settings of an engine. Fields say which engine reads them; the others ignore them."""

    context: int = identity(2048, ge=2)
    """Longest sequence, prompt and response together, in tokens (hf: width of the key-value cache; vllm: max_model_len)."""

    slots: int = identity(64, ge=1)
    """Sequences decoded together (hf: every decoding step has this many rows; vllm: max_num_seqs)."""

    dtype: Literal["float32", "bfloat16", "float16"] = identity("float32")
    """Type of the weights and of the arithmetic. Anything but float32 makes log-probabilities differ from the learner's."""

    deterministic: bool = identity(True)
    """hf: fixed shapes, so that a request's bits do not depend on its neighbours. Off is faster when few slots are in use."""

    prefill_rows: int = identity(16, ge=1)
    """hf: rows of one prefill call; one sequence may fill several."""

    prefill_chunk: int = identity(16, ge=1)
    """hf: tokens of one prefill row."""

    reuse: bool = identity(True)
    """Keep the key-value cache of prompts already read, for the next turn and for prompts that start alike. hf: given texts that start
    alike, as the options of a multiple-choice question do, are scored in one pass."""

    threads: int | None = operational(None, ge=1)
    """hf: CPU threads of PyTorch, in effect for the whole process; none = its own choice. Take 1 where other work shares the cores."""

    device: Literal["auto", "cpu", "cuda"] = operational("auto")
    """hf: where the model lives; auto = a GPU if PyTorch sees one. vllm chooses by the package installed."""

    replicas: int = operational(1, ge=1)
    """Processes that each hold the whole model, on a GPU of their own where there are GPUs (1: the engine lives in the main process)."""

    tensor_parallel: int = identity(1, ge=1)
    """vllm: GPUs that share one model."""

    gpu_memory: float = operational(0.5, gt=0, le=1)
    """vllm: share of the GPU's memory that the engine takes; the learner needs the rest."""

    cpu_cache_gib: int = operational(1, ge=1)
    """vllm on CPU: size of its key-value cache in GiB."""


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


@runtime_checkable
class ChatEngine(Protocol):
    """Continues messages instead of ids: a remote endpoint. Safe to call from many coroutines of one event loop."""

    capabilities: frozenset[Capability]

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The next assistant turn. Raises ``ContextOverflowError`` if the messages no longer fit, ``EngineError`` for an outage."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Priced(Protocol):
    """An engine whose requests may cost something."""

    def cost(self, prompt: int, generated: int) -> float | None:
        """What one request of so many tokens costs, in the currency of the endpoint's prices; None without prices."""
        ...


def request_seed(run_seed: int, *parts: str | int) -> int:
    """A 63-bit seed from (run, purpose, step, task, level, index, turn): stable across processes and Python versions."""
    text = "\x1f".join(str(p) for p in (run_seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def weights_checksum(weights: Weights, dtype: torch.dtype | None = None) -> str:
    """BLAKE2b over names, shapes and bytes in name order, after a cast to ``dtype`` (the engine's, where it differs).

    Learner and engine hold the same weights exactly when their checksums are equal.
    """
    import torch  # this module stays light for those who only need the types

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights, key=lambda item: item[0]):
        flat = tensor.detach().to(device="cpu", dtype=dtype or tensor.dtype).contiguous()
        digest.update(f"{name}\0{tuple(flat.shape)}\0{flat.dtype}\0".encode())
        digest.update(flat.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
