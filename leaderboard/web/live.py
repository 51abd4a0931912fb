"""Following a run while it goes on: its log as lines of words, streamed as server-sent events.

Each event's id is the log cursor behind it. A browser that lost the connection sends it back as ``Last-Event-ID`` and goes on exactly
there: no line is lost, none comes twice, and a restart of the server changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync

from harness.errors import RunLogError
from harness.events import Cursor, Event, Kind, read_events
from harness.wording import plural
from leaderboard.web.charts import short

POLL_SECONDS = 1.0
BEAT_SECONDS = 15.0  # a comment line this often, so that proxies and browsers see a living connection
EVENTS_A_LOOK = 500
SHOWN_LINES = 12


async def follow(folder: Path, after: Cursor) -> AsyncIterator[str]:
    """Server-sent events of a run's log behind ``after``, until the run ends (or the reader leaves, which cancels this)."""
    cursor, quiet = after, 0.0
    yield "retry: 2000\n\n"
    while True:
        try:
            fresh = await run_sync(_look, folder, cursor)
        except (RunLogError, OSError) as error:
            yield message("end", f"the log cannot be read on: {error}")
            return
        for cursor, event in fresh:
            words = line_of(event)
            if words is not None:
                yield message("log", words, cursor)
            if event.kind is Kind.RUN and event.data.get("phase") != "started":
                yield message("end", str(event.data["phase"]), cursor)
                return
        quiet = 0.0 if fresh else quiet + POLL_SECONDS
        if quiet >= BEAT_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"
        if len(fresh) < EVENTS_A_LOOK:
            await anyio.sleep(POLL_SECONDS)


def _look(folder: Path, after: Cursor) -> list[tuple[Cursor, Event]]:
    return list(islice(read_events(folder, after), EVENTS_A_LOOK))


def message(name: str, words: str, cursor: Cursor | None = None) -> str:
    """One server-sent event. The words are JSON, which has no line breaks: a log line cannot forge another event."""
    place = "" if cursor is None else f"id: {cursor}\n"
    return f"{place}event: {name}\ndata: {json.dumps(words)}\n\n"


def parse_cursor(text: str | None) -> Cursor | None:
    """The cursor in a ``Last-Event-ID``; None for anything else, since the header is a stranger's."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(isinstance(v, int) and v >= 0 for v in found.values()):
        return None
    return Cursor(tuple(sorted((str(k), int(v)) for k, v in found.items())))


def line_of(event: Event) -> str | None:
    """An event as a line of the log; None for those that come by the hundred (attempts, verdicts, groups, credits)."""
    data = event.data
    match event.kind:
        case Kind.STEP:
            return step_words(int(data["step"]), data.get("metrics") or {})
        case Kind.EVALUATION:
            n = data.get("n") or 0
            return f"evaluation of {data.get('benchmark')} {data.get('split') or ''} {data['phase']}, {n} {plural(n, 'question')}"
        case Kind.CHECKPOINT:
            return f"checkpoint before step {data['step']}"
        case Kind.REWIND:
            return f"taken up again: what steps from {data['step']} on had done is taken back"
        case Kind.RUN:
            return f"the run {data['phase']}" + (f": {data['error']}" if data.get("error") else "")
    return None


def step_words(step: int, metrics: Mapping[str, Any]) -> str:
    """A training step in one line; what it did not measure is left out."""
    said = [f"step {step}"]
    for words, name in (("reward unguided", "reward/unguided_mean"), ("mean k*", "guidance/level_mean")):
        if metrics.get(name) is not None:
            said.append(f"{words} {metrics[name]:.3f}")
    if metrics.get("groups/total"):
        counts = [
            f"{short(metrics[f'groups/{o}'])} {o}" for o in ("solved", "rescued", "failed", "unscorable") if metrics.get(f"groups/{o}")
        ]
        said.append(f"{short(metrics['groups/total'])} {plural(metrics['groups/total'], 'group')} ({', '.join(counts)})")
    if metrics.get("time/step") is not None:
        said.append(f"{metrics['time/step']:.1f} s")
    return ", ".join(said)


def last_lines(series: Mapping[str, Sequence[tuple[int, float]]]) -> tuple[str, ...]:
    """The last steps of a run as log lines, from its series."""
    by_step: dict[int, dict[str, float]] = {}
    for name, points in series.items():
        for step, value in points[-SHOWN_LINES:]:
            by_step.setdefault(step, {})[name] = value
    return tuple(step_words(step, by_step[step]) for step in sorted(by_step)[-SHOWN_LINES:])
