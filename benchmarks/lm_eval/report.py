"""From samples to a result: lm-eval's own aggregation, standard errors that know of clusters, and a code of what was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparability import Comparability, parts_of
from harness.events import Kind, current_events
from harness.wording import plural

if TYPE_CHECKING:
    from benchmarks.lm_eval.samples import Sample

Metrics = Mapping[str, Any]
"""Values of one sample by ``metric,filter``: a number, a list (one an instruction), or whatever the task's aggregation takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Aggregates by ``metric,filter`` over ``n`` samples, as lm-eval reports them; ``errors`` where a standard error has a closed form."""

    n: int
    values: Mapping[str, float]
    errors: Mapping[str, float]


def summary_of(found: Mapping[str, Metrics], aggregation: Mapping[str, Callable[[list[Any]], float]]) -> Summary:
    """Aggregate samples by id, in their order."""
    names = dict.fromkeys(name for metrics in found.values() for name in metrics)
    columns = {name: [metrics[name] for metrics in found.values() if name in metrics] for name in names}
    values = {name: float(aggregation[name.partition(",")[0]](column)) for name, column in columns.items()}
    errors = {name: error for name, column in columns.items() if (error := standard_error(column)) is not None}
    return Summary(n=len(found), values=values, errors=errors)


def standard_error(column: Sequence[Any]) -> float | None:
    """Of the mean over samples, or of the share over all items where a sample has several: the samples are then the clusters.

    With x_i of m_i items right in sample i and p = sum x / sum m, it is sqrt(n / (n - 1) * sum (x_i - p m_i)^2) / sum m. None where it is
    not defined: fewer than two samples, or values that are no numbers.
    """
    rows = [value if isinstance(value, list) else [value] for value in column]
    if len(rows) < 2 or not all(isinstance(x, bool | int | float) for row in rows for x in row):
        return None
    total = sum(len(row) for row in rows)
    share = sum(sum(row) for row in rows) / total
    spread = sum((sum(row) - share * len(row)) ** 2 for row in rows)
    return math.sqrt(len(rows) / (len(rows) - 1) * spread) / total


def headline_of(metrics: Metrics, headline: str) -> tuple[str, float | None]:
    """The number that stands for a sample: ``headline``, else the first single value in [0, 1]; None if there is none."""
    for name in (headline,) if headline else metrics:
        value = metrics[name]
        if isinstance(value, bool | int | float) and 0 <= value <= 1 + 1e-9:
            return name, min(float(value), 1.0)
    return headline or ", ".join(metrics), None


def words(summary: Summary, headline: str, asked: int) -> str:
    """``prompt_level_strict_acc 0.300 ± 0.065, ... (50 samples)``, the headline first."""
    names = sorted(summary.values, key=lambda name: name != headline)
    parts = [f"{name.removesuffix(',none')} {summary.values[name]:.3f}" + _plus_minus(summary.errors.get(name)) for name in names]
    return f"{', '.join(parts) or 'no score'} ({asked} {plural(asked, 'sample')})"


def recorded_metrics(run_dir: Path, evaluation_id: str, judge: str, data: Mapping[str, str]) -> dict[str, Metrics]:
    """Metrics by sample id that the log already holds for an evaluation under the same definition and with the same fingerprint (``data``,
    by sample id); an outage is tried again. The latest attempt of a sample counts."""
    sample_of: dict[str, str] = {}
    found: dict[str, Metrics | None] = {}
    for event in current_events(run_dir):
        if event.kind is Kind.ATTEMPT and event.data["evaluation_id"] == evaluation_id:
            sample = event.data["task_id"]
            found[sample] = None
            sample_of.pop(event.data["attempt_id"], None)
            if event.data.get("data") == data.get(sample):  # logs of earlier versions have none: what they asked about is not known
                sample_of[event.data["attempt_id"]] = sample
        elif event.kind is Kind.JUDGEMENT and event.data["attempt_id"] in sample_of and event.data["judge"] == judge:
            found[sample_of[event.data["attempt_id"]]] = event.data.get("metrics")
    return {sample: metrics for sample, metrics in found.items() if metrics is not None}


def comparability(*, rules: Sequence[Any], prompt: Any, limits: Mapping[str, Any], judge: str, samples: Sequence[Sample]) -> Comparability:
    """Equal exactly when the same prompts, answers and ``rules`` (what the task's own file says) were used under the same limits."""
    data = [*rules, *([sample.id, dict(sample.doc)] for sample in samples)]
    text = json.loads(json.dumps(data, default=str))
    known = parts_of(data=text, prompt=prompt, tools={}, limits=limits, judge=judge)
    return Comparability(parts={**known.parts, "extractor": "lm-eval"})


def _plus_minus(error: float | None) -> str:
    return "" if error is None else f" ± {error:.3f}"
