"""The clipped policy-gradient objective with a KL penalty (Eq. 11), its ratio taken as in Eq. 12.

The numerator of the ratio is the trained policy under the target view (no guidance in the prompt); the denominator is what the
behaviour policy gave the same tokens under the context it was sampled in. Nothing here knows which rows were guided, except for
the metric of the mass lost to small ratios. Axes: B rows, T positions, N flat sampled tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import model_validator

from harness.config import Section, identity
from harness.errors import HarnessError
from trainers.objectives.base import Aggregate, Stream, Terms, Tokens, mask_weights, weigh_tokens, weigh_trajectories

if TYPE_CHECKING:
    from trainers.sample import Sample

KL = Literal["k1", "k2", "k3"]
KLAggregate = Literal["token", "trajectory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedLoss:
    """``loss = policy_loss + kl_coef * kl_loss``, all scalars; the fractions are over all masked tokens and detached."""

    loss: torch.Tensor
    policy_loss: torch.Tensor
    kl_loss: torch.Tensor
    clip_fraction: torch.Tensor
    dual_clip_fraction: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedObjective:
    """Eq. 11 on flat tokens: ``-min(r A, clip(r, 1 - low, 1 + high) A) + kl_coef * KL(policy, reference)``.

    ``dual_clip`` c > 1 bounds the loss of a token with A < 0 by ``-c A``. ``log_ratio_clamp`` bounds log r, and the exponent of
    k3; ``kl_clamp`` bounds the value of k3. None switches a bound off. With ``aggregate="group"`` and ``kl_aggregate="trajectory"`` the
    loss of a mini-batch is the mean of Eq. 11 over its groups.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    kl_coef: float = 0.001
    kl: KL = "k3"
    aggregate: Aggregate = "token"
    kl_aggregate: KLAggregate = "token"
    log_ratio_clamp: float | None = 20.0
    kl_clamp: float | None = None

    def __post_init__(self) -> None:
        if self.kl not in ("k1", "k2", "k3"):
            raise HarnessError(f"unknown KL estimator {self.kl!r}; use 'k1', 'k2' or 'k3'")
        if self.aggregate not in ("token", "sequence", "group"):
            raise HarnessError(f"unknown aggregation {self.aggregate!r}; use 'token', 'sequence' or 'group'")
        if self.dual_clip is not None and self.dual_clip <= 1:
            raise HarnessError(f"dual_clip is {self.dual_clip}; it must exceed 1 (3.0 is usual), or be None to switch it off")

    @property
    def streams(self) -> frozenset[Stream]:
        """The reference policy is only run where the KL term has a weight."""
        return frozenset({Stream.BEHAVIOUR, Stream.REFERENCE} if self.kl_coef else {Stream.BEHAVIOUR})

    def token_weights(self, minibatch: Sequence[Sample]) -> list[list[float]]:
        return weigh_tokens(minibatch, self.aggregate)

    def penalty_scales(self, minibatch: Sequence[Sample]) -> list[float]:
        """1, or what makes the KL of a trajectory the sum over its tokens and that of the mini-batch the mean over trajectories."""
        if self.kl_aggregate == "token":
            return [1.0] * len(minibatch)
        sums, weights = weigh_trajectories(minibatch, self.aggregate), self.token_weights(minibatch)
        return [total / row[0] if row else 1.0 for total, row in zip(sums, weights, strict=True)]

    def terms(self, tokens: Tokens) -> Terms:
        """Per-token loss; metrics ``ratio``, ``clip_fraction``, ``dual_clip_fraction``, ``lost_mass`` and, with a reference, ``kl``.

        ``lost_mass`` is 1 - min(r, 1) where A > 0: the share of a token's gradient that a small ratio takes away.
        """
        parts = _per_token(self, tokens.logprobs_N, tokens.behaviour_N, tokens.reference_N, tokens.advantages_N)
        metrics = {
            "ratio": parts.ratio_N,
            "clip_fraction": parts.clipped_N.to(parts.ratio_N.dtype),
            "dual_clip_fraction": parts.dual_clipped_N.to(parts.ratio_N.dtype),
            "lost_mass": torch.where(tokens.advantages_N > 0, 1 - parts.ratio_N.clamp(max=1), math.nan),
        }
        if parts.kl_N is None:
            return Terms(loss_N=parts.policy_N, metrics=metrics)
        penalty_N = parts.kl_N if tokens.penalty_N is None else tokens.penalty_N * parts.kl_N
        return Terms(loss_N=parts.policy_N + self.kl_coef * penalty_N, metrics=metrics | {"kl": parts.kl_N.detach()})


