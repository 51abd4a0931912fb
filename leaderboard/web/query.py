"""What an address of the board or of a comparison asks for. The address holds the whole state, so every view is a link."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams

from leaderboard.ranks import CORRECTIONS
from leaderboard.standings import Column

VIEWS = ("table", "forest")


def column_id(column: Column) -> str:
    """A column in an address: ``gaia/test/level=1``, without the part for a whole set."""
    return "/".join((column.benchmark, column.split, *([column.part] if column.part else [])))


def sample_address(run_id: str, attempt_id: str) -> str:
    """The page of an attempt. Browsers fold ``.`` and ``..`` in a path, so an id with such a part goes into the query."""
    if {".", ".."} & {*attempt_id.split("/")}:
        return f"/runs/{quote(run_id)}/sample?{urlencode({'id': attempt_id})}"
    return f"/runs/{quote(run_id)}/samples/{quote(attempt_id)}"


def parse_correction(params: QueryParams) -> str:
    """``correction=bh``; anything unknown is Holm."""
    asked = params.get("correction", "")
    return asked if asked in CORRECTIONS else next(iter(CORRECTIONS))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardQuery:
    """View, filters, unfolded benchmarks (each with the tag that unfolds it) and the column to sort by (``-``: lowest first).

    ``correction``: how p-values are corrected for their number, a name of ``leaderboard.ranks.CORRECTIONS``.
    """

    view: str = "table"
    model: str = ""
    method: str = ""
    benchmark: str = ""
    unfold: tuple[tuple[str, str], ...] = ()
    sort: str = ""
    reported: bool = True
    correction: str = "holm"

    @classmethod
    def parse(cls, params: QueryParams) -> BoardQuery:
        """The query of an address; anything unknown in it is ignored. ``unfold=gaia`` leaves the tag to the board."""
        unfold = dict.fromkeys(tuple(item.partition(":")[::2]) for item in params.getlist("unfold") if item)
        view = params.get("view", "")
        return cls(
            view=view if view in VIEWS else VIEWS[0],
            model=params.get("model", ""),
            method=params.get("method", ""),
            benchmark=params.get("benchmark", ""),
            unfold=tuple((name, tag) for name, tag in unfold),
            sort=params.get("sort", ""),
            reported=params.get("reported") != "0",
            correction=parse_correction(params),
        )

    def address(self, **changes: Any) -> str:
        """The address of this query after ``changes``; what stands at its default is left out."""
        wanted = replace(self, **changes)
        pairs = [(name, getattr(wanted, name)) for name in ("view", "model", "method", "benchmark", "sort")]
        pairs = [(name, value) for name, value in pairs if value and value != VIEWS[0]]
        pairs += [("correction", wanted.correction)] if wanted.correction != "holm" else []
        pairs += [("unfold", f"{name}:{tag}" if tag else name) for name, tag in wanted.unfold]
        pairs += [] if wanted.reported else [("reported", "0")]
        return "/?" + urlencode(pairs) if pairs else "/"

    def unfolded_by(self, benchmark: str) -> str | None:
        """The tag that unfolds a benchmark, empty for any, None where it is folded."""
        return dict(self.unfold).get(benchmark)
