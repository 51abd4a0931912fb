"""What the database holds of finished evaluations at one moment, and the standings made from it, each column computed once.

A snapshot follows another: a column whose evaluations are the same is taken over, so a new result costs its own column only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from threading import RLock

from leaderboard.standings import Board, Column, Key, Measurement, build, column_cells
from leaderboard.standings import Cell as StandingCell
from leaderboard.store import Store

Fingerprint = tuple[object, ...]
Made = tuple[Column, str, frozenset[tuple[str, str]], frozenset[Fingerprint]]
"""What the cells of a column are made of: the column, the correction, the tag value of each task, and the measurements."""


class Snapshot:
    """Read once, when it is made; may be asked by several threads."""

    def __init__(self, store: Store, before: Snapshot | None = None) -> None:
        self.store = store
        self.measurements = store.measurements()
        found: dict[tuple[str, str], set[Fingerprint]] = defaultdict(set)
        for m in self.measurements:
            found[m.benchmark, m.split].add(_identity(m))
        self._measured = {place: frozenset(its) for place, its in found.items()}
        self._lock = RLock()
        self._parts: dict[str, dict[Column, dict[str, str]]] = {}
        self._cells: dict[Made, Mapping[Key, StandingCell]] = {}
        if before is not None:
            known = before._cells.copy()
            self._cells = {made: its for made, its in known.items() if made[-1] == self._measured.get((made[0].benchmark, made[0].split))}

    def parts(self, benchmark: str) -> Mapping[Column, Mapping[str, str]]:
        """Columns that unfold a benchmark, by any of its tags, each with the tag value of every task id."""
        with self._lock:
            if benchmark not in self._parts:
                self._parts[benchmark] = self.store.parts(self.measurements, benchmark)
            return self._parts[benchmark]

    def board(self, benchmarks: Collection[str], parts: Mapping[Column, Mapping[str, str]], correction: str) -> Board:
        """The standings of these benchmarks with these parts unfolded."""

        def cells(column: Column, latest: Sequence[Measurement], values: Mapping[str, str] | None) -> Mapping[Key, StandingCell]:
            made = (column, correction, frozenset((values or {}).items()), self._measured[column.benchmark, column.split])
            if made not in self._cells:
                self._cells[made] = column_cells(column, latest, values, correction)
            return self._cells[made]

        with self._lock:
            return build([m for m in self.measurements if m.benchmark in benchmarks], parts, cells)


def _identity(m: Measurement) -> Fingerprint:
    """All that a column takes from a measurement."""
    parts = repr(m.code_parts)
    return m.run_id, m.evaluation_id, m.entry, m.seed, m.n, m.judge, m.at, m.step, m.comparability, m.verdicts_hash, m.truncated, parts
