"""The Starlette application: addresses, error pages, and reading on while runs go on. What pages hold is built elsewhere.

Read-only and without sessions: every address shows the whole state. Handlers are plain functions, which Starlette runs in threads.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from leaderboard.ingest import ingest_all
from leaderboard.records import RunInfo, SampleFilter
from leaderboard.store import Store
from leaderboard.submissions import Inbox
from leaderboard.web.board import board_page
from leaderboard.web.cache import PageCache
from leaderboard.web.run import run_page, runs_page
from leaderboard.web.sample import sample_page, samples_page
from leaderboard.web.security import HEADERS, Guard
from leaderboard.web.submissions import Submissions
from leaderboard.words import EMPTY

READ_ON_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the pages are made from; ``runs_dir`` None serves a database whose logs are elsewhere."""

    engine: Engine
    runs_dir: Path | None = None
    hosts: tuple[str, ...] = ()
    inbox: Inbox | None = None
    """Takes submissions, where the operator wants them."""


def create_app(site: Site) -> Starlette:
    """The application over one database."""
    pages = _Pages(site)
    routes = [
        Route("/", pages.board),
        Route("/runs", pages.runs),
        Route("/runs/{run_id}", pages.run),
        Route("/runs/{run_id}/samples", pages.samples),
        Route("/runs/{run_id}/samples/{attempt_id:path}", pages.sample),
        *([] if site.inbox is None else Submissions(site.inbox).routes()),
        Mount("/static", StaticFiles(packages=[("leaderboard.web", "static")])),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: pages.error, Exception: pages.error}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(Guard, hosts=site.hosts), Middleware(PageCache)])


class _Pages:
    """One method an address."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._store = Store(site.engine)
        self._lock, self._read_at = Lock(), float("-inf")
        self._templates = Environment(
            loader=PackageLoader("leaderboard.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )

    def board(self, request: Request) -> Response:
        self._read_on()
        view = "forest" if request.query_params.get("view") == "forest" else "table"
        page = board_page(self._store, view, request.query_params.get("unfold", ""))
        return self._render("board.html", page=page, here="board", empty=EMPTY)

    def runs(self, request: Request) -> Response:
        self._read_on()
        query = request.query_params
        page = runs_page(self._store, datetime.now(UTC), query.get("model") or None, query.get("method") or None)
        return self._render("runs.html", page=page, here="runs", empty=EMPTY)

    def run(self, request: Request) -> Response:
        self._read_on()
        page = run_page(self._store, self._known_run(request), datetime.now(UTC), request.query_params.get("map"))
        return self._render("run.html", page=page, here="runs")

    def samples(self, request: Request) -> Response:
        self._read_on()
        query = request.query_params
        wanted = SampleFilter(
            purpose=query.get("purpose") or None,
            evaluation=query.get("evaluation") or None,
            task=query.get("task") or None,
            step=_whole_number(query.get("step")),
            level=_whole_number(query.get("level")),
            verdict=query.get("verdict") or None,
        )
        page = samples_page(self._store, self._known_run(request), wanted, _whole_number(query.get("page")) or 0)
        return self._render("samples.html", page=page, here="runs")

    def sample(self, request: Request) -> Response:
        self._read_on()
        run, attempt_id = self._known_run(request), request.path_params["attempt_id"]
        sample = self._store.sample(run.key, attempt_id)
        if sample is None:
            raise HTTPException(404, f"Run {run.run_id} has no attempt {attempt_id}.")
        return self._render("sample.html", page=sample_page(run, sample), here="runs")

    def error(self, request: Request, error: Exception) -> Response:
        status, words = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
        title = "Not found" if status == 404 else f"Error {status}"
        return self._render("error.html", status=status, title=title, words=words, here="")

    def _known_run(self, request: Request) -> RunInfo:
        run = self._store.run(request.path_params["run_id"])
        if run is None:
            raise HTTPException(404, f"There is no run {request.path_params['run_id']}.")
        return run

    def _read_on(self) -> None:
        """Take in what the logs gained since the last look; one request at a time, at most once in READ_ON_SECONDS."""
        if self._site.runs_dir is None or time.monotonic() - self._read_at < READ_ON_SECONDS or not self._lock.acquire(blocking=False):
            return
        try:
            ingest_all(self._site.engine, self._site.runs_dir)
        finally:
            self._read_at = time.monotonic()
            self._lock.release()

    def _render(self, template: str, status: int = 200, **values: Any) -> Response:
        # The guard adds the headers to all but the page of an unforeseen error, which is made outside of it.
        return HTMLResponse(self._templates.get_template(template).render(status=status, **values), status_code=status, headers=HEADERS)


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None
