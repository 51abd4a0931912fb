"""Our numbers against TRL's GRPOTrainer on the same fixed tokens: rewards to weights, over three off-policy updates of one batch.

TRL gets the rollouts through its ``rollout_func`` (ids, masks of observations, rewards) and computes advantages, reference, loss and
gradient with its own code; a plain AdamW steps its model. Ours is the shipped path: group_advantages, Sample, DeepSpeedLearner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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

PROMPT = 3  # tokens; the cases sample from position 3 on
TRL_EPS = 1e-4  # what TRL adds to a group's standard deviation
REWARDS = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.25)  # two groups of four


@dataclass(frozen=True)
class Case:
    loss_type: str
    aggregate: Any
    beta: float


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


@pytest.mark.parametrize("case", CASES)
def test_the_public_function_has_trls_loss_and_gradient_in_float64(tmp_path: Path, case: Case) -> None:
    model_dir = save_model(tmp_path / "model")
    samples = on_the_edge(rows(), model_dir)
    mine = load_model(model_dir, "float64")
    scorer = Scorer(mine)
    padded = pad([s.ids for s in samples], [s.mask for s in samples])
    with torch.no_grad():
        reference_N = scorer(padded)
    counts = [len(s.behaviour) for s in samples]

    def rows_of(values_N: torch.Tensor) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(torch.split(values_N, counts)), batch_first=True)

    mask_BT = rows_of(torch.ones(sum(counts)))
    old_BT = rows_of(torch.tensor([b for s in samples for b in s.behaviour], dtype=torch.float64))
    trainer = trl_trainer(model_dir, tmp_path / "trl", samples, case, torch.float64)
    inputs = trainer._generate_and_score_completions(trainer.train_dataset.to_list())
    inputs["old_per_token_logps"] = behaviour_BT(samples, inputs["old_per_token_logps"].double())
    inputs["ref_per_token_logps"] = inputs["ref_per_token_logps"].double()
    inputs["advantages"] = torch.tensor([s.advantages[0] for s in samples], dtype=torch.float64)
    for _ in range(3):
        for model in (mine, trainer.model):
            model.zero_grad()
        theirs = trainer._compute_loss(trainer.model, inputs)
        theirs.backward()
        ours = clipped_objective(
            rows_of(scorer(padded)),
            old_BT,
            rows_of(reference_N),
            mask_BT,
            inputs["advantages"],
            kl_coef=case.beta,
            aggregate=case.aggregate,
        )
        ours.loss.backward()
        assert ours.loss.item() == pytest.approx(theirs.item(), abs=1e-6)
        for (name, a), (_, b) in zip(mine.named_parameters(), trainer.model.named_parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, rtol=0, atol=1e-6), name
        with torch.no_grad():
            for model in (mine, trainer.model):
                for parameter in model.parameters():
                    parameter -= 0.01 * parameter.grad
