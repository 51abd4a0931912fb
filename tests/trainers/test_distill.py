"""The distillation loss of Eq. 13: value and gradient in closed form, in chunks, in little memory; and the learner's step with it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_cases import largest_difference, sample, save_model, some_ids

from harness.errors import HarnessError
from trainers.learner.base import LearnerConfig
from trainers.learner.deepspeed import DeepSpeedLearner
from trainers.learner.forward import Scorer, Teacher, load_model, pad, token_divergences
from trainers.objectives.distill import Distillation, forward_kl, token_kl
from trainers.sample import Batch, Sample, View

LINEAR = LearnerConfig(lr=0.05, eps=0.1, weight_decay=0.0, grad_clip=0.0)


def logits(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


# -- the public function ----------------------------------------------------------------------------------------------------


def test_two_tokens_of_two_words_by_hand() -> None:
    teacher = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0]]], dtype=torch.float64)  # 3/4, 1/4 and 1/2, 1/2
    student = torch.tensor([[[0.0, 0.0], [0.0, math.log(3.0)]]], dtype=torch.float64)
    first = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    second = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    both = torch.tensor([[True, True]])
    assert forward_kl(teacher, student, both).item() == pytest.approx((first + second) / 2, abs=1e-15)
    assert forward_kl(teacher, student, torch.tensor([[False, True]])).item() == pytest.approx(second, abs=1e-15)


def test_it_is_the_mean_over_tokens_of_a_row_then_over_rows() -> None:
    teacher, student = logits(4, 5, 7, seed=1), logits(4, 5, 7, seed=2)
    mask = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1]])
    p, q = teacher.softmax(-1), student.softmax(-1)
    per_token = (p * (p / q).log()).sum(-1)
    means = [per_token[b][mask[b].bool()].mean() for b in (0, 1, 3)]  # row 2 has no token and is no row
    assert forward_kl(teacher, student, mask).item() == pytest.approx(float(sum(means)) / 3, abs=1e-14)


def test_the_gradient_is_that_of_finite_differences_and_of_plain_torch() -> None:
    teacher, mask = logits(2, 3, 5, seed=1), torch.tensor([[1, 1, 0], [0, 1, 1]])
    student = logits(2, 3, 5, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: forward_kl(teacher, x, mask), (student,))
    forward_kl(teacher, student, mask).backward()
    other = student.detach().clone().requires_grad_()
    kl = torch.nn.functional.kl_div(other.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    ((kl * mask).sum(1) / mask.sum(1)).mean().backward()
    assert student.grad is not None and other.grad is not None
    assert torch.allclose(student.grad, other.grad, rtol=0, atol=1e-15)


def test_where_teacher_and_student_agree_loss_and_gradient_are_exactly_zero() -> None:
    student = logits(2, 3, 11, seed=1).requires_grad_()
    loss = forward_kl(student.detach().clone(), student, torch.ones(2, 3))
    loss.backward()
    assert loss.item() == 0.0 and student.grad is not None and student.grad.abs().max() == 0.0


def test_swapping_the_teacher_changes_the_gradient_and_no_gradient_reaches_a_teacher() -> None:
    student, mask = logits(1, 4, 9, seed=1), torch.ones(1, 4)
    gradients = []
    for seed in (2, 3):
        teacher, own = logits(1, 4, 9, seed=seed).requires_grad_(), student.clone().requires_grad_()
        forward_kl(teacher, own, mask).backward()
        assert teacher.grad is None and own.grad is not None
        gradients.append(own.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 0.01


def test_what_masked_positions_hold_never_matters_and_an_empty_mask_is_no_loss() -> None:
    teacher, student = logits(2, 3, 5, seed=1), logits(2, 3, 5, seed=2)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    expected = forward_kl(teacher, student, mask)
    spoilt = [torch.where(mask[..., None], x, math.nan).requires_grad_() for x in (teacher, student)]
    found = forward_kl(spoilt[0], spoilt[1], mask)
    assert found.item() == expected.item()
    found.backward()
    assert spoilt[1].grad is not None and spoilt[1].grad[~mask].abs().max() == 0.0
    empty = forward_kl(teacher, student.requires_grad_(), torch.zeros(2, 3))
    empty.backward()
    assert empty.item() == 0.0


def test_a_word_that_the_teacher_cannot_say_costs_nothing() -> None:
    teacher = torch.tensor([[0.0, -math.inf, 0.0]], dtype=torch.float64)
    for student in ([0.0, 0.0, 0.0], [0.0, -math.inf, 0.0]):
        row = torch.tensor([student], dtype=torch.float64, requires_grad=True)
        kl = token_kl(teacher, row)
        kl.sum().backward()
        assert kl.item() == pytest.approx(math.log(3 / 2) if student[1] == 0 else 0.0, abs=1e-15)
        assert row.grad is not None and bool(row.grad.isfinite().all())


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(HarnessError, match=r"\[B, T, V\] twice and a mask \[B, T\], got \(1, 2, 3\), \(1, 2, 4\) and \(1, 2\)"):
        forward_kl(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4), torch.ones(1, 2))


# -- in chunks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "size"), [(1, 1), (7, 3), (13, 5), (12, 4), (5, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_chunks_have_the_value_and_the_gradient_of_the_whole(tokens: int, size: int, bias: bool) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 31, bias=bias).double()
    hidden, targets, upstream = torch.randn(tokens, 6).double(), torch.randint(0, 31, (tokens,)), torch.randn(2, tokens).double()
    weight, offset = torch.randn(31, 6).double(), torch.randn(31).double() if bias else None
    teacher = Teacher(hidden_NH=torch.randn(tokens, 6).double(), weight_VH=weight, bias_V=offset)

    def run(chunk: int) -> tuple[torch.Tensor, ...]:
        head.zero_grad()
        inputs = hidden.clone().requires_grad_()
        values = token_divergences(head, inputs, targets, teacher, 0.7, chunk)
        (values * upstream).sum().backward()
        assert inputs.grad is not None and head.weight.grad is not None
        return values.detach(), inputs.grad, head.weight.grad.clone()

    for dense, chunked in zip(run(10**6), run(size), strict=True):
        assert torch.allclose(dense, chunked, rtol=0, atol=1e-12)
    student = (hidden @ head.weight.T + (head.bias if bias else 0)).detach() / 0.7
    told = torch.nn.functional.linear(teacher.hidden_NH, weight, offset) / 0.7
    assert torch.allclose(run(size)[0][1], token_kl(told, student), rtol=0, atol=1e-12)


MEMORY = """
import resource, sys, torch
from trainers.learner.forward import Teacher, chunk_size, token_divergences
torch.set_num_threads(1)


