"""What a run will hold in each GPU's memory, worked out before anything is loaded.

Byte counts follow from the settings: ZeRO (Rajbhandari et al., 2020, section 3.1) for weights, gradients and Adam's states; the key-value
cache from the engine's share. Activations are an upper estimate for SDPA attention, which keeps no T x T matrix. Nothing here was fitted
to a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.models import Shape
from trainers.config import RunConfig

GIB = 1024**3
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_LAYER_WIDTHS = 10  # hidden-sized tensors that one layer's backward keeps beside q, k, v and the MLP: norms, residuals, attention out, ...
_CONTEXT = 1.5 * GIB  # CUDA context, NCCL buffers, fragmentation, one gathered layer under ZeRO-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that takes memory on every GPU, in bytes, and where the number comes from."""

    what: str
    bytes: float
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """``lines`` of the fullest GPU of ``gpu_gib`` GiB, and the tokens that each engine's key-value cache can hold."""

    lines: tuple[Line, ...]
    gpu_gib: float
    cache_tokens: int

    @property
    def total(self) -> float:
        return sum(line.bytes for line in self.lines)

    @property
    def fits(self) -> bool:
        return self.total <= self.gpu_gib * GIB and self.cache_tokens > 0

    def words(self) -> list[str]:
        """The plan as lines of text, the verdict last."""
        said = [f"{line.bytes / GIB:7.1f} GiB  {line.what}  ({line.because})" for line in self.lines]
        room = f"room for {self.cache_tokens:,} cached tokens an engine"
        said.append(f"{self.total / GIB:7.1f} GiB  of {self.gpu_gib:g} GiB on the fullest GPU; {room}")
        if not self.fits:
            said.append(
                "does not fit: lower generation.gpu_memory or learner.microbatch_tokens, raise learner.zero_stage or learner.ranks, "
                "or set learner.offload=optimizer"
            )
        return said


def memory_plan(config: RunConfig, shape: Shape, gpu_gib: float) -> MemoryPlan:
    """Learner ranks and engine replicas share GPUs one to one, which is how ``harness run`` places them on one machine."""
    learner, generation = config.learner, config.generation
    size, ranks, stage = _BYTES[learner.dtype], learner.ranks, learner.zero_stage
    count = shape.parameters
    master = 12 if learner.dtype == "bfloat16" else 8  # Adam's two moments, and with bfloat16 the float32 weights
    lines = [
        Line(
            what="learner: weights",
            bytes=0.0 if learner.offload == "all" else count * size / (ranks if stage == 3 else 1),
            because=f"{count:,} x {size} bytes, ZeRO {stage} over {ranks} ranks",
        ),
        Line(what="learner: gradients", bytes=count * size / (ranks if stage >= 2 else 1), because=f"{size} bytes a weight"),
        Line(
            what="learner: optimiser",
            bytes=0.0 if learner.offload != "none" else count * master / (ranks if stage >= 1 else 1),
            because="in CPU memory" if learner.offload != "none" else f"{master} bytes a weight",
        ),
        Line(what="learner: reference policy", bytes=float(count * size), because="a whole frozen copy on each rank"),
        Line(what="learner: activations", bytes=_activations(config, shape), because=_activations_because(config)),
        Line(what="learner: logits", bytes=3.0 * learner.logits_mb * 1024**2, because="logits, softmax and gradient of one chunk"),
        Line(what="CUDA, NCCL, gathered layer", bytes=_CONTEXT, because="flat estimate"),
    ]
    weights = shape.parameters * _BYTES[generation.dtype] / generation.tensor_parallel
    if config.engine == "vllm":
        share = generation.gpu_memory * gpu_gib * GIB
        lines.append(Line(what="engine: weights and cache", bytes=share, because=f"generation.gpu_memory={generation.gpu_memory}"))
    else:
        share = weights + generation.slots * generation.context * shape.cache_bytes(_BYTES[generation.dtype])
        lines.append(Line(what="engine: weights and cache", bytes=share, because="slots x context"))
    per_token = shape.cache_bytes(_BYTES[generation.dtype]) / generation.tensor_parallel
    return MemoryPlan(lines=tuple(lines), gpu_gib=gpu_gib, cache_tokens=max(0, int((share - weights) / per_token)))


def _activations(config: RunConfig, shape: Shape) -> float:
    """One micro-batch: what all layers keep for the backward, or with checkpointing their inputs and one layer in full."""
    learner = config.learner
    tokens, size = max(learner.microbatch_tokens, config.agent.context_tokens), _BYTES[learner.dtype]
    layer = tokens * size * (_LAYER_WIDTHS * shape.hidden + (shape.heads + 2 * shape.kv_heads) * shape.head_dim + 4 * shape.intermediate)
    if learner.gradient_checkpointing:
        return tokens * size * shape.hidden * shape.layers + layer
    return float(layer * shape.layers)


def _activations_because(config: RunConfig) -> str:
    tokens = max(config.learner.microbatch_tokens, config.agent.context_tokens)
    return f"{tokens:,} tokens" + (", recomputed layer by layer" if config.learner.gradient_checkpointing else "")
