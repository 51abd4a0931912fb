"""The portable engine: any Hugging Face decoder with full attention, continuous batching, in process, on CPU or GPU.

It owns its copy of the weights. One thread is the only caller of the model; coroutines put requests into its inbox and
await futures. With ``deterministic`` a span is a pure function of weights and request (ids, seed, temperature, max_tokens):
shapes are fixed, noise is a counter, and only prefilled positions are reused. It has no top-p, top-k or penalties.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from harness.engines.base import Capability, EngineConfig, Request, Weights, weights_checksum
from harness.engines.sampling import sample, uniforms
from harness.engines.schedule import Job, Prefill, Row, Scheduler
from harness.engines.slots import ATTENTION, Ints, SlotModel
from harness.engines.trees import families, tree_of
from harness.engines.worker import Call, EngineThread, Generation, Order, check_fit, check_lengths, checked_room, end_ids
from harness.errors import EngineError
from harness.types import FinishReason, Ids, Span

_SCORE_TILE = 64  # scored sequences are padded to multiples of this length
_SCORE_LOGITS = 2**26  # numbers in the logits of one scoring pass, at most (unless one sequence alone has more)


class HFEngine:
    """Generates with transformers; see the module's docstring. ``close`` it, or its thread and its weights stay."""

    capabilities = frozenset(Capability)

    def __init__(self, directory: str | Path, config: EngineConfig | None = None) -> None:
        """Load the model of ``directory`` (or hub id); raises ``EngineError`` if it cannot be served."""
        self.version = 0
        self.tokens = 0  # sampled since construction
        self.seconds = 0.0  # spent in passes since construction
        self._config = config or EngineConfig()
        self._running: dict[int, Generation] = {}  # by job key, waiting ones included
        self._calls: list[Call] = []
        self._keys = itertools.count()
        self._thread = EngineThread("hf-engine", lambda: self._set_up(str(directory)), self._serve)

    async def generate(self, request: Request) -> Span:
        """See ``Engine.generate``; ``max_tokens`` shrinks to what the context still holds."""
        span: Span = await self._thread.ask(Generation(request, checked_room(request, self._config.context)))
        return span

    async def score(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        """See ``Engine.score``."""
        check_lengths(sequences, self._config.context)
        scores: list[list[float]] = await self._thread.ask(Call(lambda: self._score(sequences, temperature)))
        return scores

    async def sync(self, weights: Weights, version: int) -> str:
        """See ``Engine.sync``. Spans under way end first, with the old weights. ``weights`` is read on the engine's thread."""
        checksum: str = await self._thread.ask(Call(lambda: self._load(weights, version), alone=True))
        return checksum

    async def close(self) -> None:
        """End the thread; whatever still waits gets an ``EngineError``."""
        await self._thread.close()

    # Everything below runs on the engine's thread.

    def _set_up(self, directory: str) -> None:
        config = self._config
        torch.set_flush_denormal(True)
        if config.threads:
            torch.set_num_threads(config.threads)
        model = _load_model(directory, config)
        self._ends = np.array(end_ids(model.generation_config, model.config.get_text_config()), dtype=np.int64)
        self._model = SlotModel(model, config.slots, config.context, tight=not config.deterministic)
        patience = 4 if config.deterministic else 0  # a half-empty prefill costs as much as a full one only if shapes are fixed
        self._schedule = Scheduler(
            slots=config.slots, rows=config.prefill_rows, chunk=config.prefill_chunk, reuse=config.reuse, patience=patience
        )
        self._state = _State(config.slots, config.context)

    @torch.inference_mode()
    def _serve(self, thread: EngineThread) -> None:
        while (orders := thread.receive(wait=not self._running and not self._calls)) is not None:
            self._take_in(orders)
            self._run_calls()
            if not any(call.alone for call in self._calls):
                for key, slot in self._schedule.admit():
                    self._state.start(slot, key, self._running[key])
            started = time.perf_counter()
            decoding = np.flatnonzero(self._state.decoding)
            prefill = self._schedule.next_prefill(len(decoding))
            if prefill:
                self._prefill(prefill)
            elif len(decoding):
                self._decode(decoding)
            self.seconds += time.perf_counter() - started

    def _take_in(self, orders: Sequence[Order]) -> None:
        for order in orders:
            if isinstance(order, Call):
                self._calls.append(order)
            elif isinstance(order, Generation):
                key = next(self._keys)
                self._running[key] = order
                self._schedule.submit(Job(key=key, ids=order.request.ids, session=order.request.session))

    def _run_calls(self) -> None:
        for call in [call for call in self._calls if not (call.alone and self._schedule.running)]:
            self._calls.remove(call)
            call.run()

    def _prefill(self, prefill: Prefill) -> None:
        for copy in prefill.copies:
            self._model.cache.copy(copy.source, copy.target, copy.length)
        rows = prefill.rows
        shape = (self._config.prefill_rows if self._config.deterministic else len(rows), self._config.prefill_chunk)
        ids_RC, positions_RC, slots_R = _prefill_arrays(rows, shape)
        logits_RV = self._model.forward(ids_RC, positions_RC, slots_R)
        last = [i for i, row in enumerate(rows) if row.last]
        if last:
            slots = slots_R[last]
            self._state.decoding[slots] = True
            self._sample(slots, logits_RV[last])

    def _decode(self, decoding: Ints) -> None:
        state, slots = self._state, self._config.slots
        if not self._config.deterministic and len(decoding) < slots:
            logits_RV = self._model.forward(state.last[decoding][:, None], state.position[decoding][:, None], decoding)
            self._sample(decoding, logits_RV)
            return
        positions_S = np.where(state.decoding, state.position, -1)
        logits_SV = self._model.forward(state.last[:, None], positions_S[:, None], np.arange(slots), every_slot=True)
        self._sample(decoding, logits_SV if len(decoding) == slots else logits_SV[torch.from_numpy(decoding)])

    def _sample(self, slots: Ints, logits_RV: torch.Tensor) -> None:
        state = self._state
        noise = torch.from_numpy(uniforms(state.seed[slots], state.count[slots]))
        temperature = torch.from_numpy(state.temperature[slots])
        ids, logprobs = sample(logits_RV, temperature.to(logits_RV.device), noise.to(logits_RV.device))
        state.append(slots, ids.cpu().numpy(), logprobs.cpu().numpy())
        self.tokens += len(slots)
        stopped = np.isin(state.last[slots], self._ends)
        for slot in slots[stopped | (state.count[slots] >= state.limit[slots])]:
            self._finish(int(slot))

    def _finish(self, slot: int) -> None:
        state = self._state
        order = self._running.pop(int(state.key[slot]))
        ids, logprobs = state.take(slot)
        prompt = order.request.ids
        exact = self._config.deterministic  # decoded positions differ in their last bits from prefilled ones
        self._schedule.finish(slot, prompt + ids[:-1], len(prompt) if exact else len(prompt) + len(ids) - 1)
        finish = FinishReason.STOP if ids[-1] in self._ends else FinishReason.LENGTH
        order.succeed(Span(ids=ids, logprobs=logprobs, version=self.version, finish=finish))

    def _score(self, sequences: Sequence[Ids], temperature: float) -> list[list[float]]:
        """Sequences that begin alike share one pass (``reuse``); a score's bits depend on what its call holds, and on no other."""
        scores: list[list[float]] = [[] for _ in sequences]
        alone = list(range(len(sequences)))
        if self._config.reuse:
            vocabulary = self._model.model.config.get_text_config().vocab_size
            groups = families(sequences, most=_SCORE_LOGITS // vocabulary)
            for group in (group for group in groups if len(group) > 1):
                self._score_tree(sequences, group, temperature, scores)
            alone = [group[0] for group in groups if len(group) == 1]
        self._score_alone(sequences, sorted(alone), temperature, scores)
        return scores

    def _score_tree(self, sequences: Sequence[Ids], group: Sequence[int], temperature: float, scores: list[list[float]]) -> None:
        tree = tree_of([sequences[i] for i in group])
        size = -(-len(tree.ids_N) // _SCORE_TILE) * _SCORE_TILE
        logprobs = self._model.tree_logprobs(tree, size, temperature).tolist()
        for i, path in zip(group, tree.paths, strict=True):
            scores[i] = [logprobs[node] for node in path[1:]]

    def _score_alone(self, sequences: Sequence[Ids], members: Sequence[int], temperature: float, scores: list[list[float]]) -> None:
        """Same-length batches with a fixed number of rows, so that neighbours change no bits."""
        lengths: dict[int, list[int]] = {}
        for i in members:
            if len(sequences[i]) > 1:
                tiled = min(-(-len(sequences[i]) // _SCORE_TILE) * _SCORE_TILE, self._config.context)
                lengths.setdefault(tiled, []).append(i)
        vocabulary = self._model.model.config.get_text_config().vocab_size
        for length, alike in lengths.items():
            rows = max(1, min(self._config.prefill_rows, _SCORE_LOGITS // (length * vocabulary)))
            for start in range(0, len(alike), rows):
                batch = alike[start : start + rows]
                ids_RT = np.zeros((rows, length), dtype=np.int64)
                for row, i in enumerate(batch):
                    ids_RT[row, : len(sequences[i])] = sequences[i]
                logprobs_RT = self._model.sequence_logprobs(torch.from_numpy(ids_RT).to(self._model.device), temperature)
                for row, i in enumerate(batch):
                    scores[i] = logprobs_RT[row, : len(sequences[i]) - 1].tolist()

    def _load(self, weights: Weights, version: int) -> str:
        given, held = dict(weights), self._model.model.state_dict()
        check_fit(given, held)
        for name, tensor in held.items():
            tensor.copy_(given[name])
        self._schedule.forget()
        self.version = version
        return weights_checksum(held.items())


class _State:
    """What decoding needs of every slot, as arrays, so that a step costs no Python loop."""

    def __init__(self, slots: int, width: int) -> None:
        self.key = np.zeros(slots, dtype=np.int64)
        self.decoding = np.zeros(slots, dtype=bool)
        self.last = np.zeros(slots, dtype=np.int64)  # the token that the next pass reads
        self.position = np.zeros(slots, dtype=np.int64)  # and its place
        self.count = np.zeros(slots, dtype=np.int64)
        self.limit = np.zeros(slots, dtype=np.int64)
        self.seed = np.zeros(slots, dtype=np.uint64)
        self.temperature = np.zeros(slots, dtype=np.float32)
        self._ids = np.zeros((slots, width), dtype=np.int64)
        self._logprobs = np.zeros((slots, width), dtype=np.float32)

    def start(self, slot: int, key: int, order: Generation) -> None:
        request = order.request
        self.key[slot], self.decoding[slot], self.count[slot], self.limit[slot] = key, False, 0, order.limit
        self.position[slot] = len(request.ids) - 1
        self.seed[slot], self.temperature[slot] = request.seed % 2**64, request.temperature

    def append(self, slots: Ints, ids: Ints, logprobs: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        self._ids[slots, self.count[slots]] = ids
        self._logprobs[slots, self.count[slots]] = logprobs
        self.last[slots] = ids
        self.count[slots] += 1
        self.position[slots] += 1

    def take(self, slot: int) -> tuple[Ids, tuple[float, ...]]:
        """The finished span of a slot, which stops decoding."""
        self.decoding[slot] = False
        n = int(self.count[slot])
        return tuple(self._ids[slot, :n].tolist()), tuple(self._logprobs[slot, :n].tolist())


def _prefill_arrays(rows: Sequence[Row], shape: tuple[int, int]) -> tuple[Ints, Ints, Ints]:
    """Ids, positions (-1 = padding) and slots; tokens stand at the right end of their row."""
    ids_RC, positions_RC = np.zeros(shape, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
    slots_R = np.zeros(shape[0], dtype=np.int64)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids_RC[i, -n:] = row.ids
        positions_RC[i, -n:] = range(row.start, row.start + n)
        slots_R[i] = row.slot
    return ids_RC, positions_RC, slots_R


def _load_model(directory: str, config: EngineConfig) -> PreTrainedModel:
    device = config.device if config.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("generation.device is cuda but PyTorch sees no GPU; set generation.device=cpu or install PyTorch for your GPU")
    disable_progress_bar()  # its bars for a file of weights would break into the run's own progress
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            directory, dtype=getattr(torch, config.dtype), attn_implementation=ATTENTION
        )
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot load a model from {directory}: {error}") from error
    model.to(torch.device(device))  # type: ignore[arg-type]  # the stub wraps the method
    model.eval().requires_grad_(False)
    return model
