"""The shipped fake keeps the engine's contract."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest

from harness.engines.base import Request
from harness.engines.scripted import Reply, Script, ScriptedEngine, open_script
from harness.errors import EngineError, UsageError
from harness.types import FinishReason, Span

END = 0


def make(script: Script) -> ScriptedEngine:
    return ScriptedEngine(script, lambda text: [ord(c) for c in text], end=END)


def ask(engine: ScriptedEngine, session: str = "a", max_tokens: int = 50) -> Span:
    return asyncio.run(engine.generate(Request(ids=(1,), max_tokens=max_tokens, session=session)))


def text(span: Span) -> str:
    return "".join(chr(i) for i in span.ids if i != END)


def test_every_session_goes_through_the_turns_of_a_list() -> None:
    engine = make(["one", Reply(text="two", logprob=-2.0)])
    assert [text(ask(engine, s)) for s in ("a", "b", "a")] == ["one", "one", "two"]
    assert ask(engine, "b").logprobs == (-2.0,) * 4
    assert len(engine.requests) == 4


def test_sessions_may_have_their_own_turns_and_running_out_is_an_error() -> None:
    engine = make({"a": ["x"], "b": ["y"]})
    assert (text(ask(engine, "a")), text(ask(engine, "b"))) == ("x", "y")
    with pytest.raises(EngineError, match="session 'a' ends after 1 turn;"):
        ask(engine, "a")


def test_a_function_sees_the_request_and_the_turn() -> None:
    engine = make(lambda request, turn: f"{len(request.ids)}{turn}")
    assert [text(ask(engine)), text(ask(engine))] == ["10", "11"]


def test_a_reply_ends_its_turn_once_and_is_cut_at_the_limit() -> None:
    span = ask(make(["abc"]))
    assert span.ids == (97, 98, 99, END) and span.finish is FinishReason.STOP
    cut = ask(make(["abc"]), max_tokens=3)
    assert cut.ids == (97, 98, 99) and cut.finish is FinishReason.LENGTH
    assert ask(make([Reply(ids=(5, END), logprobs=(-1.0, -3.0))])).logprobs == (-1.0, -3.0)


def test_failures_delays_and_versions_come_by_script() -> None:
    async def use() -> None:
        engine = make([Reply(error="out of memory"), Reply(text="late", delay=0.05)])
        with pytest.raises(EngineError, match="out of memory"):
            await engine.generate(Request(ids=(1,), max_tokens=9))
        assert await engine.sync([], version=7) == "scripted-7"
        started = time.perf_counter()
        span = await engine.generate(Request(ids=(1,), max_tokens=9))
        assert span.version == 7 and time.perf_counter() - started >= 0.05
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await engine.generate(Request(ids=(1,), max_tokens=9))

    asyncio.run(use())


def test_scores_are_aligned_with_the_tokens() -> None:
    scores: Awaitable[list[list[float]]] = make([]).score([(1, 2, 3), (4,)])
    assert asyncio.run(scores) == [[-0.5, -0.5], []]  # type: ignore[arg-type]


def test_a_directory_without_a_script_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"script\.json.*JSON list of turns"):
        open_script(tmp_path)
    (tmp_path / "script.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(UsageError, match="list of strings"):
        open_script(tmp_path)
