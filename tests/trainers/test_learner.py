"""The learner on one rank: its log-probabilities, its gradient, what it reports, and that it resumes exactly."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learner_cases import VOCABULARY, largest_difference, sample, save_model, some_ids, uneven_samples

from harness.errors import HarnessError
from trainers.learner import checkpoint
from trainers.learner.base import LearnerConfig, TrainingDiverged
from trainers.learner.deepspeed import DeepSpeedLearner, deepspeed_config
from trainers.learner.forward import Scorer, chunk_size, load_model, pad, token_logprobs
from trainers.learner.shards import plan
from trainers.objectives.base import Stream, Terms, Tokens
from trainers.objectives.policy_gradient import ClippedObjective, clipped_objective
from trainers.sample import Batch, Sample

LINEAR = LearnerConfig(lr=0.05, eps=0.1, weight_decay=0.0, grad_clip=0.0)
"""AdamW with a large epsilon follows the gradient almost linearly, so that rounding cannot be blown up to a whole step."""

Open = Callable[..., DeepSpeedLearner]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def learner(model_dir: Path) -> Iterator[Open]:
    """Opens learners of the small model and closes them after the test."""
    opened: list[DeepSpeedLearner] = []

    def open_one(config: LearnerConfig = LINEAR, directory: Path | None = None) -> DeepSpeedLearner:
        opened.append(DeepSpeedLearner(directory or model_dir, config))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def batch(*minibatches: Sequence[Sample], **options: Any) -> Batch:
    temperature = options.pop("temperature", 1.0)
    return Batch(minibatches=tuple(map(tuple, minibatches)), objective=ClippedObjective(**options), temperature=temperature)


def weights(learner: DeepSpeedLearner) -> list[tuple[str, torch.Tensor]]:
    return [(name, tensor.clone()) for name, tensor in learner.weights()]


# -- log-probabilities ------------------------------------------------------------------------------------------------


def plain_logprobs(model_dir: Path, ids: Sequence[int], temperature: float = 1.0) -> list[float]:
    """By hand from raw logits: the logits at position t - 1 speak about the token at t."""
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model_dir)(torch.tensor([list(ids)])).logits[0].double() / temperature
    found = []
    for t in range(1, len(ids)):
        total = sum(math.exp(x) for x in logits[t - 1].tolist())
        found.append(logits[t - 1, ids[t]].item() - math.log(total))
    return found


def test_three_tokens_by_hand(learner: Open, model_dir: Path) -> None:
    [found] = learner().logprobs([(5, 9, 2)])
    assert found == pytest.approx(plain_logprobs(model_dir, (5, 9, 2)), abs=1e-5)


def test_log_probabilities_are_those_of_the_temperature(learner: Open, model_dir: Path) -> None:
    ids = some_ids(12, seed=1)
    one = learner()
    assert one.logprobs([ids], temperature=0.7)[0] == pytest.approx(plain_logprobs(model_dir, ids, 0.7), abs=1e-5)
    assert one.logprobs([ids], temperature=0.0) == one.logprobs([ids], temperature=1.0)  # greedy: those of temperature 1


def test_scores_come_back_in_the_order_given_whatever_the_lengths(learner: Open, model_dir: Path) -> None:
    rows = [some_ids(n, seed=n) for n in (2, 17, 1, 30, 5)]
    found = learner(replace_config(microbatch_tokens=34)).logprobs(rows)
    assert [len(values) for values in found] == [1, 16, 0, 29, 4]
    for row, values in zip(rows, found, strict=True):
        assert values == pytest.approx(plain_logprobs(model_dir, row), abs=1e-5)
    with pytest.raises(HarnessError, match="empty sequence"):
        learner().logprobs([()])


def test_padding_on_either_side_gives_the_same_log_probabilities(learner: Open, model_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    short, long = some_ids(6, seed=1), some_ids(11, seed=2)
    left = torch.tensor([[0] * 5 + list(short), list(long)])
    seen = torch.tensor([[0] * 5 + [1] * 6, [1] * 11])
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(model_dir)
        logits = model(left, attention_mask=seen, position_ids=(seen.cumsum(1) - 1).clamp(min=0)).logits.log_softmax(-1)
    expected = [logits[0, 5 + t - 1, short[t]].item() for t in range(1, 6)]
    [padded, _] = learner().logprobs([short, long])  # padded on the right here
    assert padded == pytest.approx(expected, abs=1e-5)
    assert padded == pytest.approx(plain_logprobs(model_dir, short), abs=1e-5)


def test_a_row_may_consist_of_the_id_that_pads(learner: Open, model_dir: Path) -> None:
    zeros = (0, 0, 0, 0)  # rows are padded with id 0, which may well be the end-of-turn token
    found = learner().logprobs([zeros, some_ids(9, seed=1)])[0]
    assert found == pytest.approx(plain_logprobs(model_dir, zeros), abs=1e-5)


def test_changing_one_row_leaves_its_neighbour_unchanged(learner: Open) -> None:
    one = learner()
    neighbour = some_ids(13, seed=7)
    assert one.logprobs([some_ids(13, seed=8), neighbour])[1] == one.logprobs([some_ids(13, seed=9), neighbour])[1]


def test_two_forwards_in_train_mode_agree_although_the_model_was_stored_with_dropout(learner: Open, tmp_path: Path) -> None:
    directory = save_model(tmp_path / "with-dropout", attention_dropout=0.5)
    model = load_model(directory, "float32")
    assert model.training
    padded = pad([some_ids(20, seed=1)], [[t > 0 for t in range(20)]])
    assert torch.equal(Scorer(model)(padded), Scorer(model)(padded))
    one = learner(directory=directory)
    one.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/hf/config.json").read_text())["attention_dropout"] == 0.5


@pytest.mark.parametrize(("tokens", "size"), [(1, 1), (7, 3), (13, 5), (12, 4), (5, 8)])
def test_chunks_have_the_value_and_the_gradient_of_the_whole(tokens: int, size: int) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 31, bias=False).double()
    hidden, targets = torch.randn(tokens, 6).double(), torch.randint(0, 31, (tokens,))
    upstream = torch.randn(tokens).double()

    def run(chunk: int) -> tuple[torch.Tensor, ...]:
        head.weight.grad = None
        inputs = hidden.clone().requires_grad_()
        values = token_logprobs(head, inputs, targets, 0.7, chunk)
        (values * upstream).sum().backward()
        assert inputs.grad is not None and head.weight.grad is not None
        return values.detach(), inputs.grad, head.weight.grad.clone()

    for dense, chunked in zip(run(10**6), run(size), strict=True):
        assert torch.allclose(dense, chunked, rtol=0, atol=1e-12)


def test_a_large_vocabulary_is_cut_into_chunks() -> None:
    assert chunk_size(151_936, 256) == 441
    assert chunk_size(10**9, 1) == 1


# -- gradient ---------------------------------------------------------------------------------------------------------


def test_observation_targets_get_exactly_zero_gradient(model_dir: Path) -> None:
    row = sample("a", 20, 1.0, seed=3)
    scorer = Scorer(load_model(model_dir, "float32"))
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        seen.append(output.last_hidden_state)

    scorer.causal.base_model.register_forward_hook(keep)
    scorer(pad([row.ids], [row.mask])).sum().backward()
    assert seen[0].grad is not None
    touched = seen[0].grad[0].abs().sum(1) > 0
    assert touched.tolist() == [*row.mask[1:], False]


def test_an_empty_microbatch_runs_backward_with_zero_gradient(model_dir: Path) -> None:
    scorer = Scorer(load_model(model_dir, "float32"))
    empty = scorer(pad([], []))
    assert empty.shape == (0,)
    empty.sum().backward()
    for name, parameter in scorer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() == 0.0, name


def test_a_step_is_that_of_plain_torch(learner: Open, model_dir: Path) -> None:
    rows = uneven_samples()
    config = replace_config(weight_decay=0.1, grad_clip=0.05)
    one = learner(config)
    report = one.update(batch(rows, kl_coef=0.1))

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir)
    width = max(len(row.ids) for row in rows)
    new, old, mask = [], torch.zeros(len(rows), width - 1), torch.zeros(len(rows), width - 1, dtype=torch.bool)
    for b, row in enumerate(rows):
        values = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)[:-1].gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0]
        new.append(torch.nn.functional.pad(values, (0, width - 1 - len(values))))
        mask[b, : len(row.ids) - 1] = torch.tensor(row.mask[1:])
        old[b][mask[b]] = torch.tensor(row.behaviour)
    logprobs = torch.stack(new)
    advantages = torch.tensor([row.advantages[0] for row in rows])
    result = clipped_objective(logprobs, old, logprobs.detach(), mask, advantages, kl_coef=0.1)
    result.loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
    torch.optim.AdamW(model.parameters(), lr=config.lr, eps=config.eps, weight_decay=config.weight_decay).step()

    assert report.metrics["policy/loss"] == pytest.approx(result.loss.item(), abs=1e-6)
    assert report.metrics["policy/clip_fraction"] == pytest.approx(result.clip_fraction.item(), abs=1e-6)
    assert report.metrics["policy/grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert norm > config.grad_clip
    assert largest_difference(list(one.weights()), list(model.state_dict().items())) < 1e-6


@pytest.mark.parametrize("aggregate", ["token", "sequence"])
def test_the_number_of_microbatches_changes_nothing(learner: Open, aggregate: Any) -> None:
    rows = uneven_samples()
    found = []
    for tokens in (10_000, 80, 1):  # one micro-batch, a few, one a row
        one = learner(replace_config(microbatch_tokens=tokens))
        report = one.update(batch(rows[:5], rows[5:], aggregate=aggregate, kl_coef=0.1))
        found.append((weights(one), report.metrics["policy/grad_norm"], report.metrics["policy/loss"]))
    for others, norm, loss in found[1:]:
        assert largest_difference(found[0][0], others) < 1e-6
        assert (norm, loss) == pytest.approx(found[0][1:], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("aggregate", ["token", "sequence"])
def test_splitting_a_trajectory_into_step_rows_changes_nothing(learner: Open, aggregate: Any) -> None:
    whole, other = sample("long", 30, 1.0, seed=0), sample("short", 9, -1.0, seed=1)
    cut = 16
    first = sum(whole.mask[:cut])
    parts = [
        replace(whole, ids=whole.ids[:cut], mask=whole.mask[:cut], behaviour=whole.behaviour[:first], advantages=whole.advantages[:first]),
        replace(
            whole,
            mask=(*((False,) * cut), *whole.mask[cut:]),
            behaviour=whole.behaviour[first:],
            advantages=whole.advantages[first:],
        ),
    ]
    together, apart = learner(), learner()
    a = together.update(batch([whole, other], aggregate=aggregate))
    b = apart.update(batch([*parts, other], aggregate=aggregate))
    assert a.metrics["policy/grad_norm"] == pytest.approx(b.metrics["policy/grad_norm"], abs=1e-6)
    assert {k: list(v) for k, v in a.row_ratios.items()} == {k: pytest.approx(list(v), abs=1e-6) for k, v in b.row_ratios.items()}
    assert largest_difference(weights(together), weights(apart)) < 1e-6


def test_the_kl_of_a_trajectory_is_the_sum_over_its_tokens(learner: Open) -> None:
    row = sample("a", 31, 1.0, seed=1)
    summed, scaled = learner(), learner()
    for _ in range(2):  # in the second the policy has left the reference
        summed.update(batch([row], kl_coef=0.1, kl_aggregate="trajectory"))
        scaled.update(batch([row], kl_coef=0.1 * len(row.behaviour)))
    assert largest_difference(weights(summed), weights(scaled)) < 1e-6


def test_recomputing_activations_changes_nothing(learner: Open) -> None:
    plain, recomputed = learner(), learner(replace_config(gradient_checkpointing=True, logits_mb=1))
    for one in (plain, recomputed):
        one.update(batch(uneven_samples()))
    assert largest_difference(weights(plain), weights(recomputed)) < 1e-6


def test_a_row_that_trains_nothing_changes_nothing(learner: Open) -> None:
    rows = uneven_samples()
    idle = Sample(attempt_id="idle", group_id="g", ids=some_ids(25, 0), mask=(False,) * 25, behaviour=(), advantages=())
    with_idle, without = learner(), learner()
    a, b = with_idle.update(batch([*rows, idle])), without.update(batch(rows))
    assert (a.metrics, a.tokens) == (b.metrics, b.tokens)
    assert with_idle.checksum() == without.checksum()


def test_a_minibatch_without_any_token_takes_a_step_of_nothing(learner: Open) -> None:
    one = learner()
    before = one.checksum()
    idle = Sample(attempt_id="idle", group_id="g", ids=(1, 2), mask=(False, False), behaviour=(), advantages=())
    report = one.update(batch([idle]))
    assert (report.tokens, report.metrics["policy/grad_norm"]) == (0, 0.0)
    assert one.checksum() == before


# -- what an update reports ----------------------------------------------------------------------------------------------


def on_policy(learner: DeepSpeedLearner, rows: Sequence[Sample]) -> list[Sample]:
    """The same rows with the learner's own log-probabilities as the behaviour's."""
    scored = learner.logprobs([row.ids for row in rows])
    return [
        replace(row, behaviour=tuple(p for p, m in zip(values, row.mask[1:], strict=True) if m), version=learner.version)
        for row, values in zip(rows, scored, strict=True)
    ]


def test_on_policy_the_ratio_is_one_and_the_kl_zero(learner: Open) -> None:
    one = learner()
    rows = on_policy(one, uneven_samples())
    report = one.update(batch(rows))
    assert report.metrics["ratio/unguided_mean"] == pytest.approx(1.0, abs=1e-5)
    assert report.metrics["policy/kl"] == 0.0
    assert report.metrics["policy/clip_fraction"] == 0.0
    assert report.metrics["mismatch/logprob_max"] < 1e-5
    assert report.version == one.version == 1
    assert {attempt: len(ratios) for attempt, ratios in report.row_ratios.items()} == {r.attempt_id: len(r.behaviour) for r in rows}
    assert "mismatch/logprob_max" not in one.update(batch(rows)).metrics  # stale by now: no measure of the engine


def test_guided_and_unguided_tokens_are_reported_apart(learner: Open) -> None:
    one = learner()
    rows = on_policy(one, [sample("plain", 12, 1.0, seed=1), sample("hinted", 12, 1.0, seed=2, guided=True)])
    rows[1] = replace(rows[1], behaviour=tuple(p + math.log(10) for p in rows[1].behaviour))  # ten times likelier under guidance
    report = one.update(batch(rows))
    assert report.metrics["ratio/unguided_mean"] == pytest.approx(1.0, abs=1e-5)
    assert report.metrics["ratio/guided_mean"] == pytest.approx(0.1, abs=1e-5)
    assert report.metrics["ratio/guided_lost_mass"] == pytest.approx(0.9, abs=1e-5)
    assert list(report.row_ratios["plain"]) == pytest.approx([1.0] * 7, abs=1e-5)
    assert list(report.row_ratios["hinted"]) == pytest.approx([0.1] * 7, abs=1e-5)
    assert report.tokens == report.metrics["tokens/trained"] == 14
    edges, counts = report.histograms["ratio/guided"]
    assert (edges[0], edges[-1]) == pytest.approx((1e-4, 1e2))
    assert len(edges) == len(counts) + 1
    assert sum(counts) == 7
    assert sum(counts[10:14]) == 7  # around 1e-1


def test_without_a_kl_term_no_reference_is_run(learner: Open) -> None:
    one = learner()
    assert "policy/kl" not in one.update(batch(uneven_samples(), kl_coef=0.0)).metrics
    assert one._worker._reference is None


def test_without_guided_rows_there_is_no_guided_mean(learner: Open) -> None:
    report = learner().update(batch([sample("a", 9, 1.0, seed=1)]))
    assert "ratio/guided_mean" not in report.metrics
    assert sum(report.histograms["ratio/guided"][1]) == 0


# -- divergence -------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_its_attempts_and_takes_no_step(learner: Open) -> None:
    one = learner(replace_config(microbatch_tokens=40))
    before = one.checksum()
    rows = [*uneven_samples(), sample("broken-1", 9, math.nan, seed=1), sample("broken-2", 25, math.inf, seed=2)]
    with pytest.raises(TrainingDiverged, match=r"attempts broken-1, broken-2;") as caught:
        one.update(batch(rows))
    assert "a1" not in str(caught.value)
    assert one.checksum() == before and one.version == 0
    with pytest.raises(HarnessError, match="start a new one from the last checkpoint"):
        one.update(batch(uneven_samples()))


def test_minibatches_before_the_diverged_one_stay_applied(learner: Open) -> None:
    good, broken = uneven_samples(), [sample("broken", 9, math.nan, seed=1)]
    one, other = learner(), learner()
    with pytest.raises(TrainingDiverged, match="update 1, mini-batch 2"):
        one.update(batch(good, broken))
    other.update(batch(good))
    assert one.checksum() == other.checksum()


@dataclass(frozen=True)
class FiniteLossWithoutGradient:
    """The square root of zero: a finite value with an infinite slope."""

    streams: frozenset[Stream] = frozenset()

    def token_weights(self, minibatch: Sequence[Sample]) -> list[list[float]]:
        return [[1.0] * len(row.behaviour) for row in minibatch]

    def penalty_scales(self, minibatch: Sequence[Sample]) -> list[float]:
        return [1.0] * len(minibatch)

    def terms(self, tokens: Tokens) -> Terms:
        return Terms(loss_N=(tokens.logprobs_N * 0).sqrt(), metrics={})


@pytest.mark.parametrize(
    ("stage", "dtype"), [(0, "float32"), (1, "float32"), (2, "float32"), (3, "float32"), (1, "bfloat16"), (2, "bfloat16"), (3, "bfloat16")]
)
def test_a_gradient_that_is_not_finite_takes_no_step_either(learner: Open, stage: int, dtype: str) -> None:
    one = learner(replace_config(zero_stage=stage, dtype=dtype))
    before = one.checksum()
    with pytest.raises(TrainingDiverged, match="attempts a;"):
        one.update(Batch(minibatches=((sample("a", 9, 1.0, seed=1),),), objective=FiniteLossWithoutGradient()))
    assert one.checksum() == before


# -- weights, saving, resuming -------------------------------------------------------------------------------------------


def test_weights_include_the_tied_head_and_follow_updates(learner: Open) -> None:
    one = learner()
    before = dict(weights(one))
    one.update(batch(uneven_samples()))
    after = dict(one.weights())
    assert list(after) == list(before)
    assert torch.equal(after["lm_head.weight"], after["model.embed_tokens.weight"])
    assert not torch.equal(after["lm_head.weight"], before["lm_head.weight"])


@pytest.mark.parametrize("tied", [True, False])
def test_the_hf_part_of_a_checkpoint_is_a_model_folder(learner: Open, tmp_path: Path, tied: bool) -> None:
    directory = save_model(tmp_path / "model", tied=tied)
    one = learner(directory=directory)
    one.update(batch(uneven_samples()))
    one.save(tmp_path / "step-1")
    ids = some_ids(15, seed=1)
    assert one.logprobs([ids])[0] == pytest.approx(plain_logprobs(tmp_path / "step-1/hf", ids), abs=1e-5)
    assert (tmp_path / "step-1/hf/tokenizer.json").read_text() == "{}"
    assert learner(directory=tmp_path / "step-1/hf").checksum() == one.checksum()


RESUME = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from learner_cases import uneven_samples
from trainers.learner.base import LearnerConfig
from trainers.learner.deepspeed import DeepSpeedLearner
from trainers.objectives.policy_gradient import ClippedObjective
from trainers.sample import Batch

learner = DeepSpeedLearner(Path(sys.argv[1]), LearnerConfig.model_validate_json(sys.argv[3]))
learner.load(Path(sys.argv[2]))
rows = uneven_samples()
for _ in range(2):
    report = learner.update(Batch(minibatches=(rows[:4], rows[4:]), objective=ClippedObjective(kl_coef=0.1)))
print(learner.checksum(), report.metrics["policy/kl"], learner.version)
"""


