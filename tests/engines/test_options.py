"""Each option of an engine changes the number that it is about."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from harness.engines.base import EngineConfig, Request
from harness.engines.hf import HFEngine
from harness.errors import EngineError

BASE = EngineConfig(context=200, slots=4, prefill_rows=2, prefill_chunk=8, threads=1, device="cpu")


class CountedPasses(HFEngine):
    """Notes the shape of every pass through the model, and what the thread sees."""

    passes: list[tuple[int, int]]
    threads: int
    dtype: torch.dtype

    def _set_up(self, directory: str) -> None:
        super()._set_up(directory)
        self.passes = []
        self.threads, self.dtype = torch.get_num_threads(), self._model.model.dtype
        forward = self._model.forward

        def counted(ids_RC, *rest, **options):  # type: ignore[no-untyped-def]
            self.passes.append(ids_RC.shape)
            return forward(ids_RC, *rest, **options)

        self._model.forward = counted  # type: ignore[method-assign]


def observe(directory: Path, **options: object) -> CountedPasses:
    """Two requests of 30 tokens that start alike, 3 tokens each, one after the other."""

    async def body() -> CountedPasses:
        engine = CountedPasses(directory, BASE.model_copy(update=options))
        for last in (7, 8):
            await engine.generate(Request(ids=(*range(10, 39), last), max_tokens=3, seed=last))
        await engine.close()
        return engine

    return asyncio.run(body())


def test_slots_is_the_number_of_rows_of_a_decoding_pass(model_dir: Path) -> None:
    assert (6, 1) in observe(model_dir, slots=6).passes


def test_prefill_rows_and_chunk_are_the_shape_of_a_prefill_pass(model_dir: Path) -> None:
    assert (3, 5) in observe(model_dir, prefill_rows=3, prefill_chunk=5).passes


def test_deterministic_off_decodes_only_the_slots_in_use(model_dir: Path) -> None:
    assert (1, 1) in observe(model_dir, deterministic=False).passes
    assert (1, 1) not in observe(model_dir).passes


def test_reuse_saves_prefill_passes(model_dir: Path) -> None:
    prefills = [sum(shape == (2, 8) for shape in observe(model_dir, reuse=reuse).passes) for reuse in (True, False)]
    assert prefills == [3, 4]  # 30 tokens in rows of 8, two rows a pass; the second prompt shares 29 of them


def test_threads_is_the_number_of_threads_of_the_engine(model_dir: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert [observe(model_dir, threads=n).threads for n in (1, 2)] == [1, 2]
    finally:
        torch.set_num_threads(before)


def test_dtype_is_the_type_of_the_weights(model_dir: Path) -> None:
    assert observe(model_dir, dtype="bfloat16").dtype is torch.bfloat16


def test_context_bounds_prompt_and_response(model_dir: Path) -> None:
    async def body() -> int:
        engine = HFEngine(model_dir, BASE.model_copy(update={"context": 32}))
        span = await engine.generate(Request(ids=tuple(range(10, 40)), max_tokens=9, seed=1))
        await engine.close()
        return len(span.ids)

    assert asyncio.run(body()) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(model_dir: Path) -> None:
    with pytest.raises(EngineError, match=r"generation\.device is cuda but PyTorch sees no GPU"):
        HFEngine(model_dir, BASE.model_copy(update={"device": "cuda"}))
