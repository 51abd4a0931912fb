"""The Starlette application: addresses, error pages, and reading on while runs go on. What pages hold is built elsewhere.

Read-only and without sessions: every address shows the whole state. Handlers are plain functions from a request to HTML, which
``leaderboard.web.cache`` runs in threads.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from harness.events import Cursor
from leaderboard.calibrations import read_calibrations
from leaderboard.ingest import ingest_all
from leaderboard.records import RunInfo, SampleFilter, SampleInfo
from leaderboard.snapshot import Snapshot
from leaderboard.store import Store
from leaderboard.submissions import Inbox
from leaderboard.verdicts import JudgeCounts
from leaderboard.web.board import board_page
from leaderboard.web.cache import PageCache
from leaderboard.web.compare import FILTERS, CompareQuery, compare_page
from leaderboard.web.diff import diff_page
from leaderboard.web.judges import judges_page
from leaderboard.web.live import follow, parse_cursor
from leaderboard.web.query import BoardQuery, parse_correction
from leaderboard.web.reported import reported_page
from leaderboard.web.run import run_page, runs_page
from leaderboard.web.sample import sample_page, samples_page
from leaderboard.web.security import HEADERS, Guard
from leaderboard.web.submissions import Submissions
from leaderboard.web.templating import environment
from leaderboard.words import EMPTY

READ_ON_SECONDS = 2.0
MOST_FOLLOWERS = 64  # open event streams; each polls one log


class AnyText(PathConvertor):
    """The rest of an address whatever it holds: ids of attempts come from logs, newlines and slashes included."""

    regex = "(?s:.*)"


register_url_convertor("any", AnyText())


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the pages are made from; ``runs_dir`` None serves a database whose logs are elsewhere."""

    engine: Engine
    runs_dir: Path | None = None
    hosts: tuple[str, ...] = ()
    show_gated: bool = False
    inbox: Inbox | None = None
    """Takes submissions, where the operator wants them."""

    @property
    def home(self) -> Path | None:
        return None if self.runs_dir is None else self.runs_dir.parent


def create_app(site: Site) -> Starlette:
    """The application over one database."""
    pages, cache = _Pages(site), PageCache()
    made = {
        "/": pages.board,
        "/compare": pages.compare,
        "/diff": pages.diff,
        "/judges": pages.judges,
        "/reported": pages.reported,
        "/runs/{run_id}/samples": pages.samples,
        "/runs/{run_id}/sample": pages.sample,
        "/runs/{run_id}/samples/{attempt_id:any}": pages.sample,
    }
    clocked = {"/runs": pages.runs, "/runs/{run_id}": pages.run}
    routes = [
        *(Route(path, cache.kept(make, pages.state)) for path, make in made.items()),
        *(Route(path, cache.kept(make, pages.state_this_minute)) for path, make in clocked.items()),
        Route("/runs/{run_id}/events", pages.events),
        *([] if site.inbox is None else Submissions(site.inbox).routes()),
        Mount("/static", StaticFiles(packages=[("leaderboard.web", "static")])),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: pages.error, Exception: pages.error}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(Guard, hosts=site.hosts)])


