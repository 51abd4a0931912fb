"""What a reproduction found, in Markdown: the paper's numbers beside ours, its orderings and whether ours are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness.cli.study import Verdicts, last_evaluation, steps_of, verdicts
from harness.wording import plural

if TYPE_CHECKING:
    from harness.cli.reproduce import Bench, Reproduction

GUIDED = "guided-reward"
"""The diagnostic of the arms whose number in the paper is a reward under guidance."""
PARTS = 4
OF_THE_PAPER = "Qwen3-4B-Instruct"
"""The model of the paper's rows in every table but the seventh, which names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Finished folders, one a seed: runs by arm, diagnoses by diagnostic or by arm."""

    runs: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    diagnoses: Mapping[str, Sequence[Path]] = field(default_factory=dict)


def report(chosen: Reproduction, bench: Bench, done: Done) -> list[str]:
    """Every line behind the heading."""
    parts: list[list[str]] = []
    if chosen.arms:
        parts.append(_curves(chosen, done.runs) if chosen.curves else _scores(chosen, bench, done))
    parts += [[f"## {name}", "", *_diagnosis(done.diagnoses[name])] for name in chosen.diagnoses]
    parts += [[f"The paper's finding: {chosen.finding}"]] if chosen.finding else []
    parts += [[f"Not applicable here: {chosen.not_applicable}"]] if chosen.not_applicable else []
    parts += [[chosen.remark]] if chosen.remark else []
    return [line for part in parts for line in (*part, "")][:-1]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table that is legible as it stands: the first column to the left, numbers to the right.

    >>> table(["method", "score"], [["RL", "9.5"], ["SFT", "31.2"]])
    ['| method | score |', '|--------|------:|', '| RL     |   9.5 |', '| SFT    |  31.2 |']
    """
    widths = [max(3, *(len(row[n]) for row in (header, *rows))) for n in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join((first, *rest)) + " |"

    rule = "|" + "|".join("-" * (w + 2) if n == 0 else "-" * (w + 1) + ":" for n, w in enumerate(widths)) + "|"
    return [line(header), rule, *map(line, rows)]


def _scores(chosen: Reproduction, bench: Bench, done: Done) -> list[str]:
    shown = [arm for arm in chosen.arms if arm.shown]
    trained = {arm.name: [verdicts(folder, last_evaluation(folder)["evaluation_id"]) for folder in done.runs[arm.name]] for arm in shown}
    guided = _guided(chosen, done)
    header = ["method", *(f"paper: {column}" for column in chosen.columns)]
    header += ["ours, while guided, untrained"] if guided else []
    header += [f"ours: {bench.tasks}, {bench.model}" + (", after training, unguided" if guided else ""), "by seed"]
    rows = []
    for arm in shown:
        paper = [f"{value:.2f}" for value in arm.paper] or ["not reported"] * len(chosen.columns)
        ours = [_interval(guided[arm.name])] if guided else []
        seeds = ", ".join(f"{100 * fmean(v.values()):.1f}" if v else "nothing scored" for v in trained[arm.name])
        rows.append([arm.name, *paper, *ours, _interval(trained[arm.name]), seeds])
    of = f"; the paper's are of {OF_THE_PAPER}, ours" if chosen.columns and not guided else ""
    of += "" if guided else f" over {_questions(trained.values())}"
    lines = [*table(header, rows), "", f"Scores in percent{of}; [95% interval over questions, and over seeds where there are several]."]
    if chosen.claims:
        where = "ours, while guided" if guided else "ours"
        lines += ["", f"Orderings of the paper, and {where} (difference of means in percentage points, 95% interval):", ""]
        lines += [f"- {_claim(better, worse, guided or trained)}" for better, worse in chosen.claims]
    return lines


def _questions(runs: Iterable[Sequence[Verdicts]]) -> str:
    """How many questions have a verdict, of the run with the fewest to the run with the most."""
    counts = sorted({len(run) for seeds in runs for run in seeds})
    return f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "") + f" {plural(counts[-1], 'question')}"


def _guided(chosen: Reproduction, done: Done) -> dict[str, list[Verdicts]]:
    """Rewards of the untrained model by task, under the guidance of each arm; empty where the paper's column is no such reward."""
    found = {name: [_rewards(folder, "guided") for folder in folders] for name, folders in done.diagnoses.items() if name in done.runs}
    plain = next(([_rewards(folder, "unguided") for folder in done.diagnoses[name]] for name in found), [])
    return found | {arm.name: plain for arm in chosen.arms if found and arm.guidance == ()}


def _rewards(folder: Path, which: str) -> Verdicts:
    rows = json.loads((folder / "diagnostics" / f"{GUIDED}.json").read_text(encoding="utf-8"))["data"]["tasks"]
    return {row["task_id"]: fmean(row[which]) for row in rows if row[which]}


def _interval(runs: Sequence[Verdicts]) -> str:
    from leaderboard.stats import interval

    if not all(runs):
        return "nothing scored"
    found = interval(runs)
    bounds = "" if found.low is None or found.high is None else f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return f"{100 * found.value:.1f}{bounds}"


