"""Raw logits of chosen tokens: one dot product a token, the vocabulary is never spread out. Axes: N sampled tokens, H hidden."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.types import Trajectory


class ModelLogits:
    """The model of a directory, loaded when first asked. A logit is what its head gives, before temperature and normalisation."""

    def __init__(self, directory: Path, dtype: str = "float32") -> None:
        self._directory, self._dtype = directory, dtype
        self._model: Any = None

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """Logits of the sampled tokens of each trajectory under its own contexts, row by row without padding."""
        import torch

        from trainers.learner.forward import load_model

        if self._model is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._model = load_model(self._directory, self._dtype).to(device).eval()
        head = self._model.get_output_embeddings()
        rows = []
        for trajectory in trajectories:
            ids_T = torch.tensor(trajectory.ids(), device=head.weight.device)
            sampled_N = torch.tensor(trajectory.sampled_mask(), device=head.weight.device).nonzero().squeeze(1)
            with torch.no_grad():
                hidden_NH = self._model.base_model(input_ids=ids_T[None], use_cache=False).last_hidden_state[0, sampled_N - 1]
                logits_N = (hidden_NH.float() * head.weight[ids_T[sampled_N]].float()).sum(1)
                if getattr(head, "bias", None) is not None:
                    logits_N = logits_N + head.bias[ids_T[sampled_N]].float()
            rows.append(logits_N.tolist())
        return rows
