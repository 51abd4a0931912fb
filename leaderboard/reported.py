"""Scores that papers report, as printed: a marked reference beside measured ones, never ranked with them.

The numbers and their source are data (``reported.json``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("reported.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRow:
    """One printed row: ``scores[benchmark][part]`` in percent, part "" being the whole set; ``key`` is the model's name here, or None."""

    model: str
    key: str | None
    method: str
    scores: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTable:
    """One table of the paper."""

    table: str
    title: str
    rows: tuple[ReportedRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """All tables, with where they come from and what to keep in mind."""

    source: str
    address: str
    note: str
    tables: tuple[ReportedTable, ...]


@cache
def reported() -> Reported:
    """The shipped reference rows."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    tables = tuple(
        ReportedTable(table=t["table"], title=t["title"], rows=tuple(ReportedRow(**row) for row in t["rows"])) for t in data["tables"]
    )
    return Reported(source=data["source"], address=data["address"], note=data["note"], tables=tables)
