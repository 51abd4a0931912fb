"""``make bench-board``: what the board bears. Prints three results and ends with 1 if one of them misses its mark.

1. Pages over a million samples: 95th percentile of each kind of page, asked one after another (mark: 100 ms).
2. 200 requests a second for a minute, over the kinds of pages, each made once before (mark: no error, 95th percentile at most 200 ms).
3. Eight processes writing for a minute with ``kill -9`` among them (mark: nothing lost or doubled).

``python tests/leaderboard/bench_board.py --attempts 50000 --seconds 10`` does the same in small.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from urllib.parse import quote

from million import Shape, fill
from soak import soak

from leaderboard.database import default_url
from leaderboard.web.cache import FRESH_SECONDS

REPEATS = 20
CONNECTIONS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds of the requests of one kind."""

    kind: str
    milliseconds: tuple[float, ...]
    errors: int = 0
    cpu: float | None = None  # milliseconds of processor time of the server a request: what a busy machine cannot distort

    def at(self, share: float) -> float:
        """A percentile, e.g. ``at(0.95)``."""
        ordered = sorted(self.milliseconds)
        return ordered[max(0, ceil(share * len(ordered)) - 1)]

    def words(self) -> str:
        cpu = "" if self.cpu is None else f", CPU {self.cpu:.1f} ms each"
        rest = f"p50 {self.at(0.5):.1f} ms, p95 {self.at(0.95):.1f} ms, slowest {max(self.milliseconds):.1f} ms, {self.errors} errors{cpu}"
        return f"{self.kind:<34} {len(self.milliseconds):>6} requests: {rest}"


