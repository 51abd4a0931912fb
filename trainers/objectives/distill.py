"""On-policy self-distillation (paper, Eq. 13): the full-vocabulary KL from a frozen teacher to the policy on sampled tokens.

``token_kl`` is the one implementation of the maths; the learner calls it on chunks of tokens, so that V x T logits never stand in memory,
and the public function on whole tensors. The gradient is (policy - teacher) probabilities, written down rather than traced: it is exactly
0 where both agree, and one V-sized tensor per token is kept for it instead of four. Axes: B rows, T positions, V vocabulary, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import HarnessError
from trainers.objectives.base import Stream, Terms, Tokens, mask_weights, weigh_tokens

if TYPE_CHECKING:
    from trainers.sample import Sample


def forward_kl(teacher_logits_BTV: torch.Tensor, student_logits_BTV: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Eq. 13: KL(teacher || student) in nats, the mean over the masked tokens of a row, then over rows (scalar).

    Differentiable in the student alone: the teacher is stop-gradient. What masked positions hold (NaN included) never matters; a row
    without tokens is no row. Raises ``HarnessError`` where the shapes do not fit each other.
    """
    if teacher_logits_BTV.shape != student_logits_BTV.shape or student_logits_BTV.shape[:-1] != mask_BT.shape:
        shapes = [tuple(x.shape) for x in (teacher_logits_BTV, student_logits_BTV, mask_BT)]
        raise HarnessError(f"forward_kl needs logits [B, T, V] twice and a mask [B, T], got {shapes[0]}, {shapes[1]} and {shapes[2]}")
    mask_BT = mask_BT.bool()
    kl_N = token_kl(teacher_logits_BTV[mask_BT], student_logits_BTV[mask_BT])
    return (mask_weights(mask_BT, "sequence").to(kl_N.dtype) * kl_N).sum()


def token_kl(teacher_logits_NV: torch.Tensor, student_logits_NV: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of each token (N), differentiable in the student's logits. Logits of -inf are tokens that cannot be."""
    kl_N: torch.Tensor = _TokenKL.apply(teacher_logits_NV.detach(), student_logits_NV)  # type: ignore[no-untyped-call]
    return kl_N


class _TokenKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, teacher_logits_NV: torch.Tensor, student_logits_NV: torch.Tensor) -> torch.Tensor:
        teacher_NV, student_NV = teacher_logits_NV.log_softmax(-1), student_logits_NV.log_softmax(-1)
        probabilities_NV = teacher_NV.exp()
        ctx.save_for_backward(student_NV.exp().sub_(probabilities_NV))
        gap_NV = teacher_NV.sub_(student_NV).masked_fill_(probabilities_NV == 0, 0.0)  # 0 log 0 = 0
        return probabilities_NV.mul_(gap_NV).sum(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor]:
        (difference_NV,) = ctx.saved_tensors
        return None, gradients[0][..., None] * difference_NV


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """The mean over a trajectory's sampled tokens of KL(teacher || policy), then over trajectories."""

    @property
    def streams(self) -> frozenset[Stream]:
        return frozenset({Stream.TEACHER})

    def token_weights(self, minibatch: Sequence[Sample]) -> list[list[float]]:
        return weigh_tokens(minibatch, "sequence")

    def penalty_scales(self, minibatch: Sequence[Sample]) -> list[float]:
        return [1.0] * len(minibatch)

    def terms(self, tokens: Tokens) -> Terms:
        """Per-token loss; metric ``teacher_kl`` is the same number."""
        if tokens.teacher_kl_N is None:
            raise HarnessError("distillation got tokens without a teacher; the learner must run the streams that an objective declares")
        return Terms(loss_N=tokens.teacher_kl_N, metrics={"teacher_kl": tokens.teacher_kl_N.detach()})
