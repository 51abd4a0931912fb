"""From run logs to rows: one idempotent, incremental reader that serves live runs and rebuilds alike.

A run is read from its watermark to its end; the watermark commits together with the rows it stands for, so a crash in between
changes nothing. Every row is keyed by the deterministic id of its event, so reading an event twice changes nothing either.
It never writes to a run directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from harness.errors import HarnessError, RunLogError
from harness.events import Cursor, Event, read_events
from leaderboard import rows
from leaderboard.database import default_url, open_database, upsert
from leaderboard.schema import (
    KEPT,
    Attempt,
    Base,
    BenchmarkVersion,
    Checkpoint,
    Credit,
    Diagnostic,
    Evaluation,
    Group,
    Histogram,
    Judgement,
    Provenance,
    Run,
    ScoreRow,
    Step,
    Task,
    Turn,
)
from leaderboard.scoring import score_evaluations
from leaderboard.verdicts import count_verdicts, mark_attempts

EVENTS_A_COMMIT = 2000
IN_CLAUSE = 500  # ids in one SQL list
SHARED: tuple[type[Base], ...] = (Task, BenchmarkVersion)  # rows of no single run
OF_ATTEMPTS: tuple[type[Base], ...] = (Attempt, Turn, Judgement, Credit)
WRITE_ORDER: tuple[type[Base], ...] = (*SHARED, *OF_ATTEMPTS, Group, Step, Histogram, Evaluation, Checkpoint, Diagnostic)


def ingest(run_dir: Path, url: str | None = None) -> None:
    """Read what is new in one run directory into the database at ``url`` (default: beside the ``runs`` folder that holds it)."""
    engine = open_database(url or default_url(run_dir.resolve().parent.parent))
    try:
        ingest_run(engine, run_dir)
    finally:
        engine.dispose()


def ingest_run(engine: Engine, run_dir: Path) -> int:
    """Read what is new in one run directory; returns the number of events applied.

    Raises RunLogError for a damaged log, HarnessError where the database fails.
    """
    if not (run_dir / "events").is_dir():
        raise HarnessError(f"{run_dir} is no run directory: it holds no events/ folder. Runs live in $HARNESS_HOME/runs/<run id>.")
    applied, size, run_id = 0, log_bytes(run_dir), _run_id(run_dir)
    while run_id is not None:
        try:
            with engine.begin() as connection:
                run = _claim(connection, run_id, run_dir)
                count = _apply_chunk(connection, run, run_dir)
                if count < EVENTS_A_COMMIT:
                    count_verdicts(connection, run)
                    connection.execute(update(Run).where(Run.key == run).values(log_bytes=size))
        except (IntegrityError, DataError, InterfaceError, ProgrammingError, OverflowError) as error:
            _count_what_was_read(engine, run_id)
            told = getattr(error, "orig", None) or error
            raise RunLogError(f"{run_dir}: an event does not fit the leaderboard's tables: {told}") from error
        except OperationalError as error:
            raise HarnessError(
                f"the leaderboard database cannot take in {run_dir}: {error.orig}. The run's log is whole: make room or mend the database, "
                "then `harness leaderboard show` reads the rest of it"
            ) from error
        except RunLogError:
            _count_what_was_read(engine, run_id)
            raise
        applied += count
        if count < EVENTS_A_COMMIT:
            break
    return applied


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a pass over all runs did: events applied, and what was wrong with damaged logs (which stop nothing else)."""

    events: int
    problems: tuple[str, ...]


def ingest_all(engine: Engine, runs_dir: Path) -> Reading:
    """Read every run under ``runs_dir``, and every run known from elsewhere, whose log has grown since it was last read."""
    with engine.connect() as connection:
        known = {Path(row.folder): row.log_bytes for row in connection.execute(select(Run.folder, Run.log_bytes))}
    return _ingest_folders(engine, known, runs_dir)


