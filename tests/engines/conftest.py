"""Random Qwen3 models of a few thousand parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

END = 2


class SaveModel(Protocol):
    def __call__(self, directory: Path, *, tied: bool = True, kv_heads: int = 2, seed: int = 0) -> Path: ...


@pytest.fixture(scope="session")
def save_model() -> SaveModel:
    return _save_random_qwen3


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_random_qwen3(tmp_path_factory.mktemp("models") / "random")


def _save_random_qwen3(directory: Path, *, tied: bool = True, kv_heads: int = 2, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=300,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=32,
        intermediate_size=96,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.25,  # far from uniform, so that a wrong position or mask shows
        eos_token_id=END,
        pad_token_id=0,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config.eos_token_id = [END, 3]
    model.save_pretrained(directory)
    return directory
