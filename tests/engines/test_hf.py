"""The hf engine against plain transformers, against itself in other company, and against bad input."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM

from harness.engines.base import EngineConfig, Request, weights_checksum
from harness.engines.hf import HFEngine
from harness.errors import EngineError
from harness.types import FinishReason, Span

T = TypeVar("T")
SMALL = EngineConfig(context=200, slots=8, prefill_rows=4, prefill_chunk=8, threads=1)
SaveModel = Callable[..., Path]


def run(directory: Path, config: EngineConfig, use: Callable[[HFEngine], Awaitable[T]]) -> T:
    async def body() -> T:
        engine = HFEngine(directory, config)
        try:
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(body())


def random_ids(seed: int, n: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).randrange(4, 300) for _ in range(n))


def plain_logprobs(directory: Path, ids: tuple[int, ...], temperature: float = 1.0) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1]
    return torch.log_softmax(logits / temperature, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_logprobs_of_a_sample_are_those_of_plain_transformers(
    tmp_path: Path, save_model: SaveModel, deterministic: bool, kv_heads: int
) -> None:
    directory = save_model(tmp_path / "m", kv_heads=kv_heads)
    prompt = random_ids(1, 37)

    async def use(engine: HFEngine) -> Span:
        return await engine.generate(Request(ids=prompt, max_tokens=30, temperature=0.7, seed=5))

    span = run(directory, SMALL.model_copy(update={"deterministic": deterministic}), use)
    expected = plain_logprobs(directory, prompt + span.ids, temperature=0.7)[-len(span.ids) :]
    assert span.logprobs == pytest.approx(expected, abs=2e-5)


def test_greedy_takes_the_best_token_and_reports_it_at_temperature_one(model_dir: Path) -> None:
    prompt = random_ids(2, 11)
    span = run(model_dir, SMALL, lambda engine: engine.generate(Request(ids=prompt, max_tokens=8, temperature=0)))
    model = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    ids = list(prompt)
    for expected in span.ids:
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert ids[-1] == expected
    assert span.logprobs == pytest.approx(plain_logprobs(model_dir, tuple(ids))[-len(span.ids) :], abs=2e-5)


async def episode(engine: HFEngine, index: int, session: str, turns: int = 3) -> list[Span]:
    """Turns that extend one another, as an agent's do."""
    noise, ids, spans = random.Random(index), random_ids(index // 4, 20 + index // 4), []
    for turn in range(turns):
        spans.append(await engine.generate(Request(ids=ids, max_tokens=noise.randint(3, 12), seed=100 * index + turn, session=session)))
        ids += spans[-1].ids + random_ids(noise.getrandbits(30), noise.randint(1, 20))
        await asyncio.sleep(noise.random() * 0.003)
    return spans


def test_neighbours_order_reuse_and_timing_change_no_bit(model_dir: Path) -> None:
    """50 episodes on 8 slots: evictions, shared prompts, copies and every kind of company."""

    async def alone(engine: HFEngine) -> list[list[Span]]:
        return [await episode(engine, i, session="") for i in range(50)]

    async def crowd(engine: HFEngine) -> list[list[Span]]:
        order = random.Random(9).sample(range(50), 50)
        spans = await asyncio.gather(*(episode(engine, i, session=f"s{i}") for i in order))
        return [spans[order.index(i)] for i in range(50)]

    assert run(model_dir, SMALL.model_copy(update={"reuse": False}), alone) == run(model_dir, SMALL, crowd)


def test_without_deterministic_the_same_tokens_come_within_rounding(model_dir: Path) -> None:
    loose = SMALL.model_copy(update={"deterministic": False})

    async def crowd(engine: HFEngine) -> list[list[Span]]:
        return await asyncio.gather(*(episode(engine, i, session=f"s{i}") for i in range(20)))

    for exact, near in zip(run(model_dir, SMALL, crowd), run(model_dir, loose, crowd), strict=True):
        assert [s.ids for s in exact] == [s.ids for s in near]
        for a, b in zip(exact, near, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_score_equals_plain_transformers_at_any_length_and_temperature(model_dir: Path) -> None:
    sequences = [random_ids(n, n) for n in (1, 2, 9, 64, 65, 130, 9)]

    async def use(engine: HFEngine) -> list[list[float]]:
        return await engine.score(sequences, temperature=0.7)

    for ids, scores in zip(sequences, run(model_dir, SMALL, use), strict=True):
        assert len(scores) == len(ids) - 1
        assert scores == pytest.approx(plain_logprobs(model_dir, ids, 0.7) if len(ids) > 1 else [], abs=2e-5)


def test_scores_do_not_depend_on_what_is_scored_beside_them(model_dir: Path) -> None:
    sequences = [random_ids(n, 40 + n) for n in range(12)]

    async def use(engine: HFEngine) -> tuple[list[list[float]], list[list[float]]]:
        return await engine.score(sequences), [(await engine.score([ids]))[0] for ids in sequences]

    together, alone = run(model_dir, SMALL, use)
    assert together == alone


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sequences_that_begin_alike_are_read_once_and_score_as_they_do_apart(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """Three documents of one long beginning, each a few endings, as multiple choice has them; one is the beginning of another."""
    shots = random_ids(1, 90)
    sequences = [shots + random_ids(doc, 12) + random_ids(100 * doc + ending, 1 + ending) for doc in (2, 3, 4) for ending in range(5)]
    sequences += [sequences[4][:-2], sequences[3], random_ids(9, 70), (5,)]
    read: list[int] = []
    forward = Qwen3ForCausalLM.forward

    def counted(self: Qwen3ForCausalLM, input_ids: torch.Tensor, **rest: Any) -> Any:
        read.append(input_ids.numel())
        return forward(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(Qwen3ForCausalLM, "forward", counted)
    scored = {}
    for reuse in (False, True):
        read.clear()
        config = SMALL.model_copy(update={"reuse": reuse})
        scored[reuse] = run(model_dir, config, lambda engine: engine.score(sequences, temperature)), sum(read)
    (slow, slow_tokens), (fast, fast_tokens) = scored[False], scored[True]
    assert [len(row) for row in fast] == [len(ids) - 1 for ids in sequences]
    for ours, reference in zip(fast, slow, strict=True):
        assert ours == pytest.approx(reference, abs=2e-5)
    assert fast_tokens < slow_tokens / 3


def test_what_is_scored_in_another_call_changes_no_bit(model_dir: Path) -> None:
    documents = [[random_ids(doc, 60) + random_ids(ending, 9) for ending in range(4)] for doc in range(5)]

    async def use(engine: HFEngine) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
        at_once = list(await asyncio.gather(*(engine.score(document) for document in documents)))
        return at_once, [await engine.score(document[::-1]) for document in documents[::-1]]

    at_once, one_by_one = run(model_dir, SMALL, use)
    assert at_once == [rows[::-1] for rows in one_by_one[::-1]]


def test_spans_end_at_an_end_token_or_at_the_limit(model_dir: Path) -> None:
    async def use(engine: HFEngine) -> list[Span]:
        return await asyncio.gather(*(engine.generate(Request(ids=random_ids(i, 9), max_tokens=60, seed=i)) for i in range(60)))

    spans = run(model_dir, SMALL, use)
    assert {span.finish for span in spans} == {FinishReason.STOP, FinishReason.LENGTH}
    for span in spans:
        assert not {2, 3} & set(span.ids[:-1])
        assert (span.ids[-1] in (2, 3)) == (span.finish is FinishReason.STOP)
        assert span.finish is FinishReason.STOP or len(span.ids) == 60


def test_a_full_context_truncates_the_span(model_dir: Path) -> None:
    span = run(model_dir, SMALL, lambda engine: engine.generate(Request(ids=random_ids(3, 195), max_tokens=50, seed=2)))
    assert len(span.ids) == 5 and span.finish is FinishReason.LENGTH


def test_a_prompt_that_cannot_fit_is_refused_with_the_numbers(model_dir: Path) -> None:
    with pytest.raises(EngineError, match=r"200 tokens.*generation\.context=200"):
        run(model_dir, SMALL, lambda engine: engine.generate(Request(ids=random_ids(3, 200), max_tokens=5)))


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(directory).state_dict())


def test_sync_gives_the_numbers_of_the_new_weights_and_their_checksum(model_dir: Path, tmp_path: Path, save_model: SaveModel) -> None:
    other = save_model(tmp_path / "other", seed=1)
    new, prompt = weights_of(other), random_ids(4, 30)

    async def use(engine: HFEngine) -> tuple[Span, str, Span]:
        old = await engine.generate(Request(ids=prompt, max_tokens=6, seed=1, session="a"))
        checksum = await engine.sync(iter(new.items()), version=3)
        return old, checksum, await engine.generate(Request(ids=prompt + old.ids, max_tokens=6, seed=2, session="a"))

    old, checksum, span = run(model_dir, SMALL, use)
    assert checksum == weights_checksum(new.items())
    assert (old.version, span.version) == (0, 3)
    expected = plain_logprobs(other, prompt + old.ids + span.ids)[-len(span.ids) :]
    assert span.logprobs == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight"])
def test_sync_refuses_missing_extra_and_misshapen_weights_and_keeps_the_old(model_dir: Path, name: str) -> None:
    good = weights_of(model_dir)
    missing = {k: v for k, v in good.items() if k != name}
    bad: Iterable[dict[str, torch.Tensor]] = (missing, {**good, "extra": torch.zeros(1)}, {**good, name: torch.zeros(3)})

    async def use(engine: HFEngine) -> None:
        request = Request(ids=random_ids(5, 9), max_tokens=5)
        before = await engine.generate(request)
        for weights in bad:
            with pytest.raises(EngineError, match="nothing was loaded"):
                await engine.sync(weights.items(), version=1)
        assert await engine.generate(request) == before

    run(model_dir, SMALL, use)


def test_sync_waits_for_the_spans_under_way(model_dir: Path) -> None:
    new = weights_of(model_dir)

    async def use(engine: HFEngine) -> list[int]:
        first = [asyncio.create_task(engine.generate(Request(ids=random_ids(i, 9), max_tokens=40, seed=i))) for i in range(8)]
        await asyncio.sleep(0.02)
        sync = asyncio.create_task(engine.sync(new.items(), version=1))
        await asyncio.sleep(0)
        later = asyncio.create_task(engine.generate(Request(ids=random_ids(0, 9), max_tokens=3)))
        await sync
        return [*[(await span).version for span in first], (await later).version]

    assert run(model_dir, SMALL, use) == [0] * 8 + [1]


def test_requests_after_close_and_those_still_waiting_get_an_error(model_dir: Path) -> None:
    async def use() -> None:
        engine = HFEngine(model_dir, SMALL)
        request = Request(ids=random_ids(1, 9), max_tokens=150)
        waiting = [asyncio.create_task(engine.generate(request)) for _ in range(30)]
        await asyncio.sleep(0.01)
        await engine.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert any(isinstance(r, EngineError) for r in results)
        assert all(isinstance(r, Span | EngineError) for r in results)
        with pytest.raises(EngineError, match="closed"):
            await engine.generate(request)

    asyncio.run(use())


def test_a_directory_without_a_model_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot load"):
        HFEngine(tmp_path, SMALL)


def test_a_context_beyond_the_models_positions_is_refused(model_dir: Path) -> None:
    with pytest.raises(EngineError, match=r"generation\.context is 999.*256"):
        HFEngine(model_dir, SMALL.model_copy(update={"context": 999}))
