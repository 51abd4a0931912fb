"""Builds the page that compares two runs on the questions both answered: wins, losses, the exact test, then the questions themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from leaderboard.ranks import CORRECTIONS
from leaderboard.records import SampleInfo
from leaderboard.snapshot import Snapshot
from leaderboard.standings import Measurement, differing_parts
from leaderboard.stats import Comparison, Verdicts, compare
from leaderboard.store import Store
from leaderboard.web.pages.compare import ComparePage, PairLine, Tally
from leaderboard.web.pages.shared import Choice, Link
from leaderboard.web.query import sample_address
from leaderboard.web.sample import verdict_of
from leaderboard.words import CORRECTION_TITLES, HIDDEN, comparison_sentence, is_hidden, method_title, p_value, percent, points

PAGE_SIZE = 40
FILTERS = {"wins": "A right, B wrong", "losses": "A wrong, B right", "ties": "same verdict", "all": "all shared questions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareQuery:
    """Run ids of both sides, the benchmark and split they share, which questions to list, and the page of the list from 0.

    ``correction``: how the p-values of parts are corrected for their number.
    """

    a: str = ""
    b: str = ""
    benchmark: str = ""
    split: str = ""
    show: str = "wins"
    page: int = 0
    correction: str = "holm"

    def address(self, **changes: str | int) -> str:
        pairs = {name: getattr(self, name) for name in ("a", "b", "benchmark", "split", "show", "page")} | changes
        pairs |= {} if self.correction == "holm" else {"correction": self.correction}
        return "/compare?" + urlencode({name: value for name, value in pairs.items() if value})


def compare_page(snapshot: Snapshot, query: CompareQuery, show_gated: bool = False) -> ComparePage:
    """Two runs on the benchmark that the query names, else on the first that both were measured on."""
    measurements, store = snapshot.measurements, snapshot.store
    mine, theirs = (_of_run(measurements, run_id, query) for run_id in (query.a, query.b))
    shared = sorted(set(mine) & set(theirs))
    choices = _choices(measurements, query, shared)
    if not shared:
        return _nothing(choices, query)
    a, b = mine[shared[0]], theirs[shared[0]]
    found = compare([a.verdicts], [b.verdicts])
    if found is None:
        return _nothing(choices, query)
    tasks = _tasks(a, b, query.show)
    shown = tasks[query.page * PAGE_SIZE : (query.page + 1) * PAGE_SIZE]
    first = query.page * PAGE_SIZE
    differs = differing_parts(a, b) if a.comparability != b.comparability else []
    return ComparePage(
        choices=choices,
        a=_side(a),
        b=_side(b),
        where=f"{a.benchmark} {a.split}".strip(),
        headline=_headline(found),
        sentence=comparison_sentence(found, "B"),
        caution=f"They were measured under unlike settings: {'; '.join(differs) or 'the log does not say which'}."
        if a.comparability != b.comparability
        else "",
        bar=win_bar(found.wins, found.ties, found.losses),
        tallies=tuple(_tallies(snapshot, a, b, found, query.correction)),
        filters=tuple(
            Link(words=f"{words} ({len(_tasks(a, b, name))})", href=query.address(show=name, page=0), current=name == query.show)
            for name, words in FILTERS.items()
        ),
        lines=tuple(_lines(store, a, b, shown, show_gated)),
        counted=f"{first + 1} to {first + len(shown)} of {len(tasks)}" if shown else "none",
        earlier=query.address(page=query.page - 1) if query.page else None,
        later=query.address(page=query.page + 1) if first + len(shown) < len(tasks) else None,
    )


def win_bar(wins: int, ties: int, losses: int) -> tuple[tuple[str, float, int], ...]:
    """Wins, ties and losses as shares of a bar, in percent."""
    total = max(wins + ties + losses, 1)
    return tuple((kind, 100 * count / total, count) for kind, count in (("wins", wins), ("ties", ties), ("losses", losses)))


def _of_run(measurements: Sequence[Measurement], run_id: str, query: CompareQuery) -> dict[tuple[str, str], Measurement]:
    return {
        (m.benchmark, m.split): m
        for m in measurements
        if m.run_id == run_id and query.benchmark in ("", m.benchmark) and (not query.benchmark or query.split in ("", m.split))
    }


def _tasks(a: Measurement, b: Measurement, show: str) -> list[str]:
    shared = sorted(set(a.verdicts) & set(b.verdicts))
    match show:
        case "losses":
            return [t for t in shared if a.verdicts[t] < b.verdicts[t]]
        case "ties":
            return [t for t in shared if a.verdicts[t] == b.verdicts[t]]
        case "all":
            return shared
        case _:
            return [t for t in shared if a.verdicts[t] > b.verdicts[t]]


def _headline(found: Comparison) -> str:
    if found.distinguishable:
        ahead = "A" if found.delta > 0 else "B"
        more, less = max(found.wins, found.losses), min(found.wins, found.losses)
        return f"{ahead} is ahead: right alone on {more}, wrong alone on {less}; {p_value(found.p)}"
    return f"Not distinguishable: A is ahead on {found.wins}, behind on {found.losses}; {p_value(found.p)}"


def _tallies(snapshot: Snapshot, a: Measurement, b: Measurement, whole: Comparison, correction: str) -> list[Tally]:
    """The comparison on all questions, then by each tag; the parts' p-values are corrected over the parts."""
    parts: list[tuple[str, Verdicts, Verdicts, Comparison]] = []
    for column, values in snapshot.parts(a.benchmark).items():
        wanted = column.part.partition("=")[2]
        left, right = ({t: v for t, v in m.verdicts.items() if values.get(t) == wanted} for m in (a, b))
        found = compare([left], [right])
        if found is not None and column.split == a.split:
            parts.append((column.part.replace("=", " ").replace("_", " "), left, right, found))
    tested = [i for i, (*_, found) in enumerate(parts) if found.p is not None]
    adjusted = dict(zip(tested, CORRECTIONS[correction]([parts[i][3].p or 0.0 for i in tested]), strict=True))
    rows = [_tally(name, left, right, found, adjusted.get(i)) for i, (name, left, right, found) in enumerate(parts)]
    return [_tally("all", a.verdicts, b.verdicts, whole, None), *rows]


