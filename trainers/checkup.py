"""What a model's weights do under this harness's own engine and learner: do their log-probabilities agree, does company change a row, does
an update teach anything? Run by ``harness doctor --model``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite
from statistics import fmean

from harness.checkup.base import Checkup, Verdict
from harness.engines.base import Engine, Request, request_seed
from harness.types import Ids, Span, Trajectory
from trainers.learner.base import Learner
from trainers.objectives.policy_gradient import ClippedObjective
from trainers.sample import Batch, Sample

AGREE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}
"""Largest accepted disagreement in nats a token: of any token in float32, of the mean in the others."""
SAME = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.1}
"""How far a row's log-probabilities may move with its company (largest over tokens)."""
TEMPERATURES = (1.0, 0.7)
OVERFIT_UPDATES = 20
LEARNED = 0.5  # the mean negative log-probability of one batch must fall at least to this share


async def sampler_agrees(engine: Engine, learner: Learner, prompts: Sequence[Ids], dtype: str, tokens: int = 24) -> Checkup:
    """The engine's log-probabilities of what it samples are the learner's, also at another temperature than 1."""
    worst, mean = 0.0, 0.0
    for temperature in TEMPERATURES:
        trajectories = [await _sample(engine, prompt, temperature, tokens) for prompt in prompts]
        learned = learner.logprobs([t.ids() for t in trajectories], temperature)
        gaps = [
            abs(theirs - ours)
            for t, row in zip(trajectories, learned, strict=True)
            for theirs, ours in zip(t.behaviour_logprobs(), row[-t.sampled_tokens :], strict=True)
        ]
        worst, mean = max(worst, _largest(gaps)), max(mean, fmean(gaps) if isfinite(sum(gaps)) else inf)
    at = " and ".join(f"{t:g}" for t in TEMPERATURES)
    found = f"{mean:.1e} nats a token in the mean, {worst:.1e} at most, at temperatures {at} ({dtype})"
    if (worst if dtype == "float32" else mean) <= AGREE[dtype]:
        return Checkup(name="engine against learner", verdict=Verdict.OK, found=found)
    return Checkup(
        name="engine against learner",
        verdict=Verdict.ERROR,
        found=found + f", accepted is {AGREE[dtype]:g}",
        consequence="importance ratios are wrong from the first step on: tokens are clipped or weighted by noise",
        remedy="set generation.dtype and learner.dtype to float32 and look again; a gap that stays is a fault of this architecture here",
    )


def padding_is_harmless(learner: Learner, rows: Sequence[Ids], dtype: str) -> Checkup:
    """A row scores the same alone, beside longer rows, and beside other neighbours."""
    alone = [learner.logprobs([row])[0] for row in rows]
    together = learner.logprobs(rows)
    changed = learner.logprobs([rows[0], *(row[::-1] for row in rows[1:])])[0]
    gaps = [abs(a - b) for x, y in zip((*alone, alone[0]), (*together, changed), strict=True) for a, b in zip(x, y, strict=True)]
    found = f"{_largest(gaps):.1e} nats at most between rows alone and in company of lengths {min(map(len, rows))} to {max(map(len, rows))}"
    if _largest(gaps) <= SAME[dtype]:
        return Checkup(name="padding and packing", verdict=Verdict.OK, found=found)
    return Checkup(
        name="padding and packing",
        verdict=Verdict.ERROR,
        found=found + f", accepted is {SAME[dtype]:g}",
        consequence="a row's loss depends on which rows share its micro-batch: the gradient is not that of the objective",
        remedy="set learner.microbatch_tokens to 1, so that every row runs alone, or use an architecture without batch-dependent layers",
    )


def one_batch_is_learned(learner: Learner, rows: Sequence[Sample]) -> Checkup:
    """On-policy updates with advantage 1 on one batch, which amount to plain likelihood: its loss must fall far."""
    objective = ClippedObjective(kl_coef=0.0)
    first = last = _mean_loss(learner, rows)
    for _ in range(OVERFIT_UPDATES):
        learner.update(Batch(minibatches=(tuple(_fresh(learner, rows)),), objective=objective))
        last = _mean_loss(learner, rows)
        if last <= LEARNED * first:
            break
    found = f"the loss of one batch goes from {first:.2f} to {last:.2f} nats a token within {OVERFIT_UPDATES} updates"
    if isfinite(last) and last <= LEARNED * first:
        return Checkup(name="one-batch overfit", verdict=Verdict.OK, found=found)
    return Checkup(
        name="one-batch overfit",
        verdict=Verdict.ERROR,
        found=found + f"; it should reach {LEARNED:.0%}",
        consequence="gradients do not reach the weights, or reach them wrongly: training would spend its budget without learning",
        remedy="look for frozen parameters and for layers that loading leaves uninitialised (transformers warns of them)",
    )


def _largest(gaps: Sequence[float]) -> float:
    """Infinite where a log-probability was not finite: ``max`` alone would pass over a NaN."""
    return max(gaps) if all(map(isfinite, gaps)) else inf


async def _sample(engine: Engine, prompt: Ids, temperature: float, tokens: int) -> Trajectory:
    seed = request_seed(0, "doctor", len(prompt), *prompt[-4:])
    span: Span = await engine.generate(Request(ids=prompt, max_tokens=tokens, temperature=temperature, seed=seed))
    return Trajectory(contexts=(prompt,), spans=(span,))


def _fresh(learner: Learner, rows: Sequence[Sample]) -> list[Sample]:
    """The rows with the learner's present log-probabilities for their behaviour, so that every ratio is 1."""
    return [replace(row, behaviour=tuple(logprobs)) for row, logprobs in zip(rows, _sampled(learner, rows), strict=True)]


def _sampled(learner: Learner, rows: Sequence[Sample]) -> list[list[float]]:
    return [scores[-len(row.behaviour) :] for row, scores in zip(rows, learner.logprobs([row.ids for row in rows]), strict=True)]


def _mean_loss(learner: Learner, rows: Sequence[Sample]) -> float:
    return -fmean(p for row in _sampled(learner, rows) for p in row)