class _Pages:
    """One method an address."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._store = Store(site.engine)
        self._lock, self._read_at, self._state = Lock(), float("-inf"), ""
        self._templates, self._followers = environment(), 0
        self._taken: tuple[str, Snapshot] | None = None
        self._taking = Lock()

    def state(self) -> str:
        """Changes whenever a page may; takes in what the logs gained since the last look, one caller at a time, once in READ_ON_SECONDS."""
        if time.monotonic() - self._read_at >= READ_ON_SECONDS and self._lock.acquire(blocking=False):
            try:
                if self._site.runs_dir is not None:
                    ingest_all(self._site.engine, self._site.runs_dir)
                self._state = f"{self._store.state()} {sorted(read_calibrations(self._site.home).items())}"
            finally:
                self._read_at = time.monotonic()
                self._lock.release()
        return self._state

    def state_this_minute(self) -> str:
        """For pages that say how long ago something was."""
        return f"{self.state()} {time.time() // 60:.0f}"

    def board(self, request: Request) -> str:
        query = BoardQuery.parse(request.query_params)
        known = sorted(read_calibrations(self._site.home))
        return self._text("board.html", page=board_page(self._snapshot(), query, known), here="board", empty=EMPTY)

    def compare(self, request: Request) -> str:
        asked = request.query_params
        show = asked.get("show", "")
        query = CompareQuery(
            a=asked.get("a", ""),
            b=asked.get("b", ""),
            benchmark=asked.get("benchmark", ""),
            split=asked.get("split", ""),
            show=show if show in FILTERS else "wins",
            page=_whole_number(asked.get("page")) or 0,
            correction=parse_correction(asked),
        )
        return self._text("compare.html", page=compare_page(self._snapshot(), query, self._site.show_gated), here="compare")

    def diff(self, request: Request) -> str:
        asked = request.query_params
        run_a, run_b = (self._run(asked.get(name, "")) for name in ("run_a", "run_b"))
        a, b = self._attempt(run_a, asked.get("a", "")), self._attempt(run_b, asked.get("b", ""))
        return self._text("diff.html", page=diff_page(run_a, a, run_b, b, self._site.show_gated), here="compare")

    def judges(self, request: Request) -> str:
        return self._text(
            "judges.html", page=judges_page(JudgeCounts(self._site.engine), read_calibrations(self._site.home)), here="judges"
        )

    def reported(self, request: Request) -> str:
        return self._text("reported.html", page=reported_page(), here="reported")

    def runs(self, request: Request) -> str:
        query = request.query_params
        number = _whole_number(query.get("page")) or 0
        page = runs_page(self._store, datetime.now(UTC), query.get("model") or None, query.get("method") or None, number)
        return self._text("runs.html", page=page, here="runs", empty=EMPTY)

    def run(self, request: Request) -> str:
        page = run_page(self._store, self._known_run(request), datetime.now(UTC), request.query_params.get("map"))
        return self._text("run.html", page=page, here="runs")

    async def events(self, request: Request) -> Response:
        run = await run_in_threadpool(self._known_run, request)
        after = parse_cursor(request.headers.get("last-event-id")) or parse_cursor(request.query_params.get("after"))
        if self._followers >= MOST_FOLLOWERS:
            return PlainTextResponse("Too many readers follow runs at once; try again.\n", status_code=503, headers={"Retry-After": "10"})

        async def counted() -> AsyncIterator[str]:
            self._followers += 1
            try:
                async for text in follow(Path(run.folder), after or Cursor()):
                    yield text
            finally:
                self._followers -= 1

        return StreamingResponse(counted(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    def samples(self, request: Request) -> str:
        query = request.query_params
        wanted = SampleFilter(
            purpose=query.get("purpose") or None,
            evaluation=query.get("evaluation") or None,
            task=query.get("task") or None,
            step=_whole_number(query.get("step")),
            level=_whole_number(query.get("level")),
            verdict=query.get("verdict") or None,
        )
        number = _whole_number(query.get("page")) or 0
        page = samples_page(self._store, self._known_run(request), wanted, number, self._site.show_gated)
        return self._text("samples.html", page=page, here="runs")

    def sample(self, request: Request) -> str:
        run = self._known_run(request)
        sample = self._attempt(run, request.path_params.get("attempt_id", request.query_params.get("id", "")))
        return self._text("sample.html", page=sample_page(self._store, run, sample, self._site.show_gated), here="runs")

    def error(self, request: Request, error: Exception) -> Response:
        status, words = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
        title = "Not found" if status == 404 else f"Error {status}"
        return self._render("error.html", status=status, title=title, words=words, here="")

    def _snapshot(self) -> Snapshot:
        """The snapshot of the last known state, taken by one thread."""
        with self._taking:
            state = self._state
            if self._taken is None or self._taken[0] != state:
                self._taken = (state, Snapshot(self._store, None if self._taken is None else self._taken[1]))
            return self._taken[1]

    def _known_run(self, request: Request) -> RunInfo:
        return self._run(request.path_params["run_id"])

    def _run(self, run_id: str) -> RunInfo:
        run = self._store.run(run_id)
        if run is None:
            raise HTTPException(404, f"There is no run {run_id}.")
        return run

    def _attempt(self, run: RunInfo, attempt_id: str) -> SampleInfo:
        sample = self._store.samples.one(run.key, attempt_id)
        if sample is None:
            raise HTTPException(404, f"Run {run.run_id} has no attempt {attempt_id}.")
        return sample

    def _render(self, template: str, status: int = 200, **values: Any) -> Response:
        # The guard adds the headers to all but the page of an unforeseen error, which is made outside of it.
        return HTMLResponse(self._text(template, status=status, **values), status_code=status, headers=HEADERS)

    def _text(self, template: str, **values: Any) -> str:
        return self._templates.get_template(template).render(**values)


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None
