"""The endpoint client against a real server on loopback: it rides out faults, honours Retry-After, keeps the key, and never guesses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import pytest
from judge_server import ScriptedServer, Server, Step, completion
from stub_endpoint import StubEndpoint

from harness.engines.base import ChatEngine, ChatReply, ChatRequest, Request
from harness.engines.client import Client, Patience, Served, UnansweredError, checked_url, proxy_of
from harness.engines.completions import CompletionsEngine
from harness.engines.http import Endpoint, EndpointConfig, _text
from harness.engines.pace import Pace, seconds
from harness.errors import ContextOverflowError, EngineError, HarnessError, UsageError
from harness.types import FinishReason, Span, Usage

T = TypeVar("T")
ANSWERS = {f"Question {i}?": str(i) for i in range(40)}


def asked(stub: StubEndpoint, work: Callable[[Endpoint], Awaitable[T]], model: str = "stub", **settings: Any) -> T:
    """What ``work`` brings of an endpoint that is closed afterwards."""

    async def run() -> T:
        endpoint = Endpoint(stub.url, model, EndpointConfig(**settings))
        try:
            return await work(endpoint)
        finally:
            await endpoint.close()

    return asyncio.run(run())


def request(question: str = "Question 1?", max_tokens: int | None = 16) -> ChatRequest:
    return ChatRequest(messages=({"role": "user", "content": question},), max_tokens=max_tokens, temperature=0.0)


async def all_of(endpoint: Endpoint) -> list[ChatReply]:
    return await asyncio.gather(*(endpoint.chat(request(q)) for q in ANSWERS))


def test_a_reply_is_text_with_the_endpoints_own_counts_and_what_they_cost() -> None:
    with StubEndpoint(answers=ANSWERS, latency=0.01) as stub:
        reply = asked(stub, lambda e: e.chat(request()), price_prompt=1e6, price_generated=2e6)
    assert (reply.text, reply.finish) == ("<answer>1</answer>", FinishReason.STOP)
    assert reply.usage == Usage(prompt=2, billed_prompt=2, generated=1, cost=4.0)


def test_faults_change_no_reply_and_a_success_is_not_asked_again() -> None:
    faults = {"500": 0.1, "broken": 0.05, "empty": 0.05, "reset": 0.05, "hang": 0.05, "503": 0.05}
    with StubEndpoint(answers=ANSWERS, faults=faults, seed=3) as stub:
        replies = asked(stub, all_of, timeout=3.0)
        stats = stub.stats()
    assert [r.text for r in replies] == [f"<answer>{a}</answer>" for a in ANSWERS.values()]
    assert stats["answered"] == len(ANSWERS)
    assert all(stats[fault] for fault in faults), "the stub was not broken enough to show anything"
    assert sum(r.usage.retries for r in replies) == stats["requests"] - len(ANSWERS)


def test_a_retry_after_is_waited_for_by_every_request() -> None:
    with StubEndpoint(answers=ANSWERS, faults={"429": 0.1}, retry_after=1, seed=1) as stub:
        began = time.monotonic()
        replies = asked(stub, all_of, retries=0)
        stats = stub.stats()
    assert len(replies) == 40 and stats["429"] >= 1
    assert time.monotonic() - began >= 1


def test_retries_end_and_name_the_last_fault() -> None:
    with StubEndpoint(faults={"500": 1.0}) as stub:
        with pytest.raises(EngineError, match=r"HTTP 500: .*out of order.* \(3 tries"):
            asked(stub, lambda e: e.chat(request()), retries=2)
        assert stub.stats()["requests"] == 3


def said_by(client: Client, questions: Sequence[str]) -> list[Any]:
    """What each question brings, all asked at once: the reply's text, or the error."""

    async def one(question: str) -> str:
        body = {"model": "stub", "messages": [{"role": "user", "content": question}]}
        return await client.ask("POST", "/chat/completions", body, lambda reply, _: str(reply["choices"][0]["message"]["content"]))

    async def run() -> list[Any]:
        try:
            return await asyncio.gather(*map(one, questions), return_exceptions=True)
        finally:
            await client.close()

    return asyncio.run(run())


