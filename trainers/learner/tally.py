"""Sums over trained tokens, kept on each rank and added up by rank 0 into the numbers of an ``UpdateReport``.

Deliberately ignorant of objectives: it averages whatever per-token metrics one returns. ``ratio`` and ``lost_mass`` are also
split by guidance, because Eq. 12 behaves differently on guided tokens.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from trainers.learner.base import UpdateReport
from trainers.objectives.base import Terms, Tokens

RATIO_EDGES: tuple[float, ...] = tuple(10 ** (e / 4) for e in range(-16, 9))
"""Histogram edges of the guided ratios, four a decade from 1e-4 to 1e2; what lies outside falls into the end bins."""

Row = tuple[str, int]
"""An attempt, and the place of the first token that the row trains of it: a trajectory may come in several rows."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """Mutable on purpose: it grows micro-batch by micro-batch, then travels to rank 0 and is merged there."""

    loss: float = 0.0
    tokens: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    bins: list[int] = field(default_factory=lambda: [0] * (len(RATIO_EDGES) - 1))
    rows: dict[Row, array[float]] = field(default_factory=dict)
    mismatch_max: float = 0.0

    def add(self, terms: Terms, tokens: Tokens, rows: Sequence[Row], row_N: torch.Tensor) -> None:
        """Count one micro-batch; ``row_N`` says which of ``rows`` a token belongs to, and never falls."""
        if len(row_N) == 0:
            return
        self.tokens += len(row_N)
        guided_N = tokens.guided_N
        for name, values_N in terms.metrics.items():
            if name not in ("ratio", "lost_mass"):
                self._mean(f"policy/{name}", values_N)
        if "ratio" in terms.metrics:
            ratio_N = terms.metrics["ratio"]
            self._mean("ratio/guided_mean", ratio_N[guided_N])
            self._mean("ratio/unguided_mean", ratio_N[~guided_N])
            self._histogram(ratio_N[guided_N])
            parts = ratio_N.float().cpu().split(torch.bincount(row_N, minlength=len(rows)).tolist())
            self.rows |= {row: array("f", part.tolist()) for row, part in zip(rows, parts, strict=True)}
        if "lost_mass" in terms.metrics:
            self._mean("ratio/guided_lost_mass", terms.metrics["lost_mass"][guided_N])
        if "clip_fraction" in terms.metrics:
            size_N = tokens.advantages_N.abs()
            for name, some_N in (("guided", guided_N), ("unguided", ~guided_N)):
                self._weighted(f"ratio/{name}_clipped_mass", terms.metrics["clip_fraction"][some_N], size_N[some_N])

    def add_mismatch(self, difference_N: torch.Tensor) -> None:
        """Count |learner - engine| log-probabilities of tokens that both gave under the same weights and context."""
        if len(difference_N):
            self._mean("mismatch/logprob_mean", difference_N)
            self.mismatch_max = max(self.mismatch_max, float(difference_N.max()))

    def merge(self, other: Tally) -> None:
        self.loss += other.loss
        self.tokens += other.tokens
        for mine, theirs in ((self.sums, other.sums), (self.counts, other.counts)):
            for name, value in theirs.items():  # Counter.update would do, but += drops what is not positive
                mine[name] += value
        self.rows |= other.rows
        self.bins = [a + b for a, b in zip(self.bins, other.bins, strict=True)]
        self.mismatch_max = max(self.mismatch_max, other.mismatch_max)

    def metrics(self) -> dict[str, float]:
        """Means by name; a mean over nothing is left out."""
        means = {name: self.sums[name] / count for name, count in self.counts.items() if count}
        if self.counts["mismatch/logprob_mean"]:
            means["mismatch/logprob_max"] = self.mismatch_max
        return means | {"tokens/trained": float(self.tokens)}

    def histograms(self) -> dict[str, tuple[tuple[float, ...], tuple[int, ...]]]:
        return {"ratio/guided": (RATIO_EDGES, tuple(self.bins))}

    def row_ratios(self) -> dict[str, array[float]]:
        """The ratios of every attempt's tokens, in the order of sampling."""
        found: dict[str, array[float]] = {}
        for attempt, first in sorted(self.rows):
            found.setdefault(attempt, array("f")).extend(self.rows[attempt, first])
        return found

    def _mean(self, name: str, values_N: torch.Tensor) -> None:
        known_N = values_N[~values_N.isnan()].double()
        self.sums[name] += float(known_N.sum())  # type: ignore[assignment]
        self.counts[name] += len(known_N)

    def _weighted(self, name: str, values_N: torch.Tensor, weights_N: torch.Tensor) -> None:
        """A mean in which a token counts as much as its advantage: at ratio 1 that is the size of its gradient."""
        self.sums[name] += float((values_N.double() * weights_N.double()).sum())  # type: ignore[assignment]
        self.counts[name] += float(weights_N.double().sum())  # type: ignore[assignment]

    def _histogram(self, ratio_N: torch.Tensor) -> None:
        inner = torch.tensor(RATIO_EDGES[1:-1], dtype=torch.float64)
        found = torch.bincount(torch.bucketize(ratio_N.double().cpu(), inner, right=True), minlength=len(self.bins))
        self.bins = [a + int(b) for a, b in zip(self.bins, found.tolist(), strict=True)]


def report(tallies: Sequence[Tally], grad_norms: Sequence[float], *, seconds: float, version: int) -> UpdateReport:
    """Add up what the ranks counted; ``grad_norms`` has one entry per optimiser step, the same on every rank."""
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    steps = max(len(grad_norms), 1)
    return UpdateReport(
        metrics=total.metrics() | {"policy/loss": total.loss / steps, "policy/grad_norm": sum(grad_norms) / steps},
        histograms=total.histograms(),
        tokens=total.tokens,
        seconds=seconds,
        version=version,
        row_ratios=total.row_ratios(),
    )
