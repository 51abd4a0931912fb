"""Named settings: what the paper prints, and what the authors' published code does (spec: Table 6, Algorithm 1, the released trainer).

A preset speaks of every trainer; keys of a section that the chosen trainer does not have are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config import Section, describe
from harness.errors import unknown

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "learner.lr": 1e-6,
        "tasks_per_step": 32,
        "minibatch_tasks": 16,
        "steps": 64,
        "agent.max_turns": 30,
        "agent.response_tokens": 40_960,
        "search.observation_characters": 8_000,
        "algorithm.group.group_size": 8,
        "algorithm.objective.kl_coef": 0.001,
        "algorithm.objective.clip_low": 0.2,
        "algorithm.objective.clip_high": 0.2,
        "algorithm.guidance.merge": "union",
        "algorithm.guidance.reuse_probes": False,
    },
    "release": {
        "algorithm.group.zero_variance": "keep",
        "algorithm.objective.aggregate": "sequence",
        "algorithm.objective.dual_clip": 3.0,
        "algorithm.objective.kl_clamp": 10.0,
        "algorithm.guidance.merge": "replace",
        "algorithm.guidance.reuse_probes": False,
    },
}


def preset_layer(name: str, config: type[Section]) -> dict[str, Any]:
    """The preset's keys that ``config`` has, dotted. Raises ``UsageError`` for an unknown name."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    known = {row.key for row in describe(config)}
    return {key: value for key, value in PRESETS[name].items() if key in known}