def client_of(url: str, first_answer: float, retries: int = 4) -> Client:
    patience = Patience(timeout=30, retries=retries, seconds=60, first_answer=first_answer)
    return Client(url, patience=patience, most=8, key_variable="NO_KEY")


@pytest.mark.parametrize("fault", ["500", "broken", "reset"])
def test_a_server_that_fails_everything_from_the_start_is_given_up_soon_and_for_all(fault: str) -> None:
    with StubEndpoint(faults={fault: 1.0}) as stub:
        began = time.monotonic()
        found = said_by(client_of(stub.url, first_answer=1.0, retries=50), [*ANSWERS][:6])
    assert time.monotonic() - began < 5
    assert all(type(error) is HarnessError for error in found)
    assert "answers no request: " in str(found[0]) and "once it answers, give the same command again" in str(found[0])


def test_a_server_that_has_answered_once_is_given_all_retries(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.engines.client.UNHEARD", 0.3)  # waits between tries are random: these six exceed it for sure
    replies = [completion("yes"), *[Step(status=500, content={"error": "down"})] * 6, completion("again")]
    with ScriptedServer(*replies) as server:

        async def run() -> list[str]:
            client = client_of(server.url, first_answer=0.2, retries=9)
            read = lambda reply, _: str(reply["choices"][0]["message"]["content"])  # noqa: E731
            try:
                return [await client.ask("POST", "/chat/completions", {}, read) for _ in range(2)]
            finally:
                await client.close()

        assert asyncio.run(run()) == ["yes", "again"]
    assert [m for m in caplog.messages if "has failed every request for" in m and "up to 9 times" in m] == caplog.messages[:1] != []


def test_requests_that_always_fail_beside_one_that_is_still_being_answered_prove_nothing() -> None:
    def answer(path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Step:
        if body["messages"][0]["content"] != "slow":
            return Step(status=500, content={"error": "poison"})
        time.sleep(4)
        return completion("at last")

    with Server(answer) as server:
        slow, *poison = said_by(client_of(server.url, first_answer=0.5), ["slow", "a", "b"])
    assert slow == "at last" and all(isinstance(error, UnansweredError) for error in poison)


def test_patience_bounds_refusals_that_are_not_counted_as_failures() -> None:
    with StubEndpoint(faults={"429": 1.0}, retry_after=0.2) as stub:
        with pytest.raises(EngineError, match="429"):
            asked(stub, lambda e: e.chat(request()), retries=0, patience=4.0)
        assert stub.stats()["requests"] >= 3


def test_a_retry_after_beyond_patience_is_not_waited_for() -> None:
    with StubEndpoint(faults={"429": 1.0}, retry_after=3600) as stub:
        began = time.monotonic()
        with pytest.raises(EngineError):
            asked(stub, lambda e: e.chat(request()), patience=5.0)
    assert time.monotonic() - began < 5


def test_the_timeout_is_for_the_whole_reply() -> None:
    with StubEndpoint(faults={"hang": 1.0}) as stub, pytest.raises(EngineError, match=r"within 0\.2 s"):
        asked(stub, lambda e: e.chat(request()), timeout=0.2, retries=0)


def test_the_key_comes_from_the_named_variable_and_no_message_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret-key")
    with StubEndpoint(key="s3cret-key") as stub:
        assert asked(stub, lambda e: e.models(), key_variable="MY_KEY") == (Served(id="stub", context=4096),)
    with StubEndpoint(key="another") as stub, pytest.raises(HarnessError, match=r"401.*\$MY_KEY") as caught:
        asked(stub, lambda e: e.chat(request()), key_variable="MY_KEY")
    assert "s3cret-key" not in str(caught.value) and not isinstance(caught.value, EngineError)


def test_a_limit_that_does_not_fit_beside_the_prompt_is_left_to_the_server() -> None:
    with StubEndpoint(answers=ANSWERS, context=10) as stub:
        assert asked(stub, lambda e: e.chat(request(max_tokens=9))).text == "<answer>1</answer>"
        assert stub.stats()["overflow"] == 1
        with pytest.raises(ContextOverflowError):
            asked(stub, lambda e: e.chat(request("word " * 10)))


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_limit_goes_by_the_name_that_the_endpoint_knows(field: str) -> None:
    with StubEndpoint(answers=ANSWERS, context=10) as stub:
        asked(stub, lambda e: e.chat(request(max_tokens=9)), tokens_field=field)
        assert stub.stats().get("overflow", 0) == (field == "max_tokens")  # the stub reads max_tokens only


def test_no_more_requests_fly_than_allowed() -> None:
    with StubEndpoint(answers=ANSWERS, latency=0.02) as stub:
        asked(stub, all_of, concurrency=5)
        assert stub.stats()["most_in_flight"] == 5


@pytest.mark.parametrize("url", ["ftp://host/v1", "localhost:8000", "http://user:pw@host/v1", "http://host/v1?key=x"])
def test_a_url_that_is_none_or_holds_a_secret_is_refused_without_repeating_the_secret(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_url(url, "the endpoint", "KEY")
    assert "pw" not in str(caught.value) and "key=x" not in str(caught.value)


def test_thoughts_and_calls_that_a_server_took_out_are_put_back() -> None:
    call = {"function": {"name": "search", "arguments": '{"query": ["x"]}'}}
    text = _text({"content": None, "reasoning_content": "hm", "tool_calls": [call]})
    from harness.chat import parse_turn

    turn = parse_turn(text)
    assert turn.thought == "hm" and turn.actions[0].arguments == {"query": ["x"]}


def test_a_retry_after_may_be_a_date() -> None:
    assert seconds("2.5") == 2.5 and seconds(None) is None and seconds("soon") is None
    in_ten = seconds(format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True))
    assert in_ten is not None and 8 <= in_ten <= 10


def test_the_pace_doubles_a_round_trip_until_the_first_overload_then_creeps() -> None:
    async def run() -> list[float]:
        pace = Pace(32)
        limits = [pace.limit]
        async with pace.slot() as early, pace.slot() as beside:
            for _ in range(16):
                pace.succeeded()
            limits.append(pace.limit)
            pace.overloaded(early)
            pace.overloaded(beside)  # under way together: one overload, not two
            limits.append(pace.limit)
        pace.succeeded()
        return [*limits, pace.limit]

    assert asyncio.run(run()) == [16.0, 32.0, 16.0, 16.0 + 1 / 16]


def test_a_cancelled_wait_leaves_its_place_to_the_next() -> None:
    async def run() -> int:
        pace = Pace(1)
        entered: list[int] = []

        async def hold(number: int, seconds: float) -> None:
            async with pace.slot():
                entered.append(number)
                await asyncio.sleep(seconds)

        first, second, third = (asyncio.create_task(hold(i, 0.01)) for i in range(3))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, third)
        assert entered == [0, 2]
        return pace.flying

    assert asyncio.run(run()) == 0


def test_an_endpoint_is_a_chat_engine_and_a_token_engine_is_none() -> None:
    from harness.engines.scripted import ScriptedEngine

    assert isinstance(Endpoint("http://host/v1", "m", EndpointConfig()), ChatEngine)
    assert not isinstance(ScriptedEngine(("x",), lambda text: [1]), ChatEngine)


def test_the_environments_proxy_is_used_where_it_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with StubEndpoint(model="behind") as stub:
        monkeypatch.setenv("HTTP_PROXY", stub.url.removesuffix("/v1"))

        async def ask() -> tuple[Served, ...]:
            endpoint = Endpoint("http://model.invalid:8000/v1", "m", EndpointConfig(retries=0))
            try:
                return await endpoint.models()
            finally:
                await endpoint.close()

        assert [served.id for served in asyncio.run(ask())] == ["behind"]
    assert proxy_of("http://model.invalid/v1") and proxy_of("https://model.invalid/v1") is None
    monkeypatch.setenv("NO_PROXY", "model.invalid")
    assert proxy_of("http://model.invalid:8000/v1") is None


def test_with_token_ids_an_endpoint_rides_out_the_same_faults() -> None:
    prompts = [(10 + i, 20 + i, 30 + i) for i in range(20)]

    async def work(endpoint: Endpoint) -> tuple[list[Span], list[list[float]]]:
        engine = CompletionsEngine(endpoint)
        spans = await asyncio.gather(*(engine.generate(Request(ids=ids, max_tokens=2, temperature=0.0)) for ids in prompts))
        return list(spans), await engine.score(prompts)

    with StubEndpoint() as stub:
        clean = asked(stub, work)
    faults = {"500": 0.1, "broken": 0.05, "empty": 0.1, "cut": 0.05, "reset": 0.05, "hang": 0.05}
    with StubEndpoint(faults=faults, seed=4) as stub:
        assert asked(stub, work, timeout=3.0) == clean
        assert stub.stats()["empty"] >= 2 and stub.stats()["answered"] == 40 + stub.stats()["cut"]


def test_with_token_ids_an_endpoint_generates_and_scores_like_any_engine() -> None:
    async def work(endpoint: Endpoint) -> tuple[Span, list[list[float]]]:
        engine = CompletionsEngine(endpoint)
        assert not isinstance(engine, ChatEngine)
        span = await engine.generate(Request(ids=(5, 6), max_tokens=2, temperature=0.0))
        with pytest.raises(EngineError, match="temperature 1 only"):
            await engine.score([(1, 2)], temperature=0.5)
        return span, await engine.score([(10, 20, 30), (40, 50)])

    with StubEndpoint() as stub:
        span, scores = asked(stub, work)
    assert span == Span(ids=(7, 8), logprobs=(-0.7, -0.8), finish=FinishReason.LENGTH)
    assert scores == [[-2.0, -3.0], [-5.0]]


def test_a_server_that_goes_away_is_waited_for_and_found_again(unused_port: int) -> None:
    async def run() -> tuple[ChatReply, ChatReply]:
        endpoint = Endpoint(f"http://127.0.0.1:{unused_port}/v1", "stub", EndpointConfig(retries=1))  # a kept connection may break once
        with StubEndpoint(answers=ANSWERS, port=unused_port):
            before = await endpoint.chat(request())
        waiting = asyncio.create_task(endpoint.chat(request()))
        await asyncio.sleep(1)
        assert not waiting.done()
        with StubEndpoint(answers=ANSWERS, port=unused_port):
            after = await waiting
        await endpoint.close()
        return before, after

    before, after = asyncio.run(run())
    assert before.text == after.text and after.usage.retries > 0


def test_a_server_that_stays_away_is_waited_for_once_and_not_by_every_request(unused_port: int, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> float:
        endpoint = Endpoint(f"http://127.0.0.1:{unused_port}/v1", "stub", EndpointConfig(retries=0, patience=2.0))
        with pytest.raises(EngineError, match="no connection"):
            await endpoint.chat(request())
        began = time.monotonic()
        for _ in range(5):
            with pytest.raises(EngineError, match=r"\(\d tr(y|ies) in \d s\)"):
                await endpoint.chat(request())
        await endpoint.close()
        return time.monotonic() - began

    assert asyncio.run(run()) < 2
    assert caplog.messages == [f"the endpoint http://127.0.0.1:{unused_port}/v1 is not there; waiting for it up to 2 s"]


def test_the_first_request_of_a_command_is_not_waited_for_long(unused_port: int) -> None:
    async def run() -> None:
        await Endpoint(f"http://127.0.0.1:{unused_port}/v1", "stub", EndpointConfig()).models()

    began = time.monotonic()
    with pytest.raises(HarnessError, match=r"does not list its models: no connection.*Is it up"):
        asyncio.run(run())
    assert time.monotonic() - began < 8
