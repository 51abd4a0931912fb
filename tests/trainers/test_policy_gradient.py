"""The clipped objective against closed forms: where its gradient is zero, what each KL estimator estimates, how it aggregates."""

from __future__ import annotations

import inspect
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from learner_cases import sample, uneven_samples

from harness.errors import HarnessError
from trainers.advantage import group_advantages
from trainers.guidance.search import smallest_sufficient_level
from trainers.objectives.base import Stream, Tokens
from trainers.objectives.distill import forward_kl
from trainers.objectives.policy_gradient import ClippedObjective, ObjectiveConfig, clipped_objective
from trainers.sample import Sample

F64 = torch.float64


def one_token(ratio: float, advantage: float, **options: Any) -> tuple[float, float]:
    """Loss and its derivative in log-probability at one token, without KL."""
    new = torch.tensor([[math.log(ratio)]], dtype=F64, requires_grad=True)
    result = clipped_objective(
        new, torch.zeros(1, 1, dtype=F64), None, torch.ones(1, 1), torch.tensor([advantage], dtype=F64), kl_coef=0.0, **options
    )
    result.loss.backward()
    assert new.grad is not None
    return result.loss.item(), new.grad.item()


def signature(function: Callable[..., object]) -> list[tuple[str, object]]:
    """Names with defaults (``...`` where there is none), a star before those that can only be given by name."""
    found = inspect.signature(function).parameters.values()
    return [("*" * (p.kind is p.KEYWORD_ONLY) + p.name, ... if p.default is p.empty else p.default) for p in found]


def test_the_public_functions_are_called_as_they_are_documented() -> None:
    given = ("logprobs_BT", "behaviour_BT", "reference_BT", "mask_BT", "advantages_B")
    named = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None, "kl_coef": 0.001, "kl": "k3", "aggregate": "token"}
    named |= {"log_ratio_clamp": 20.0, "kl_clamp": None}
    assert signature(clipped_objective) == [*((name, ...) for name in given), *((f"*{name}", value) for name, value in named.items())]
    assert signature(group_advantages) == [("rewards", ...), ("groups", ...), ("*scale", "std"), ("*eps", 1e-6)]
    assert signature(forward_kl) == [("teacher_logits_BTV", ...), ("student_logits_BTV", ...), ("mask_BT", ...)]
    assert signature(smallest_sufficient_level) == [("succeeds", ...), ("levels", ...), ("budget", ...)]
    zero = torch.zeros(1, 1)
    result = clipped_objective(zero, zero, zero, torch.ones(1, 1), torch.zeros(1))
    parts = ("loss", "policy_loss", "kl_loss", "clip_fraction", "dual_clip_fraction")
    assert [getattr(result, name).item() for name in parts] == [0.0] * 5
    found = smallest_sufficient_level(lambda k: k >= 2, 3, 3)
    assert (found.level, found.probed) == (2, ((2, True), (1, False)))


@pytest.mark.parametrize(
    ("ratio", "advantage", "passes"),
    [
        (1.0, 1.0, True),
        (1.0, -1.0, True),
        (1.3, 1.0, False),  # already pushed up enough
        (1.3, -1.0, True),  # must still come down
        (0.7, 1.0, True),  # must still come up
        (0.7, -1.0, False),  # already pushed down enough
        (1.19, 1.0, True),
        (0.81, -1.0, True),
        (1e-4, 1.0, True),  # a guided token: the gradient passes, scaled by the ratio
        (1e-4, -1.0, False),
    ],
)
def test_clip_sign_table(ratio: float, advantage: float, passes: bool) -> None:
    loss, slope = one_token(ratio, advantage)
    assert slope == pytest.approx(-advantage * ratio if passes else 0.0, abs=1e-12)
    assert loss == pytest.approx(-advantage * ratio if passes else -advantage * min(max(ratio, 0.8), 1.2), abs=1e-12)


