"""What an objective is: a pure map from aligned token streams to per-token loss terms.

The learner runs one forward per stream that an objective declares and calls ``terms`` on chunks of flattened sampled tokens;
the total loss is the sum of ``weight * term`` where rank 0 fixed every token's weight with ``token_weights`` beforehand, so
neither chunking, accumulation nor the number of ranks can change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from trainers.sample import Sample


Aggregate = Literal["token", "sequence", "group"]


class Stream(StrEnum):
    """What an objective needs beside the log-probabilities of the policy being trained."""

    BEHAVIOUR = "behaviour"  # recorded with the sample
    REFERENCE = "reference"  # one forward of the frozen reference policy
    TEACHER = "teacher"  # the policy at step start under the sample's teacher view: a whole distribution a token, met as a divergence


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Flat sampled tokens of some rows (suffix N). ``reference_N`` and ``teacher_kl_N`` are None unless the objective declared them.

    ``teacher_kl_N`` is KL(teacher || policy) over the whole vocabulary at each token, differentiable in the policy alone.
    """

    logprobs_N: torch.Tensor
    behaviour_N: torch.Tensor
    reference_N: torch.Tensor | None
    advantages_N: torch.Tensor
    guided_N: torch.Tensor  # bool
    teacher_kl_N: torch.Tensor | None = None
    penalty_N: torch.Tensor | None = None  # how much more than its loss a token's penalty weighs; None: they weigh the same


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

    def penalty_scales(self, minibatch: Sequence[Sample]) -> list[float]:
        """One number a row: how much more than its loss the penalty of a token weighs; 1 where both aggregate alike."""
        ...

    def terms(self, tokens: Tokens) -> Terms: ...


def weigh_tokens(minibatch: Sequence[Sample], aggregate: Aggregate) -> list[list[float]]:
    """``token``: 1 / all sampled tokens. ``sequence``: a mean over the sampled tokens of each trajectory, then over trajectories.
    ``group``: a mean over the sampled tokens of each group, then over groups.

    Rows of one ``attempt_id`` are one trajectory, so splitting a trajectory into step rows changes no weight.
    """
    trajectories, groups = _tokens(minibatch, "attempt_id"), _tokens(minibatch, "group_id")

    def weight(sample: Sample) -> float:
        if aggregate == "token":
            return 1 / sum(groups.values())
        if aggregate == "sequence":
            return 1 / (len(trajectories) * trajectories[sample.attempt_id])
        return 1 / (len(groups) * groups[sample.group_id])

    return [[weight(sample)] * len(sample.behaviour) if sample.behaviour else [] for sample in minibatch]


def weigh_trajectories(minibatch: Sequence[Sample], aggregate: Aggregate) -> list[float]:
    """What each row's tokens weigh where a trajectory counts by the sum over its tokens: a mean of such sums over trajectories (with
    ``group``: over those of a group, then over groups). Rows without tokens get 0."""
    members = {(sample.group_id, sample.attempt_id) for sample in minibatch if sample.behaviour}
    sizes = Counter(group for group, _ in members)

    def weight(sample: Sample) -> float:
        return 1 / (len(sizes) * sizes[sample.group_id] if aggregate == "group" else len(members))

    return [weight(sample) if sample.behaviour else 0.0 for sample in minibatch]


def _tokens(minibatch: Sequence[Sample], key: Literal["attempt_id", "group_id"]) -> Counter[str]:
    """Sampled tokens by trajectory or group, those without any left out."""
    found: Counter[str] = Counter()
    for sample in minibatch:
        if sample.behaviour:
            found[getattr(sample, key)] += len(sample.behaviour)
    return found


def mask_weights(mask_BT: torch.Tensor, aggregate: Literal["token", "sequence"]) -> torch.Tensor:
    """Weight of every masked token, flat: they sum to 1 (or there are none)."""
    counts_B = mask_BT.sum(1)
    if aggregate == "token":
        return (mask_BT / counts_B.sum().clamp(min=1).double())[mask_BT]
    rows = (counts_B > 0).sum()
    return (mask_BT / (counts_B.clamp(min=1)[:, None] * rows.clamp(min=1)).double())[mask_BT]