def rebuild(engine: Engine, runs_dir: Path) -> Reading:
    """Drop every row and read again the logs of all runs under ``runs_dir`` and of all runs known from elsewhere."""
    with engine.begin() as connection:
        known = dict.fromkeys((Path(folder) for folder in connection.scalars(select(Run.folder))), 0)
        for table in reversed(Base.metadata.sorted_tables):
            if table not in (kept.__table__ for kept in KEPT):
                connection.execute(delete(table))
    return _ingest_folders(engine, known, runs_dir)


def log_bytes(run_dir: Path) -> int:
    """Size of all event files of a run: unchanged means nothing new to read."""
    return sum(path.stat().st_size for path in (run_dir / "events").glob("*.jsonl"))


def place_of(before: Cursor, after: Cursor) -> str:
    """Where the event between two neighbouring cursors starts: ``file:byte``, as ``leaderboard.transcripts`` reads it."""
    seen = dict(before.offsets)
    return next(f"{name}:{seen.get(name, 0)}" for name, end in after.offsets if seen.get(name, 0) != end)


def _ingest_folders(engine: Engine, known: Mapping[Path, int], runs_dir: Path) -> Reading:
    found = {path.parent.resolve() for path in runs_dir.glob("*/events")} | {folder for folder in known if (folder / "events").is_dir()}
    applied, problems = 0, []
    for run_dir in sorted(found):
        if log_bytes(run_dir) == known.get(run_dir, 0):
            continue
        try:
            applied += ingest_run(engine, run_dir)
        except RunLogError as error:
            problems.append(str(error))
    return Reading(events=applied, problems=tuple(problems))


def _run_id(run_dir: Path) -> str | None:
    """The run's name in its first event (folders may be called anything); None while the log is empty."""
    first = next(read_events(run_dir), None)
    return None if first is None else str(first[1].data.get("run_id") or run_dir.name)


def _claim(connection: Connection, run_id: str, run_dir: Path) -> int:
    """The run's key, holding its row lock: a write first, so that two readers of one run take turns."""
    folder = str(run_dir.resolve())
    insert = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(Run)
    fresh = insert.values(run_id=run_id, folder=folder, log_bytes=0, config={}, provenance={})
    connection.execute(fresh.on_conflict_do_update(index_elements=["run_id"], set_={"run_id": insert.excluded.run_id}))
    key, known = connection.execute(select(Run.key, Run.folder).where(Run.run_id == run_id)).one()
    if known != folder:
        if Path(known).is_dir():
            raise RunLogError(f"{folder} holds run {run_id}, which is already read from {known}: remove one of the two copies")
        connection.execute(update(Run).where(Run.key == key).values(folder=folder))
    return int(key)


def _count_what_was_read(engine: Engine, run_id: str) -> None:
    """The verdicts of the chunks before a damaged one stand on the board, so they are counted too."""
    with engine.begin() as connection:
        run = connection.scalar(select(Run.key).where(Run.run_id == run_id))
        if run is not None:
            count_verdicts(connection, run)


def _apply_chunk(connection: Connection, run: int, run_dir: Path) -> int:
    stored = connection.execute(select(Run.cursor).where(Run.key == run)).scalar_one()
    before = None if stored is None else Cursor.parse(stored)
    chunk, count, last = _Chunk(connection, run), 0, before or Cursor()
    for cursor, event in islice(read_events(run_dir, before), EVENTS_A_COMMIT):
        chunk.add(event, place_of(last, cursor))
        last, time, count = cursor, event.time, count + 1
    if count:
        chunk.write()
        score_evaluations(connection, run, chunk.touched_evaluations())
        connection.execute(update(Run).where(Run.key == run).values(cursor=str(last), updated_at=time))
    return count


