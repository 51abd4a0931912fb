"""How guidance enters an episode: the first k expert actions (paper, Eq. 6) as one of four guides (Table 7, and one beyond the paper).

- ``plan``: a reference plan behind the question; only the prompt of the behaviour view differs. The paper's choice.
- ``assistant-prefix``: the same plan as the start of the assistant's first turn, given and not sampled.
- ``messages``: the k actions replayed in the environment as tool turns, given and not sampled. Whether the trained view keeps those turns
  must be chosen: ``drop`` trains answers from evidence that the trained view does not show; ``keep`` trains under guidance.
- ``step``: before each of the first k assistant turns the reference action of that place, in the behaviour view only.

Except for ``messages`` with ``keep``, no word of a guide can reach the view that is trained: that view is rendered without it. The wording
is ours; that of ``plan`` is part of the tiny model's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from harness.errors import HarnessError
from harness.guide import Guide
from harness.types import Action

Inject = Callable[[Sequence[Action], int], Guide]
"""(expert actions, level k) -> the guide of level k."""
Injection = Literal["plan", "assistant-prefix", "messages", "step"]
Injected = Literal["keep", "drop"]

LEAD = "Here is part of a route that others took; it may be incomplete, and more calls may be needed."
STEP_LEAD = "A hint that may help: at this point others made the call"


def injection(kind: Injection, injected: Injected | None = None) -> Inject:
    """The function that makes guides of a kind. ``messages`` needs ``injected``, the others refuse it (``HarnessError``)."""
    if kind == "messages":
        if injected is None:
            raise HarnessError(
                "injection 'messages' needs injected=drop (the trained view shows the question alone: answers are trained from evidence "
                "that it does not hold) or injected=keep (the replayed turns stay in the trained view: training happens under guidance)"
            )
        return _KEPT_OR_DROPPED[injected]
    if injected is not None:
        raise HarnessError(f"injected={injected} speaks of replayed turns, injection {kind!r} has none; leave it out, or use 'messages'")
    return _OTHERS[kind]


def plan_text(actions: Sequence[Action], level: int) -> str:
    """The plan of level k: one line an action, ``<1>: search ["..."]``. Level must lie in 1..L."""
    return "\n\n" + LEAD + "\n" + "\n".join(_line(i, action) for i, action in enumerate(_first(actions, level), start=1))


def as_plan(actions: Sequence[Action], level: int) -> Guide:
    return Guide(hints=(plan_text(actions, level),))


def as_prefix(actions: Sequence[Action], level: int) -> Guide:
    return Guide(prefix=plan_text(actions, level).lstrip("\n") + "\n\n")


def as_steps(actions: Sequence[Action], level: int) -> Guide:
    return Guide(hints=tuple(f"\n\n{STEP_LEAD}\n{_line(i, action)}" for i, action in enumerate(_first(actions, level), start=1)))


def as_kept_messages(actions: Sequence[Action], level: int) -> Guide:
    return Guide(replay=_first(actions, level), keep_replay=True)


def as_dropped_messages(actions: Sequence[Action], level: int) -> Guide:
    return Guide(replay=_first(actions, level))


_KEPT_OR_DROPPED: Mapping[Injected, Inject] = {"keep": as_kept_messages, "drop": as_dropped_messages}
_OTHERS: Mapping[Injection, Inject] = {"plan": as_plan, "assistant-prefix": as_prefix, "step": as_steps}


def _first(actions: Sequence[Action], level: int) -> tuple[Action, ...]:
    if not 1 <= level <= len(actions):
        raise HarnessError(f"guidance level {level} needs 1 <= level <= {len(actions)}, the number of expert actions of this task")
    return tuple(actions[:level])


def _line(number: int, action: Action) -> str:
    """The list that matters (queries or addresses); any other tool shows its whole arguments."""
    listed = [v for v in action.arguments.values() if isinstance(v, list)]
    return f"<{number}>: {action.name} {json.dumps(listed[0] if len(listed) == 1 else dict(action.arguments), ensure_ascii=False)}"
