"""The board as data: one entry a model x method x recipe, with a cell a benchmark column, its delta to the base and its rank.

Several seeds of one recipe become one entry. Measurements of unlike comparability codes are neither compared nor ranked together, and
the notes say which part of the code differs. Deltas to the base are corrected over their column, ranks over all pairs of a column and
code: by Holm, or by Benjamini and Hochberg where the reader asks for it. ``harness leaderboard show`` and ``export`` and the pages
render this; none of them computes anything of its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.wording import plural
from leaderboard.ranks import CORRECTIONS, Rank, ranks
from leaderboard.rows import NOT_A_RECIPE, flatten
from leaderboard.stats import Comparison, Interval, Verdicts, compare, interval

BASE = "base"
Key = tuple[str, str, str]
"""Model, method, recipe: what makes an entry."""

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
    verdicts: Verdicts = field(repr=False, default_factory=dict)
    truncated: float = 0.0  # questions whose answers were cut off; they count as wrong
    config: Mapping[str, Any] = field(repr=False, default_factory=dict)  # of one run an entry, where recipes must be told apart
    code_parts: Mapping[str, Any] | None = field(repr=False, default=None)  # what the comparability code hashes, where recorded
    verdicts_hash: str = ""  # equal for equal verdicts

    @property
    def entry(self) -> Key:
        """The board's row that this measurement belongs to; bases are one row whatever their settings."""
        return self.model, self.method, "" if self.method == BASE else self.recipe

    def is_of(self, column: Column) -> bool:
        """Whether it answered the questions of a column."""
        return (self.benchmark, self.split) == (column.benchmark, column.split)

    @property
    def bounds(self) -> tuple[float, float]:
        """The score if every question without a verdict, or with an answer cut off, were wrong, and if all of them were right."""
        right, asked = sum(self.verdicts.values()), max(self.n, len(self.verdicts), 1)
        return right / asked, min(1.0, (right + asked - len(self.verdicts) + self.truncated) / asked)

    @property
    def coverage(self) -> float:
        return len(self.verdicts) / max(self.n, len(self.verdicts), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A score with its interval; ``to_base`` is None for the base itself and where no comparable base was measured."""

    score: Interval
    runs: tuple[Measurement, ...]
    to_base: Comparison | None
    rank: Rank | None  # among the entries of this column under the same code; None where it stands alone
    best: bool  # the highest score of them
    code: str
    usual: bool  # whether its code is the one that most entries of the column share
    notes: tuple[str, ...]

    @property
    def rank_words(self) -> str:
        """``best``, ``tied with the best`` or the places it may hold."""
        if self.rank is None:
            return ""
        if self.best:
            return "best" if self.rank.high == 1 else "best, tied"
        return "tied with the best" if self.rank.low == 1 else f"rank {self.rank.words}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the board."""

    model: str
    method: str
    recipe: str
    seeds: tuple[int, ...]
    label: str  # what tells this recipe from its siblings, empty if it has none
    cells: Mapping[Column, Cell]

    @property
    def runs(self) -> frozenset[str]:
        """Ids of the runs behind its cells."""
        return frozenset(m.run_id for cell in self.cells.values() for m in cell.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Columns in order, entries grouped by model with the base first."""

    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]


def column_cells(
    column: Column, latest: Sequence[Measurement], values: Mapping[str, str] | None, correction: str = "holm"
) -> Mapping[Key, Cell]:
    """Cells of one column by entry. Where an entry was measured under several codes, its latest one counts.

    ``latest`` as ``newest`` gives it; ``values`` is the tag value of each task id for an unfolded column.
    """
    here = [m for m in latest if m.is_of(column)]
    groups: dict[Key, list[Measurement]] = defaultdict(list)
    for m in sorted(here, key=lambda m: m.at):
        groups[m.entry].append(m)
    runs = {key: [m for m in found if m.comparability == found[-1].comparability] for key, found in groups.items()}
    counted = {id(m): _restricted(m, column, values) for m in here}
    verdicts = {key: [counted[id(m)] for m in found] for key, found in runs.items()}
    runs = {key: found for key, found in runs.items() if any(verdicts[key])}
    scores = {key: interval(verdicts[key]) for key in runs}
    deltas = _deltas(runs, [(m, counted[id(m)]) for m in here if m.method == BASE], verdicts, correction)
    usual = _usual(runs)
    places = _ranks(runs, verdicts, scores, correction)
    return {
        key: Cell(
            score=scores[key],
            runs=tuple(found),
            to_base=deltas.get(key),
            rank=places[key][0] if key in places else None,
            best=key in places and places[key][1],
            code=found[0].comparability,
            usual=usual is None or found[0].comparability == usual.comparability,
            notes=_notes(found, usual, has_base=key in deltas or key[1] == BASE),
        )
        for key, found in runs.items()
    }


CellMaker = Callable[[Column, Sequence[Measurement], Mapping[str, str] | None], Mapping[Key, Cell]]


def build(
    measurements: Sequence[Measurement],
    parts: Mapping[Column, Mapping[str, str]] | None = None,
    cells: CellMaker = column_cells,
) -> Board:
    """The board of these measurements; ``parts`` adds columns that only count the questions with a given tag value.

    ``parts`` maps an unfolded column (``part`` = ``hops=3``) to the tag value of each task id.
    """
    latest = newest(measurements)
    whole = sorted({Column(benchmark=m.benchmark, split=m.split) for m in latest}, key=lambda c: (c.benchmark, c.split))
    columns = tuple(c for w in whole for c in (w, *_unfolded(w, parts or {})))
    found: dict[Key, dict[Column, Cell]] = defaultdict(dict)
    for column in columns:
        for key, cell in cells(column, latest, (parts or {}).get(column)).items():
            found[key][column] = cell
    labels = _labels(latest)
    entries = [_entry(key, its, labels[key]) for key, its in found.items()]
    return Board(columns=columns, entries=tuple(sorted(entries, key=_order)))


def newest(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Of every run's evaluations of a split the last step; of repeated runs of one recipe and seed the latest. Needs no verdicts."""
    last: dict[tuple[object, ...], Measurement] = {}
    for m in sorted(measurements, key=lambda m: (m.at, m.step or 0)):
        last[(m.entry, m.seed, m.benchmark, m.split, m.comparability)] = m
    return list(last.values())


def differing_parts(ours: Measurement, theirs: Measurement) -> list[str]:
    """What tells two comparability codes apart, in words; with what is recorded anyway where the codes' parts are not."""
    if ours.code_parts and theirs.code_parts:
        a, b = flatten(ours.code_parts), flatten(theirs.code_parts)
        names = [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
        return [f"{name} {_brief(a.get(name))}, there {_brief(b.get(name))}" for name in names]
    known = (("judge", ours.judge, theirs.judge), ("questions", ours.n, theirs.n))
    return [f"{name} {a}, there {b}" for name, a, b in known if a != b]


def _deltas(
    runs: Mapping[Key, Sequence[Measurement]],
    bases: Sequence[tuple[Measurement, Verdicts]],
    verdicts: Mapping[Key, Sequence[Verdicts]],
    correction: str,
) -> dict[Key, Comparison]:
    """Each trained entry against the base of its model under the same code; p-values corrected over the column."""
    found: dict[Key, Comparison] = {}
    for key, mine in runs.items():
        like = [v for b, v in bases if (b.model, b.comparability) == (key[0], mine[0].comparability)]
        delta = compare(verdicts[key], like) if key[1] != BASE else None
        if delta is not None:
            found[key] = delta
    tested = {key: delta.p for key, delta in found.items() if delta.p is not None}
    if len(tested) < 2:
        return found
    adjusted = dict(zip(tested, CORRECTIONS[correction](list(tested.values())), strict=True))
    return {key: replace(delta, adjusted=adjusted.get(key), correction=correction) for key, delta in found.items()}


def _restricted(m: Measurement, column: Column, values: Mapping[str, str] | None) -> Verdicts:
    if not column.part or values is None:
        return m.verdicts
    wanted = column.part.partition("=")[2]
    return {t: v for t, v in m.verdicts.items() if values.get(t) == wanted}


def _usual(runs: Mapping[Key, Sequence[Measurement]]) -> Measurement | None:
    """A measurement under the code that most entries share; the others are told how they differ from it."""
    codes = Counter(found[0].comparability for found in runs.values())
    first = codes.most_common(1)[0][0] if codes else None
    return next((found[0] for found in runs.values() if found[0].comparability == first), None)


def _ranks(
    runs: Mapping[Key, Sequence[Measurement]],
    verdicts: Mapping[Key, Sequence[Verdicts]],
    scores: Mapping[Key, Interval],
    correction: str,
) -> dict[Key, tuple[Rank, bool]]:
    """Rank of each entry among those of its code, and whether its score is their highest."""
    by_code: dict[str, list[Key]] = defaultdict(list)
    for key, its in runs.items():
        by_code[its[0].comparability].append(key)
    placed: dict[Key, tuple[Rank, bool]] = {}
    for rivals in by_code.values():
        if len(rivals) > 1:
            top = max(rivals, key=lambda key: scores[key].value)
            found = ranks([verdicts[k] for k in rivals], correction)
            placed |= {key: (rank, key == top) for key, rank in zip(rivals, found, strict=True)}
    return placed


def _notes(found: Sequence[Measurement], usual: Measurement | None, has_base: bool) -> tuple[str, ...]:
    notes = []
    coverage, cut = min(m.coverage for m in found), max(m.truncated for m in found)
    if coverage < 1 or cut:
        low, high = (min(values) if side == 0 else max(values) for side, values in enumerate(zip(*(m.bounds for m in found), strict=True)))
        covered = (
            f"coverage {coverage:.0%}: the other questions got no verdict (outage or undecided) and are left out" if coverage < 1 else ""
        )
        truncated = f"{cut:g} {plural(cut, 'question')} with a truncated answer, counted as wrong" if cut else ""
        notes.append(f"{'; '.join(filter(None, (covered, truncated)))}; with them the score lies between {low:.1%} and {high:.1%}")
    if departs := (found[0].code_parts or {}).get("departs"):
        notes.append(f"not comparable with published results: {departs}")
    if usual is not None and found[0].comparability != usual.comparability:
        parts = differing_parts(found[0], usual)
        differs = "; ".join(parts) if parts else "the log does not say which part"
        notes.append(f"ranked apart from the rest: measured under other settings ({differs}; code {found[0].comparability})")
    if not has_base:
        notes.append("no base was measured under the same settings, so there is no delta")
    return tuple(notes)


def _brief(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _labels(latest: Sequence[Measurement]) -> dict[Key, str]:
    """For each entry the settings in which it differs from other recipes of the same model and method."""
    configs: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for m in latest:
        configs[(m.model, m.method)].setdefault(m.entry[2], {}).update(flatten(m.config))
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
