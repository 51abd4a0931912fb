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
    """Every judge of the registry."""
    from harness.registry import list_entries

    yield from (judge(entry.name) for entry in list_entries("judges"))


def judge(spec: str) -> Check:
    """Asks one judge about a right and a wrong answer; ``spec`` as for ``--judge``. One that wants an address first is absent."""
    name, use = f"judge {spec}", "scores and rewards"
    try:
        found = _ask_judge(spec)
    except UsageError as error:
        return Check(name=name, state=State.ABSENT, found="not configured", needed_for=use, remedy=str(error))
    except HarnessError as error:
        return Check(
            name=name, state=State.BROKEN, found=str(error), needed_for=use, remedy="mend this judge, or choose another with --judge"
        )
    if found == [1.0, 0.0]:
        return Check(name=name, state=State.OK, found="tells a right answer from a wrong one", needed_for=use)
    words = f"gives {found} to a right and a wrong answer"
    return Check(name=name, state=State.BROKEN, found=words, needed_for=use, remedy=f"harness judge calibrate --judge {spec}")


def web(spec: str) -> Check:
    """Searches one web and reads its first result; ``spec`` as for ``--web``."""
    from harness.web import open_web

    name, use = f"web {spec}", "the agent's search and visit tools"

    async def look() -> str:
        opened = open_web(spec)
        hits = await opened.search("river", 1)
        return f"finds {hits[0].url} and reads {len((await opened.fetch(hits[0].url)).text)} characters of it" if hits else "finds nothing"

    try:
        found = asyncio.run(look())
    except HarnessError as error:
        return Check(name=name, state=State.BROKEN, found=str(error), needed_for=use, remedy="check network and key, or use corpus:PATH")
    return Check(name=name, state=State.OK, found=found, needed_for=use)


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
    from judges.base import close_judge

    async def ask() -> list[float | None]:
        opened = open_judge(name, closed=True)
        try:
            scores = [await opened.score("Which river flows through Zurich?", ("Limmat",), answer) for answer in ("Limmat", "Danube")]
        finally:
            await close_judge(opened)
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
