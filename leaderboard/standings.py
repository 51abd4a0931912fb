"""The board as data: one entry a model x method x recipe, with a cell a benchmark column, its delta to the base and its ties.

Several seeds of one recipe become one entry. Measurements of unlike comparability codes are never compared. Both
``harness leaderboard show`` and the page render this; neither computes anything of its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leaderboard.rows import NOT_A_RECIPE, flatten
from leaderboard.stats import Comparison, Interval, Verdicts, compare, interval

BASE = "base"
METHOD_ORDER = {BASE: 0, "zero-rl": 1, "opsd": 2, "sft": 3, "sft-rl": 4, "sft-actguide": 5, "actguide": 9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One set of questions: a benchmark's split, or a part of it such as ``hops=3``."""

    benchmark: str
    split: str
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One finished evaluation of one run, with the verdict on each question and the tags of the questions."""

    run_id: str
    evaluation_id: str
    model: str
    method: str
    recipe: str
    seed: int | None
    benchmark: str
    split: str
    step: int | None
    n: int
    judge: str
    comparability: str
    at: str
    verdicts: Verdicts = field(repr=False)
    config: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def coverage(self) -> float:
        return len(self.verdicts) / max(self.n, len(self.verdicts), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A score with its interval; ``to_base`` is None for the base itself and where no comparable base was measured."""

    score: Interval
    runs: tuple[Measurement, ...]
    to_base: Comparison | None
    rank: str  # "best", "tied with the best", or empty
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the board."""

    model: str
    method: str
    recipe: str
    seeds: tuple[int, ...]
    label: str  # what tells this recipe from its siblings, empty if it has none
    cells: Mapping[Column, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Columns in order, entries grouped by model with the base first."""

    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]


Key = tuple[str, str, str]


def build(measurements: Sequence[Measurement], parts: Mapping[Column, Mapping[str, str]] | None = None) -> Board:
    """The board of these measurements; ``parts`` adds columns that only count the questions with a given tag value.

    ``parts`` maps an unfolded column (``part`` = ``hops=3``) to the tag value of each task id.
    """
    newest = _newest(measurements)
    whole = sorted({Column(benchmark=m.benchmark, split=m.split) for m in newest}, key=lambda c: (c.benchmark, c.split))
    columns = tuple(c for w in whole for c in (w, *_unfolded(w, parts or {})))
    cells: dict[Key, dict[Column, Cell]] = defaultdict(dict)
    for column in columns:
        for key, cell in _column(column, newest, (parts or {}).get(column)).items():
            cells[key][column] = cell
    labels = _labels(newest)
    entries = [_entry(key, found, labels[key]) for key, found in cells.items()]
    return Board(columns=columns, entries=tuple(sorted(entries, key=_order)))


