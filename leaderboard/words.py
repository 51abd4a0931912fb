"""How numbers are said, the same in the terminal and on the pages: percentages, signed points, and what a delta is worth."""

from __future__ import annotations

from collections.abc import Sequence

from harness.wording import plural
from leaderboard.standings import Column
from leaderboard.stats import Comparison

EMPTY = (
    "No finished evaluation yet. `make demo` trains the tiny model and evaluates it; "
    "`harness eval --model tiny --benchmarks miniweb` only evaluates."
)

GATED = ("gaia", "gpqa", "xbench", "browsecomp")
"""How the names of benchmarks begin whose questions must not be public."""

HIDDEN = "hidden: a gated set"

METHOD_TITLES = {
    "base": "base",
    "zero-rl": "+ RL (zero-RL)",
    "opsd": "+ OPSD",
    "sft": "+ SFT",
    "sft-rl": "+ SFT + RL",
    "sft-actguide": "+ SFT + ActGuide-RL",
    "actguide": "+ ActGuide-RL",
}


CORRECTION_TITLES = {"holm": "Holm", "bh": "Benjamini-Hochberg"}
"""How p-values are corrected for their number: Holm bounds the chance of any false finding, the other the share of false ones."""


def method_title(method: str) -> str:
    """A method's name on the board."""
    return METHOD_TITLES.get(method, f"+ {method}")


def column_title(column: Column) -> str:
    """A column's heading: benchmark and split, or the part."""
    return column.part.replace("=", " ") if column.part else f"{column.benchmark} {column.split}".strip()


def percent(fraction: float) -> str:
    """``0.514`` as ``51.4``: the unit stands in the heading."""
    return f"{100 * fraction:.1f}"


def points(difference: float) -> str:
    """A signed difference in percentage points, with a true minus sign."""
    sign = "+" if difference > 0 else "\N{MINUS SIGN}" if difference < 0 else "\N{PLUS-MINUS SIGN}"
    return f"{sign}{abs(100 * difference):.1f}"


def p_value(p: float | None) -> str:
    """A p-value in words."""
    if p is None:
        return "no test is possible"
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.3f}" if p < 0.1 else f"p\u00a0=\u00a0{p:.2f}"


def delta_words(comparison: Comparison) -> str:
    """Whether a delta is real, in a few words."""
    if comparison.distinguishable:
        return p_value(comparison.decisive_p)
    if comparison.delta == 0:
        return "no difference seen"
    if comparison.more:
        return f"not distinguishable, needs about {comparison.more:,} more {plural(comparison.more, 'question')}"
    return "not distinguishable, needs more seeds or questions"


def gap_words(comparison: Comparison) -> str:
    """The smallest difference that such a study would find."""
    if comparison.gap is None:
        return ""
    who = f"{comparison.n} {plural(comparison.n, 'question finds', 'questions find')}"
    return f"{who} a difference of {100 * comparison.gap:.1f} points or more four times in five"


def comparison_sentence(comparison: Comparison, other: str = "the base") -> str:
    """Wins, losses and the test, as one sentence."""
    gap = (
        ""
        if comparison.gap is None
        else f" With {comparison.n} {plural(comparison.n, 'question')}, a gap of about {100 * comparison.gap:.1f} points is found "
        "four times in five."
    )
    corrected = ""
    if comparison.adjusted is not None:
        corrected = f", {p_value(comparison.adjusted)} after the {CORRECTION_TITLES[comparison.correction]} correction over the column"
    interval = ""
    if comparison.low is not None and comparison.high is not None:
        interval = f", 95% interval {points(comparison.low)} to {points(comparison.high)}"
    return (
        f"{points(comparison.delta)} points to {other}{interval}: ahead on {comparison.wins}, behind on {comparison.losses}, "
        f"equal on {comparison.ties} ({comparison.method}, {p_value(comparison.p)}{corrected}).{gap}"
    )


def seeds_words(seeds: Sequence[int]) -> str:
    """``1 seed`` or ``3 seeds``: how often a recipe was repeated."""
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def is_hidden(benchmark: str | None, gold: object, show_gated: bool) -> bool:
    """Whether pages hide an attempt's text: that of gated sets, unless the operator serves with ``--show-gated``.

    A set is gated by its name, or because its accepted answers were kept out of the log. The one place that decides this.
    """
    return not show_gated and (gold is None or (benchmark or "").lower().startswith(GATED))
