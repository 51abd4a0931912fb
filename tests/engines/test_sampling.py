"""The noise is uniform and a pure function of seed and index; the sample follows the distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from harness.engines.sampling import sample, uniforms


def test_noise_of_one_seed_and_of_neighbouring_seeds_is_uniform() -> None:
    one_seed = uniforms(np.full(20_000, 7, dtype=np.uint64), np.arange(20_000))
    many_seeds = uniforms(np.arange(20_000, dtype=np.uint64), np.zeros(20_000, dtype=np.int64))
    for noise in (one_seed, many_seeds):
        assert stats.kstest(noise, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.03


def test_noise_does_not_depend_on_the_rows_beside_it() -> None:
    seeds, index = np.arange(50, dtype=np.uint64), np.arange(50)
    assert uniforms(seeds, index)[17] == uniforms(seeds[17:18], index[17:18])[0]


def test_frequencies_follow_the_tempered_distribution() -> None:
    logits, temperature, n = torch.tensor([2.0, 1.0, 0.0, -1.0, float("-inf")]), 0.7, 20_000
    noise = torch.from_numpy(uniforms(np.arange(n, dtype=np.uint64), np.zeros(n, dtype=np.int64)))
    ids, logprobs = sample(logits.expand(n, -1), torch.full((n,), temperature), noise)
    expected = torch.softmax(logits / temperature, -1)
    counts = torch.bincount(ids, minlength=5)
    assert counts[4] == 0
    assert stats.chisquare(counts[:4].numpy(), (expected[:4] * n).double().numpy()).pvalue > 1e-3
    assert logprobs == pytest.approx(expected.log()[ids], abs=1e-6)


def test_extreme_noise_never_draws_an_impossible_token() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]]).expand(2, -1)
    ids, _ = sample(logits, torch.ones(2), torch.tensor([0.0, 1 - 2.0**-52], dtype=torch.float64))
    assert ids.tolist() == [1, 2]


def test_greedy_and_sampled_rows_live_in_one_batch() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]]).expand(2, -1)
    ids, logprobs = sample(logits, torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.1]))
    assert ids.tolist() == [1, 0]
    assert logprobs.tolist() == pytest.approx([math.log(0.75), math.log(0.25)])
