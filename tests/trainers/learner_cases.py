"""Random small models and samples for the learner's tests; no tests of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trainers.sample import Sample

VOCABULARY = 53


def save_model(folder: Path, *, tied: bool = True, **overrides: Any) -> Path:
    """A Qwen3 with random weights, large enough that attention and tied embeddings matter."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "tie_word_embeddings": tied,
    }
    Qwen3ForCausalLM(Qwen3Config(**(settings | overrides))).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def some_ids(length: int, seed: int) -> tuple[int, ...]:
    source = random.Random(seed)
    return tuple(source.randrange(VOCABULARY) for _ in range(length))


def turns_mask(length: int) -> tuple[bool, ...]:
    """A prompt of three tokens, then sampled stretches between observations."""
    return tuple(t >= 3 and t % 5 != 0 for t in range(length))


def sample(name: str, length: int, advantage: float, seed: int, *, guided: bool = False, shift: float = 0.0) -> Sample:
    """A row whose behaviour log-probabilities are near ``-log V`` moved by ``shift``: off-policy from the start."""
    source = random.Random(seed)
    mask = turns_mask(length)
    n = sum(mask)
    return Sample(
        attempt_id=name,
        group_id="g",
        ids=some_ids(length, seed),
        mask=mask,
        behaviour=tuple(-4.0 + shift + source.uniform(-0.5, 0.5) for _ in range(n)),
        advantages=(advantage,) * n,
        guided=guided,
    )


def uneven_samples() -> tuple[Sample, ...]:
    lengths = (9, 31, 14, 22, 7, 40, 18, 12)
    return tuple(sample(f"a{i}", length, 1.0 if i % 3 else -0.7, seed=i, guided=i % 4 == 1) for i, length in enumerate(lengths))


def largest_difference(mine: Sequence[tuple[str, torch.Tensor]], theirs: Sequence[tuple[str, torch.Tensor]]) -> float:
    assert [name for name, _ in mine] == [name for name, _ in theirs]
    return max(float((a - b).abs().max()) for (_, a), (_, b) in zip(mine, theirs, strict=True))
