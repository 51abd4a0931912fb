"""What an objective is: a pure map from aligned token streams to per-token loss terms.

The learner runs one forward per stream that an objective declares and calls ``terms`` on chunks of flattened sampled tokens;
the total loss is the sum of ``weight * term`` where rank 0 fixed every token's weight with ``token_weights`` beforehand, so
neither chunking, accumulation nor the number of ranks can change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from trainers.sample import Sample


class Stream(StrEnum):
    """Extra log-probabilities an objective needs beside those of the policy being trained."""

    BEHAVIOUR = "behaviour"  # recorded with the sample
    REFERENCE = "reference"  # one forward of the frozen reference policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Flat sampled tokens of some rows (suffix N). ``reference_N`` is None unless the objective declared it."""

    logprobs_N: torch.Tensor
    behaviour_N: torch.Tensor
    reference_N: torch.Tensor | None
    advantages_N: torch.Tensor
    guided_N: torch.Tensor  # bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """``loss_N``: differentiable, unweighted. ``metrics``: detached per-token values (N) to be averaged over tokens by name.

    A metric is NaN at the tokens that it says nothing about; they are left out of its average.
    """

    loss_N: torch.Tensor
    metrics: dict[str, torch.Tensor]


class Objective(Protocol):
    """Picklable and stateless: it travels to every rank."""

    @property
    def streams(self) -> frozenset[Stream]: ...

    def token_weights(self, minibatch: Sequence[Sample]) -> list[list[float]]:
        """One weight per sampled token of each row; they decide how the loss is aggregated (token mean, sequence mean...)."""
        ...

    def terms(self, tokens: Tokens) -> Terms: ...
