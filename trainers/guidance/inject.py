"""How guidance enters a prompt: the first k expert actions as a reference plan (paper, Eq. 6 and Table 7, last column).

The plan is appended to the user's question in the behaviour view only; the target view is rendered from the same messages
without it, so no hint token can reach what is trained. The wording is ours and part of the tiny model's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.errors import HarnessError
from harness.types import Action

LEAD = "Here is part of a route that others took; it may be incomplete, and more calls may be needed."


def plan_text(actions: Sequence[Action], level: int) -> str:
    """The plan of level k: one line an action, ``<1>: search ["..."]``. Level must lie in 1..L."""
    if not 1 <= level <= len(actions):
        raise HarnessError(f"guidance level {level} needs 1 <= level <= {len(actions)}, the number of expert actions of this task")
    lines = [f"<{number}>: {action.name} {_arguments(action)}" for number, action in enumerate(actions[:level], start=1)]
    return "\n\n" + LEAD + "\n" + "\n".join(lines)


def _arguments(action: Action) -> str:
    """The list that matters (queries or addresses); any other tool shows its whole arguments."""
    listed = [v for v in action.arguments.values() if isinstance(v, list)]
    return json.dumps(listed[0] if len(listed) == 1 else dict(action.arguments), ensure_ascii=False)
