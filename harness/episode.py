"""One episode as one coroutine: render, generate, parse, act, until an answer or a budget ends it.

The opening goes to the model in all views at once: the behaviour view (what the policy sees, with its guidance if there is any), the
target view (the same messages without it), and a teacher's view where one is declared. Whether turns are token ids or text is the
conversation's business. Nothing here knows why guidance is given, who trains on the result, or how it is scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.answer import split_confidence
from harness.budget import Budget
from harness.chat import Chat, parse_turn
from harness.config import Section, identity
from harness.conversation import Conversation, converse
from harness.engines.base import ChatEngine, Engine, request_seed
from harness.envs.base import Env
from harness.errors import EngineError, HarnessError, LimitError, OutageError
from harness.guide import UNGUIDED, Guide
from harness.types import Attempt, FinishReason, Purpose, Status, Task, Turn


class AgentConfig(Section):
    """Budgets of an episode (paper, Table 6) and how it treats a call that cannot be read."""

    max_turns: int = identity(30, ge=1)
    """Assistant turns before the episode ends without an answer."""
    response_tokens: int = identity(40_960, ge=1)
    """Tokens after the prompt, sampled and observed together."""
    context_tokens: int = identity(49_152, ge=2)
    """The model's context: prompt and response of the longest view must fit."""
    temperature: float = identity(1.0, ge=0.0)
    """Sampling temperature of training rollouts; evaluation uses its own."""
    malformed: Literal["observe", "end"] = identity("observe")
    """A call that cannot be read: show the complaint to the model, or end the episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which sample this is. The seed of every request follows from it and nothing else."""

    task: Task
    run_seed: int
    purpose: Purpose
    step: int = 0
    level: int = 0
    index: int = 0
    guide: Guide = UNGUIDED
    teacher: Guide = UNGUIDED  # declares a teacher's view: the same episode as it looks behind these hints
    scope: str = ""
    """Keeps attempts of equally named tasks apart within one run (benchmark, variant); no part of the seed."""

    def __post_init__(self) -> None:
        if self.purpose is Purpose.EVAL and (self.level or self.guide or self.teacher):
            words = f"guidance (level {self.level}, {(self.guide or self.teacher).words()!r})"
            raise HarnessError(f"{self.attempt_id}: {words}; evaluation is always unguided")
        if self.teacher.prefix or self.teacher.replay or (self.teacher and self.guide):
            raise HarnessError(f"{self.attempt_id}: a teacher looks at unguided turns through hints, it can be given nothing else")

    @property
    def attempt_id(self) -> str:
        scope = f"{self.scope}/" if self.scope else ""
        return f"{self.purpose}/{self.step}/{scope}{self.task.id}/k{self.level}/{self.index}"

    def seed(self, turn: int) -> int:
        return request_seed(self.run_seed, self.purpose, self.step, self.task.id, self.level, self.index, turn)


async def run_episode(
    draw: Draw,
    *,
    env: Env,
    engine: Engine | ChatEngine,
    chat: Chat | None,
    config: AgentConfig,
    temperature: float,
    budget: Budget | None = None,
) -> Attempt:
    """Run one episode to its end. Outages become a status, never an exception: one bad rollout is data, not a crash.

    ``chat`` may be None where the engine takes messages. ``budget`` is what all episodes of an evaluation share.
    """
    session = f"{draw.run_seed}/{draw.attempt_id}"
    talk = converse(engine, chat, config=config, temperature=temperature, session=session, teacher=draw.teacher)
    budget = budget or Budget()
    turns: list[Turn] = []
    answer: str | None = None
    detail = ""
    try:
        async with budget.deadline():
            opening = await env.start(draw.task.public())
            replayed = [(action, (await env.step((action,)))[0].text) for action in draw.guide.replay]
            talk.open(opening, draw.guide, replayed)
            status, answer = await _converse(draw, talk, turns, env=env, config=config, budget=budget)
    except EngineError as error:
        status, detail = Status.ENGINE_ERROR, str(error)
    except OutageError as error:
        status, detail = Status.TOOL_OUTAGE, str(error)
    except LimitError as error:
        status, detail = Status.LIMIT, str(error)
    finally:
        await env.close()
    spoken = talk.spoken()
    answer, confidence = (None, None) if answer is None else split_confidence(answer)
    return Attempt(
        id=draw.attempt_id,
        task=draw.task,
        purpose=draw.purpose,
        trajectory=spoken.trajectory,
        target=spoken.target,
        turns=tuple(turns),
        status=status,
        answer=answer,
        confidence=confidence,
        level=draw.level,
        step=draw.step,
        index=draw.index,
        detail=detail,
        usage=spoken.usage,
        teacher=spoken.teacher,
    )


async def _converse(
    draw: Draw, talk: Conversation, turns: list[Turn], *, env: Env, config: AgentConfig, budget: Budget
) -> tuple[Status, str | None]:
    for number in range(config.max_turns):
        budget.check()
        said = await talk.reply(draw.seed(number))
        if said is None:
            return Status.TRUNCATED, None
        budget.spend(tokens=said.generated, cost=said.cost)
        turn = parse_turn(said.text)
        if said.finish is FinishReason.LENGTH or turn.answer is not None or not (turn.actions or turn.malformed):
            turns.append(Turn(text=said.text))
            if said.finish is FinishReason.LENGTH:
                return Status.TRUNCATED, None
            return (Status.ANSWERED, turn.answer) if turn.answer is not None else (Status.NO_ANSWER, None)
        if turn.malformed and config.malformed == "end":
            turns.append(Turn(text=said.text, actions=turn.actions, tool_errors=len(turn.malformed)))
            return Status.MALFORMED, None
        results = await env.step(turn.actions)
        shown = (*(o.text for o in results), *(f"Error: {complaint}" for complaint in turn.malformed))
        errors = sum(o.error for o in results) + len(turn.malformed)
        turns.append(Turn(text=said.text, actions=turn.actions, observations=shown, tool_errors=errors))
        talk.observe(shown, draw.guide.hint(number + 1))
    return Status.TURN_LIMIT, None