@contextmanager
def board(home: Path) -> Iterator[tuple[int, int]]:
    """``harness leaderboard serve`` in a process of its own; yields its port and process id."""
    command = [sys.executable, "-m", "harness.cli.main", "leaderboard", "serve", "--port", "0"]
    server = subprocess.Popen(command, env={**os.environ, "HARNESS_HOME": str(home)}, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield int(re.findall(r":(\d+)/", server.stdout.readline())[0]), server.pid
    finally:
        server.terminate()
        server.wait()


class Client:
    """One kept-alive HTTP/1.1 connection, with as little of its own cost as can be."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, address: str) -> tuple[int, float]:
        """Status and milliseconds until the whole answer is here."""
        began = time.perf_counter()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**26)
        reader, writer = self._streams
        writer.write(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        return int(head.split(" ", 2)[1]), 1000 * (time.perf_counter() - began)


def cpu_ms(pid: int) -> float:
    """Processor time of a process so far (Linux; in steps of 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def addresses(runs: list[str], repeats: int = REPEATS) -> dict[str, list[str]]:
    """Kinds of pages. Those of single runs have different addresses, so that a kept page cannot hide a slow one; the few that show
    all runs are asked for again and again, as they are in use. ``after_changes`` times what a new result costs them."""
    some = [runs[1 + (5 * i) % (len(runs) - 1)] for i in range(repeats)]
    trained = [run for run in runs if "base" not in run][1:]
    others = [trained[(11 * i) % len(trained)] for i in range(repeats)]
    real = runs[0]
    sample, other = (quote(f"{real}/eval/miniweb/test/8/test-00{i}/k0/0") for i in range(2))
    return {
        "board": ["/"] * repeats,
        "board, forest": ["/?view=forest"] * repeats,
        "board, unfolded": ["/?unfold=miniweb"] * repeats,
        "judges": ["/judges"] * repeats,
        "compare": [f"/compare?a={a}&b={b}" for a, b in zip(some, others, strict=True)],
        "runs": [f"/runs?n={i}" for i in range(repeats)],
        "runs of a model": [f"/runs?model=model-{i % 20:02d}" for i in range(repeats)],
        "run": [f"/runs/{run}" for run in some],
        "samples": [f"/runs/{run}/samples" for run in others],
        "samples, page 40": [f"/runs/{run}/samples?page=40" for run in others],
        "samples, right": [f"/runs/{run}/samples?verdict=right" for run in others],
        "samples, without a verdict": [f"/runs/{run}/samples?verdict=none" for run in others],
        "samples of an evaluation": [f"/runs/{run}/samples?evaluation={quote(f'{run}/miniweb/test/0')}&verdict=wrong" for run in others],
        "samples of a step": [f"/runs/{run}/samples?purpose=probe&step={i}" for i, run in enumerate(others)],
        "sample": [f"/runs/{real}/samples/{sample}?n={i}" for i in range(repeats)],
        "diff": [f"/diff?run_a={real}&a={sample}&run_b={real}&b={other}&n={i}" for i in range(repeats)],
        "reported": [f"/reported?n={i}" for i in range(repeats)],
    }


async def one_by_one(port: int, pid: int, kinds: dict[str, list[str]]) -> list[Timing]:
    """Every address once, in turn."""
    client, found = Client(port), []
    for kind, asked in kinds.items():
        before = cpu_ms(pid)
        answers = [await client.get(address) for address in asked]
        errors = sum(status != 200 for status, _ in answers)
        cpu = (cpu_ms(pid) - before) / len(asked)
        found.append(Timing(kind=kind, milliseconds=tuple(ms for _, ms in answers), errors=errors, cpu=cpu))
    return found


async def after_changes(port: int, pid: int, home: Path, repeats: int = REPEATS // 2) -> list[Timing]:
    """The board and its largest variant, each asked for once after every change of the database."""
    found = []
    for kind, address in (("board after a change", "/"), ("unfolded after a change", "/?unfold=miniweb")):
        before, answers = cpu_ms(pid), []
        for number in range(repeats):
            with sqlite3.connect(home / "leaderboard.sqlite") as raw:
                raw.execute("UPDATE runs SET updated_at = ? WHERE key = 1", (f"2027-01-01T00:00:{number:02d}.000Z {kind}",))
            raw.close()
            await asyncio.sleep(2 * FRESH_SECONDS)
            answers.append(await Client(port).get(address))  # a kept connection would have been closed in the meantime
        errors = sum(status != 200 for status, _ in answers)
        found.append(Timing(kind=kind, milliseconds=tuple(ms for _, ms in answers), errors=errors, cpu=(cpu_ms(pid) - before) / repeats))
    return found


async def at_a_rate(port: int, pid: int, asked: list[str], rate: float, seconds: float) -> Timing:
    """``rate`` requests a second whatever the answers take; a request's time counts from when it was due."""
    waiting: asyncio.Queue[tuple[float, str] | None] = asyncio.Queue()
    taken: list[float] = []
    errors = 0

    async def work() -> None:
        nonlocal errors
        client = Client(port)
        while (item := await waiting.get()) is not None:
            due, address = item
            try:
                status, _ = await client.get(address)
            except (OSError, asyncio.IncompleteReadError):
                status, client = 0, Client(port)
            taken.append(1000 * (time.perf_counter() - due))
            errors += status != 200

    before = cpu_ms(pid)
    workers = [asyncio.create_task(work()) for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        waiting.put_nowait((due, asked[number % len(asked)]))
    for _ in workers:
        waiting.put_nowait(None)
    await asyncio.gather(*workers)
    reached = len(taken) / (time.perf_counter() - began)
    cpu = (cpu_ms(pid) - before) / max(len(taken), 1)
    return Timing(kind=f"{reached:.0f} requests/s for {seconds:.0f} s", milliseconds=tuple(taken), errors=errors, cpu=cpu)


def filled(home: Path, shape: Shape) -> list[str]:
    """The runs of the database in ``home``, which is made where there is none."""
    known = home / "runs.json"
    if not known.exists():
        home.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps(fill(home, shape)), encoding="utf-8")
    names: list[str] = json.loads(known.read_text(encoding="utf-8"))
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--home", type=Path, help="keep the database in this folder, and use the one that is there")
    parser.add_argument("--only", choices=("pages", "load", "soak"), action="append")
    asked = parser.parse_args()
    parts, missed = asked.only or ["pages", "load", "soak"], []
    with tempfile.TemporaryDirectory() as folder:
        home = asked.home or Path(folder)
        if {"pages", "load"} & set(parts):
            began = time.monotonic()
            runs = filled(home, Shape(attempts=asked.attempts, models=max(1, asked.attempts // 50_000)))
            size = (home / "leaderboard.sqlite").stat().st_size / 2**20
            print(
                f"{asked.attempts:,} attempts in {len(runs)} runs, {size:.0f} MiB, filled in {time.monotonic() - began:.0f} s", flush=True
            )
            with board(home) as (port, pid):
                if "pages" in parts:
                    print(asyncio.run(one_by_one(port, pid, {"very first": ["/"]}))[0].words(), flush=True)  # at the start of the server
                    for timing in (*asyncio.run(one_by_one(port, pid, addresses(runs))), *asyncio.run(after_changes(port, pid, home))):
                        print(timing.words(), flush=True)
                        missed += [timing.kind] if timing.errors or timing.at(0.95) > 100 else []
                if "load" in parts:
                    pages = [address for kind in addresses(runs, repeats=2).values() for address in kind]
                    asyncio.run(one_by_one(port, pid, {"each once": pages}))
                    timing = asyncio.run(at_a_rate(port, pid, pages, asked.rate, asked.seconds))
                    print(timing.words(), flush=True)
                    missed += ["load"] if timing.errors or timing.at(0.95) > 200 else []
        if "soak" in parts:
            shutil.rmtree(home / "soak", ignore_errors=True)  # of an earlier run, where the folder is kept
            result = soak(home / "soak", default_url(home / "soak"), seconds=asked.seconds, writers=8)
            print(result)
            missed += ["soak"] if result.problems else []
    print(f"missed: {', '.join(missed)}" if missed else "every mark was met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