@pytest.mark.parametrize("stage", [0, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (1, 2, 3))])
def test_a_fresh_process_resumes_bit_for_bit(learner: Open, model_dir: Path, tmp_path: Path, stage: Any) -> None:
    config = LearnerConfig(lr=1e-3, zero_stage=stage)
    one = learner(config)
    rows = uneven_samples()
    step = batch(rows[:4], rows[4:], kl_coef=0.1)
    for _ in range(3):
        one.update(step)
    one.save(tmp_path / "step-3")
    for _ in range(2):
        report = one.update(step)
    arguments = [str(model_dir), str(tmp_path / "step-3"), config.model_dump_json(), str(Path(__file__).parent)]
    done = subprocess.run([sys.executable, "-c", RESUME, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The KL is to the model of the start, not to that of the checkpoint.
    assert done.stdout.split() == [one.checksum(), str(report.metrics["policy/kl"]), "5"]
    assert report.metrics["policy/kl"] > 1e-6


def test_a_checkpoint_is_replaced_whole(learner: Open, tmp_path: Path) -> None:
    one = learner()
    folder = tmp_path / "checkpoints/step-1"
    one.save(folder)
    (folder / "left-over").touch()
    one.save(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["step-1"]
    assert sorted(path.name for path in folder.iterdir()) == ["deepspeed", "hf", "learner.json"]


def test_a_failed_save_says_why_and_leaves_nothing(learner: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="cannot save a checkpoint"):
        learner().save(tmp_path / "file" / "step-1")
    assert [path.name for path in tmp_path.iterdir() if path.name != "harness-home"] == ["file"]


def test_a_disk_that_fills_up_under_the_weights_is_said_in_words_and_leaves_nothing(
    learner: Open, tmp_path: Path, model_dir: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    one, folder = learner(), tmp_path / "checkpoints/step-1"

    def write(unfinished: Path) -> None:
        checkpoint.write_hf(unfinished / "hf", one._worker.policy.model, one.weights(), model_dir)

    with largest_file(8192), pytest.raises(HarnessError, match=r"cannot save a checkpoint to .*step-1: .*too large.*; free some space"):
        checkpoint.atomically(folder, write)
    assert list(folder.parent.iterdir()) == []


def test_a_checkpoint_of_another_layout_is_refused(learner: Open, tmp_path: Path) -> None:
    learner().save(tmp_path / "step-0")
    with pytest.raises(HarnessError, match=r"zero_stage 0, dtype float32, this learner has ranks 1, zero_stage 2"):
        learner(replace_config(zero_stage=2)).load(tmp_path / "step-0")


def test_a_folder_without_checkpoint_is_refused(learner: Open, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="holds no learner.json"):
        learner().load(tmp_path)
    with pytest.raises(HarnessError, match="holds no config.json"):
        learner(directory=tmp_path)


# -- configuration and the split of rows ---------------------------------------------------------------------------------


def replace_config(**changes: Any) -> LearnerConfig:
    return LearnerConfig.model_validate(LINEAR.model_dump() | changes)


def test_settings_for_qwen3_8b_on_eight_gpus() -> None:
    config = LearnerConfig(dtype="bfloat16", zero_stage=3, ranks=8, gradient_checkpointing=True, microbatch_tokens=32_768)
    found = deepspeed_config(config, 8)
    assert found["bf16"]["enabled"] is True
    assert found["zero_optimization"]["stage"] == 3
    assert (found["train_batch_size"], found["train_micro_batch_size_per_gpu"], found["gradient_accumulation_steps"]) == (8, 1, 1)
    assert found["gradient_clipping"] == 1.0
    assert found["managed_gradient_accumulation"] is False
    assert "optimizer" not in found  # torch's AdamW


def test_offloading_uses_deepspeeds_own_adam_with_our_settings() -> None:
    found = deepspeed_config(LearnerConfig(zero_stage=3, offload="all", lr=3e-6), 8)
    assert found["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert found["optimizer"]["params"] == {"lr": 3e-6, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"offload": "all", "zero_stage": 2}, "set zero_stage to 3"),
        ({"offload": "optimizer", "zero_stage": 1}, "set zero_stage to 2"),
        ({"dtype": "bfloat16", "zero_stage": 0}, "set zero_stage to 1, 2 or 3"),
    ],
)
def test_impossible_settings_say_what_to_set(settings: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        LearnerConfig(**settings)


def test_bfloat16_trains(learner: Open) -> None:
    one = learner(replace_config(dtype="bfloat16", zero_stage=1))
    before = one.checksum()
    report = one.update(batch(uneven_samples()))
    assert math.isfinite(report.metrics["policy/loss"])
    assert one.checksum() != before
    assert {tensor.dtype for _, tensor in one.weights()} == {torch.bfloat16}


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 4), st.integers(1, 120))
def test_every_row_runs_once_within_the_budget_and_all_ranks_run_equally_often(lengths: list[int], ranks: int, budget: int) -> None:
    shares = plan(lengths, ranks, budget)
    assert len(shares) == ranks
    assert len({len(share) for share in shares}) == 1 and shares[0]
    assert sorted(row for share in shares for rows in share for row in rows) == list(range(len(lengths)))
    for rows in (rows for share in shares for rows in share if rows):
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget
    loads = [sum(lengths[row] for rows in share for row in rows) for share in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)


def test_the_vocabulary_of_the_cases_is_that_of_the_model(model_dir: Path) -> None:
    assert load_model(model_dir, "float32").config.vocab_size == VOCABULARY
