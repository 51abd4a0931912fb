"""What a training step looked like, as the numbers of the run log. Pure, but for the arrays that the caller's log stores."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.types import Group, Member, Outcome
from trainers.learner.base import UpdateReport
from trainers.sample import Sample

CREDIT_TOKENS = 2**20
"""Tokens of a step whose ratio and advantage are recorded one by one: at most 8 MiB. Of more, every row keeps an equal share, its first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Wall-clock seconds of the three parts of a step."""

    rollout: float
    update: float
    sync: float


def credit_record(
    step: int,
    samples: Sequence[Sample],
    report: UpdateReport | None,
    store: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    most: int = CREDIT_TOKENS,
) -> dict[str, Any]:
    """What each trained row earned. Where the update took a ratio, ``store`` keeps those of its tokens, and the row names the place.

    An objective without a ratio (supervision, distillation) takes no advantage either.
    """
    ratios = report.row_ratios if report else {}
    kept = most // max(len(samples), 1)
    rows = []
    for s in samples:
        found = ratios.get(s.attempt_id)
        arrays = None if found is None else {"ratios": list(found[:kept]), "advantages": list(s.advantages[:kept])}
        rows.append(
            {
                "attempt_id": s.attempt_id,
                "advantage": None if found is None else s.advantages[0],
                "tokens": len(s.behaviour),
                "guided": s.guided,
                "ratio_mean": fmean(found) if found else None,
                "trained": True,
                "blob": None if arrays is None else store(arrays),
            }
        )
    return {"step": step, "rows": rows}


def step_record(
    step: int,
    groups: Sequence[Group],
    samples: Sequence[Sample],
    report: UpdateReport | None,
    mismatch: Sequence[float],
    spent: Spent,
    generated_total: int,
) -> dict[str, Any]:
    """Metrics and histograms of one step; a metric that has no value this step is left out."""
    generated = sum(m.attempt.trajectory.sampled_tokens for m in _drawn(groups))
    seconds = spent.rollout + spent.update + spent.sync
    metrics: dict[str, float | None] = {
        **({**_group_metrics(groups, samples), **_probe_metrics(groups)} if groups else {}),
        **_length_metrics(groups),
        "rows/trained": len(samples),
        "tokens/generated": generated,
        "tokens/generated_total": generated_total,
        "mismatch/logprob_max": max(mismatch, default=None),
        "mismatch/logprob_mean": fmean(mismatch) if mismatch else None,
        "time/rollout": spent.rollout,
        "time/update": spent.update,
        "time/sync": spent.sync,
        "time/step": seconds,
        "memory/peak_mb": peak_memory_mb(),
        "throughput/tokens_per_s": generated / spent.rollout if spent.rollout else None,
        **(report.metrics if report else {"tokens/trained": 0}),
    }
    histograms = {
        name: {"edges": list(edges), "counts": list(counts)} for name, (edges, counts) in (report.histograms if report else {}).items()
    }
    levels = Counter(g.level for g in groups if g.level is not None)
    if levels:
        top = max(levels)
        histograms["guidance/level"] = {"edges": [k - 0.5 for k in range(1, top + 2)], "counts": [levels[k] for k in range(1, top + 1)]}
    return {"step": step, "metrics": {k: v for k, v in metrics.items() if v is not None}, "histograms": histograms}


def peak_memory_mb() -> float:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _drawn(groups: Sequence[Group]) -> list[Member]:
    return [m for g in groups for m in (*g.members, *g.discarded)]


def _group_metrics(groups: Sequence[Group], samples: Sequence[Sample]) -> dict[str, float | None]:
    outcomes = Counter(g.outcome for g in groups)
    trainable = len({s.group_id for s in samples})
    scored = [(m.attempt.level, m.score.value) for m in _drawn(groups) if m.score.value is not None]
    unguided = [value for level, value in scored if level == 0]
    member_rewards = [m.score.value for g in groups for m in g.members if m.score.value is not None]
    levels = [g.level for g in groups if g.level is not None]
    return {
        "reward/unguided_mean": fmean(unguided) if unguided else None,
        "reward/mean": fmean(member_rewards) if member_rewards else None,
        "groups/total": len(groups),
        "groups/trainable": trainable,
        "groups/trainable_unguided": sum(map(_varies_unguided, groups)),
        **{f"groups/{outcome}": outcomes[outcome] for outcome in Outcome},
        "attempts/unscorable": sum(m.score.value is None for m in _drawn(groups)),
        "guided/share": sum(s.guided for s in samples) / len(samples) if samples else 0.0,
        "guidance/level_mean": fmean(levels) if levels else None,
    }


def _varies_unguided(group: Group) -> bool:
    """Whether the group would train without guidance: the rewards of its unguided trajectories differ."""
    rewards = {m.score.value for m in (*group.members, *group.discarded) if m.attempt.level == 0 and m.score.value is not None}
    return len(rewards) > 1


def _probe_metrics(groups: Sequence[Group]) -> dict[str, float | None]:
    """What guidance cost: every trajectory drawn under it, those of them that were not trained, and the levels that were tried."""
    drawn = [m.attempt for m in _drawn(groups) if m.attempt.level > 0]
    wasted = [m.attempt for g in groups for m in g.discarded if m.attempt.level > 0]
    return {
        "guidance/probe_trajectories": len(drawn),
        "guidance/probe_tokens": sum(a.trajectory.sampled_tokens for a in drawn),
        "guidance/discarded_trajectories": len(wasted),
        "guidance/discarded_tokens": sum(a.trajectory.sampled_tokens for a in wasted),
        "guidance/levels_tried": sum(len(g.probes) for g in groups),
    }


def _length_metrics(groups: Sequence[Group]) -> dict[str, float | None]:
    """Means over unguided trajectories, and over guided ones where there are any."""
    found: dict[str, float | None] = {}
    for prefix, guided in (("length/", False), ("length/guided_", True)):
        attempts = [m.attempt for m in _drawn(groups) if (m.attempt.level > 0) is guided]
        if attempts:
            found[prefix + "turns_mean"] = fmean(len(a.turns) for a in attempts)
            found[prefix + "tokens_mean"] = fmean(a.trajectory.sampled_tokens for a in attempts)
    return found
