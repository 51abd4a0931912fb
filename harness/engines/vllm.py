"""vLLM in this process (world size 1), with weights swapped in memory: the only door to the package vllm.

One thread drives vLLM's step loop. Log-probabilities are those of the distribution sampled from; a seed per request makes the noise
repeatable, but not the last bits: batches of other shapes round differently, so ``deterministic`` has no effect here. vLLM keeps
prefixes itself, whatever the session. Weights cannot be swapped in more than one tensor-parallel worker.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from harness.engines.base import Capability, EngineConfig, Request, Weights, weights_checksum
from harness.engines.worker import Call, EngineThread, Generation, Order, check_fit, check_lengths, checked_room, end_ids
from harness.errors import EngineError, MissingDependencyError
from harness.types import FinishReason, Ids, Span

_PROBES = 4  # random inputs per layer that show whether it holds the weights it was given
_ROUNDING = {"float32": 2e-6, "bfloat16": 2e-2, "float16": 2e-3}  # of the sum of absolute products


def engine_arguments(config: EngineConfig, *, cpu: bool) -> dict[str, object]:
    """vLLM's own names for the settings."""
    return {
        "dtype": config.dtype,
        "max_model_len": config.context,
        "max_num_seqs": config.slots,
        "enable_prefix_caching": config.reuse,
        "tensor_parallel_size": config.tensor_parallel,
        "logprobs_mode": "processed_logprobs",  # those of the tempered distribution, not of the raw logits
        "generation_config": "vllm",  # the model's own top-p, top-k and penalties would make log-probabilities false
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "seed": 0,
        **({"enforce_eager": True} if cpu else {"gpu_memory_utilization": config.gpu_memory}),
    }


class VLLMEngine:
    """Generates with vLLM; see the module's docstring."""

    def __init__(self, directory: str | Path, config: EngineConfig | None = None) -> None:
        """Load the model of ``directory`` (or hub id). Raises ``MissingDependencyError`` without vLLM, ``EngineError`` if it fails."""
        if find_spec("vllm") is None:
            raise MissingDependencyError("the vllm engine needs vLLM; run `make vllm` on a CPU or `pip install vllm` for a GPU")
        self.version = 0
        self._config = config or EngineConfig()
        single = self._config.tensor_parallel == 1
        self.capabilities = frozenset(Capability) if single else frozenset(Capability) - {Capability.SYNC}
        self._pending: list[Generation] = []
        self._running: dict[str, Generation] = {}
        self._calls: list[Call] = []
        self._names = (str(i) for i in itertools.count())
        self._thread = EngineThread("vllm-engine", lambda: self._set_up(str(directory)), self._serve)

    async def generate(self, request: Request) -> Span:
        """See ``Engine.generate``; ``max_tokens`` shrinks to what the context still holds."""
        span: Span = await self._thread.ask(Generation(request, checked_room(request, self._config.context)))
        return span

    async def score(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        """See ``Engine.score``. vLLM reports given tokens at temperature 1 only; another one raises ``EngineError``."""
        if temperature not in (0.0, 1.0):
            raise EngineError(f"vLLM scores given tokens at temperature 1 only, got {temperature}; use the hf engine for that")
        check_lengths(sequences, self._config.context - 1)
        scores: list[list[float]] = await self._thread.ask(Call(lambda: self._score(sequences), alone=True))
        return scores

    async def sync(self, weights: Weights, version: int) -> str:
        """See ``Engine.sync``. The checksum is that of ``weights`` after each layer has been shown to answer as they would."""
        if Capability.SYNC not in self.capabilities:
            raise EngineError("weights cannot be swapped in several tensor-parallel workers; set generation.tensor_parallel=1")
        checksum: str = await self._thread.ask(Call(lambda: self._load(weights, version), alone=True))
        return checksum

    async def close(self) -> None:
        """End the thread; whatever still waits gets an ``EngineError``."""
        await self._thread.close()

    # Everything below runs on the engine's thread.

    def _set_up(self, directory: str) -> None:
        config = self._config
        _set_environment(config)
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform

        self._shapes = _parameter_shapes(directory)
        try:
            generation = GenerationConfig.from_pretrained(directory)
        except OSError:
            generation = None  # optional file
        self._ends = end_ids(generation, AutoConfig.from_pretrained(directory).get_text_config())
        arguments: dict[str, Any] = engine_arguments(config, cpu=current_platform.is_cpu())
        self._engine: Any = LLMEngine.from_engine_args(EngineArgs(model=directory, **arguments))

    def _serve(self, thread: EngineThread) -> None:
        try:
            while (orders := thread.receive(wait=not (self._running or self._pending or self._calls))) is not None:
                self._take_in(orders)
                self._run_calls()
                if not self._calls:
                    self._admit()
                if self._running:
                    self._step()
        finally:
            self._engine.engine_core.shutdown()

    def _take_in(self, orders: Sequence[Order]) -> None:
        for order in orders:
            if isinstance(order, Call):
                self._calls.append(order)
            elif isinstance(order, Generation):
                self._pending.append(order)

    def _run_calls(self) -> None:
        while self._calls and not self._running:
            self._calls.pop(0).run()

    def _admit(self) -> None:
        from vllm import SamplingParams

        for order in self._pending:
            request = order.request
            params = SamplingParams(
                max_tokens=order.limit,
                temperature=request.temperature,
                seed=request.seed,
                logprobs=0,  # of the sampled token and no other
                stop_token_ids=self._ends,
                ignore_eos=True,  # the ids above are all there is to it
                detokenize=False,
            )
            name = next(self._names)
            self._engine.add_request(name, {"prompt_token_ids": list(request.ids)}, params)
            self._running[name] = order
        self._pending.clear()

    def _step(self) -> None:
        for output in self._engine.step():
            if not output.finished:
                continue
            sampled = output.outputs[0]
            ids = tuple(sampled.token_ids)
            logprobs = tuple(float(row[i].logprob) for i, row in zip(ids, sampled.logprobs, strict=True))
            finish = FinishReason.STOP if ids[-1] in self._ends else FinishReason.LENGTH
            self._running.pop(output.request_id).succeed(Span(ids=ids, logprobs=logprobs, version=self.version, finish=finish))

    def _score(self, sequences: Sequence[Ids]) -> list[list[float]]:
        from vllm import SamplingParams

        scores: list[list[float]] = [[] for _ in sequences]
        places: dict[str, int] = {}
        for i, ids in enumerate(sequences):
            if len(ids) > 1:
                name = next(self._names)
                places[name] = i
                # Requests for prompt log-probabilities read no cached prefix, or the cached part would have none.
                params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
                self._engine.add_request(name, {"prompt_token_ids": list(ids)}, params)
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                if output.finished:
                    i = places[output.request_id]
                    rows = output.prompt_logprobs[1:]
                    scores[i] = [float(row[token].logprob) for token, row in zip(sequences[i][1:], rows, strict=True)]
        return scores

    def _load(self, weights: Weights, version: int) -> str:
        dtype = getattr(torch, self._config.dtype)
        given = {name: tensor.detach().to(dtype) for name, tensor in weights}
        check_fit(given, self._shapes)
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(given.items())})
        if not self._engine.reset_prefix_cache():
            raise EngineError("vLLM kept prefixes that were computed with the old weights")
        stale = self._engine.collective_rpc(_stale_weights, args=(given, _ROUNDING[self._config.dtype]))[0]
        if stale:
            raise EngineError(f"vLLM did not take over {len(stale)} of {len(given)} weights, e.g. {stale[:3]}")
        self.version = version
        return weights_checksum(given.items())


