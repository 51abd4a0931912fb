"""What one rank does with its share of the rows: reference forward, micro-batches, steps, scores. Knows no other rank.

A worker receives complete orders (its rows with their weights already fixed), so nothing here depends on how many ranks there
are, beyond the collectives that its policy runs inside forward, backward and step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.errors import HarnessError
from harness.types import Ids
from trainers.learner.forward import Padded, Scorer, Teacher, load_model, pad
from trainers.learner.place import flush_denormals
from trainers.learner.shards import plan
from trainers.learner.tally import Tally
from trainers.objectives.base import Objective, Stream, Tokens
from trainers.sample import Batch, Sample

if TYPE_CHECKING:
    from trainers.learner.base import LearnerConfig
    from trainers.learner.deepspeed import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedRow:
    """A sample with the loss weight of each of its sampled tokens and the scale of their penalty, as rank 0 fixed them for the whole
    mini-batch."""

    sample: Sample
    weights: tuple[float, ...]
    penalty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOrder:
    """One rank's part of an update: mini-batch -> micro-batch -> rows. ``version`` tells fresh samples from stale ones."""

    minibatches: tuple[tuple[tuple[WeightedRow, ...], ...], ...]
    objective: Objective
    temperature: float
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOutcome:
    """What one rank saw. ``diverged`` names attempts with a non-finite loss; then no further step was taken, on any rank."""

    tally: Tally
    grad_norms: tuple[float, ...]
    diverged: tuple[str, ...] | None = None


def update_orders(batch: Batch, ranks: int, budget: int, version: int) -> list[UpdateOrder]:
    """Split a batch over ranks and micro-batches, its token weights fixed beforehand. Rows that train nothing are left out."""
    parts: list[list[tuple[tuple[WeightedRow, ...], ...]]] = [[] for _ in range(ranks)]
    for minibatch in batch.minibatches:
        fixed = zip(minibatch, batch.objective.token_weights(minibatch), batch.objective.penalty_scales(minibatch), strict=True)
        rows = [WeightedRow(sample=s, weights=tuple(w), penalty=p) for s, w, p in fixed if w]
        for part, share in zip(parts, plan([row.sample.width for row in rows], ranks, budget), strict=True):
            part.append(tuple(tuple(rows[i] for i in microbatch) for microbatch in share))
    return [
        UpdateOrder(minibatches=tuple(part), objective=batch.objective, temperature=batch.temperature, version=version) for part in parts
    ]


class NonFiniteGradient(Exception):
    """Raised by the policy instead of a step, on every rank at once."""


class Worker:
    """One rank's policy with everything around it."""

    def __init__(self, directory: Path, config: LearnerConfig, policy: Policy) -> None:
        self._directory = directory
        self._config = config
        self.policy = policy
        self._reference: Scorer | None = None

    def update(self, order: UpdateOrder) -> UpdateOutcome:
        """One optimiser step per mini-batch. Every rank leaves at the same mini-batch if any rank's loss is not finite."""
        flush_denormals()  # callers may come on another thread than the one that opened this worker
        minibatches = [[_Microbatch.of(rows, self.policy.device) for rows in minibatch] for minibatch in order.minibatches]
        if Stream.REFERENCE in order.objective.streams:
            for minibatch in minibatches:
                for microbatch in minibatch:
                    microbatch.reference_N = self._score_reference(microbatch.padded, order.temperature)
        if Stream.TEACHER in order.objective.streams:
            everything = [microbatch for minibatch in minibatches for microbatch in minibatch]
            teachers = self.policy.teachers([microbatch.teacher_view(self.policy.device) for microbatch in everything])
            for microbatch, teacher in zip(everything, teachers, strict=True):
                microbatch.teacher = teacher
        tally = Tally()
        norms: list[float] = []
        for number, minibatch in enumerate(minibatches):
            bad: list[str] = []
            for microbatch in minibatch:
                bad += self._accumulate(microbatch, order, tally, first=number == 0)
            if self.policy.any_rank(bool(bad)):
                return UpdateOutcome(tally=tally, grad_norms=tuple(norms), diverged=tuple(bad))
            try:
                norms.append(self.policy.step())
            except NonFiniteGradient:
                everyone = tuple(attempt for microbatch in minibatch for attempt in microbatch.attempts)
                return UpdateOutcome(tally=tally, grad_norms=tuple(norms), diverged=everyone)
        return UpdateOutcome(tally=tally, grad_norms=tuple(norms))

    def logprobs(self, microbatches: Sequence[Sequence[Ids]], temperature: float) -> list[list[list[float]]]:
        """T - 1 log-probabilities of every sequence, in the order given."""
        scored = []
        for rows in microbatches:
            padded = pad(rows, [[False] + [True] * (len(row) - 1) for row in rows]).to(self.policy.device)
            values = self.policy.score(padded, temperature)
            parts = torch.split(values, [len(row) - 1 for row in rows]) if rows else ()
            scored.append([part.tolist() for part in parts])
        return scored

    def save(self, folder: Path) -> None:
        self.policy.save(folder)

    def load(self, folder: Path) -> None:
        self.policy.load(folder)

    def gather(self) -> None:
        """Take part in rank 0's walk over the full weights."""
        for _ in self.policy.weights():
            pass

    def _accumulate(self, microbatch: _Microbatch, order: UpdateOrder, tally: Tally, first: bool) -> list[str]:
        """Forward and backward of one micro-batch; returns the attempts whose loss is not finite (their backward still runs)."""
        scores = self.policy.forward(microbatch.padded, order.temperature, microbatch.teacher)
        logprobs_N, teacher_kl_N = (scores, None) if microbatch.teacher is None else (scores[0], scores[1])
        tokens = microbatch.tokens(logprobs_N, teacher_kl_N)
        terms = order.objective.terms(tokens)
        loss = (microbatch.weights_N * terms.loss_N).sum()
        self.policy.backward(loss)
        tally.loss += float(loss.detach())
        tally.add(terms, tokens, microbatch.rows, microbatch.row_N)
        if first and Stream.BEHAVIOUR in order.objective.streams:
            fresh_N = microbatch.fresh(order.version) & ~tokens.guided_N
            tally.add_mismatch((logprobs_N.detach() - tokens.behaviour_N)[fresh_N].abs())
        unfit = torch.unique(microbatch.row_N[~terms.loss_N.detach().isfinite()])
        return [microbatch.attempts[row] for row in unfit.tolist()]

    def _score_reference(self, padded: Padded, temperature: float) -> torch.Tensor:
        """The frozen start of this run, a second copy read from the original folder even after a resume."""
        if self._reference is None:
            model = load_model(self._directory, self._config.dtype).to(self.policy.device).eval().requires_grad_(False)
            self._reference = Scorer(model, self._config.logits_mb)
        with torch.no_grad():
            scored: torch.Tensor = self._reference(padded, temperature)
        return scored


