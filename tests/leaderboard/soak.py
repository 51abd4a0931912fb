"""Several processes that record runs and read them into one database, with ``kill -9`` among them; then the count.

A writer notes an attempt in its ledger once ``Recorder.record`` has returned. Nothing is lost if every noted attempt is in the
database; nothing is doubled if the database holds exactly what a fresh one reads from the same logs.

``python tests/leaderboard/soak.py [SECONDS] [WRITERS] [DATABASE URL]`` prints the result.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from leaderboard_logs import Episode, Recipe, record_attempt, start
from sqlalchemy import Engine, func, select

from harness.events import Kind, Recorder, read_events
from leaderboard.database import default_url, open_database
from leaderboard.ingest import ingest_all, ingest_run
from leaderboard.schema import Attempt, Base, Judgement, Run, Turn

ATTEMPTS_A_READING = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """What happened: attempts that writers were told are recorded, processes killed, and what is wrong (nothing, one hopes)."""

    acknowledged: int
    kills: int
    seconds: float
    problems: list[str]


def write(run_dir: Path, url: str) -> None:
    """Record attempts and read them into the database until killed; a writer that starts again goes on behind its last attempt."""
    done = sum(event.kind is Kind.ATTEMPT for _, event in read_events(run_dir)) if (run_dir / "events").exists() else 0
    engine, rng = open_database(url), random.Random(run_dir.name)
    with Recorder(run_dir) as log, (run_dir / "ledger").open("a") as ledger:
        start(log, Recipe(model=run_dir.name, method="base", name=run_dir.name))
        for number in range(done, 10**9):
            episode = Episode(task_id=f"t{number:06d}", question=f"Question {number % 50}?", hops=2, right=number % 3 == 0, step=number)
            ledger.write(record_attempt(log, episode, rng) + "\n")
            ledger.flush()
            if number % ATTEMPTS_A_READING == 0:
                ingest_run(engine, run_dir)


def soak(home: Path, url: str, seconds: float, writers: int, seed: int = 0) -> Soaked:
    """Keep ``writers`` processes writing for ``seconds``, killing one of them every half second, then compare."""
    rng, began, kills = random.Random(seed), time.monotonic(), 0
    folders = [home / "runs" / f"writer-{i}" for i in range(writers)]
    for folder in folders:
        folder.mkdir(parents=True)
    open_database(url).dispose()
    processes = [_start(folder, url) for folder in folders]
    ready = began + seconds * 10
    while not all((folder / "ledger").exists() for folder in folders) and time.monotonic() < ready:
        time.sleep(0.1)
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(0.5)
        i = rng.randrange(writers)
        if processes[i].poll() is None and (folders[i] / "ledger").exists():
            processes[i].kill()
            processes[i].wait()
            kills += 1
        processes[i] = _start(folders[i], url)
    failed = [i for i, process in enumerate(processes) if process.poll() not in (None, -9)]
    for process in processes:
        process.kill()
        process.wait()
    problems = [f"writer {i} ended by itself" for i in failed]
    return Soaked(acknowledged=_noted(folders), kills=kills, seconds=seconds, problems=problems + _differences(home, url, folders))


def _start(folder: Path, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "write", str(folder), url], stderr=(folder / "stderr").open("ab"))


def _noted(folders: list[Path]) -> int:
    return sum(len(set(_ledger(folder))) for folder in folders)


def _ledger(folder: Path) -> list[str]:
    """Noted ids; the last line may be torn."""
    text = (folder / "ledger").read_text() if (folder / "ledger").exists() else ""
    return text.split("\n")[:-1]


def _differences(home: Path, url: str, folders: list[Path]) -> list[str]:
    engine, clean = open_database(url), open_database(f"sqlite:///{home / 'clean.sqlite'}")
    for one in (engine, clean):
        for problem in ingest_all(one, home / "runs").problems:
            return [problem]
    problems = []
    for folder in folders:
        noted = set(_ledger(folder))
        with engine.connect() as connection:
            held = select(Attempt.attempt_id).join(Run, Run.key == Attempt.run).where(Run.run_id == folder.name)
            missing = noted - set(connection.scalars(held))
        problems += [f"{folder.name}: {len(missing)} recorded attempts are not in the database"] if missing else []
    for table in (Run, Attempt, Turn, Judgement):
        counts = [_count(one, table) for one in (engine, clean)]
        problems += [f"{table.__tablename__}: {counts[0]} rows, {counts[1]} in a fresh database"] if counts[0] != counts[1] else []
    return problems


def _count(engine: Engine, table: type[Base]) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), sys.argv[3])
    else:
        with tempfile.TemporaryDirectory() as folder:
            seconds, writers, *place = [*sys.argv[1:], *["60", "8"][len(sys.argv) - 1 :]]
            print(soak(Path(folder), place[0] if place else default_url(Path(folder)), seconds=float(seconds), writers=int(writers)))
