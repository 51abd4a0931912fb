"""A small conversation with tools, as messages and as the ids that an episode of this harness would hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.chat import Chat
from harness.envs.search import SYSTEM, TOOLS
from harness.types import Action, Ids, Message

CALLS = (
    Action(name="search", arguments={"query": ['Zürich 北京 "quoted"']}),
    Action(name="visit", arguments={"url": ["https://a.example/b?c=1"]}),
)
THOUGHTS = ("First I look for the city.", "The page should tell the river.", "So it is the Limmat.")
RESULTS = ("Result one: a city on a lake.", "Result two: its river is the Limmat.")
QUESTION: Message = {"role": "user", "content": "Which river flows through the city?"}
OPENING: tuple[Message, ...] = ({"role": "system", "content": SYSTEM}, QUESTION)


@dataclass(slots=True)
class Conversation:
    """The same three turns, as messages and as the ids that an episode of this harness would hold."""

    tokenizer: Any
    chat: Chat
    messages: list[Message] = field(default_factory=lambda: list(OPENING))
    contexts: list[Ids] = field(default_factory=list)
    spans: list[Ids] = field(default_factory=list)
    states: list[tuple[Ids, Ids]] = field(default_factory=list)  # before turns 2 and 3: (ours, the template's whole rendering)
    opens_thought: bool = False

    def play(self) -> None:
        """Raises ``HarnessError`` where the template cannot be used at all."""
        chat = self.chat
        self.contexts.append(chat.prompt(OPENING, TOOLS))
        self.opens_thought = self.text(self.contexts[0]).rstrip().endswith("<think>")
        for number, thought in enumerate(THOUGHTS):
            said = call_text(CALLS[number]) if number < len(CALLS) else "<answer>Limmat</answer>"
            content = f"<think>\n{thought}\n</think>\n\n{said}"
            sampled = content.removeprefix("<think>\n") if self.opens_thought else content
            self.spans.append((*chat.encode(sampled), chat.end_id))
            self.messages.append({"role": "assistant", "content": content})
            if number < len(CALLS):
                self.messages.append({"role": "tool", "content": RESULTS[number]})
                self.contexts.append(chat.observation((RESULTS[number],)))
                ours = tuple(i for c, z in zip(self.contexts, self.spans, strict=False) for i in (*c, *z)) + self.contexts[-1]
                self.states.append((ours, chat.prompt(self.messages, TOOLS)))

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))


def call_text(action: Action) -> str:
    """A call in Hermes format."""
    return f"<tool_call>\n{action.to_json()}\n</tool_call>"
