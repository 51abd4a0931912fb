"""Our numbers against TRL's GRPOTrainer on the same fixed tokens: rewards to weights, over three off-policy updates of one batch.

TRL gets the rollouts through its ``rollout_func`` (ids, masks of observations, rewards) and computes advantages, reference, loss and
gradient with its own code; a plain AdamW steps its model. Ours is the shipped path: group_advantages, Sample, DeepSpeedLearner.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from learner_cases import VOCABULARY, largest_difference, sample, save_model

from trainers.advantage import group_advantages
from trainers.learner.base import LearnerConfig
from trainers.learner.deepspeed import DeepSpeedLearner
from trainers.learner.forward import Scorer, load_model, pad
from trainers.objectives.policy_gradient import ClippedObjective, clipped_objective
from trainers.sample import Batch, Sample

pytest.importorskip("trl", reason="trl is a development dependency: pip install trl==1.16.0")
pytestmark = pytest.mark.slow

Rows = list[list[float]]

PROMPT = 3  # tokens; the cases sample from position 3 on
TRL_EPS = 1e-4  # what TRL adds to a group's standard deviation
REWARDS = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.25)  # two groups of four


@dataclass(frozen=True)
class Case:
    loss_type: str
    aggregate: Any
    beta: float

    @property
    def words(self) -> str:
        return f"{self.aggregate}, {self.beta:g}"


CASES = [
    pytest.param(Case("dapo", "token", 0.001), id="tokens"),
    pytest.param(Case("dapo", "token", 0.3), id="tokens, strong KL"),
    pytest.param(Case("grpo", "sequence", 0.001), id="sequences"),
]


def rows() -> list[Sample]:
    """Two groups of four rows of uneven lengths with observations inside, off-policy from the start; advantages by our function."""
    lengths = (9, 31, 14, 22, 7, 40, 18, 12)
    advantages = group_advantages(REWARDS, [0] * 4 + [1] * 4, eps=TRL_EPS)
    return [sample(f"a{i}", n, float(advantages[i] or 0.0), seed=i) for i, n in enumerate(lengths)]


def on_the_edge(samples: Sequence[Sample], model_dir: Path) -> list[Sample]:
    """Behaviour log-probabilities within a factor of two of the policy's, so that some tokens are clipped and others are not."""
    padded = pad([s.ids for s in samples], [s.mask for s in samples])
    with torch.no_grad():
        own = iter(Scorer(load_model(model_dir, "float32"))(padded).tolist())
    return [replace(s, behaviour=tuple(next(own) + (4.0 + b) for b in s.behaviour)) for s in samples]


def trl_trainer(model_dir: Path, folder: Path, samples: Sequence[Sample], case: Case, dtype: torch.dtype) -> Any:
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w0")

    def rollout(_prompts: Any, _trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": [list(s.ids[:PROMPT]) for s in samples],
            "completion_ids": [list(s.ids[PROMPT:]) for s in samples],
            "logprobs": None,
            "env_mask": [[int(m) for m in s.mask[PROMPT:]] for s in samples],
        }

    def reward(**_: Any) -> list[float]:
        return list(REWARDS)

    settings = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        per_device_train_batch_size=len(samples),
        num_generations=4,
        num_iterations=3,
        max_completion_length=64,
        beta=case.beta,
        loss_type=case.loss_type,
        epsilon=0.2,
        scale_rewards="group",
        use_bias_correction_kl=False,
        disable_dropout=True,
    )
    trainer: Any = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype),
        reward_funcs=reward,
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": ["w1 w2"] * len(samples)}),
        processing_class=tokenizer,
        rollout_func=rollout,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def behaviour_BT(samples: Sequence[Sample], like_BT: torch.Tensor) -> torch.Tensor:
    """Behaviour log-probabilities at the completion's sampled tokens, 0 elsewhere."""
    found = torch.zeros_like(like_BT)
    for b, s in enumerate(samples):
        found[b, : len(s.ids) - PROMPT][torch.tensor(s.mask[PROMPT:])] = torch.tensor(s.behaviour, dtype=like_BT.dtype)
    return found