def peak(V, T, H, size):
    head = torch.nn.Linear(H, V, bias=False)
    hidden = torch.randn(T, H, requires_grad=True)
    teacher = Teacher(hidden_NH=torch.randn(T, H), weight_VH=torch.randn(V, H), bias_V=None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    token_divergences(head, hidden, torch.zeros(T, dtype=torch.long), teacher, 1.0, size)[1].mean().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

peak(11, 4, 2, 2)  # what torch loads at the first backward is not ours
V, T = 151_936, int(sys.argv[1])
print(peak(V, T, 32, T if sys.argv[2] == "dense" else max(1, chunk_size(V, 32) // 4)))
"""


def test_the_logits_of_a_large_vocabulary_never_stand_in_memory() -> None:
    """256 tokens of 151,936 words: one tensor of logits is 148 MiB, of which the dense computation holds several."""

    def peak(kind: str) -> float:
        done = subprocess.run([sys.executable, "-c", MEMORY, "256", kind], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    dense, chunked = peak("dense"), peak("chunked")
    assert dense > 3 * 148  # more where nothing presses on memory; under pressure the kernel takes pages back before the peak
    assert chunked < dense / 2  # resident memory: two gradients of the head, and what the allocator keeps of many small chunks


# -- the learner's step -----------------------------------------------------------------------------------------------------


Open = Callable[..., DeepSpeedLearner]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def learner(model_dir: Path) -> Iterator[Open]:
    opened: list[DeepSpeedLearner] = []

    def open_one(**changes: Any) -> DeepSpeedLearner:
        opened.append(DeepSpeedLearner(model_dir, LearnerConfig.model_validate(LINEAR.model_dump() | changes)))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def taught(row: Sample, plan: Sequence[int]) -> Sample:
    """The row with a teacher whose prompt holds ``plan`` behind its first token."""
    ids, mask = (row.ids[0], *plan, *row.ids[1:]), (False, *(False,) * len(plan), *row.mask[1:])
    return replace(row, teacher=View(ids=ids, mask=mask))


ROWS = [sample(f"a{i}", length, 1.0, seed=i) for i, length in enumerate((9, 31, 14, 22))]


def distilled(learner: DeepSpeedLearner, *minibatches: Sequence[Sample]) -> tuple[dict[str, float], list[tuple[str, torch.Tensor]]]:
    report = learner.update(Batch(minibatches=tuple(map(tuple, minibatches)), objective=Distillation()))
    return report.metrics, [(name, tensor.clone()) for name, tensor in learner.weights()]


def test_a_teacher_without_a_plan_is_the_policy_itself_and_teaches_nothing(learner: Open) -> None:
    one = learner()
    before = one.checksum()
    metrics, _ = distilled(one, [taught(row, ()) for row in ROWS])
    assert (metrics["policy/loss"], metrics["policy/teacher_kl"]) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert metrics["policy/grad_norm"] == pytest.approx(0.0, abs=1e-6)
    assert learner().checksum() == before


def test_another_plan_is_another_teacher_and_another_gradient(learner: Open) -> None:
    start = list(learner().weights())
    first, second = (distilled(learner(), [taught(row, plan) for row in ROWS])[1] for plan in ((5, 6, 7), (40, 41, 42)))
    assert largest_difference(first, start) > 1e-4
    assert largest_difference(first, second) > 1e-4


@pytest.mark.parametrize("settings", [{}, {"microbatch_tokens": 40, "logits_mb": 1}], ids=["whole", "pieces"])
def test_a_step_of_two_minibatches_is_that_of_plain_torch_with_the_teacher_of_its_start(
    learner: Open, model_dir: Path, settings: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    rows = [taught(row, some_ids(4, seed=9)) for row in ROWS]
    metrics, found = distilled(learner(**settings), rows[:2], rows[2:])

    model, teacher = (AutoModelForCausalLM.from_pretrained(model_dir) for _ in range(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LINEAR.lr, eps=LINEAR.eps, weight_decay=0.0)
    losses = []
    for minibatch in (rows[:2], rows[2:]):
        optimizer.zero_grad()
        per_row = []
        for row in minibatch:
            assert row.teacher is not None
            told = teacher(torch.tensor([row.teacher.ids])).logits[0, :-1][torch.tensor(row.teacher.mask[1:])].detach()
            said = model(torch.tensor([row.ids])).logits[0, :-1][torch.tensor(row.mask[1:])]
            per_row.append(forward_kl(told[None], said[None], torch.ones(1, len(said))))
        loss = torch.stack(per_row).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert metrics["policy/loss"] == pytest.approx(sum(losses) / 2, abs=1e-6)
    assert largest_difference(found, list(model.state_dict().items())) < 1e-6


def test_a_row_without_a_teacher_is_named(learner: Open) -> None:
    with pytest.raises(HarnessError, match="sample a1 has no teacher's view"):
        distilled(learner(), [taught(ROWS[0], (5,)), ROWS[1]])


def test_a_teacher_must_look_at_the_same_tokens() -> None:
    with pytest.raises(HarnessError, match="same sampled tokens"):
        replace(ROWS[0], teacher=View(ids=ROWS[1].ids, mask=ROWS[1].mask))


def test_an_empty_microbatch_of_a_taught_update_runs_backward(model_dir: Path) -> None:
    scorer = Scorer(load_model(model_dir, "float32"))
    empty = pad([], [])
    states = scorer(empty, 1.0, None, True)
    head = scorer.causal.get_output_embeddings()
    scores = scorer(empty, 1.0, Teacher(hidden_NH=states.detach(), weight_VH=head.weight.detach(), bias_V=None))
    assert scores.shape == (2, 0)
    scores.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() == 0.0 for p in scorer.parameters())
