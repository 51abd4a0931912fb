"""What a learner is: it owns the trainable weights, computes log-probabilities and applies updates.

Only rank 0 calls these methods; the other ranks run ``follow()`` and obey. Blocking: the loop calls them on one dedicated thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pydantic import model_validator

from harness.config import Section, identity, operational
from harness.engines.base import Weights
from harness.errors import HarnessError
from harness.types import Ids
from trainers.sample import Batch


class TrainingDiverged(HarnessError):
    """The loss or its gradient is not finite; the message names the attempts. The weights are those of the last good step."""


def cannot_save(folder: Path, error: Exception) -> HarnessError:
    """The error for a checkpoint that could not be written whole: a full disk, a folder without the right to write."""
    return HarnessError(f"cannot save a checkpoint to {folder}: {error}; free some space or choose another folder")


class LearnerConfig(Section):
    """How the weights are updated (defaults: Table 6 of the paper, and its optimiser settings)."""

    lr: float = identity(1e-6, gt=0)
    """Learning rate, constant."""
    betas: tuple[float, float] = identity((0.9, 0.999))
    """AdamW's decay rates of the first and second moment."""
    eps: float = identity(1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = identity(0.01, ge=0)
    """AdamW's decoupled weight decay."""
    grad_clip: float = identity(1.0, ge=0)
    """Largest norm of the whole gradient; 0 switches clipping off."""
    dtype: Literal["float32", "bfloat16"] = identity("float32")
    """Type of weights and activations. With bfloat16 the optimiser keeps a float32 master copy."""
    seed: int = identity(0)
    """Seed of the learner's own random state (dropout is always off, so it only matters to layers that sample)."""
    zero_stage: Literal[0, 1, 2, 3] = operational(0)
    """DeepSpeed ZeRO stage: 0 replicates, 1 shards the optimiser, 2 also gradients, 3 also weights."""
    offload: Literal["none", "optimizer", "all"] = operational("none")
    """What ZeRO keeps in CPU memory: nothing, the optimiser (stage 2 or 3), or the weights too (stage 3)."""
    ranks: int = operational(1, ge=1)
    """Processes that share the update; under torchrun its world size counts instead."""
    microbatch_tokens: int = operational(8192, ge=1)
    """Tokens, padding included, that one forward and backward may hold. A longer row runs alone."""
    logits_mb: int = operational(256, ge=1)
    """Memory for the logits of one chunk in MB. Sampled tokens beyond it are computed chunk by chunk and again in the backward."""
    gradient_checkpointing: bool = operational(False)
    """Recompute the layers' activations in the backward: less memory, about a third more time."""

    @model_validator(mode="after")
    def _combinations(self) -> LearnerConfig:
        if self.offload == "all" and self.zero_stage != 3:
            raise ValueError(f"offload 'all' moves weights and needs zero_stage 3, but it is {self.zero_stage}; set zero_stage to 3")
        if self.offload == "optimizer" and self.zero_stage < 2:
            raise ValueError(f"offload 'optimizer' needs zero_stage 2 or 3, but it is {self.zero_stage}; set zero_stage to 2")
        if self.dtype == "bfloat16" and self.zero_stage == 0:
            raise ValueError("bfloat16 needs a ZeRO stage that keeps a float32 master copy; set zero_stage to 1, 2 or 3")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """Numbers of one ``update``: token means by name, histograms as (edges, counts), and what it cost."""

    metrics: dict[str, float]
    histograms: dict[str, tuple[tuple[float, ...], tuple[int, ...]]]
    tokens: int
    seconds: float
    version: int  # weight updates applied so far (training steps, not optimiser steps)
    row_ratios: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Ratio (Eq. 12) of every trained token when its row was trained, by attempt, in the order of sampling; empty without ratios."""


class Learner(Protocol):
    version: int

    def update(self, batch: Batch) -> UpdateReport:
        """One optimiser step per mini-batch. Raises ``TrainingDiverged`` (weights untouched since the last step) on a non-finite loss."""
        ...

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        """Same contract as ``Engine.score``: T - 1 values a sequence."""
        ...

    def weights(self) -> Weights: ...

    def checksum(self) -> str:
        """Same hash as ``Engine.sync`` returns for the same weights."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything an exact resume needs (weights, optimiser, random state), plus HF weights in ``folder/hf``; atomic."""
        ...

    def load(self, folder: Path) -> None: ...

    def restart(self, directory: Path, lr: float | None = None) -> None:
        """Begin anew from the model in ``directory``: fresh optimiser, the reference policy too; ``lr`` None is the configured one."""
        ...

    def close(self) -> None: ...
