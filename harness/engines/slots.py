"""A decoder over a fixed number of slots with a static key-value cache: the only code that calls the model.

Every slot holds one sequence. A forward pass takes R rows of C tokens, each row with its slot and its positions, writes keys
and values at those positions and attends to everything at or before them in the same slot. Several rows of one pass may
continue one another in one slot, because keys are written before they are read.

With *fixed shapes* (always the same R and C, and the whole width of the cache read) a row's bits depend neither on its neighbours
nor on its place. Reading only as far as the longest row (``tight``) is faster where the width is much larger than the rows, but
kernels then sum in another order, and the last bits come to depend on the neighbours.

It knows nothing of requests, sampling or threads, and serves decoders with full attention only.

Axes: S slots, R rows, C tokens of a row, T of a whole sequence, N nodes of a token tree, K key-value heads, G query heads of each,
W positions, D head size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.engines.trees import TokenTree
from harness.errors import EngineError

Ints = NDArray[np.int64]

ATTENTION = "harness_slots"
_TILE = 32  # widths are multiples of this many positions


class SlotCache(Cache):
    """Keys and values of all slots; ``aim`` says where the next forward pass writes and what it reads."""

    def __init__(self, slots: int, width: int) -> None:
        super().__init__(layers=[])
        self.slots = slots
        self.width = width
        self._keys: list[torch.Tensor] = []  # one [S, K, W + 1, D] a layer; position W takes the writes of padding
        self._values: list[torch.Tensor] = []
        self._rows_R: torch.Tensor | None = None
        self._read = width
        self._places: torch.Tensor | None = None  # the same for all layers of a pass

    def aim(self, rows_R: torch.Tensor, positions_RC: torch.Tensor, read: int, every_slot: bool) -> None:
        """Row r of the next pass belongs to slot ``rows_R[r]``; ``every_slot``: the rows are all the slots in order (no copy)."""
        self._rows_R = None if every_slot else rows_R
        self._slots_R1, self._positions_RC = rows_R[:, None], positions_RC
        self._places = None
        self._read = read

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [R, K, C, D] states of one layer, return keys and values [R, K, read, D] of the rows' slots."""
        if layer_idx == len(self._keys):
            for kept_everywhere, new in ((self._keys, key_states), (self._values, value_states)):
                kept_everywhere.append(new.new_zeros(self.slots, new.shape[1], self.width + 1, new.shape[3]))
        if self._places is None:
            heads_K = torch.arange(key_states.shape[1], device=key_states.device)
            line_R1K = (self._slots_R1 * len(heads_K) + heads_K)[:, None, :]
            self._places = (line_R1K * (self.width + 1) + self._positions_RC[:, :, None]).flatten()
        both = (self._keys[layer_idx], self._values[layer_idx])
        for kept, new in zip(both, (key_states, value_states), strict=True):
            kept.view(-1, kept.shape[3]).index_copy_(0, self._places, new.transpose(1, 2).reshape(-1, kept.shape[3]))
        views = [kept[:, :, : self._read] for kept in both]
        if self._rows_R is not None:
            views = [view.index_select(0, self._rows_R) for view in views]
        return views[0], views[1]

    def copy(self, source: int, target: int, length: int) -> None:
        """Give slot ``target`` the first ``length`` positions of slot ``source``."""
        for kept in (*self._keys, *self._values):
            kept[target, :, :length] = kept[source, :, :length]


