"""Which series of a run become charts, with their names and units. One table; a new metric shows up by itself under "more"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from leaderboard.records import GroupInfo
from leaderboard.web.charts import BarChart, LineChart, Points, bar_chart, histogram, line_chart
from leaderboard.web.rescue import shade

Series = Mapping[str, Points]

CURVES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Reward", "mean reward, 0 to 1", (("unguided", "reward/unguided_mean"), ("all trained", "reward/mean"))),
    ("Trainable groups", "% of groups", (("with guidance", "%groups/trainable"), ("without", "%groups/trainable_unguided"))),
    ("Guided share", "% of trained trajectories", (("guided", "%guided/share"),)),
    ("Guidance needed", "mean k* of rescued groups", (("k*", "guidance/level_mean"),)),
    ("Ratio of guided tokens", "mean ratio, Eq. 12", (("guided", "ratio/guided_mean"), ("unguided", "ratio/unguided_mean"))),
    (
        "Gradient lost on guided tokens",
        "% of it",
        (("to small ratios", "%ratio/guided_lost_mass"), ("to the clip", "%ratio/guided_clipped_mass")),
    ),
    ("Probes", "guided rollouts a step", (("drawn", "guidance/probe_trajectories"), ("not trained", "guidance/discarded_trajectories"))),
    ("Tokens of probes", "sampled tokens a step", (("drawn", "guidance/probe_tokens"), ("not trained", "guidance/discarded_tokens"))),
    ("Turns", "mean per trajectory", (("unguided", "length/turns_mean"), ("guided", "length/guided_turns_mean"))),
    ("Response length", "mean sampled tokens", (("unguided", "length/tokens_mean"), ("guided", "length/guided_tokens_mean"))),
    ("Mismatch", "engine against learner, nats a token", (("largest", "mismatch/logprob_max"), ("mean", "mismatch/logprob_mean"))),
    ("Speed", "generated tokens per second", (("tokens/s", "throughput/tokens_per_s"),)),
    ("Memory", "peak, MB", (("peak", "memory/peak_mb"),)),
)
DRAWN = frozenset(name.lstrip("%") for _, _, lines in CURVES for _, name in lines)


def charts_of(
    series: Series, groups: Sequence[GroupInfo], ratios: tuple[Sequence[float], Sequence[float]] | None
) -> tuple[LineChart | BarChart, ...]:
    """The charts of the run page that have data, in the order of the table, with the two distributions after the guidance level."""
    found: list[LineChart | BarChart] = []
    for title, unit, lines in CURVES:
        chart = line_chart(title, unit, [(words, _points(series, name)) for words, name in lines])
        if chart is not None:
            found.append(chart)
        if title == "Guidance needed" and (levels := _levels(groups)) is not None:
            found.append(levels)
        if title == "Ratio of guided tokens" and ratios is not None:
            found.append(histogram("Guided ratios", "ratio of a guided token", ratios[0], ratios[1]))
    return tuple(found)


def more_charts_of(series: Series) -> tuple[LineChart, ...]:
    """Every series that no chart above draws."""
    rest = [(name, points) for name, points in sorted(series.items()) if name not in DRAWN]
    charts = (line_chart(name, "per step", [(name, points)]) for name, points in rest)
    return tuple(chart for chart in charts if chart is not None)


def _points(series: Series, name: str) -> Points:
    """Points of a series; ``%`` turns a count of groups into a share of all, and a fraction into percent."""
    if not name.startswith("%"):
        return series.get(name, ())
    points = series.get(name[1:], ())
    if not name.startswith("%groups/"):
        return [(step, 100 * value) for step, value in points]
    totals = dict(series.get("groups/total", ()))
    return [(step, 100 * value / totals[step]) for step, value in points if totals.get(step)]


def _levels(groups: Sequence[GroupInfo]) -> BarChart | None:
    """How much guidance the rescued groups needed, and how many no level rescued."""
    needed = Counter((g.level, g.max_level) for g in groups if g.outcome == "rescued" and g.level is not None)
    if not needed:
        return None
    deepest = max(most for _, most in needed)
    counts = [sum(c for (level, _), c in needed.items() if level == k) for k in range(1, deepest + 1)]
    failed = sum(g.outcome == "failed" for g in groups)
    labels = [*(f"k* = {k}" for k in range(1, deepest + 1)), "none"]
    shades = [*(shade(k, deepest) for k in range(1, deepest + 1)), 6]
    return bar_chart("Level that rescued", "smallest sufficient level", labels, [*counts, failed], shades)