@dataclass(slots=True, kw_only=True)
class _Microbatch:
    """Rows of one forward, their streams flat and aligned (suffix N)."""

    samples: tuple[Sample, ...]
    padded: Padded
    row_N: torch.Tensor
    behaviour_N: torch.Tensor
    advantages_N: torch.Tensor
    weights_N: torch.Tensor
    guided_N: torch.Tensor
    penalty_N: torch.Tensor
    reference_N: torch.Tensor | None = None
    teacher: Teacher | None = None

    @classmethod
    def of(cls, rows: Sequence[WeightedRow], device: torch.device) -> _Microbatch:
        samples = [row.sample for row in rows]
        row_N = torch.repeat_interleave(torch.tensor([len(s.behaviour) for s in samples], dtype=torch.long)).to(device)
        guided_B = torch.tensor([s.guided for s in samples], dtype=torch.bool, device=device)
        return cls(
            samples=tuple(samples),
            padded=pad([s.ids for s in samples], [s.mask for s in samples]).to(device),
            row_N=row_N,
            behaviour_N=_flat([s.behaviour for s in samples], device),
            advantages_N=_flat([s.advantages for s in samples], device),
            weights_N=_flat([row.weights for row in rows], device),
            guided_N=guided_B[row_N],
            penalty_N=torch.tensor([row.penalty for row in rows], dtype=torch.float32, device=device)[row_N],
        )

    @property
    def attempts(self) -> tuple[str, ...]:
        return tuple(s.attempt_id for s in self.samples)

    @property
    def rows(self) -> tuple[tuple[str, int], ...]:
        """Each row's attempt and the place of the first token that it trains."""
        return tuple((s.attempt_id, s.mask.index(True)) for s in self.samples)

    def teacher_view(self, device: torch.device) -> Padded:
        """The same tokens, in the same order, as the teacher sees them."""
        views = [s.teacher for s in self.samples if s.teacher is not None]
        if len(views) != len(self.samples):
            lacking = next(s.attempt_id for s in self.samples if s.teacher is None)
            raise HarnessError(f"sample {lacking} has no teacher's view, but the objective has a teacher; declare one when it is sampled")
        return pad([v.ids for v in views], [v.mask for v in views]).to(device)

    def tokens(self, logprobs_N: torch.Tensor, teacher_kl_N: torch.Tensor | None) -> Tokens:
        return Tokens(
            logprobs_N=logprobs_N,
            behaviour_N=self.behaviour_N,
            reference_N=self.reference_N,
            advantages_N=self.advantages_N,
            guided_N=self.guided_N,
            teacher_kl_N=teacher_kl_N,
            penalty_N=self.penalty_N,
        )

    def fresh(self, version: int) -> torch.Tensor:
        """Which tokens were sampled with the weights as they are now."""
        return torch.tensor([s.version == version for s in self.samples], dtype=torch.bool, device=self.row_N.device)[self.row_N]


def _flat(rows: Sequence[Sequence[float]], device: torch.device) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=torch.float32, device=device)