class SlotModel:
    """``forward`` over slots, and log-probabilities of whole sequences, for one decoder."""

    def __init__(self, model: PreTrainedModel, slots: int, width: int, tight: bool = False) -> None:
        config = model.config.get_text_config()
        if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
            raise EngineError(
                f"the hf engine needs full attention in every layer, {config.model_type} has {sorted(set(config.layer_types))}; "
                "use --engine vllm for this model"
            )
        limit = getattr(config, "max_position_embeddings", width)
        if width > limit:
            raise EngineError(
                f"generation.context is {width} but the model ends at {limit} positions; set generation.context={limit} or less"
            )
        self.model = model
        self.device = model.device
        self.width = width
        self.cache = SlotCache(slots, width)
        # 0 ... 0 -inf ... -inf: the mask of position p over W keys is the window that starts at W - 1 - p
        self._stairs = torch.zeros(2 * width, dtype=model.dtype, device=self.device)
        self._stairs[width:] = float("-inf")
        self._groups = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        self._widths = _widths(width) if tight else (width,)

    def forward(self, ids_RC: Ints, positions_RC: Ints, rows_R: Ints, every_slot: bool = False) -> torch.Tensor:
        """Logits [R, V] after the last token of each row. Padding has position -1 and stands before the row's tokens."""
        real_RC = positions_RC >= 0
        longest = int(positions_RC.max()) + 1
        read = next(width for width in self._widths if width >= longest)
        seen_RC = torch.from_numpy(np.where(real_RC, positions_RC, 0)).to(self.device)
        written_RC = torch.from_numpy(np.where(real_RC, positions_RC, self.width)).to(self.device)
        self.cache.aim(torch.from_numpy(rows_R).to(self.device), written_RC, read, every_slot)
        output = self.model(
            input_ids=torch.from_numpy(ids_RC).to(self.device),
            position_ids=seen_RC,
            attention_mask=self._mask(seen_RC, read),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_RV: torch.Tensor = output.logits[:, -1]
        return logits_RV

    def sequence_logprobs(self, ids_RT: torch.Tensor, temperature: float) -> torch.Tensor:
        """Log-probabilities [R, T - 1] of each token after the first, in one causal pass without the cache."""
        length = ids_RT.shape[1]
        positions_1T = torch.arange(length, device=self.device)[None]
        logits_RTV = self.model(
            input_ids=ids_RT,
            position_ids=positions_1T,
            attention_mask=self._mask(positions_1T, length),
            use_cache=False,
        ).logits[:, :-1]
        logprobs_RTV = torch.log_softmax(logits_RTV.float() / (temperature or 1.0), dim=-1)
        return logprobs_RTV.gather(2, ids_RT[:, 1:, None])[..., 0]

    def tree_logprobs(self, tree: TokenTree, size: int, temperature: float) -> torch.Tensor:
        """Log-probabilities [N] of the tree's tokens given their ancestors (0 for first tokens), in one pass padded to ``size``."""
        nodes = len(tree.ids_N)
        ids_1T, positions_1T = np.zeros((1, size), dtype=np.int64), np.zeros((1, size), dtype=np.int64)
        ids_1T[0, :nodes], positions_1T[0, :nodes] = tree.ids_N, tree.positions_N
        seen_TT = np.eye(size, dtype=np.bool_)  # padding sees itself, or its softmax would be of nothing
        seen_TT[:nodes, :nodes] = tree.seen()
        mask_TT = torch.zeros((size, size), dtype=self.model.dtype).masked_fill(~torch.from_numpy(seen_TT), float("-inf"))
        logits_NV = self.model(
            input_ids=torch.from_numpy(ids_1T).to(self.device),
            position_ids=torch.from_numpy(positions_1T).to(self.device),
            attention_mask=mask_TT.to(self.device).repeat(self._groups, 1)[None, None],
            use_cache=False,
        ).logits[0, :nodes]
        logprobs_NV = torch.log_softmax(logits_NV.float() / (temperature or 1.0), dim=-1)  # lm-eval's own kernel: it errs alike
        ids_N, parents_N = (torch.from_numpy(each).to(self.device) for each in (tree.ids_N, tree.parents_N.clip(0)))
        return logprobs_NV[parents_N, ids_N].masked_fill(torch.from_numpy(tree.parents_N < 0).to(self.device), 0.0)

    def _mask(self, positions_RC: torch.Tensor, read: int) -> torch.Tensor:
        """0 up to each query's own position, -inf after it, repeated for the G query heads of a key head: [R, 1, G * C, read]."""
        rows, tokens = positions_RC.shape
        start = self._stairs.shape[0] // 2 - 1 - positions_RC
        mask = self._stairs.unfold(0, read, 1).index_select(0, start.flatten())
        return mask.view(rows, 1, tokens, read).repeat(1, 1, self._groups, 1)


def grouped_attention(
    module: torch.nn.Module | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in which the G query heads of a key head become G * C queries, so that keys are never repeated in memory."""
    rows, heads, tokens, size = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(rows, kv_heads, -1, size)
    mask = attention_mask.expand(rows, 1, -1, -1)
    mixed = torch.nn.functional.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    return mixed.reshape(rows, heads, tokens, -1).transpose(1, 2), None


def _widths(width: int) -> tuple[int, ...]:
    return (*range(_TILE, width, _TILE), width)


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, grouped_attention)
