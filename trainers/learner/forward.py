"""From rows of ids to log-probabilities of chosen tokens (and their divergence from a teacher). One forward, no training and no DeepSpeed.

Rows are padded on the right and run under plain causal attention without a mask: no token can see the padding after it, and
torch keeps its fast attention kernel. Padding is known from lengths, never from an id, so ``pad == eos`` cannot matter.
Axes: B rows, T positions, N chosen tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from harness.errors import HarnessError
from harness.types import Ids
from trainers.objectives.distill import token_kl


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """Rows side by side. Token n is ``targets_N[n]``, predicted at ``places_N[n]`` = row * T + (its position - 1)."""

    ids_BT: torch.Tensor
    places_N: torch.Tensor
    targets_N: torch.Tensor

    def to(self, device: torch.device) -> Padded:
        return Padded(ids_BT=self.ids_BT.to(device), places_N=self.places_N.to(device), targets_N=self.targets_N.to(device))


def pad(rows: Sequence[Ids], masks: Sequence[Sequence[bool]]) -> Padded:
    """Pad rows on the right and point at the tokens whose mask is True, row by row. No rows at all give a row without tokens."""
    if not rows:
        rows, masks = [(0, 0)], [(False, False)]
    width = max(len(row) for row in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    for b, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        ids_BT[b, : len(row)] = torch.tensor(row)
        mask_BT[b, : len(row)] = torch.tensor(mask)
    sampled_N = mask_BT.flatten().nonzero().squeeze(1)
    return Padded(ids_BT=ids_BT, places_N=sampled_N - 1, targets_N=ids_BT.flatten()[sampled_N])


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A frozen next-token distribution at N chosen tokens: hidden states, and the output head as it was when they were made."""

    hidden_NH: torch.Tensor
    weight_VH: torch.Tensor
    bias_V: torch.Tensor | None


class Scorer(nn.Module):
    """A causal language model whose output is the log-probability of chosen tokens; the module that DeepSpeed wraps."""

    def __init__(self, causal: Any, logits_mb: int = 256) -> None:
        super().__init__()
        self.causal = causal
        self._logits_mb = logits_mb

    def forward(self, padded: Padded, temperature: float = 1.0, teacher: Teacher | None = None, states_only: bool = False) -> torch.Tensor:
        """logprobs_N in float32 (float64 for a float64 model), of the distribution sampled from at ``temperature`` (0: that of 1).

        With a teacher two rows (2, N): log-probabilities, and KL(teacher || policy) over the vocabulary. ``states_only``: the hidden
        states (N, H) before the output head, from which a ``Teacher`` is made. One method, because DeepSpeed wraps this call alone.
        """
        hidden_BTH = self.causal.base_model(input_ids=padded.ids_BT, use_cache=False).last_hidden_state
        hidden_NH: torch.Tensor = hidden_BTH.flatten(0, 1).index_select(0, padded.places_N)
        if states_only:
            return hidden_NH
        head = self.causal.get_output_embeddings()
        size = chunk_size(self.causal.config.vocab_size, self._logits_mb)
        if teacher is None:
            return token_logprobs(head, hidden_NH, padded.targets_N, temperature or 1.0, size)
        return token_divergences(head, hidden_NH, padded.targets_N, teacher, temperature or 1.0, max(1, size // 4))


def chunk_size(vocabulary: int, logits_mb: int) -> int:
    """How many tokens' logits fit in ``logits_mb`` MB of float32 (at least one)."""
    return max(1, logits_mb * 2**20 // (4 * vocabulary))


def token_logprobs(head: nn.Module, hidden_NH: torch.Tensor, targets_N: torch.Tensor, temperature: float, size: int) -> torch.Tensor:
    """Log-probabilities of ``targets_N``; above ``size`` tokens in chunks whose logits are freed, and computed again in the backward."""

    def dense(hidden_NH: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        return -nn.functional.cross_entropy(_logits(head(hidden_NH), temperature), targets_N, reduction="none")

    return _in_chunks(dense, size, hidden_NH, targets_N)


def token_divergences(
    head: nn.Module, hidden_NH: torch.Tensor, targets_N: torch.Tensor, teacher: Teacher, temperature: float, size: int
) -> torch.Tensor:
    """Log-probabilities of ``targets_N`` and KL(teacher || policy), as rows (2, N); in chunks like ``token_logprobs``.

    A chunk holds four V-sized tensors a token (both logits, both log-probabilities), so give it a quarter of the size.
    """

    def dense(hidden_NH: torch.Tensor, targets_N: torch.Tensor, teacher_hidden_NH: torch.Tensor) -> torch.Tensor:
        logits_NV = _logits(head(hidden_NH), temperature)
        with torch.no_grad():
            teacher_NV = _logits(nn.functional.linear(teacher_hidden_NH, teacher.weight_VH, teacher.bias_V), temperature)
        logprobs_N = -nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")
        return torch.stack((logprobs_N, token_kl(teacher_NV, logits_NV)))

    return _in_chunks(dense, size, hidden_NH, targets_N, teacher.hidden_NH)


def load_model(directory: Path, dtype: str, gradient_checkpointing: bool = False) -> Any:
    """The causal model stored in ``directory`` with every dropout set to 0, in train mode; its stored config as ``stored_config``."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if not (directory / "config.json").is_file():
        raise HarnessError(f"no model at {directory}: it holds no config.json; give a folder in Hugging Face format")
    disable_progress_bar()
    config = AutoConfig.from_pretrained(directory)
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise HarnessError(f"the model at {directory} rescales its logits ({name}), which the learner does not reproduce; use another")
    stored = copy.deepcopy(config)
    for name, value in config.to_dict().items():
        if isinstance(value, float) and (name.endswith(("dropout", "pdrop")) or "dropout" in name):
            setattr(config, name, 0.0)
    model = AutoModelForCausalLM.from_pretrained(directory, config=config, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    model.stored_config = stored
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _in_chunks(dense: Callable[..., torch.Tensor], size: int, *streams_N: torch.Tensor) -> torch.Tensor:
    """``dense`` over ``size`` tokens at a time, its values joined along their last axis; a chunk is computed again in the backward."""
    if len(streams_N[0]) <= size:
        return dense(*streams_N)
    chunks = zip(*(torch.split(stream, size) for stream in streams_N), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([dense(*chunk) for chunk in chunks], dim=-1)
    return torch.cat([checkpoint(dense, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks], dim=-1)


def _logits(raw_NV: torch.Tensor, temperature: float) -> torch.Tensor:
    """In float32 at least, at the temperature."""
    logits_NV = raw_NV.float() if raw_NV.dtype in (torch.bfloat16, torch.float16) else raw_NV
    return logits_NV if temperature == 1.0 else logits_NV / temperature