def _tally(name: str, left: Verdicts, right: Verdicts, found: Comparison, adjusted: float | None) -> Tally:
    shared = set(left) & set(right)
    means = [percent(sum(side[t] for t in shared) / len(shared)) for side in (left, right)]
    return Tally(
        name=name,
        n=found.n,
        a=means[0],
        b=means[1],
        wins=found.wins,
        losses=found.losses,
        ties=found.ties,
        delta=points(found.delta),
        p=p_value(found.p),
        adjusted="" if adjusted is None else p_value(adjusted),
    )


def _lines(store: Store, a: Measurement, b: Measurement, tasks: Sequence[str], show_gated: bool) -> list[PairLine]:
    left, right = (store.samples.at(m.run_id, m.evaluation_id, tasks) for m in (a, b))
    return [_line(a, b, left[task], right[task], show_gated) for task in tasks if task in left and task in right]


def _line(a: Measurement, b: Measurement, left: SampleInfo, right: SampleInfo, show_gated: bool) -> PairLine:
    hidden = is_hidden(a.benchmark, left.gold, show_gated)

    def answer(sample: SampleInfo) -> str:
        return "hidden" if hidden else sample.answer if sample.answer is not None else sample.status.replace("_", " ")

    pair = {"run_a": a.run_id, "a": left.attempt_id, "run_b": b.run_id, "b": right.attempt_id}
    return PairLine(
        task_id=left.task_id,
        question=HIDDEN if hidden else left.question,
        tags=", ".join(f"{k} {v}" for k, v in left.tags.items()),
        a=verdict_of(left.value, left.verdict),
        b=verdict_of(right.value, right.verdict),
        answer_a=answer(left),
        answer_b=answer(right),
        href_a=sample_address(a.run_id, left.attempt_id),
        href_b=sample_address(b.run_id, right.attempt_id),
        diff="/diff?" + urlencode(pair),
    )


def _side(m: Measurement) -> Link:
    seed = "" if m.seed is None else f", seed {m.seed}"
    return Link(words=f"{m.model} {method_title(m.method)}{seed}", href=f"/runs/{quote(m.run_id)}")


def _choices(measurements: Sequence[Measurement], query: CompareQuery, shared: Sequence[tuple[str, str]]) -> tuple[Choice, ...]:
    runs = {m.run_id: f"{m.run_id} ({m.model} {method_title(m.method)})" for m in sorted(measurements, key=lambda m: (m.model, m.run_id))}
    options = (("", "choose a run"), *runs.items())
    benchmarks = sorted({m.benchmark for m in measurements if m.run_id in (query.a, query.b)})
    chosen = query.benchmark or (shared[0][0] if shared else "")
    return (
        Choice(name="a", title="A", value=query.a, options=options),
        Choice(name="b", title="B", value=query.b, options=options),
        Choice(name="benchmark", title="On", value=chosen, options=(("", "the first shared"), *((n, n) for n in benchmarks))),
        Choice(name="correction", title="Many tests", value=query.correction, options=tuple(CORRECTION_TITLES.items())),
    )


def _nothing(choices: tuple[Choice, ...], query: CompareQuery) -> ComparePage:
    words = (
        "These two runs share no question." if query.a and query.b else "Choose two runs: every question that both answered is compared."
    )
    return ComparePage(
        choices=choices,
        a=None,
        b=None,
        where="",
        headline="",
        sentence=words,
        caution="",
        bar=(),
        tallies=(),
        filters=(),
        lines=(),
        counted="",
        earlier=None,
        later=None,
    )
