"""What a rank counts of its tokens, by hand."""

from __future__ import annotations

import math
from array import array

import pytest
import torch

from trainers.learner.tally import RATIO_EDGES, Tally
from trainers.objectives.base import Tokens
from trainers.objectives.policy_gradient import ClippedObjective

RATIOS = (1.5, 0.5, 0.5, 1.5, 1.0)
ADVANTAGES = (2.0, 1.0, -3.0, 2.0, 1.0)
GUIDED = (True, True, True, False, False)
"""Clipped (Eq. 11): the first (A > 0 above 1.2), the third (A < 0 below 0.8) and the fourth."""


def tally(name: str = "a") -> Tally:
    tokens = Tokens(
        logprobs_N=torch.tensor([math.log(r) for r in RATIOS], dtype=torch.float64),
        behaviour_N=torch.zeros(5, dtype=torch.float64),
        reference_N=None,
        advantages_N=torch.tensor(ADVANTAGES, dtype=torch.float64),
        guided_N=torch.tensor(GUIDED),
    )
    found = Tally()
    found.add(ClippedObjective(kl_coef=0.0).terms(tokens), tokens, [(name, 3), ("b", 3)], torch.tensor([0, 0, 0, 1, 1]))
    return found


def test_the_mass_lost_to_the_clip_counts_tokens_by_the_size_of_their_advantage() -> None:
    metrics = tally().metrics()
    assert metrics["ratio/guided_clipped_mass"] == pytest.approx((2 + 3) / (2 + 1 + 3))
    assert metrics["ratio/unguided_clipped_mass"] == pytest.approx(2 / 3)
    assert metrics["policy/clip_fraction"] == pytest.approx(3 / 5)


def test_the_mass_lost_to_small_ratios_is_that_of_guided_tokens_with_a_positive_advantage() -> None:
    assert tally().metrics()["ratio/guided_lost_mass"] == pytest.approx((0 + 0.5) / 2)


def test_the_histogram_holds_the_guided_ratios_alone() -> None:
    edges, counts = tally().histograms()["ratio/guided"]
    assert edges == RATIO_EDGES and sum(counts) == 3
    assert counts[next(i for i, edge in enumerate(edges) if edge > 0.5) - 1] == 2


def test_two_ranks_add_up_to_one_whose_tokens_are_all_there() -> None:
    one, two = tally(), tally()
    one.merge(two)
    assert one.metrics()["ratio/guided_clipped_mass"] == pytest.approx(5 / 6)
    assert sum(one.histograms()["ratio/guided"][1]) == 6


def test_a_mass_over_no_advantage_at_all_is_left_out() -> None:
    found = Tally()
    zeros = torch.zeros(2)
    tokens = Tokens(logprobs_N=zeros, behaviour_N=zeros, reference_N=None, advantages_N=zeros, guided_N=torch.tensor([True, True]))
    found.add(ClippedObjective(kl_coef=0.0).terms(tokens), tokens, [("a", 3)], torch.tensor([0, 0]))
    assert "ratio/guided_clipped_mass" not in found.metrics()


def test_every_tokens_ratio_is_kept_by_attempt_in_the_order_of_sampling() -> None:
    one, two = tally(), tally("c")
    one.merge(two)
    assert {k: list(v) for k, v in one.row_ratios().items()} == {"a": [1.5, 0.5, 0.5], "b": [1.5, 1.0], "c": [1.5, 0.5, 0.5]}


def test_rows_of_one_trajectory_are_joined_by_their_places_not_by_when_they_were_counted() -> None:
    later, earlier = Tally(rows={("a", 9): array("f", [2.0])}), Tally(rows={("a", 4): array("f", [0.5, 1.0])})
    later.merge(earlier)
    assert list(later.row_ratios()["a"]) == [0.5, 1.0, 2.0]
