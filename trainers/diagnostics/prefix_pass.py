"""Prefix Pass@K: from which state of a guided trajectory can the policy go on alone (paper, Eq. 5 and Figure 3)?

From every state of a guided trajectory, K unguided continuations are sampled: the turns before it are replayed, in the same environment
and under the prompt without the plan, then the policy goes on by itself. The success of the state is that of its best continuation.

Where guidance is itself made of replayed turns (injection ``messages``), there is no plan to take away: the history is the state. The
states are those before each given turn, the question alone being the first, and those before each sampled one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan, sqrt
from statistics import fmean, stdev
from typing import Any

from harness.engines.base import Capability, Engine, Request, Weights, request_seed
from harness.figures import Chart, Finding, Series
from harness.guide import Guide
from harness.types import Action, Ids, Member, Purpose, Span
from trainers.diagnostics.delta_logit import Influence, curve, influences, mean_by_turn
from trainers.diagnostics.lab import Lab, succeeded
from trainers.rollouts import StepRollouts

TITLE = "Reach of the unguided policy along guided trajectories"


class Replay:
    """An engine that says what was sampled before, then lets another go on: in every session, first ``spans``, then ``engine``."""

    def __init__(self, engine: Engine, spans: Sequence[Span]) -> None:
        self.capabilities: frozenset[Capability] = engine.capabilities
        self.version = engine.version
        self._engine, self._spans = engine, spans
        self._turns: Counter[str] = Counter()

    async def generate(self, request: Request) -> Span:
        turn = self._turns[request.session]
        self._turns[request.session] += 1
        return self._spans[turn] if turn < len(self._spans) else await self._engine.generate(request)

    async def score(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        return await self._engine.score(sequences, temperature)

    async def sync(self, weights: Weights, version: int) -> str:
        return await self._engine.sync(weights, version)

    async def close(self) -> None:
        """The engine behind it stays open: it is its owner's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One task: of each state before a turn, how many continuations were judged and how many succeeded. The first ``given`` turns were
    replayed."""

    task_id: str
    level: int
    given: int
    success: bool
    judged: tuple[int, ...]
    successes: tuple[int, ...]

    @property
    def reached(self) -> tuple[float, ...]:
        """max Y over the continuations of each state: 1.0 or 0.0, NaN where none of them could be judged."""
        return tuple(float(c > 0) if n else nan for c, n in zip(self.successes, self.judged, strict=True))

    @property
    def rates(self) -> tuple[float, ...]:
        """Share of the judged continuations that succeed."""
        return tuple(c / n if n else nan for c, n in zip(self.successes, self.judged, strict=True))

    @property
    def first(self) -> int | None:
        """The first state from which some continuation succeeds, None if there is none."""
        return next((state for state, count in enumerate(self.successes) if count), None)

    def to_plain(self) -> dict[str, Any]:
        return {
            "task_id": self.task_id,
            "level": self.level,
            "given": self.given,
            "success": self.success,
            "judged": list(self.judged),
            "successes": list(self.successes),
            "first_reachable_state": self.first,
        }


async def diagnose(lab: Lab) -> Finding:
    """Pass@K of every state, with |Delta logit| of the same trajectories beside it."""
    members = await lab.guided_attempts()
    paths = await asyncio.gather(*(_path(lab, member) for member in members))
    passed, rates = mean_by_turn([p.reached for p in paths]), mean_by_turn([p.rates for p in paths])
    shifts = _shifts(paths, await influences(lab, members))
    influence = mean_by_turn(shifts)
    k = lab.amounts.continuations
    both = tuple(
        Series(name=name, points=tuple((float(turn), value) for turn, value in enumerate(values, 1)))
        for name, values in ((f"pass@{k}", passed), ("one continuation", rates))
    )
    charts = (
        Chart(
            title=f"Prefix Pass@{k}", x="turn", y="share of states before this turn from which the unguided policy succeeds", series=both
        ),
        curve("|Delta logit| of the same turns", "mean |logit difference| of sampled tokens", "with and without guidance", influence),
    )
    return Finding(
        name="prefix-pass",
        title=TITLE,
        step=lab.step,
        summary=tuple(_summary(paths, passed, rates, shifts, k)),
        charts=charts,
        data={
            "k": k,
            "paths": [p.to_plain() for p in paths],
            "pass": _known(passed),
            "rate": _known(rates),
            "delta_logit_by_turn": _known(influence),
        },
    )


async def _path(lab: Lab, member: Member) -> Path:
    attempt = member.attempt
    given, spans = lab.inject(attempt.task.actions, attempt.level).replay, attempt.trajectory.spans
    before = [*((given[:n], ()) for n in range(len(given))), *((given, spans[:n]) for n in range(len(spans)))]
    states = await asyncio.gather(*(_continue(lab, member, replayed, said) for replayed, said in before))
    judged = [[m for m in state if m.score.value is not None] for state in states]
    return Path(
        task_id=attempt.task.id,
        level=attempt.level,
        given=len(given),
        success=succeeded(member),
        judged=tuple(map(len, judged)),
        successes=tuple(sum(map(succeeded, state)) for state in judged),
    )


async def _continue(lab: Lab, member: Member, given: tuple[Action, ...], said: tuple[Span, ...]) -> tuple[Member, ...]:
    """Continuations from the state behind the ``given`` turns and those that were ``said``; every state has its own noise."""
    attempt, size = member.attempt, lab.amounts.continuations
    rollouts = StepRollouts(
        sampler=replace(lab.sampler, engine=Replay(lab.engine, said)),
        run_seed=request_seed(lab.seed, "prefix", attempt.level, len(given) + len(said)),
        step=lab.step,
    )
    if not given:
        return await rollouts.sample(attempt.task, size=size)
    guide = Guide(replay=given, keep_replay=True)
    return await rollouts.sample(attempt.task, size=size, level=len(given), guide=guide, purpose=Purpose.PROBE)


def _shifts(paths: Sequence[Path], found: Sequence[Influence]) -> list[tuple[float, ...]]:
    """|Delta logit| of each turn of each trajectory; NaN where the turn was given, so that nothing was sampled there."""
    return [(*((nan,) * path.given), *influence.logit) for path, influence in zip(paths, found, strict=True)]


def _known(values: Sequence[float]) -> list[float | None]:
    """As JSON has it."""
    return [None if isnan(value) else value for value in values]


def _summary(
    paths: Sequence[Path], passed: Sequence[float], rates: Sequence[float], influence: Sequence[Sequence[float]], k: int
) -> list[str]:
    easy = sum(p.first == 0 for p in paths)
    never = sum(p.first is None for p in paths)
    lines = [
        f"{len(paths)} guided trajectories, {sum(p.success for p in paths)} of them successful; {k} unguided continuations a state",
        f"tasks with reward in reach from the start (easy): {easy}; only from a later state: {len(paths) - easy - never}; never: {never}",
    ]
    for turn, (share, rate) in enumerate(zip(passed, rates, strict=True), 1):
        known = "no continuation could be judged" if isnan(share) else f"pass@{k} {share:.0%}, one continuation {rate:.1%}"
        lines.append(f"before turn {turn}: {known}")
    lines.append(_at_the_barrier(paths, influence))
    if any(path.given for path in paths):
        lines.append("the first turns of these trajectories were replayed, not sampled: they stay in view as part of the state")
    return lines


def _at_the_barrier(paths: Sequence[Path], influence: Sequence[Sequence[float]]) -> str:
    """Whether guidance shifts logits more on the turns before reward is in reach: each trajectory is compared with itself, and a difference
    within twice its standard error is none. ``influence``: |Delta logit| of each turn of each trajectory, NaN where nothing was sampled."""
    gaps = []
    for path, row in zip(paths, influence, strict=True):
        first = len(row) if path.first is None else path.first
        before, behind = ([value for value in part if not isnan(value)] for part in (row[:first], row[first:]))
        if before and behind:
            gaps.append(fmean(before) - fmean(behind))
    words = "|Delta logit| on the turns before reward is in reach, minus that on the turns behind"
    if len(gaps) < 2:
        return f"{words}: {len(gaps)} of {len(paths)} trajectories have both, too few to compare; the paper finds it higher before"
    mean, error = fmean(gaps), stdev(gaps) / sqrt(len(gaps))
    verdict = "higher before, as the paper finds" if mean > 0 else "NOT higher before, as the paper finds it to be"
    if abs(mean) <= 2 * error:
        verdict = "cannot be told from zero; the paper finds it higher before"
    return f"{words}: {mean:+.2f} ({len(gaps)} trajectories, standard error {error:.2f}): {verdict}"
