"""What may stand before the policy beside its task: hints that it reads, and turns that it is given.

A *hint* is words in the behaviour view only; the target view is rendered from the same messages without it. What is *given* (the start of
an assistant turn, or whole tool turns) takes the place of sampled tokens: it is context, never trained on, and costs neither a turn nor
response tokens. Nothing here knows how hints are worded or when they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.types import Action, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """Guidance of one episode; the empty one is no guidance.

    ``hints[i]`` stands before assistant turn i: behind the question for i = 0, behind the last tool result for the others.
    """

    hints: tuple[str, ...] = ()
    prefix: str = ""  # the words that the first assistant turn begins with
    replay: tuple[Action, ...] = ()  # executed in the environment, one tool turn each, before the first sampled turn
    keep_replay: bool = False  # whether the target view shows the replayed turns, too

    def __bool__(self) -> bool:
        return bool(any(self.hints) or self.prefix or self.replay)

    def hint(self, turn: int) -> str:
        """The words before assistant turn ``turn``, counted from 0."""
        return self.hints[turn] if turn < len(self.hints) else ""

    def words(self) -> str:
        """What was hinted or given, for people and for the log."""
        parts = (*self.hints, self.prefix, *(action.to_json() for action in self.replay))
        return "\n".join(part for part in parts if part)


UNGUIDED = Guide()


def with_hint(messages: tuple[Message, ...], hint: str) -> tuple[Message, ...]:
    """The messages with the hint appended to the last user message."""
    if not hint:
        return messages
    last = max(i for i, m in enumerate(messages) if m["role"] == "user")
    hinted = {**messages[last], "content": messages[last]["content"] + hint}
    return (*messages[:last], hinted, *messages[last + 1 :])
