"""Next-token cross-entropy on given trajectories (supervised fine-tuning): the mean over all assistant tokens of the mini-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.objectives.base import Stream, Terms, Tokens, weigh_tokens

if TYPE_CHECKING:
    from trainers.sample import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy:
    """``-log pi(token)``, nats. Needs nothing but the policy: what produced the tokens is not asked."""

    @property
    def streams(self) -> frozenset[Stream]:
        return frozenset()

    def token_weights(self, minibatch: Sequence[Sample]) -> list[list[float]]:
        return weigh_tokens(minibatch, "token")

    def penalty_scales(self, minibatch: Sequence[Sample]) -> list[float]:
        return [1.0] * len(minibatch)

    def terms(self, tokens: Tokens) -> Terms:
        """Per-token loss; metric ``nll`` is the same number."""
        return Terms(loss_N=-tokens.logprobs_N, metrics={"nll": -tokens.logprobs_N.detach()})