class ObjectiveConfig(Section):
    """Settings of the clipped objective (defaults: Table 6 of the paper)."""

    clip_low: float = identity(0.2, gt=0, lt=1)
    """How far below 1 the ratio may fall before a token with A < 0 stops learning."""
    clip_high: float = identity(0.2, gt=0)
    """How far above 1 the ratio may rise before a token with A > 0 stops learning."""
    dual_clip: float | None = identity(None, gt=1)
    """Bound the loss of a token with A < 0 by this multiple of |A| (the authors' code uses 3.0; null: no bound)."""
    kl_coef: float = identity(0.001, ge=0)
    """Weight of the KL penalty towards the reference policy; 0 also saves the reference forward."""
    kl: KL = identity("k3")
    """KL estimator: k1 = new - ref, k2 = its half square, k3 = exp(d) - d - 1 with d = ref - new (unbiased, never negative)."""
    aggregate: Aggregate = identity("token")
    """token: mean over all sampled tokens of the mini-batch (Algorithm 1 pools its groups); sequence: mean of the trajectories' own means;
    group: mean of the groups' own means over their tokens (Eq. 11 as printed)."""
    kl_aggregate: KLAggregate = identity("token")
    """token: the KL of a token weighs as much as its policy term; trajectory: the KL of a trajectory is the sum over its tokens, and the
    mean is over trajectories (Eq. 11 as printed; with aggregate=group over those of a group)."""
    log_ratio_clamp: float | None = identity(20.0, gt=0)
    """Bound on |log ratio| and on k3's exponent, against overflow (null: no bound)."""
    kl_clamp: float | None = identity(None, gt=0)
    """Bound on the value of k3 (the authors' code uses 10; null: no bound)."""

    @model_validator(mode="after")
    def _kl_clamp_needs_k3(self) -> ObjectiveConfig:
        if self.kl_clamp is not None and self.kl != "k3":
            raise ValueError(f"kl_clamp bounds k3 only, but kl is {self.kl}; set kl to k3 or kl_clamp to null")
        return self

    def objective(self) -> ClippedObjective:
        return ClippedObjective(**self.model_dump())


def clipped_objective(
    logprobs_BT: torch.Tensor,
    behaviour_BT: torch.Tensor,
    reference_BT: torch.Tensor | None,
    mask_BT: torch.Tensor,
    advantages_B: torch.Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    kl_coef: float = 0.001,
    kl: KL = "k3",
    aggregate: Literal["token", "sequence"] = "token",
    log_ratio_clamp: float | None = 20.0,
    kl_clamp: float | None = None,
) -> ClippedLoss:
    """Eq. 11 on padded rows, differentiable in ``logprobs_BT``; what masked positions hold (NaN included) never matters.

    ``mask_BT`` is true at sampled tokens. Policy and KL part aggregate alike: the mean over all masked tokens (``token``), or the
    mean over rows of per-row token means (``sequence``; a row without tokens is no row). Without a reference ``kl_loss`` is 0.
    """
    if aggregate not in ("token", "sequence"):
        raise HarnessError(f"unknown aggregation {aggregate!r} of padded rows; use 'token' or 'sequence'")
    objective = ClippedObjective(
        clip_low=clip_low,
        clip_high=clip_high,
        dual_clip=dual_clip,
        kl_coef=kl_coef,
        kl=kl,
        aggregate=aggregate,
        log_ratio_clamp=log_ratio_clamp,
        kl_clamp=kl_clamp,
    )
    mask_BT = mask_BT.bool()
    advantages_N = advantages_B.to(logprobs_BT.dtype)[:, None].expand_as(mask_BT)[mask_BT]
    reference_N = None if reference_BT is None else reference_BT[mask_BT]
    parts = _per_token(objective, logprobs_BT[mask_BT], behaviour_BT[mask_BT], reference_N, advantages_N)
    weights_N = mask_weights(mask_BT, aggregate).to(logprobs_BT.dtype)
    policy_loss = (weights_N * parts.policy_N).sum()
    kl_loss = torch.zeros_like(policy_loss) if parts.kl_N is None else (weights_N * parts.kl_N).sum()
    tokens = max(len(weights_N), 1)
    return ClippedLoss(
        loss=policy_loss + kl_coef * kl_loss,
        policy_loss=policy_loss,
        kl_loss=kl_loss,
        clip_fraction=parts.clipped_N.to(logprobs_BT.dtype).sum() / tokens,  # of whole numbers, torch would make a float32
        dual_clip_fraction=parts.dual_clipped_N.to(logprobs_BT.dtype).sum() / tokens,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    policy_N: torch.Tensor
    kl_N: torch.Tensor | None
    ratio_N: torch.Tensor  # detached
    clipped_N: torch.Tensor  # bool: the clip made the token's loss larger than the plain one
    dual_clipped_N: torch.Tensor  # bool


def _per_token(
    objective: ClippedObjective,
    logprobs_N: torch.Tensor,
    behaviour_N: torch.Tensor,
    reference_N: torch.Tensor | None,
    advantages_N: torch.Tensor,
) -> _Parts:
    """The one implementation of the token maths; the padded function and the flat class both end here."""
    ratio_N = _bounded(logprobs_N - behaviour_N, objective.log_ratio_clamp).exp()
    plain_N = -advantages_N * ratio_N
    clip_N = -advantages_N * ratio_N.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    policy_N = torch.maximum(plain_N, clip_N)
    dual_clipped_N = torch.zeros_like(plain_N, dtype=torch.bool)
    if objective.dual_clip is not None:
        bound_N = -advantages_N * objective.dual_clip
        dual_clipped_N = (advantages_N < 0) & (policy_N.detach() > bound_N)
        policy_N = torch.where(dual_clipped_N, bound_N, policy_N)
    return _Parts(
        policy_N=policy_N,
        kl_N=None if reference_N is None else _kl(objective, logprobs_N, reference_N),
        ratio_N=ratio_N.detach(),
        clipped_N=clip_N.detach() > plain_N.detach(),
        dual_clipped_N=dual_clipped_N,
    )


def _kl(objective: ClippedObjective, logprobs_N: torch.Tensor, reference_N: torch.Tensor) -> torch.Tensor:
    if objective.kl == "k1":
        return logprobs_N - reference_N
    if objective.kl == "k2":
        return (logprobs_N - reference_N).square() / 2
    d_N = _bounded(reference_N - logprobs_N, objective.log_ratio_clamp)
    return _bounded(d_N.exp() - d_N - 1, objective.kl_clamp)


def _bounded(values_N: torch.Tensor, limit: float | None) -> torch.Tensor:
    return values_N if limit is None else values_N.clamp(-limit, limit)