@pytest.mark.parametrize(("ratio", "loss", "slope"), [(2.0, 2.0, 2.0), (2.9, 2.9, 2.9), (3.1, 3.0, 0.0), (50.0, 3.0, 0.0)])
def test_dual_clip_bounds_the_loss_where_the_advantage_is_negative(ratio: float, loss: float, slope: float) -> None:
    assert one_token(ratio, -1.0, dual_clip=3.0) == pytest.approx((loss, slope), abs=1e-12)
    assert one_token(ratio, 1.0, dual_clip=3.0) == one_token(ratio, 1.0)


def test_the_log_ratio_clamp_keeps_the_loss_finite() -> None:
    new = torch.full((1, 1), 900.0, dtype=F64)
    arguments = (new, torch.zeros(1, 1, dtype=F64), None, torch.ones(1, 1), torch.tensor([-1.0], dtype=F64))
    assert clipped_objective(*arguments).loss.item() == pytest.approx(math.exp(20))
    assert clipped_objective(*arguments, log_ratio_clamp=None).loss.item() == math.inf


def test_fractions_count_masked_tokens() -> None:
    ratio = torch.tensor([[1.5, 0.5, 1.0, 9.0], [1.5, 0.5, 4.0, 9.0]], dtype=F64)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]])
    result = clipped_objective(ratio.log(), torch.zeros_like(ratio), None, mask, torch.tensor([1.0, -1.0], dtype=F64), dual_clip=3.0)
    assert (result.clip_fraction.item(), result.dual_clip_fraction.item()) == (2 / 6, 1 / 6)  # exact in float64, as the loss is


def softmax_case() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(5, dtype=F64, requires_grad=True), torch.randn(5, dtype=F64).log_softmax(0)


def finite_difference(divergence: Any, logits: torch.Tensor) -> torch.Tensor:
    step = 1e-6
    slopes = []
    for i in range(len(logits)):
        moved = torch.zeros_like(logits)
        moved[i] = step
        slopes.append((divergence(logits.detach() + moved) - divergence(logits.detach() - moved)) / (2 * step))
    return torch.stack(slopes)