def _claim(better: str, worse: str, scores: Mapping[str, Sequence[Verdicts]]) -> str:
    from leaderboard.stats import compare

    found = compare(scores[better], scores[worse])
    if found is None:
        return f"{better} over {worse}: not comparable, no question has a verdict in both"
    if not found.wins and not found.losses:
        return f"{better} over {worse}: undecided: both score the same on each of {found.ties} {plural(found.ties, 'question')}"
    bounds = "no interval" if found.low is None or found.high is None else f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    bounds += "" if found.gap is None else f"; four of five such studies would find a gap of {100 * found.gap:.1f}"
    return f"{better} over {worse}: {100 * found.delta:+.1f} ({bounds}); {_verdict(found.delta, found.distinguishable)}"


def _verdict(delta: float, distinguishable: bool) -> str:
    """Whether our difference has the sign of the paper's, in words."""
    if not distinguishable:
        return f"undecided: our difference {'points the other way, but ' if delta < 0 else ''}cannot be told from zero"
    return "agrees" if delta > 0 else "DISAGREES: here it is the other way round"


def _curves(chosen: Reproduction, runs: Mapping[str, Sequence[Path]]) -> list[str]:
    """Means of each metric over quarters of the training, and what the paper says of the curves."""
    lines: list[str] = []
    for metric, words in chosen.curves.items():
        series = {name: [[float(s[metric]) for s in steps_of(run) if metric in s] for run in folders] for name, folders in runs.items()}
        quarters = {name: [_quarters(values) for values in found] for name, found in series.items()}
        rows = [[name, *(_spread([seed[n] for seed in found]) for n in range(PARTS))] for name, found in quarters.items()]
        lines += [*table([words, *(f"quarter {n + 1}" for n in range(PARTS))], rows), ""]
        for better, worse in chosen.claims:
            pairs = zip(series[better], series[worse], strict=True)
            lines.append(f"- {better} over {worse}: {_difference([fmean(a) - fmean(b) for a, b in pairs if a and b])}")
        for name in chosen.grows:
            ends = [(seed[0], seed[-1]) for seed in quarters[name]]
            grown = [last - first for first, last in ends if first is not None and last is not None]
            lines.append(f"- {name}, last quarter over first: {_difference(grown)}")
        lines += [""] if chosen.claims or chosen.grows else []
    return [*lines, "Means over the steps of each quarter" + (" and over seeds (lowest to highest seed)." if _several(runs) else ".")]


def _quarters(values: Sequence[float]) -> list[float | None]:
    cut = [values[len(values) * n // PARTS : len(values) * (n + 1) // PARTS] for n in range(PARTS)]
    return [fmean(part) if part else None for part in cut]


def _several(runs: Mapping[str, Sequence[Path]]) -> bool:
    return any(len(folders) > 1 for folders in runs.values())


def _number(value: float) -> str:
    """Two digits, and no sign before a zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else _number(value)


def _spread(values: Sequence[float | None], words: Callable[[float], str] = _number) -> str:
    """The mean over seeds, and the lowest and highest where there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    low, mean, high = (words(value) for value in (min(known), fmean(known), max(known)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _difference(by_seed: Sequence[float]) -> str:
    """The mean difference over seeds with its 95% interval (t), and whether the paper's ordering is ours."""
    from leaderboard.stats import t_half_width

    if not by_seed:
        return "too few steps to tell"
    mean, n = fmean(by_seed), len(by_seed)
    if n == 1:
        return f"{mean:+.2f} (no interval from one seed); undecided: one seed cannot tell it from chance"
    half = t_half_width(by_seed)
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f}); {_verdict(mean, abs(mean) > half)}"


def _diagnosis(folders: Sequence[Path]) -> list[str]:
    """The curves of a diagnostic as tables over all seeds, then what it says of the first."""
    found = [_event(folder) for folder in folders]
    lines: list[str] = []
    for number in range(len(found[0]["charts"])):
        lines += [*_chart([event["charts"][number] for event in found]), ""]
    if len(found) > 1:
        lines += [f"Means over {len(found)} {plural(len(found), 'seed')} (lowest to highest seed). In words, seed 0:", ""]
    return [
        *lines,
        *(f"- {line}" for line in found[0]["summary"]),
        "",
        f"Plot: $HARNESS_HOME/studies/shared/{(Path(folders[0].name) / found[0]['file']).with_suffix('.png')}",
    ]


def _chart(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """One row a value of x, one column a series."""
    first = seeds[0]
    if first["kind"] == "bars":
        return _bars(seeds)
    names = [series["name"] for series in first["series"]]
    points = {name: [dict(s["points"]) for chart in seeds for s in chart["series"] if s["name"] == name] for name in names}
    xs = sorted({x for found in points.values() for seed in found for x in seed})
    rows = [[f"{x:g}", *(_spread([seed.get(x) for seed in points[name]]) for name in names)] for x in xs]
    return [f"{first['title']} ({first['y']})", "", *table([first["x"], *names], rows)]


def _bars(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """One row a label of any seed; a seed that has no such bar has 0 there."""
    counts = [dict(zip(chart["labels"], (y for _, y in chart["series"][0]["points"]), strict=True)) for chart in seeds]
    labels = sorted(dict.fromkeys(label for seed in counts for label in seed), key=lambda text: (not text.isdigit(), text.zfill(9)))
    rows = [[label, _spread([seed.get(label, 0.0) for seed in counts], _count)] for label in labels]
    return [seeds[0]["title"], "", *table([seeds[0]["x"], seeds[0]["y"]], rows)]


def _event(folder: Path) -> Mapping[str, Any]:
    from harness.events import Kind, current_events

    return [event.data for event in current_events(folder) if event.kind is Kind.DIAGNOSTIC][-1]
