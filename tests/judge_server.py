"""A judging endpoint on loopback whose verdicts a test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Verdict = Callable[[Mapping[str, Any]], str | None]
"""The case as it was shown (question, reference, answer) -> the verdict; None: the server answers 400, which is not tried again."""


class JudgeServer:
    """``cases`` holds what was asked, in order."""

    def __init__(self, verdict: Verdict) -> None:
        self.cases: list[Mapping[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": "made-up-judge"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                case = json.loads(body["messages"][-1]["content"])
                outer.cases.append(case)
                said = verdict(case)
                if said is None:
                    self._send(400, {"error": "no"})
                    return
                content = json.dumps({"reason": "made up", "verdict": said})
                self._send(200, {"model": body["model"], "choices": [{"message": {"content": content}, "finish_reason": "stop"}]})

            def _send(self, status: int, data: Mapping[str, Any]) -> None:
                content = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
