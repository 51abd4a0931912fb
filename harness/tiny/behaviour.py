"""Whether a tiny model is the base it should be: at home on one hop, obedient to plans, undecided on many hops.

Measured by behaviour, over the validation worlds, with the real episode loop: greedy accuracy on 1-hop questions; how many rollouts
follow a whole plan; pass@1 and pass@8 on 3-hop questions at temperature 1; the entropy, in roles, of what it visits when a question has
three hops; the share of rollouts that succeed under the whole plan, and under that of another question, which should help nothing; and the
share of unguided ones that the response budget cuts. ``zero_rl`` is measured by training (``harness tiny`` does that): how far RL alone
takes it, on validation questions. Where that is not low, guidance has little to add.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence

from harness.chat import Chat
from harness.engines.base import Engine
from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig, Draw, run_episode
from harness.guide import UNGUIDED, Guide
from harness.metrics import pass_at_k
from harness.tasks.miniweb import MiniWeb
from harness.types import Action, Attempt, Purpose, Status, Task

Plan = Callable[[Sequence[Action], int], str]

BOUNDS: dict[str, tuple[float, float]] = {  # what is accepted
    "one_hop": (0.9, 1.0),
    "follows_plan": (0.9, 1.0),
    "pass@1": (0.0, 0.06),
    "pass@8": (0.02, 0.35),
    "role_entropy": (1.2, math.log(5) + 1e-9),
    "plan_success": (0.8, 1.0),  # lower means that guided groups succeed by luck
    "foreign_plan": (0.0, 0.08),  # more means that the presence of a plan helps, whatever it says
    "truncated": (0.0, 0.02),
    "zero_rl": (0.0, 0.15),
}


async def measure(engine: Engine, chat: Chat, plan: Plan, tasks: int = 64, episodes: int = 32) -> dict[str, float]:
    """The numbers of ``BOUNDS`` but ``zero_rl``; ``tasks`` questions of each kind, ``episodes`` open at once."""
    gate = asyncio.Semaphore(episodes)
    one_hop = MiniWeb(hops=(1,), questions=8, worlds={"validation": 8}).load(None)
    many = MiniWeb(hops=(3,), questions=8, worlds={"validation": 8}).load(None)
    limits = SearchLimits(results=1)
    agent = AgentConfig(max_turns=6, response_tokens=200, context_tokens=256)

    async def attempt(task: Task, *, index: int = 0, level: int = 0, temperature: float, planned: Task | None = None) -> Attempt:
        guide = Guide(hints=(plan((planned or task).actions, level),)) if level else UNGUIDED
        draw = Draw(task=task, run_seed=0, purpose=Purpose.PROBE, level=level, index=index, guide=guide)
        env = SearchEnv((one_hop if task.tags["hops"] == "1" else many).web(task.web), limits)
        async with gate:
            return await run_episode(draw, env=env, engine=engine, chat=chat, config=agent, temperature=temperature)

    single = await asyncio.gather(*(attempt(t, temperature=0.0) for t in one_hop.split("validation")[:tasks]))
    chosen = many.split("validation")[:tasks]
    guided = await asyncio.gather(*(attempt(t, level=len(t.actions), temperature=0.0) for t in chosen))
    groups = await asyncio.gather(*(asyncio.gather(*(attempt(t, index=i, temperature=1.0) for i in range(8))) for t in chosen))
    right = [sum(_right(a) for a in group) for group in groups]
    sampled = await asyncio.gather(*(attempt(t, index=i, level=len(t.actions), temperature=1.0) for t in chosen for i in range(4)))
    others = [*chosen[1:], chosen[0]]
    foreign = await asyncio.gather(
        *(
            attempt(t, index=i, level=len(t.actions), temperature=1.0, planned=o)
            for t, o in zip(chosen, others, strict=True)
            for i in range(4)
        )
    )
    return {
        "one_hop": sum(map(_right, single)) / len(single),
        "follows_plan": sum(_actions(a) == list(a.task.actions) for a in guided) / len(guided),
        "pass@1": sum(pass_at_k(8, c, 1) for c in right) / len(right),
        "pass@8": sum(pass_at_k(8, c, 8) for c in right) / len(right),
        "role_entropy": _role_entropy([a for group in groups for a in group]),
        "plan_success": sum(map(_right, sampled)) / len(sampled),
        "foreign_plan": sum(map(_right, foreign)) / len(foreign),
        "truncated": sum(a.status is Status.TRUNCATED for group in groups for a in group) / sum(map(len, groups)),
    }


def unacceptable(measured: dict[str, float]) -> list[str]:
    """One sentence per number outside its bounds."""
    return [
        f"{name} is {value:.3f}, accepted are {low:.2f} to {high:.2f}"
        for name, value in measured.items()
        for low, high in [BOUNDS[name]]
        if not low <= value <= high
    ]


def _right(attempt: Attempt) -> bool:
    return attempt.answer in attempt.task.gold


def _actions(attempt: Attempt) -> list[Action]:
    return [action for turn in attempt.turns for action in turn.actions]


def _role_entropy(attempts: Sequence[Attempt]) -> float:
    """Entropy (nats) of the place on the page of the first person visited after the search; ln 5 = every link alike."""
    places: Counter[int] = Counter()
    for attempt in attempts:
        visits = [str(a.arguments.get("url")) for a in _actions(attempt) if a.name == "visit"]
        searches = [turn.observations[0] for turn in attempt.turns if turn.actions and turn.actions[0].name == "search"]
        if visits and searches:
            names = [line.partition(": ")[2] for line in searches[0].splitlines() if ": " in line]
            places.update(place for place, name in enumerate(names) if f"/{name}'" in visits[0])
    total = sum(places.values())
    return -sum(n / total * math.log(n / total) for n in places.values()) if total else 0.0