def expected_kl_gradient(kind: Any, logits: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean value and mean gradient of an estimator over all tokens, each weighted by the probability that the policy samples it."""
    chances = logits.detach().softmax(0)
    value, gradient = torch.zeros((), dtype=F64), torch.zeros_like(logits)
    for token, chance in enumerate(chances):
        new = logits.log_softmax(0)[token].reshape(1, 1)
        result = clipped_objective(
            new, new.detach(), reference[token].reshape(1, 1), torch.ones(1, 1), torch.zeros(1, dtype=F64), kl_coef=1.0, kl=kind
        )
        value += chance * result.kl_loss.detach()
        gradient += chance * torch.autograd.grad(result.loss, logits)[0]
    return value, gradient


def test_k3_has_the_value_of_the_kl_and_the_gradient_of_the_reversed_kl() -> None:
    logits, reference = softmax_case()
    value, gradient = expected_kl_gradient("k3", logits, reference)
    policy = logits.detach().log_softmax(0)
    assert value.item() == pytest.approx((policy.exp() * (policy - reference)).sum().item(), abs=1e-12)
    reversed_kl = finite_difference(lambda x: (reference.exp() * (reference - x.log_softmax(0))).sum(), logits)
    assert gradient.tolist() == pytest.approx(reversed_kl.tolist(), abs=1e-8)


def test_k2_has_the_gradient_of_the_kl_and_k1_none_on_policy() -> None:
    logits, reference = softmax_case()
    kl = finite_difference(lambda x: (x.softmax(0) * (x.log_softmax(0) - reference)).sum(), logits)
    assert expected_kl_gradient("k2", logits, reference)[1].tolist() == pytest.approx(kl.tolist(), abs=1e-8)
    value, gradient = expected_kl_gradient("k1", logits, reference)
    assert gradient.abs().max() < 1e-12
    assert value.item() == pytest.approx((logits.softmax(0) * (logits.log_softmax(0) - reference)).sum().item())


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_at_the_reference_the_kl_is_zero_and_only_k1_has_a_gradient(kind: Any) -> None:
    new = torch.tensor([[-1.0, -2.0]], dtype=F64, requires_grad=True)
    result = clipped_objective(new, new.detach(), new.detach(), torch.ones(1, 2), torch.zeros(1, dtype=F64), kl_coef=1.0, kl=kind)
    result.loss.backward()
    assert result.kl_loss.item() == 0.0
    assert new.grad is not None
    assert new.grad.abs().sum().item() == (1.0 if kind == "k1" else 0.0)


def test_kl_estimators_off_the_reference_by_hand() -> None:
    new, reference = torch.full((1, 1), -1.0, dtype=F64), torch.full((1, 1), -3.0, dtype=F64)
    arguments = (new, new, reference, torch.ones(1, 1), torch.zeros(1, dtype=F64))
    assert clipped_objective(*arguments, kl="k1").kl_loss.item() == 2.0
    assert clipped_objective(*arguments, kl="k2").kl_loss.item() == 2.0
    assert clipped_objective(*arguments, kl="k3").kl_loss.item() == pytest.approx(math.exp(-2) + 2 - 1)
    assert clipped_objective(*arguments, kl="k3", kl_clamp=1.0).kl_loss.item() == 1.0
    assert clipped_objective(*arguments, kl="k1", kl_clamp=1.0).kl_loss.item() == 2.0  # k3 only
    assert clipped_objective(*arguments, kl="k3", log_ratio_clamp=1.0).kl_loss.item() == pytest.approx(math.exp(-1))


def padded_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.tensor([[0, 1, 1, 1, 1], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0]])
    new, old, ref = (-torch.rand(3, 5, dtype=F64) for _ in range(3))
    return new, old, ref, mask, torch.tensor([1.0, -0.5, 2.0], dtype=F64)


def test_token_and_sequence_means_by_hand() -> None:
    new, old, ref, mask, advantages = padded_case()
    ratio = (new - old).exp()
    plain = torch.maximum(-advantages[:, None] * ratio, -advantages[:, None] * ratio.clamp(0.8, 1.2))
    k3 = (ref - new).exp() - (ref - new) - 1
    rows = [(plain[b][mask[b] == 1], k3[b][mask[b] == 1]) for b in range(3)]
    token = clipped_objective(new, old, ref, mask, advantages, kl_coef=0.1)
    assert token.policy_loss.item() == pytest.approx(torch.cat([p for p, _ in rows]).mean().item(), abs=1e-15)
    assert token.kl_loss.item() == pytest.approx(torch.cat([k for _, k in rows]).mean().item(), abs=1e-15)
    sequence = clipped_objective(new, old, ref, mask, advantages, kl_coef=0.1, aggregate="sequence")
    assert sequence.policy_loss.item() == pytest.approx(sum(p.mean().item() for p, _ in rows) / 3, abs=1e-15)
    assert sequence.loss.item() == pytest.approx((sequence.policy_loss + 0.1 * sequence.kl_loss).item(), abs=1e-15)


@pytest.mark.parametrize("aggregate", ["token", "sequence"])
def test_what_masked_positions_hold_never_matters(aggregate: Any) -> None:
    new, old, ref, mask, advantages = padded_case()
    clean = new.clone().requires_grad_()
    expected = clipped_objective(clean, old, ref, mask, advantages, aggregate=aggregate)
    expected.loss.backward()
    dirty = new.masked_fill(mask == 0, math.nan).requires_grad_()
    holes = old.masked_fill(mask == 0, -math.inf)
    row = torch.full((1, 5), math.nan, dtype=F64)  # and a row without any token
    found = clipped_objective(
        torch.cat([dirty, row]),
        torch.cat([holes, row]),
        torch.cat([ref, row]),
        torch.cat([mask, torch.zeros(1, 5, dtype=mask.dtype)]),
        torch.cat([advantages, torch.ones(1, dtype=F64)]),
        aggregate=aggregate,
    )
    found.loss.backward()
    assert found.loss.item() == expected.loss.item()
    assert clean.grad is not None and dirty.grad is not None
    assert torch.equal(clean.grad, dirty.grad)
    assert dirty.grad[mask == 0].abs().max() == 0.0


def test_an_all_masked_batch_has_zero_loss_and_a_backward() -> None:
    new = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    result = clipped_objective(new, new.detach(), new.detach(), torch.zeros(2, 3), torch.ones(2, dtype=F64))
    result.loss.backward()
    assert result.loss.item() == 0.0 and result.clip_fraction.item() == 0.0
    assert new.grad is not None and new.grad.abs().max() == 0.0


def row_with(name: str, tokens: int) -> Sample:
    values = (0.0,) * tokens
    mask = (False, *((True,) * tokens))
    return Sample(attempt_id=name, group_id="g", ids=(0,) * len(mask), mask=mask, behaviour=values, advantages=values)


@pytest.mark.parametrize("aggregate", ["token", "sequence"])
def test_flat_class_and_padded_function_are_one(aggregate: Any) -> None:
    new, old, ref, mask, advantages = padded_case()
    objective = ClippedObjective(kl_coef=0.1, aggregate=aggregate, dual_clip=3.0)
    keep = mask.bool()
    tokens = Tokens(
        logprobs_N=new[keep],
        behaviour_N=old[keep],
        reference_N=ref[keep],
        advantages_N=advantages[:, None].expand_as(new)[keep],
        guided_N=torch.zeros(int(mask.sum()), dtype=torch.bool),
    )
    rows = [row_with(f"a{b}", n) for b, n in enumerate(mask.sum(1).tolist())]
    weights = torch.tensor([w for row in objective.token_weights(rows) for w in row], dtype=F64)
    expected = clipped_objective(new, old, ref, mask, advantages, kl_coef=0.1, aggregate=aggregate, dual_clip=3.0).loss
    assert (weights * objective.terms(tokens).loss_N).sum().item() == pytest.approx(expected.item(), abs=1e-15)


GROUPS = (("x", 2), ("x", 6), ("y", 3))
"""Group and number of sampled tokens of three trajectories."""


def in_groups() -> list[Sample]:
    return [replace(row_with(f"a{i}", n), group_id=group) for i, (group, n) in enumerate(GROUPS)]


@pytest.mark.parametrize(
    ("aggregate", "policy", "kl"),
    [
        ("token", (1 / 11, 1 / 11, 1 / 11), (1 / 3, 1 / 3, 1 / 3)),
        ("sequence", (1 / 6, 1 / 18, 1 / 9), (1 / 3, 1 / 3, 1 / 3)),
        ("group", (1 / 16, 1 / 16, 1 / 6), (1 / 4, 1 / 4, 1 / 2)),
    ],
)
def test_what_a_token_weighs_in_either_term(aggregate: Any, policy: tuple[float, ...], kl: tuple[float, ...]) -> None:
    rows = [*in_groups(), replace(row_with("idle", 0), group_id="x")]
    plain, summed = ClippedObjective(aggregate=aggregate), ClippedObjective(aggregate=aggregate, kl_aggregate="trajectory")
    weights = [row[0] for row in plain.token_weights(rows)[:3]]
    assert weights == pytest.approx(policy) and summed.token_weights(rows) == plain.token_weights(rows)
    assert plain.penalty_scales(rows) == [1.0] * 4
    assert [w * p for w, p in zip(weights, summed.penalty_scales(rows), strict=False)] == pytest.approx(kl)


def test_equation_11_as_printed_by_hand() -> None:
    torch.manual_seed(3)
    total = sum(n for _, n in GROUPS)
    new, old, ref, advantage = (torch.randn(total, dtype=F64) / 2 for _ in range(4))
    objective = ClippedObjective(kl_coef=0.3, kl="k1", aggregate="group", kl_aggregate="trajectory")
    rows = in_groups()
    row_N = torch.repeat_interleave(torch.tensor([n for _, n in GROUPS]))
    tokens = Tokens(
        logprobs_N=new,
        behaviour_N=old,
        reference_N=ref,
        advantages_N=advantage,
        guided_N=torch.zeros(total, dtype=torch.bool),
        penalty_N=torch.tensor(objective.penalty_scales(rows), dtype=F64)[row_N],
    )
    weights = torch.tensor([w for row in objective.token_weights(rows) for w in row], dtype=F64)
    ours = float((weights * objective.terms(tokens).loss_N).sum())
    gained = torch.minimum((new - old).exp() * advantage, (new - old).exp().clamp(0.8, 1.2) * advantage)
    printed = []
    for members in ((0, 1), (2,)):  # the trajectories of each group
        inside = torch.isin(row_N, torch.tensor(members))
        kl = [float((new - ref)[row_N == i].sum()) for i in members]
        printed.append(float(gained[inside].sum()) / int(inside.sum()) - 0.3 * sum(kl) / len(members))
    assert ours == pytest.approx(-sum(printed) / 2, abs=1e-12)


@pytest.mark.parametrize("aggregate", ["token", "sequence", "group"])
def test_weights_of_a_minibatch_sum_to_one(aggregate: Any) -> None:
    weights = ClippedObjective(aggregate=aggregate).token_weights(uneven_samples())
    assert math.fsum(w for row in weights for w in row) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("aggregate", ["token", "sequence", "group"])
def test_step_rows_of_one_attempt_weigh_as_the_whole(aggregate: Any) -> None:
    objective = ClippedObjective(aggregate=aggregate)
    whole, other = sample("long", 30, 1.0, seed=0), sample("short", 9, 1.0, seed=1)
    parts = [sample("long", 12, 1.0, seed=2), sample("long", 12, 1.0, seed=2), sample("long", 13, 1.0, seed=3)]
    assert sum(len(p.behaviour) for p in parts) == len(whole.behaviour)
    apart, together = objective.token_weights([*parts, other]), objective.token_weights([whole, other])
    assert {w for row in apart[:3] for w in row} == set(together[0])
    assert apart[3] == together[1]
    summed = ClippedObjective(aggregate=aggregate, kl_aggregate="trajectory")
    scales, whole_scales = summed.penalty_scales([*parts, other]), summed.penalty_scales([whole, other])
    assert [*scales[:1], scales[3]] == pytest.approx(whole_scales) and len(set(scales[:3])) == 1


def test_lost_mass_is_what_small_ratios_take_from_positive_advantages() -> None:
    tokens = Tokens(
        logprobs_N=torch.tensor([0.25, 1.0, 2.0, 0.25]).log(),
        behaviour_N=torch.zeros(4),
        reference_N=None,
        advantages_N=torch.tensor([1.0, 1.0, 1.0, -1.0]),
        guided_N=torch.ones(4, dtype=torch.bool),
    )
    metrics = ClippedObjective().terms(tokens).metrics
    assert metrics["lost_mass"][:3].tolist() == [0.75, 0.0, 0.0]
    assert metrics["lost_mass"][3].isnan()
    assert metrics["ratio"].tolist() == [0.25, 1.0, 2.0, 0.25]
    assert "kl" not in metrics


def test_the_reference_is_asked_for_only_where_it_counts() -> None:
    assert ClippedObjective(kl_coef=0.0).streams == {Stream.BEHAVIOUR}
    assert ClippedObjective().streams == {Stream.BEHAVIOUR, Stream.REFERENCE}


def test_an_objective_travels_as_a_pickle() -> None:
    objective = ObjectiveConfig(dual_clip=3.0, kl_clamp=10.0).objective()
    assert pickle.loads(pickle.dumps(objective)) == objective == ClippedObjective(dual_clip=3.0, kl_clamp=10.0)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(HarnessError, match="dual_clip is 0.9"):
        ClippedObjective(dual_clip=0.9)
    with pytest.raises(HarnessError, match="unknown KL estimator 'k9'"):
        ClippedObjective(kl="k9")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bounds k3 only"):
        ObjectiveConfig(kl="k2", kl_clamp=10.0)
