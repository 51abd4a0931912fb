"""Named settings: what the paper prints, and what the authors' published code does; and what each setting that they change brings about.

A preset speaks of every trainer; keys of a section that the chosen trainer does not have are left out. ``harness explain`` shows where two
presets differ.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import Section, describe
from harness.registry import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Dotted settings, and in words what their source does that no setting here reproduces."""

    summary: str
    settings: Mapping[str, Any]
    not_reproduced: tuple[str, ...] = ()


SHARED: Mapping[str, Any] = {
    "steps": 64,
    "tasks_per_step": 32,
    "minibatch_tasks": 16,
    "learner.lr": 1e-6,
    "learner.betas": (0.9, 0.999),
    "learner.weight_decay": 0.01,
    "learner.grad_clip": 1.0,
    "agent.max_turns": 30,
    "agent.response_tokens": 40_960,
    "agent.temperature": 1.0,
    "search.observation_characters": 8_000,
    "algorithm.group.group_size": 8,
    "algorithm.objective.clip_low": 0.2,
    "algorithm.objective.clip_high": 0.2,
    "algorithm.objective.kl": "k3",
    "algorithm.objective.kl_coef": 0.001,
    "algorithm.objective.log_ratio_clamp": 20.0,
    "algorithm.guidance.fallback": True,
    "algorithm.guidance.reuse_probes": False,
    "algorithm.guidance.train_view": "unguided",
    "algorithm.guidance.injection": "plan",
}
"""What Table 6 and the published code agree on, and what Table 6 leaves to the code. Both presets name the same settings: no model's own
entry may show through."""

PAPER = Preset(
    summary="Table 6, and Algorithm 1 to the letter",
    settings={
        **SHARED,
        "denominator": "engine",
        "algorithm.group.zero_variance": "drop",
        "algorithm.objective.aggregate": "token",
        "algorithm.objective.kl_aggregate": "trajectory",
        "algorithm.objective.dual_clip": None,
        "algorithm.objective.kl_clamp": None,
        "algorithm.guidance.search": "verified",
        "algorithm.guidance.probe_budget": None,
        "algorithm.guidance.probe_size": None,
        "algorithm.guidance.merge": "union",
    },
    not_reproduced=(
        "Eq. 11 is that of one group, and Algorithm 1 pools all of them; here those of a mini-batch are pooled (aggregate=group does not).",
        "The paper does not say whether groups of equal rewards stay in the batch; here they leave it (zero_variance=keep keeps them).",
        "The paper names no probe budget; ceil(log2 L) + 1 is used, which always ends the search.",
        "The wording of prompts and plans is this project's own.",
    ),
)

RELEASE = Preset(
    summary="what the authors' published code does",
    settings={
        **SHARED,
        "denominator": "learner",
        "algorithm.group.zero_variance": "keep",
        "algorithm.objective.aggregate": "sequence",
        "algorithm.objective.kl_aggregate": "token",
        "algorithm.objective.dual_clip": 3.0,
        "algorithm.objective.kl_clamp": 10.0,
        "algorithm.guidance.search": "release",
        "algorithm.guidance.probe_budget": 5,
        "algorithm.guidance.probe_size": 2,
        "algorithm.guidance.merge": "replace",
    },
    not_reproduced=(
        "Their OPSD has a gradient that does not depend on the teacher; here it does.",
        "A trajectory that the judge could not score counts as 0 there; here it leaves the group's statistics.",
        "Their loss is a mean over the sequences of a micro-batch of one; aggregate=sequence is the same mean over the whole mini-batch.",
        "The wording of prompts and plans is this project's own.",
    ),
)


def consequences() -> dict[str, str]:
    """Setting -> what it brings about, in one sentence."""
    text = (Path(__file__).parent / "consequences.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def preset_layer(name: str, config: type[Section]) -> dict[str, Any]:
    """The preset's keys that ``config`` has, dotted. Raises ``UsageError`` for an unknown name."""
    preset: Preset = load("presets", name)
    known = {row.key for row in describe(config)}
    return {key: value for key, value in preset.settings.items() if key in known}
