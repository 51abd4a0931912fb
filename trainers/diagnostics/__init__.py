"""Diagnostics of guidance by name (the paper's Figures 3, 4, 6, 8 and Table 7), each ``async (Lab) -> Finding``; none trains anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from harness.errors import unknown

if TYPE_CHECKING:
    from harness.figures import Finding
    from trainers.diagnostics.lab import Lab

DIAGNOSTICS: Mapping[str, str] = {
    "delta-logit": "trainers.diagnostics.delta_logit:diagnose",
    "prefix-pass": "trainers.diagnostics.prefix_pass:diagnose",
    "off-policy-risk": "trainers.diagnostics.off_policy_risk:diagnose",
    "guided-reward": "trainers.diagnostics.guided_reward:diagnose",
    "turns": "trainers.diagnostics.turns:diagnose",
}


def load_diagnostic(name: str) -> Callable[[Lab], Awaitable[Finding]]:
    """The diagnostic of that name. Raises ``UsageError`` for an unknown one."""
    if name not in DIAGNOSTICS:
        raise unknown("diagnostic", name, DIAGNOSTICS)
    module, _, function = DIAGNOSTICS[name].partition(":")
    found: Callable[[Lab], Awaitable[Finding]] = getattr(import_module(module), function)
    return found
