"""Sampling that depends on nothing but a row's logits, its seed and its place in the span.

Noise comes from a counter (SplitMix64's mixing function of seed and token index), never from a generator with state, so the
order in which requests run cannot matter. There is no top-p or top-k: training needs the full distribution.

Axes: R rows, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

UInts = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def uniforms(seeds_R: UInts, index_R: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) with 52 random bits, one per row, a pure function of (seed, token index)."""
    with np.errstate(over="ignore"):
        bits_R = _mix(_mix(seeds_R) + (index_R.astype(np.uint64) + np.uint64(1)) * _STEP)
    uniform_R: NDArray[np.float64] = (bits_R >> np.uint64(12)).astype(np.float64) * 2.0**-52
    return uniform_R


def sample(logits_RV: torch.Tensor, temperature_R: torch.Tensor, uniform_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and their log-probabilities under softmax(logits / T); T = 0 takes the best id and reports it at T = 1.

    Inverse of the cumulative distribution in float64: with 52-bit uniforms the product below stays under the last entry, so an
    id of probability zero is never drawn.
    """
    greedy_R = temperature_R == 0
    scale_R = torch.where(greedy_R, torch.ones_like(temperature_R), temperature_R)
    logprobs_RV = torch.log_softmax(logits_RV.float() / scale_R[:, None], dim=-1)
    cumulative_RV = logprobs_RV.double().exp_().cumsum(dim=-1)
    target_R1 = uniform_R.double()[:, None] * cumulative_RV[:, -1:]
    drawn_R = torch.searchsorted(cumulative_RV, target_R1, right=True)[:, 0]
    ids_R = torch.where(greedy_R, logprobs_RV.argmax(dim=-1), drawn_R)
    return ids_R, logprobs_RV.gather(1, ids_R[:, None])[:, 0]


def _mix(value_R: UInts) -> UInts:
    value_R = (value_R ^ (value_R >> np.uint64(30))) * _MIX_1
    value_R = (value_R ^ (value_R >> np.uint64(27))) * _MIX_2
    return value_R ^ (value_R >> np.uint64(31))
