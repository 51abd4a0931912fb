"""|Delta logit|: how much the plan changes the policy's opinion of each token that was sampled under it (paper, Eq. 5 and Figure 3, bars).

Along guided trajectories, every sampled token is looked at twice, with the plan in the prompt and without it: the difference of its raw
logits, and that of its log-probabilities, which is the shift log r of Eq. 12 with the sign turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean
from typing import Any

from harness.figures import Chart, Finding, Series
from harness.types import Member
from trainers.diagnostics.lab import Lab, by_turn, succeeded

TITLE = "Influence of the plan on tokens"
SHOWN_TOKENS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """One trajectory: mean |Delta logit| and |Delta log-probability| of each turn, and its tokens that changed most."""

    task_id: str
    level: int
    success: bool
    logit: tuple[float, ...]
    logprob: tuple[float, ...]
    tokens: tuple[tuple[int, str, float], ...]  # (turn, token, log-probability with the plan minus without)

    def to_plain(self) -> dict[str, Any]:
        return {
            "task_id": self.task_id,
            "level": self.level,
            "success": self.success,
            "delta_logit_by_turn": list(self.logit),
            "delta_logprob_by_turn": list(self.logprob),
            "tokens": [list(token) for token in self.tokens],
        }


async def diagnose(lab: Lab) -> Finding:
    """One guided trajectory a task, by turn."""
    found = await influences(lab, await lab.guided_attempts())
    logit, logprob = mean_by_turn([i.logit for i in found]), mean_by_turn([i.logprob for i in found])
    charts = (
        curve("|Delta logit| along guided trajectories", "mean |logit difference| of sampled tokens", "with and without plan", logit),
        curve("|Delta log-probability|", "mean difference in nats", "with and without plan", logprob),
    )
    return Finding(
        name="delta-logit",
        title=TITLE,
        step=lab.step,
        summary=tuple(_summary(found, logit, logprob)),
        charts=charts,
        data={"trajectories": [i.to_plain() for i in found], "delta_logit_by_turn": logit, "delta_logprob_by_turn": logprob},
    )


async def influences(lab: Lab, members: Sequence[Member]) -> list[Influence]:
    """Both differences for every trajectory."""
    attempts = [m.attempt for m in members]
    logits, shifts = await lab.delta_logits(attempts), await lab.shifts(attempts)
    found = []
    for member, logit, shift in zip(members, logits, shifts, strict=True):
        attempt = member.attempt
        ids = [(turn, i) for turn, span in enumerate(attempt.trajectory.spans) for i in span.ids]
        top = sorted(range(len(ids)), key=lambda n: -abs(shift[n]))[:SHOWN_TOKENS]
        found.append(
            Influence(
                task_id=attempt.task.id,
                level=attempt.level,
                success=succeeded(member),
                logit=tuple(fmean(map(abs, turn)) for turn in by_turn(attempt, logit)),
                logprob=tuple(fmean(map(abs, turn)) for turn in by_turn(attempt, shift)),
                tokens=tuple((ids[n][0], lab.pieces((ids[n][1],))[0], -shift[n]) for n in top),
            )
        )
    return found


def mean_by_turn(rows: Sequence[Sequence[float]]) -> list[float]:
    """Mean over the rows that reach each turn with a number; NaN where none has one."""
    known = [[row[turn] for row in rows if len(row) > turn and not isnan(row[turn])] for turn in range(max(map(len, rows), default=0))]
    return [fmean(values) if values else nan for values in known]


def curve(title: str, y: str, name: str, values: Sequence[float]) -> Chart:
    """One line over turns, counted from 1."""
    points = tuple((float(turn), value) for turn, value in enumerate(values, start=1))
    return Chart(title=title, x="turn", y=y, series=(Series(name=name, points=points),))


def _summary(found: Sequence[Influence], logit: Sequence[float], logprob: Sequence[float]) -> list[str]:
    lines = [f"{len(found)} guided trajectories, {sum(i.success for i in found)} of them successful"]
    if not logit:
        return [*lines, "no trajectory has a sampled token: nothing to compare"]
    lines += [
        f"turn {n}: |Delta logit| {a:.2f}, |Delta log-probability| {b:.2f} nats"
        for n, (a, b) in enumerate(zip(logit, logprob, strict=True), 1)
    ]
    peak = max(range(len(logit)), key=lambda turn: logit[turn])
    lines.append(f"the plan changes turn {peak + 1} most; the paper finds such spikes where the unguided policy fails (see prefix-pass)")
    tokens = sorted((t for i in found for t in i.tokens), key=lambda t: -abs(t[2]))[:SHOWN_TOKENS]
    lines.append(
        "tokens changed most: " + ", ".join(f"{token!r} at turn {turn + 1} ({change:+.1f} nats)" for turn, token, change in tokens)
    )
    return lines