@pytest.mark.parametrize("case", CASES)
def test_three_off_policy_updates_of_the_learner_are_those_of_trl(tmp_path: Path, case: Case) -> None:
    model_dir = save_model(tmp_path / "model")
    samples = on_the_edge(rows(), model_dir)
    learner = DeepSpeedLearner(model_dir, LearnerConfig(lr=0.02, eps=0.1, weight_decay=0.01, grad_clip=1.0))
    objective = ClippedObjective(kl_coef=case.beta, aggregate=case.aggregate)
    trainer = trl_trainer(model_dir, tmp_path / "trl", samples, case, torch.float32)
    inputs = trainer._generate_and_score_completions(trainer.train_dataset.to_list())
    assert inputs["advantages"].tolist() == pytest.approx([s.advantages[0] for s in samples], abs=1e-6)
    inputs["old_per_token_logps"] = behaviour_BT(samples, inputs["old_per_token_logps"])
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=0.02, eps=0.1, weight_decay=0.01)
    clipped = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        optimizer.step()
        report = learner.update(Batch(minibatches=(tuple(samples),), objective=objective))
        assert report.metrics["policy/loss"] == pytest.approx(loss.item(), abs=1e-6)
        assert report.metrics["policy/grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
        clipped.append(report.metrics["policy/clip_fraction"])
        assert clipped[-1] == pytest.approx(trainer._metrics["train"]["clip_ratio/region_mean"][-1], abs=1e-6)
        assert report.metrics["policy/kl"] == pytest.approx(trainer._metrics["train"]["kl"][-1], abs=1e-6)
        assert largest_difference(list(learner.weights()), list(trainer.model.state_dict().items())) < 1e-6
    assert min(clipped) > 0.05  # the clip was at work, else this would prove little
    assert report.metrics["policy/kl"] > 1e-4
    learner.close()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One update of one batch: (loss, KL part, share of clipped tokens) of each, and how far the gradients of the first two lie apart."""

    ours: tuple[float, float, float]
    trl: tuple[float, float, float]
    by_hand: tuple[float, float, float]
    gradient_gap: float


def by_hand(new: Rows, old: Rows, reference: Rows, advantages: Sequence[float], case: Case) -> tuple[float, float, float]:
    """Eq. 11 token by token, as one would on paper: clip 0.2, k3; the mean over all tokens, or over rows of their own means."""
    policy: Rows = [[] for _ in advantages]
    kl: Rows = [[] for _ in advantages]
    clipped: Rows = [[] for _ in advantages]
    for row, advantage in enumerate(advantages):
        for p, q, z in zip(new[row], old[row], reference[row], strict=True):
            ratio, d = math.exp(p - q), z - p
            bounded = min(max(ratio, 0.8), 1.2)
            policy[row].append(-min(ratio * advantage, bounded * advantage))
            kl[row].append(math.exp(d) - d - 1)
            clipped[row].append(float(bounded * advantage < ratio * advantage))

    def mean(values: Rows) -> float:
        flat = [value for row in values for value in row]
        return fmean(flat) if case.aggregate == "token" else fmean(fmean(row) for row in values)

    everything = [value for row in clipped for value in row]
    return mean(policy) + case.beta * mean(kl), mean(kl), fmean(everything)


def compared(folder: Path, case: Case) -> list[Compared]:
    """Three updates of one batch by plain gradient steps, in float64: the public function, TRL and the maths by hand side by side."""
    model_dir = save_model(folder / "model")
    samples = on_the_edge(rows(), model_dir)
    mine = load_model(model_dir, "float64")
    scorer = Scorer(mine)
    padded = pad([s.ids for s in samples], [s.mask for s in samples])
    with torch.no_grad():
        reference_N = scorer(padded)
    counts = [len(s.behaviour) for s in samples]

    def rows_of(values_N: torch.Tensor) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(torch.split(values_N, counts)), batch_first=True)

    def lists(values_N: torch.Tensor) -> Rows:
        return [part.tolist() for part in torch.split(values_N.detach(), counts)]

    mask_BT = rows_of(torch.ones(sum(counts)))
    old_N = torch.tensor([b for s in samples for b in s.behaviour], dtype=torch.float64)
    trainer = trl_trainer(model_dir, folder / "trl", samples, case, torch.float64)
    inputs = trainer._generate_and_score_completions(trainer.train_dataset.to_list())
    inputs["old_per_token_logps"] = behaviour_BT(samples, inputs["old_per_token_logps"].double())
    inputs["ref_per_token_logps"] = inputs["ref_per_token_logps"].double()
    inputs["advantages"] = torch.tensor([s.advantages[0] for s in samples], dtype=torch.float64)
    found = []
    for _ in range(3):
        for model in (mine, trainer.model):
            model.zero_grad()
        theirs = trainer._compute_loss(trainer.model, inputs)
        theirs.backward()
        new_N = scorer(padded)
        ours = clipped_objective(
            rows_of(new_N),
            rows_of(old_N),
            rows_of(reference_N),
            mask_BT,
            inputs["advantages"],
            kl_coef=case.beta,
            aggregate=case.aggregate,
        )
        ours.loss.backward()
        metrics = trainer._metrics["train"]
        found.append(
            Compared(
                ours=(ours.loss.item(), ours.kl_loss.item(), ours.clip_fraction.item()),
                trl=(theirs.item(), metrics["kl"][-1], metrics["clip_ratio/region_mean"][-1]),
                by_hand=by_hand(lists(new_N), lists(old_N), lists(reference_N), [s.advantages[0] for s in samples], case),
                gradient_gap=max(
                    float((a.grad - b.grad).abs().max()) for a, b in zip(mine.parameters(), trainer.model.parameters(), strict=True)
                ),
            )
        )
        with torch.no_grad():
            for model in (mine, trainer.model):
                for parameter in model.parameters():
                    parameter -= 0.01 * parameter.grad
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_public_function_trl_and_the_maths_by_hand_agree_in_float64(tmp_path: Path, case: Case) -> None:
    updates = compared(tmp_path, case)
    for update in updates:
        assert update.ours[0] == pytest.approx(update.trl[0], abs=1e-6) and update.gradient_gap < 1e-6
        assert update.ours[2] == pytest.approx(update.trl[2], abs=1e-6) and update.ours[2] > 0.05
        assert update.ours == pytest.approx(update.by_hand, abs=1e-12)
        if case.aggregate == "token":  # TRL reports the KL over all tokens, whichever loss it takes
            assert update.ours[1] == pytest.approx(update.trl[1], abs=1e-6)
    assert updates[0].ours[1] == 0 < updates[-1].ours[1]
    shown = [line.split("|")[3:6] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {case.words} |")]
    assert [[float(cell) for cell in row] for row in shown] == [
        pytest.approx([u.ours[0], u.trl[0], u.by_hand[0]], abs=1e-6) for u in updates
    ], "make docs/agreement.md again"


def page(folder: Path) -> str:
    """docs/agreement.md."""
    lines = []
    for case in (parameter.values[0] for parameter in CASES):
        assert isinstance(case, Case)
        for number, update in enumerate(compared(folder / f"{case.aggregate}-{case.beta}", case), start=1):
            cells = [f"{value:.9f}" for value in (update.ours[0], update.trl[0], update.by_hand[0])]
            shares = [f"{value:.4f}" for value in (update.ours[2], update.trl[2], update.by_hand[2])]
            lines.append(f"| {case.words} | {number} | {' | '.join((*cells, *shares))} | {update.gradient_gap:.0e} |")
    return HEAD + "\n".join(lines) + "\n"


PAGE = Path(__file__).parents[2] / "docs/agreement.md"
HEAD = """# Our loss, TRL's, and the same by hand

Three off-policy updates of one batch (8 trajectories in two groups, uneven lengths, observations inside, ratios on both sides of the clip),
plain gradient steps in float64 from the same weights. *Ours* is `clipped_objective`, *TRL* is GRPOTrainer 1.16.0 with its own advantages,
reference, loss and gradient, *by hand* is Eq. 11 written out token by token in plain Python. The gradients are those of all weights; the
last column is the largest difference of ours and TRL's. Made by `python tests/trainers/test_trl_agreement.py > docs/agreement.md`; the same
file holds the tests, also of the shipped learner (AdamW, gradient clipping) against TRL's model over three updates.

| mean over, KL weight | update | loss: ours | TRL | by hand | clipped: ours | TRL | by hand | gradients apart |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
"""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(sys.stderr):  # TRL may print
        made = page(Path(place))
    sys.stdout.write(made)
