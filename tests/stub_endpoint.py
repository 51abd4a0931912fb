"""An OpenAI-compatible endpoint on loopback that can be as slow and as broken as told: for tests of the client, and for ``make bench``.

It runs in a process of its own (``StubEndpoint``), speaks HTTP/1.1 with keep-alive, and has no model: each question gets the answer that
``answers`` holds for it, after one search call where ``search`` is set. Faults are drawn from a seeded generator, request by request.
``GET /v1/stats`` counts what was asked.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

SEARCH = '<tool_call>\n{"name": "search", "arguments": {"query": ["fern"]}}\n</tool_call>'
OK = 200


class Stub:
    """What the endpoint says. ``plan`` keys: model, context, latency (s), search, answers, faults {kind: share}, retry_after, seed, key."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.rng = random.Random(plan.get("seed", 0))
        self.stats: Counter[str] = Counter()
        self.flying = 0

    async def answer(self, method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> bytes | None:
        """The whole response; None closes the connection without one."""
        path = urlsplit(path).path  # whoever takes the stub for a proxy names the whole URL
        if path == "/v1/stats":
            return response(OK, self.stats)
        if (key := self.plan.get("key")) and headers.get(b"authorization") != f"Bearer {key}".encode():
            return response(401, {"error": {"message": f"no such key: {headers.get(b'authorization', b'').decode()}"}})
        if path == "/v1/models":
            return response(OK, {"data": [{"id": self.plan.get("model", "stub"), "max_model_len": self.plan.get("context", 4096)}]})
        says = {"/v1/completions": self._completes, "/v1/chat/completions": self._chats}.get(path)
        if says is None:
            return response(404, {"error": {"message": f"no {path}"}})
        self.stats["requests"] += 1
        self.flying += 1
        self.stats["most_in_flight"] = max(self.stats["most_in_flight"], self.flying)
        try:
            return await self._served(json.loads(body), says)
        finally:
            self.flying -= 1

    async def _served(self, request: dict[str, Any], says: Callable[[dict[str, Any]], bytes]) -> bytes | None:
        """What ``says`` answers, after the latency, unless a fault comes first."""
        fault = self._fault()
        if fault:
            self.stats[fault] += 1
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "429":
            return response(429, {"error": {"message": "slow down"}}, **{"Retry-After": str(self.plan.get("retry_after", 1))})
        await asyncio.sleep(self.plan.get("latency", 0.0))
        match fault:
            case "500" | "503":
                return response(int(fault), {"error": {"message": "out of order"}})
            case "broken":
                return response(OK, b'{"choices": [{"mess')
            case "empty":
                return response(OK, {"object": "chat.completion"})
            case "cut":
                return says(request)[:-9]
            case "reset":
                return None
        return says(request)

    def _completes(self, request: dict[str, Any]) -> bytes:
        self.stats["answered"] += 1
        return response(OK, {"choices": [completion(request)]})

    def _chats(self, request: dict[str, Any]) -> bytes:
        messages = request["messages"]
        prompt = sum(len(m["content"].split()) for m in messages)
        limit = request.get("max_tokens")
        if prompt + (limit or 1) > self.plan.get("context", 4096):
            self.stats["overflow"] += 1
            words = f"This model's maximum context length is {self.plan.get('context', 4096)} tokens, you asked for {prompt} + {limit}"
            return response(400, {"error": {"message": words}})
        text = self._says(messages)
        usage = {"prompt_tokens": prompt, "completion_tokens": len(text.split()), "total_tokens": prompt + len(text.split())}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self.stats["answered"] += 1
        head = {"id": f"chatcmpl-{self.stats['answered']}", "object": "chat.completion", "created": 0, "model": request["model"]}
        return response(OK, {**head, "choices": [choice], "usage": usage})

    def _says(self, messages: list[dict[str, str]]) -> str:
        question = next(m["content"] for m in messages if m["role"] == "user")
        if self.plan.get("search") and messages[-1]["content"] == question:
            return SEARCH
        return f"<answer>{self.plan.get('answers', {}).get(question, 'unknown')}</answer>"

    def _fault(self) -> str | None:
        draw = self.rng.random()
        for kind, share in self.plan.get("faults", {}).items():
            draw -= share
            if draw < 0:
                return str(kind)
        return None


def completion(request: dict[str, Any]) -> dict[str, Any]:
    """As vLLM answers ids for a prompt: the sampled ids continue it by counting; a token's log-probability is minus a tenth of its id."""
    prompt = request["prompt"]
    new = [prompt[-1] + 1 + i for i in range(request["max_tokens"])]
    scored: list[float | None] = [-i / 10 for i in new]
    if request.get("echo"):
        scored = [None, *(-i / 10 for i in prompt[1:]), *scored]
    return {"token_ids": new, "logprobs": {"token_logprobs": scored}, "finish_reason": "length"}


def whole(answer: bytes) -> bool:
    """Whether a response has all the bytes that it promises."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")


def response(status: int, content: Any, **headers: str) -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *(f"{k}: {v}" for k, v in headers.items()), "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One client: requests are answered in order."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.buffer = b""
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, error: Exception | None) -> None:
        for task in self.tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        size = int(headers.get(b"content-length", b"0"))
        if len(rest) < size:
            return
        self.buffer = rest[size:]
        method, path, _ = first.decode().split(" ", 2)
        task = asyncio.get_running_loop().create_task(self._serve(method, path, headers, rest[:size]))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
        answer = await self.stub.answer(method, path, headers, body)
        if answer is not None:
            self.transport.write(answer)
        if answer is None or not whole(answer):
            self.transport.close()


async def serve(plan: dict[str, Any]) -> None:
    stub = Stub(plan)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(stub), "127.0.0.1", plan.get("port", 0), backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # ends with the process that started it


class StubEndpoint:
    """The stub in its own process: ``with StubEndpoint(latency=0.05) as stub: stub.url``."""

    def __init__(self, **plan: Any) -> None:
        self._plan = plan

    def __enter__(self) -> Self:
        command = [sys.executable, str(Path(__file__))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(self._plan).encode() + b"\n")
        self._process.stdin.flush()
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/v1"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def stats(self) -> dict[str, int]:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self.url}/stats") as reply:
            return dict(json.load(reply))


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.stdin.readline())))
