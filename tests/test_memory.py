"""The memory plan: counts that are known, what each setting moves, and the entries of the paper's models on 80 GiB."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli.run import resolve, run
from harness.models import MODELS, find_model, shape_of
from trainers.config import RunConfig
from trainers.memory import GIB, memory_plan


def config(*assignments: str, model: str = "qwen3-8b") -> RunConfig:
    options: dict[str, Any] = dict.fromkeys(
        ("preset", "ranks", "config_file", "steps", "seed", "engine", "judge", "tasks", "token_budget", "web")
    )
    return resolve({**options, "trainer": "actguide", "model": model, "assignments": assignments})


def size(what: str, *assignments: str) -> float:
    shape = MODELS["qwen3-8b"].shape
    assert shape
    return sum(line.bytes for line in memory_plan(config(*assignments), shape, 80).lines if line.what == what)


@pytest.mark.parametrize(
    ("model", "parameters"),  # as their model pages count them
    [("qwen3-8b", 8_190_735_360), ("qwen3-4b", 4_022_468_096), ("qwen2.5-3b", 3_085_938_688), ("qwen2.5-7b", 7_615_616_512)],
)
def test_the_weights_are_counted_to_the_last_one(model: str, parameters: int) -> None:
    shape = MODELS[model].shape
    assert shape and shape.parameters == parameters


def test_a_local_models_shape_is_read_from_its_config_and_agrees_with_its_file() -> None:
    from safetensors import safe_open

    from harness.tiny import model_dir

    shape = shape_of(find_model("tiny"))
    with safe_open(model_dir() / "model.safetensors", "numpy") as stored:
        assert shape and shape.parameters == sum(stored.get_tensor(name).size for name in stored.keys())  # noqa: SIM118


@pytest.mark.parametrize("model", ["qwen3-8b", "qwen3-4b", "qwen2.5-3b", "qwen2.5-7b"])
def test_the_papers_models_fit_eight_gpus_as_entered(model: str) -> None:
    shape = MODELS[model].shape
    assert shape
    plan = memory_plan(config(model=model), shape, 80)
    assert plan.fits and plan.cache_tokens > 40_960, "\n".join(plan.words())
    assert not memory_plan(config(model=model), shape, 24).fits


def test_each_setting_moves_its_own_line() -> None:
    sharded = 8_190_735_360 / 8
    assert size("learner: weights") == 2 * sharded
    assert size("learner: weights", "learner.zero_stage=2") == 16 * sharded
    assert size("learner: gradients", "learner.zero_stage=1") == 16 * sharded
    assert size("learner: optimiser") == 12 * sharded
    assert size("learner: optimiser", "learner.offload=optimizer") == 0
    assert size("learner: optimiser", "learner.ranks=4") == 24 * sharded
    assert size("engine: weights and cache", "generation.gpu_memory=0.25") == 20 * GIB
    assert size("learner: logits", "learner.logits_mb=512") == 2 * size("learner: logits")
    assert size("learner: activations", "learner.gradient_checkpointing=false") > 10 * size("learner: activations")
    assert size("learner: activations", "agent.context_tokens=10240") < size("learner: activations")


def test_a_dry_run_prints_the_settings_and_the_plan_and_starts_nothing() -> None:
    answer = CliRunner().invoke(run, ["--trainer", "actguide", "--model", "qwen3-8b", "--preset", "paper", "--dry-run"])
    assert answer.exit_code == 0
    assert '"replicas": 8' in answer.stdout
    assert "of 80 GiB on the fullest GPU" in answer.stderr and "does not fit" not in answer.stderr
    small = CliRunner().invoke(run, ["--trainer", "actguide", "--model", "qwen3-8b", "--dry-run", "--gpu-gib", "40"])
    assert "does not fit: lower generation.gpu_memory" in small.stderr
