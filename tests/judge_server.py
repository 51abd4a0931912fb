"""A judging endpoint on loopback: one whose verdicts a test decides, and one whose every reply it does."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from judges.contract import CHECK

Verdict = Callable[[Mapping[str, Any]], str | None]
"""The case as it was shown (question, reference, answer) -> the verdict; None: the server answers 400, which is not tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One reply of a scripted server; ``content`` None hangs up instead."""

    status: int = 200
    content: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def completion(text: str, model: str = "served", **changes: Any) -> Step:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **changes}
    return Step(content={"model": model, "choices": [choice]})


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves before its answer is no error here, and its traceback would stand in what a test reads."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Server:
    """Serves ``answer(path, body)``; ``port`` 0 takes a free one."""

    def __init__(self, answer: Callable[[str, Mapping[str, Any], Mapping[str, str]], Step], port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(answer(self.path, {}, dict(self.headers)))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._send(answer(self.path, body, dict(self.headers)))

            def _send(self, step: Step) -> None:
                if step.content is None:
                    self.close_connection = True
                    return
                content = step.content if isinstance(step.content, bytes) else json.dumps(step.content).encode()
                self.send_response(step.status)
                for name, value in {"Content-Length": str(len(content)), **step.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                return None

        self._server = _Quiet(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.01), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class JudgeServer(Server):
    """``cases`` holds what was asked, in order; ``checks`` counts the requests that only asked whether it judges."""

    def __init__(self, verdict: Verdict, port: int = 0, model: str = "made-up-judge") -> None:
        self.cases: list[Mapping[str, Any]] = []
        self.checks = 0
        self.verdict = verdict
        self._model = model
        super().__init__(self._answer, port)

    def _answer(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Step:
        if path.endswith("/models"):
            return Step(content={"data": [{"id": self._model}]})
        case = json.loads(body["messages"][-1]["content"])
        if case["question"] == CHECK[0]:
            self.checks += 1
            said: str | None = "correct"
        else:
            self.cases.append(case)
            said = self.verdict(case)
        if said is None:
            return Step(status=400, content={"error": "no"})
        return completion(json.dumps({"reason": "made up", "verdict": said}), body["model"])


class ScriptedServer(Server):
    """Gives ``steps`` in turn, the last one again and again; ``bodies``, ``headers`` and ``times`` (s) tell what came."""

    def __init__(self, *steps: Step) -> None:
        self.bodies: list[Mapping[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.times: list[float] = []
        self._steps = list(steps)
        super().__init__(self._answer)

    def _answer(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Step:
        self.bodies.append(body)
        self.headers.append(headers)
        self.times.append(time.monotonic())
        return self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