def _set_environment(config: EngineConfig) -> None:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the core must live in this process, or weights cannot be handed over
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.cpu_cache_gib)
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # binding would pin the learner's threads as well
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # else vLLM sets PyTorch to one thread, for everybody
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def _parameter_shapes(directory: str) -> dict[str, torch.Tensor]:
    """Names and shapes of the checkpoint's tensors, tied ones included, without memory."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    return dict(model.state_dict())


def _stale_weights(worker: Any, given: dict[str, torch.Tensor], rounding: float) -> list[str]:
    """Names of tensors that the model in ``worker`` does not answer by.

    vLLM fuses projections and repacks them, so most cannot be read back: each layer is asked for its answer to random inputs instead.
    """
    model = worker.get_model()
    stale = []
    for name, tensor in given.items():
        module, start = _holder(model, name, given)
        tensor = tensor.to(next(model.parameters()).device)
        if tensor.ndim == 2 and not name.endswith("embed_tokens.weight"):
            noise = torch.randn(_PROBES, tensor.shape[1], generator=torch.Generator().manual_seed(0)).to(tensor)
            answer = module.quant_method.apply(module, noise, None)[:, start : start + tensor.shape[0]]
            allowed = rounding * (noise.abs() @ tensor.abs().T).float()
            fits = bool(((answer - noise @ tensor.T).float().abs() <= allowed).all())
        else:
            held = getattr(module, name.rpartition(".")[2])
            fits = torch.equal(held.data[start : start + tensor.shape[0]], tensor)
        if not fits:
            stale.append(name)
    return stale


def _holder(model: Any, name: str, given: dict[str, torch.Tensor]) -> tuple[Any, int]:
    """The module that holds a checkpoint tensor, and the row where it starts there."""
    path, _, leaf = name.rpartition(".")
    parent, _, own = path.rpartition(".")
    for fused, parts in model.packed_modules_mapping.items():
        if own in parts:
            before = parts[: parts.index(own)]
            return model.get_submodule(f"{parent}.{fused}"), sum(given[f"{parent}.{part}.{leaf}"].shape[0] for part in before)
    return model.get_submodule(path), 0