class _Chunk:
    """Rows of consecutive events, written table by table; a rewind first writes what came before it, then deletes."""

    def __init__(self, connection: Connection, run: int) -> None:
        self._connection = connection
        self._run = run
        self._rows: dict[type[Base], list[Mapping[str, Any]]] = {}
        self._judged: set[str] = set()
        self._evaluations: set[str] = set()

    def add(self, event: Event, place: str) -> None:
        try:
            match event.kind:
                case "run":
                    self._write_run(event)
                case "rewind":
                    self.write()
                    self._rewind(int(event.data["step"]))
                case "evaluation":
                    self._evaluations.add(event.data["evaluation_id"])
            for table, row in rows.rows_of(event, place):
                self._rows.setdefault(table, []).append(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunLogError(
                f"{place}: a {event.kind} event without its usual fields ({error!r}); was it written by another version?"
            ) from error

    def write(self) -> None:
        """Write all pending rows; the newest judgement of an attempt takes over ``current``."""
        touched = {str(r["attempt_id"]) for table in (Attempt, Judgement) for r in self._rows.get(table, ())}
        for table in WRITE_ORDER:
            pending = self._rows.pop(table, [])
            if table is Judgement:
                self._retire({r["attempt_id"] for r in pending})
                newest = {r["attempt_id"]: r["judge"] for r in pending}
                pending = [{**r, "current": newest[r["attempt_id"]] == r["judge"]} for r in pending]
            if table is Attempt:
                self._forget_turns({r["attempt_id"] for r in pending})
            owned = pending if table in SHARED else [{"run": self._run, **r} for r in pending]
            upsert(self._connection, table, owned)
        for ids in _slices(touched):
            mark_attempts(self._connection, self._run, ids)

    def touched_evaluations(self) -> set[str]:
        """Evaluations whose scores may have changed: named by an event, or holding an attempt judged in this chunk."""
        found = set(self._evaluations)
        for ids in _slices(self._judged):
            query = select(Attempt.evaluation_id).where(Attempt.run == self._run, Attempt.attempt_id.in_(ids)).distinct()
            found |= {e for e in self._connection.scalars(query) if e is not None}
        return found

    def _retire(self, attempt_ids: set[str]) -> None:
        self._judged |= attempt_ids
        for ids in _slices(attempt_ids):
            which = update(Judgement).where(Judgement.run == self._run, Judgement.attempt_id.in_(ids))
            self._connection.execute(which.values(current=False))

    def _forget_turns(self, attempt_ids: set[str]) -> None:
        """An attempt that was tried again after an outage may have fewer turns than before."""
        for ids in _slices(attempt_ids):
            self._connection.execute(delete(Turn).where(Turn.run == self._run, Turn.attempt_id.in_(ids)))

    def _write_run(self, event: Event) -> None:
        self._connection.execute(update(Run).where(Run.key == self._run).values(**rows.run_columns(event)))
        for table, row in rows.run_rows(event):
            upsert(self._connection, table, [{"run": self._run, **row} if table is Provenance else row])

    def _rewind(self, step: int) -> None:
        """Forget training steps >= ``step``. What describes the weights *before* that step (its evaluation, its checkpoint) stays."""
        run, drop = self._run, self._connection.execute
        later = select(Evaluation.evaluation_id).where(Evaluation.run == run, Evaluation.step > step)
        in_training = (Attempt.purpose != "eval") & (Attempt.step >= step)
        in_evaluation = (Attempt.purpose == "eval") & ((Attempt.step > step) | Attempt.evaluation_id.in_(later))
        gone = (Attempt.run == run) & (in_training | in_evaluation)
        for told_of in (Judgement, Turn):
            columns = told_of.__table__.c
            drop(delete(told_of).where(columns.run == run, columns.attempt_id.in_(select(Attempt.attempt_id).where(gone))))
        drop(delete(Attempt).where(gone))
        drop(delete(ScoreRow).where(ScoreRow.run == run, ScoreRow.evaluation_id.in_(later)))
        drop(delete(Evaluation).where(Evaluation.run == run, Evaluation.step > step))
        drop(delete(Checkpoint).where(Checkpoint.run == run, Checkpoint.step > step))
        drop(delete(Diagnostic).where(Diagnostic.run == run, Diagnostic.step > step))
        for table in (Credit, Group, Step, Histogram):
            columns = table.__table__.c
            drop(delete(table).where(columns.run == run, columns.step >= step))


def _slices(ids: set[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), IN_CLAUSE):
        yield ordered[start : start + IN_CLAUSE]
