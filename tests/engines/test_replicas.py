"""Replicas answer as one engine would, take weights together, and fail aloud."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.engines.base import EngineConfig, Request, weights_checksum
from harness.engines.hf import HFEngine
from harness.engines.replicas import ReplicatedEngine, _write, replica_environments
from harness.errors import EngineError
from harness.types import Span

SMALL = EngineConfig(context=128, slots=4, prefill_rows=4, prefill_chunk=8, threads=1, replicas=2)
SaveModel = Callable[..., Path]
REQUESTS = [Request(ids=(4 + i, 5, 6, 7 + i), max_tokens=12, seed=i, session=f"s{i // 2}") for i in range(8)]


async def spans(engine: HFEngine | ReplicatedEngine) -> list[Span]:
    return list(await asyncio.gather(*(engine.generate(request) for request in REQUESTS)))


def test_replicas_sample_score_and_take_weights_as_one_engine_does(tmp_path: Path, save_model: SaveModel) -> None:
    directory = save_model(tmp_path / "m")
    weights = {n: t + 0.01 for n, t in AutoModelForCausalLM.from_pretrained(directory).state_dict().items()}
    sequences = [(4, 5, 6), (7, 8, 9, 10), (11, 12)]

    async def use(engine: HFEngine | ReplicatedEngine) -> tuple[list[Span], list[list[float]], str, list[Span], int]:
        try:
            return (
                await spans(engine),
                await engine.score(sequences),
                await engine.sync(weights.items(), 1),
                await spans(engine),
                engine.version,
            )
        finally:
            await engine.close()

    one = asyncio.run(use(HFEngine(directory, SMALL)))
    two = asyncio.run(use(ReplicatedEngine("hf", directory, SMALL)))
    assert two == one
    assert two[2] == weights_checksum(weights.items())
    assert two[3] != two[0]


def test_no_room_for_weights_on_their_way_to_the_replicas_is_said_in_words(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    with largest_file(4096), pytest.raises(EngineError, match=r"cannot hand the weights to the replicas in .*free some space there"):
        _write([("weight", torch.zeros(4096))], tmp_path)


def test_work_is_shared_and_a_session_stays_where_it_began(tmp_path: Path, save_model: SaveModel) -> None:
    directory = save_model(tmp_path / "m")

    async def body() -> list[set[int]]:
        engine = ReplicatedEngine("hf", directory, SMALL)
        asked: list[list[str]] = [[], []]
        for place, replica in enumerate(engine._replicas):
            ask = replica.ask

            def spy(what: str, request: Request, place: int = place, ask: Callable[..., Awaitable[Span]] = ask) -> Awaitable[Span]:
                asked[place].append(request.session)
                return ask(what, request)

            replica.ask = spy  # type: ignore[method-assign, assignment]
        try:
            await spans(engine)
        finally:
            await engine.close()
        return [set(map(int, (s[1:] for s in sessions))) for sessions in asked]

    first, second = asyncio.run(body())
    assert first and second and not first & second and first | second == {0, 1, 2, 3}


def test_a_killed_replica_is_an_engine_error_and_not_a_hang(tmp_path: Path, save_model: SaveModel) -> None:
    directory = save_model(tmp_path / "m")

    async def body() -> None:
        engine = ReplicatedEngine("hf", directory, SMALL)
        try:
            pid = engine._replicas[0]._process.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(EngineError, match="replica ended"):
                await asyncio.wait_for(engine.score([(4, 5, 6), (4, 5)]), timeout=30)
        finally:
            await engine.close()

    asyncio.run(body())


ORPHANS = """
import asyncio, os, signal, sys
from harness.engines.base import EngineConfig, Request
from harness.engines.replicas import ReplicatedEngine

async def body():
    engine = ReplicatedEngine("hf", sys.argv[1], EngineConfig(context=128, slots=4, prefill_rows=4, prefill_chunk=8, threads=1, replicas=2))
    asked = [asyncio.ensure_future(engine.generate(Request(ids=(4, 5), max_tokens=90, seed=i))) for i in range(40)]
    await asked[0]
    print("busy", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

if __name__ == "__main__":
    asyncio.run(body())
"""


def test_replicas_end_when_their_parent_is_killed_with_answers_unread(tmp_path: Path, save_model: SaveModel) -> None:
    (tmp_path / "main.py").write_text(ORPHANS)
    parent = subprocess.Popen([sys.executable, tmp_path / "main.py", save_model(tmp_path / "m")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "busy\n"
    time.sleep(1)  # the parent is stopped, its replicas go on and answer
    parent.kill()
    parent.communicate(timeout=30)  # ends when nobody holds the other end of the pipe: not the parent, not a replica


def test_what_an_engine_says_of_a_bad_request_or_model_reaches_the_caller(tmp_path: Path, save_model: SaveModel) -> None:
    directory = save_model(tmp_path / "m")

    async def body() -> None:
        engine = ReplicatedEngine("hf", directory, SMALL)
        try:
            with pytest.raises(EngineError, match="does not fit"):
                await engine.generate(Request(ids=(4,) * 128, max_tokens=4))
            with pytest.raises(EngineError, match="do not fit the model"):
                await engine.sync([("nonsense", torch.zeros(2))], 1)
            assert engine.version == 0
        finally:
            await engine.close()

    asyncio.run(body())
    with pytest.raises(EngineError, match="could not start"):
        ReplicatedEngine("hf", tmp_path / "nowhere", SMALL)


def test_each_replica_gets_a_gpu_of_its_own_or_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [e["CUDA_VISIBLE_DEVICES"] for e in replica_environments(4, visible="2,5", gpus=2)] == ["2", "5", "2", "5"]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert replica_environments(4, visible="", gpus=0) == [{"OMP_NUM_THREADS": "2"}] * 4


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="make vllm")
def test_vllm_replicas_take_weights_that_an_hf_engine_agrees_with(tmp_path: Path, save_model: SaveModel) -> None:
    directory = save_model(tmp_path / "m")
    weights = {n: t * 1.1 for n, t in AutoModelForCausalLM.from_pretrained(directory).state_dict().items()}

    async def body() -> None:
        engine = ReplicatedEngine("vllm", directory, SMALL)
        judge = HFEngine(directory, SMALL)
        try:
            assert await engine.sync(weights.items(), 1) == await judge.sync(weights.items(), 1)
            drawn = await spans(engine)
            rows = [(*request.ids, *span.ids) for request, span in zip(REQUESTS, drawn, strict=True)]
            for span, scored in zip(drawn, await judge.score(rows), strict=True):
                assert span.logprobs == pytest.approx(scored[-len(span.ids) :], abs=1e-3)
                assert span.version == 1
        finally:
            await engine.close()
            await judge.close()

    asyncio.run(body())
