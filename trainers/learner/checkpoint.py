"""Folders of a checkpoint: written whole or not at all, with a part that any tool reads as a Hugging Face model.

A checkpoint holds ``learner.json`` (what wrote it), ``deepspeed/`` (weights, optimiser and random state of every rank, for an exact
resume) and ``hf/`` (weights, config and tokenizer). What ``deepspeed/`` holds is DeepSpeed's business.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from harness.engines.base import Weights
from harness.errors import HarnessError
from trainers.learner.base import cannot_save

_TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "*.model",
    "*.tiktoken",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What must agree between the writer of a checkpoint and its reader, and the version it holds."""

    version: int
    ranks: int
    zero_stage: int
    dtype: str


def atomically(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder beside ``folder`` and put it in place when it is complete; a failure leaves nothing behind."""
    unfinished, former = folder.with_name(f".{folder.name}.unfinished"), folder.with_name(f".{folder.name}.former")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        write(unfinished)
        if folder.exists():
            folder.rename(former)
        unfinished.rename(folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors report a full disk as errors of their own
        raise cannot_save(folder, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def write_hf(folder: Path, model: Any, weights: Weights, original: Path) -> None:
    """``weights`` as safetensors with the config of ``model`` and the tokenizer files of ``original``: usable as a model folder."""
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    state = {name: tensor.contiguous() for name, tensor in weights if name not in tied}
    model.save_pretrained(folder, state_dict=state)
    model.stored_config.dtype = next(iter(state.values())).dtype
    model.stored_config.save_pretrained(folder)  # over the one with dropout switched off
    for pattern in _TOKENIZER_FILES:
        for file in original.glob(pattern):
            if file.is_file():
                shutil.copy2(file, folder / file.name)


def write_stamp(folder: Path, stamp: Stamp) -> None:
    (folder / "learner.json").write_text(json.dumps(asdict(stamp), indent=1) + "\n", encoding="utf-8")


def read_stamp(folder: Path) -> Stamp:
    path = folder / "learner.json"
    if not path.is_file():
        raise HarnessError(f"no checkpoint at {folder}: it holds no learner.json; give a folder that the learner saved")
    try:
        return Stamp(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise HarnessError(f"{path} is damaged ({error}); resume from an older checkpoint") from error


def check_stamp(found: Stamp, *, ranks: int, zero_stage: int, dtype: str, folder: Path) -> None:
    """Optimiser shards fit only the layout that wrote them."""
    theirs, ours = (found.ranks, found.zero_stage, found.dtype), (ranks, zero_stage, dtype)
    if theirs != ours:
        names = "ranks {}, zero_stage {}, dtype {}"
        raise HarnessError(
            f"the checkpoint {folder} was written with {names.format(*theirs)}, this learner has {names.format(*ours)}; "
            f"resume with the former, or start a new run from {folder / 'hf'}"
        )


def random_state() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None}


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
