"""What a learner is: it owns the trainable weights, computes log-probabilities and applies updates.

Only rank 0 calls these methods; the other ranks run ``follow()`` and obey. Blocking: the loop calls them on one dedicated thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.engines.base import Weights
from harness.types import Ids
from trainers.sample import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """Numbers of one ``update``: token-weighted means by name, histograms as (edges, counts), and what it cost."""

    metrics: dict[str, float]
    histograms: dict[str, tuple[tuple[float, ...], tuple[int, ...]]]
    tokens: int
    seconds: float
    version: int  # weight updates applied so far (training steps, not optimiser steps)


class Learner(Protocol):
    version: int

    def update(self, batch: Batch) -> UpdateReport:
        """One optimiser step per mini-batch. Raises ``TrainingDiverged`` (weights untouched since the last step) on a non-finite loss."""
        ...

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        """Same contract as ``Engine.score``: T - 1 values a sequence."""
        ...

    def weights(self) -> Weights: ...

    def save(self, folder: Path) -> None:
        """Write everything an exact resume needs (weights, optimiser, random state), plus HF weights in ``folder/hf``; atomic."""
        ...

    def load(self, folder: Path) -> None: ...

    def close(self) -> None: ...
