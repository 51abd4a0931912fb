"""The doctor's checks of weights: what is wrong is found, what is right passes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fakes import FakeLearner, PolicyEngine, logprobs_of

from harness.checkup.base import Verdict
from harness.types import Ids
from trainers.checkup import one_batch_is_learned, padding_is_harmless, sampler_agrees
from trainers.learner.base import UpdateReport
from trainers.sample import Batch, Sample

PROMPTS: tuple[Ids, ...] = ((1, 2, 3), (4, 5))
ROW = Sample(attempt_id="a", group_id="g", ids=(1, 2, 3, 4), mask=(False, False, True, True), behaviour=(0.0, 0.0), advantages=(1.0, 1.0))


class Shifted(FakeLearner):
    """Gives every token 0.01 nats more than the engine does."""

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        return [[p + 0.01 for p in logprobs_of(ids)] for ids in sequences]


class Leaky(FakeLearner):
    """A row's first number depends on how many rows stand beside it."""

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        return [[p - 0.01 * len(sequences) for p in logprobs_of(ids)] for ids in sequences]


class Broken(FakeLearner):
    """Its last number is no number."""

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        return [[*logprobs_of(ids)[:-1], math.nan] for ids in sequences]


@dataclass
class Pupil(FakeLearner):
    """Its loss is 4 nats and falls by ``speed`` with every update; it keeps what it was given."""

    speed: float = 0.5

    def __post_init__(self) -> None:
        FakeLearner.__init__(self)
        self.loss = 4.0

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        return [[-self.loss] * (len(ids) - 1) for ids in sequences]

    def update(self, batch: Batch) -> UpdateReport:
        self.loss -= self.speed
        return super().update(batch)


def agreement(learner: FakeLearner, dtype: str = "float32") -> Verdict:
    engine = PolicyEngine(lambda request, prompt: "<answer>yes</answer>")
    return asyncio.run(sampler_agrees(engine, learner, PROMPTS, dtype)).verdict


def test_an_engine_that_disagrees_with_the_learner_is_an_error_where_precision_does_not_excuse_it() -> None:
    assert agreement(FakeLearner()) is Verdict.OK
    assert agreement(Shifted()) is Verdict.ERROR
    assert agreement(Shifted(), "bfloat16") is Verdict.OK


def test_numbers_that_are_none_are_never_in_order() -> None:
    assert agreement(Broken()) is agreement(Broken(), "bfloat16") is Verdict.ERROR
    assert padding_is_harmless(Broken(), [(1, 2, 3), (4, 5, 6, 7, 8)], "float32").verdict is Verdict.ERROR


def test_a_row_that_feels_its_neighbours_is_an_error() -> None:
    rows = [(1, 2, 3), (4, 5, 6, 7, 8)]
    assert padding_is_harmless(FakeLearner(), rows, "float32").verdict is Verdict.OK
    found = padding_is_harmless(Leaky(), rows, "float32")
    assert found.verdict is Verdict.ERROR and "microbatch_tokens" in found.remedy


def test_a_learner_must_learn_one_batch_by_heart() -> None:
    quick, slow = Pupil(speed=0.5), Pupil(speed=0.01)
    assert one_batch_is_learned(quick, [ROW]).verdict is Verdict.OK
    assert len(quick.batches) == 4, "it stops when the loss is half of what it was"
    assert one_batch_is_learned(slow, [ROW]).verdict is Verdict.ERROR
    (row,) = quick.batches[1].minibatches[0]
    assert row.behaviour == (-3.5, -3.5), "each update is on-policy"
