"""Probes of ``harness doctor``: each looks at one part that exists and says whether it works, in rows.

A probe is a function that returns ``Check`` rows and changes nothing. Built-in ones stand in the registry (kind ``probes``); another
package brings its own as an entry point of the group ``harness.probes``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.config import home
from harness.errors import HarnessError, UsageError

DATABASE_USE = "the leaderboard; it can always be rebuilt from the runs"


class State(StrEnum):
    OK = "ok"
    ABSENT = "absent"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row. ``core``: without it nothing runs, so its failure is the command's."""

    name: str
    state: State
    found: str
    needed_for: str
    remedy: str = ""
    core: bool = False

    @property
    def fails(self) -> bool:
        return self.core and self.state is not State.OK


def judges() -> Iterator[Check]:
    """Every judge that opens without an address is asked about one right and one wrong answer."""
    from harness.registry import list_entries

    for entry in list_entries("judges"):
        name, use = f"judge {entry.name}", "scores and rewards"
        try:
            found = _ask_judge(entry.name)
        except UsageError as error:  # it wants to be told which model to ask
            yield Check(name=name, state=State.ABSENT, found="not configured", needed_for=use, remedy=str(error))
        except HarnessError as error:
            yield Check(
                name=name, state=State.BROKEN, found=str(error), needed_for=use, remedy="choose another with --judge, or mend this one"
            )
        else:
            wrong = found != [1.0, 0.0]
            words = f"gave {found} to a right and a wrong answer" if wrong else "tells a right answer from a wrong one"
            remedy = f"harness judge calibrate --judge {entry.name}" if wrong else ""
            yield Check(name=name, state=State.BROKEN if wrong else State.OK, found=words, needed_for=use, remedy=remedy)


def search() -> Iterator[Check]:
    """An offline corpus of two pages is indexed and searched."""
    from harness.web.base import Page
    from harness.web.corpus import CorpusWeb

    pages = [Page(url=f"corpus://{name}", title=name.title(), text=f"All about {name}.") for name in ("bridges", "rivers")]
    use = "the agent's search and visit tools"
    try:
        hits = asyncio.run(CorpusWeb(pages).search("rivers", 1))
    except (HarnessError, ImportError) as error:
        yield Check(name="search", state=State.BROKEN, found=str(error), needed_for=use, remedy="make setup")
        return
    right = [hit.url for hit in hits] == ["corpus://rivers"]
    found = "offline corpora are indexed and searched; no key is needed" if right else f"an offline corpus gives {hits}"
    yield Check(name="search", state=State.OK if right else State.BROKEN, found=found, needed_for=use, remedy="" if right else "make setup")


def database() -> Iterator[Check]:
    """The leaderboard's database, wherever it is."""
    url = os.environ.get("HARNESS_DATABASE_URL")
    yield _database_server(url) if url else _database_file(home() / "leaderboard.sqlite")


def _ask_judge(name: str) -> list[float | None]:
    from harness.cli.assemble import open_judge

    async def ask() -> list[float | None]:
        judge = open_judge(name, closed=True)
        scores = [await judge.score("Which river flows through Zurich?", ("Limmat",), answer) for answer in ("Limmat", "Danube")]
        return [score.value for score in scores]

    return asyncio.run(ask())


def _database_file(path: Path) -> Check:
    if not path.exists():
        return Check(name="database", state=State.OK, found=f"{path} will be made by the first run", needed_for=DATABASE_USE)
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            verdict = str(connection.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict == "ok":
        return Check(name="database", state=State.OK, found=str(path), needed_for=DATABASE_USE)
    remedy = f"move {path} away and run `harness leaderboard rebuild`"
    return Check(name="database", state=State.BROKEN, found=f"{path}: {verdict}", needed_for=DATABASE_USE, remedy=remedy)


def _database_server(url: str) -> Check:
    from leaderboard.database import open_database

    try:
        open_database(url).dispose()
    except HarnessError as error:
        remedy = "start that server or unset HARNESS_DATABASE_URL"
        return Check(name="database", state=State.BROKEN, found=str(error), needed_for=DATABASE_USE, remedy=remedy)
    return Check(name="database", state=State.OK, found="the one that HARNESS_DATABASE_URL names", needed_for=DATABASE_USE)