def _newest(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Of every run's evaluations of a split the last step; of repeated runs of one recipe and seed the latest."""
    last: dict[tuple[object, ...], Measurement] = {}
    for m in sorted(measurements, key=lambda m: (m.at, m.step or 0)):
        recipe = "" if m.method == BASE else m.recipe
        last[(m.model, m.method, recipe, m.seed, m.benchmark, m.split, m.comparability)] = m
    return list(last.values())


def _column(column: Column, newest: Sequence[Measurement], values: Mapping[str, str] | None) -> dict[Key, Cell]:
    """Cells of one column by entry. Where an entry was measured under several codes, its latest one counts."""
    here = [m for m in newest if (m.benchmark, m.split) == (column.benchmark, column.split)]
    groups: dict[Key, list[Measurement]] = defaultdict(list)
    for m in sorted(here, key=lambda m: m.at):
        groups[(m.model, m.method, "" if m.method == BASE else m.recipe)].append(m)
    latest = {key: [m for m in found if m.comparability == found[-1].comparability] for key, found in groups.items()}
    verdicts = {key: [_restricted(m, column, values) for m in found] for key, found in latest.items()}
    usual = Counter(found[0].comparability for found in latest.values()).most_common(1)
    ranks = _ranks(latest, verdicts)
    cells: dict[Key, Cell] = {}
    for key, found in latest.items():
        base = _base_verdicts(found[0], here, column, values)
        cells[key] = Cell(
            score=interval(verdicts[key]),
            runs=tuple(found),
            to_base=None if key[1] == BASE else compare(verdicts[key], base),
            rank=ranks.get(key, ""),
            notes=_notes(found, usual[0][0], has_base=bool(base)),
        )
    return {key: cell for key, cell in cells.items() if cell.score.n}


def _base_verdicts(m: Measurement, here: Sequence[Measurement], column: Column, values: Mapping[str, str] | None) -> list[Verdicts]:
    like = [b for b in here if b.method == BASE and b.model == m.model and b.comparability == m.comparability]
    return [_restricted(b, column, values) for b in like]


def _restricted(m: Measurement, column: Column, values: Mapping[str, str] | None) -> Verdicts:
    if not column.part or values is None:
        return m.verdicts
    wanted = column.part.partition("=")[2]
    return {t: v for t, v in m.verdicts.items() if values.get(t) == wanted}


def _ranks(latest: Mapping[Key, Sequence[Measurement]], verdicts: Mapping[Key, Sequence[Verdicts]]) -> dict[Key, str]:
    """Best of the entries that share the usual comparability code, and all that a paired test cannot tell from it."""
    codes = Counter(found[0].comparability for found in latest.values())
    if not codes:
        return {}
    usual = codes.most_common(1)[0][0]
    rivals = [key for key, found in latest.items() if found[0].comparability == usual and interval(verdicts[key]).n]
    if len(rivals) < 2:
        return {}
    best = max(rivals, key=lambda key: interval(verdicts[key]).value)
    ranks = {best: "best"}
    for key in rivals:
        against = compare(verdicts[best], verdicts[key])
        if key != best and against is not None and not against.distinguishable:
            ranks[key] = "tied with the best"
    return ranks


def _notes(found: Sequence[Measurement], usual: str, has_base: bool) -> tuple[str, ...]:
    notes = []
    coverage = min(m.coverage for m in found)
    if coverage < 1:
        notes.append(f"coverage {coverage:.0%}: the other questions got no verdict (outage or undecided) and are left out")
    if found[0].comparability != usual:
        notes.append(f"measured under other settings (code {found[0].comparability}, usual here {usual}): not ranked with the rest")
    if not has_base:
        notes.append("no base was measured under the same settings, so there is no delta")
    return tuple(notes)


def _labels(newest: Sequence[Measurement]) -> dict[Key, str]:
    """For each entry the settings in which it differs from other recipes of the same model and method."""
    configs: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for m in newest:
        configs[(m.model, m.method)]["" if m.method == BASE else m.recipe] = flatten(m.config)
    labels: dict[Key, str] = {}
    for (model, method), recipes in configs.items():
        names = sorted({name for c in recipes.values() for name in c if name.rsplit(".", 1)[-1] not in NOT_A_RECIPE})
        split = [n for n in names if len({repr(c.get(n)) for c in recipes.values()}) > 1]
        for recipe, config in recipes.items():
            labels[(model, method, recipe)] = ", ".join(f"{n.rsplit('.', 1)[-1]} {config.get(n, 'unset')}" for n in split[:3])
    return labels


def _unfolded(whole: Column, parts: Mapping[Column, Mapping[str, str]]) -> list[Column]:
    return [c for c in parts if (c.benchmark, c.split) == (whole.benchmark, whole.split)]


def _entry(key: Key, cells: Mapping[Column, Cell], label: str) -> Entry:
    seeds = {m.seed for cell in cells.values() for m in cell.runs if m.seed is not None}
    return Entry(model=key[0], method=key[1], recipe=key[2], seeds=tuple(sorted(seeds)), label=label, cells=cells)


def _order(entry: Entry) -> tuple[object, ...]:
    return (entry.model, METHOD_ORDER.get(entry.method, 5), entry.method, entry.label)
