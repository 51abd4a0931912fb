"""Messages to ids and sampled text to tool calls, for any chat template that ends turns with a token.

Prompts are rendered whole, from messages, by the model's own template. What follows a sampled turn (tool results, the next
assistant header) is rendered as a suffix that begins at the end-of-turn token, so that sampled ids stay verbatim and
``ids(turn n)`` is always a prefix of ``ids(turn n + 1)``, whatever the template does to earlier thoughts. Templates without tool
support get the Hermes frame from here. This module never re-tokenises what a model sampled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.types import Action, Ids, Message

_SENTINEL = "\u2402turn\u2403"
_CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|\Z)", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedTurn:
    """What an assistant turn asks for: calls, or an answer, or neither. ``malformed`` holds one complaint per unusable call."""

    thought: str
    actions: tuple[Action, ...] = ()
    malformed: tuple[str, ...] = ()
    answer: str | None = None


class Chat:
    """A tokenizer with its template: renders prompts and observations, decodes and parses turns."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._end = tokenizer.eos_token
        if not tokenizer.chat_template or not self._end:
            raise HarnessError("the tokenizer has no chat template or no end-of-turn token; use an instruct model")
        self._marks = [str(t) for t in tokenizer.added_tokens_decoder.values() if len(str(t)) > 1]
        self._template_knows_tools = "tools" in tokenizer.chat_template
        self._observations: dict[tuple[str, ...], Ids] = {}

    @classmethod
    def load(cls, directory: Path | str) -> Chat:
        """Read tokenizer and template from a model directory or hub id."""
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(str(directory)))

    @property
    def end_id(self) -> int:
        """Id of the token that ends a turn; the last id of every span that stopped by itself."""
        return int(self._tokenizer.eos_token_id)

    @property
    def start_id(self) -> int:
        """Id that text without a context follows: the beginning of a sequence, or the end-of-turn token of models without one."""
        start = self._tokenizer.bos_token_id
        return self.end_id if start is None else int(start)

    @property
    def thinks(self) -> bool:
        """Whether the template knows thoughts."""
        return "</think>" in self._tokenizer.chat_template

    def render(self, messages: Sequence[Message], *, continued: bool = False) -> str:
        """The conversation as the template's text: up to the assistant's header, or, ``continued``, to the open end of its last message."""
        if not continued:
            return self._render(messages, (), generation=True)
        shown = [dict(m) for m in messages]
        text: str = self._tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=False, continue_final_message=True)
        return text

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], *, prefix: str = "") -> Ids:
        """Ids of the opening messages up to and including the assistant's header, then ``prefix``, the words its turn begins with."""
        return self.encode(self._render(messages, tools, generation=True) + self._inert(prefix))

    def turn(self, content: str) -> Ids:
        """Ids of a finished assistant turn that nobody sampled, the end-of-turn token included."""
        return self.encode(content + self._end)

    def observation(self, texts: Sequence[str]) -> Ids:
        """Ids that follow a finished assistant turn: one tool result each, then the next assistant header."""
        key = tuple(texts)
        if key not in self._observations:
            if len(self._observations) > 20_000:
                self._observations.clear()
            self._observations[key] = self.encode(self._suffix(tuple(self._inert(text) for text in texts)))
        return self._observations[key]

    def dialogue(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> tuple[tuple[Ids, ...], tuple[Ids, ...]]:
        """Contexts and assistant turns of a finished conversation, cut exactly as an episode would have produced them.

        Assistant contents are encoded with the end-of-turn token appended: the form in which supervised data is trained.
        """
        opening: list[Message] = []
        contexts: list[Ids] = []
        spans: list[Ids] = []
        pending: list[str] = []
        for message in messages:
            if message["role"] == "assistant":
                contexts.append(self.observation(pending) if spans else self.prompt(opening, tools))
                spans.append(self.turn(str(message["content"])))
                pending = []
            elif spans:
                pending.append(str(message["content"]))
            else:
                opening.append(message)
        return tuple(contexts), tuple(spans)

    def encode(self, text: str) -> Ids:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def encode_text(self, text: str) -> Ids:
        """Ids of text that is no conversation: behind the marks that the tokenizer puts before any text, unless it has them already."""
        start = self._tokenizer.bos_token
        return tuple(self._tokenizer.encode(text, add_special_tokens=not (start and text.startswith(start))))

    def without_marks(self, text: str) -> str:
        """The text without the tokenizer's special tokens: those that decoding with ``skip_special_tokens`` leaves out."""
        for mark in self._tokenizer.added_tokens_decoder.values():
            text = text.replace(str(mark), "") if mark.special else text
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids without the end-of-turn token; tool-call tags stay."""
        return str(self._tokenizer.decode([i for i in ids if i != self.end_id], skip_special_tokens=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One string per id, for people to read."""
        return [self._tokenizer.decode([i], skip_special_tokens=False) for i in ids]

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], *, generation: bool) -> str:
        if self._template_knows_tools:
            shown, offered = [dict(m) for m in messages], [dict(t) for t in tools] or None
        else:
            shown, offered = hermes_frame(messages, tools), None
        text: str = self._tokenizer.apply_chat_template(shown, tools=offered, tokenize=False, add_generation_prompt=generation)
        return text

    def _inert(self, text: str) -> str:
        """Tool output with the tokenizer's own marks broken up: a page must not be able to end a turn or forge another."""
        for mark in self._marks:
            if mark in text:
                text = text.replace(mark, mark[0] + "\u200b" + mark[1:])
        return text

    def _suffix(self, texts: tuple[str, ...]) -> str:
        messages: list[Message] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": _SENTINEL},
            *({"role": "tool", "content": text} for text in texts),
        ]
        rendered = self._render(messages, (), generation=True)
        _, found, rest = rendered.partition(_SENTINEL)  # the first one: a tool result may hold it too
        if not found or not rest.startswith(self._end):
            raise HarnessError(
                f"the chat template does not close an assistant turn with {self._end!r} (it renders {rest[:40]!r}); "
                "set the tokenizer's eos_token to the token that ends a turn"
            )
        return rest[len(self._end) :]


def call_text(action: Action) -> str:
    """A call as a model writes it, in Hermes format."""
    return f"<tool_call>\n{action.to_json()}\n</tool_call>"


def parse_turn(text: str) -> ParsedTurn:
    """Read one assistant turn in Hermes format.

    Thinking is cut off first (calls inside it are not calls; an unclosed thought is all thought). ``parameters`` is accepted for
    ``arguments``, and arguments given as a JSON string are decoded. A turn with calls has no answer.
    """
    head, closed, visible = text.rpartition("</think>")
    if not closed:
        visible = "" if text.lstrip().startswith("<think>") else text
        head = text if not visible else ""
    actions: list[Action] = []
    malformed: list[str] = []
    for body, end in _CALL.findall(visible):
        parsed = _parse_call(body, cut=not end)
        if isinstance(parsed, Action):
            actions.append(parsed)
        else:
            malformed.append(parsed)
    answers = _ANSWER.findall(visible)
    answer = answers[-1].strip() if answers and not actions and not malformed else None
    thought = (head.replace("<think>", "").strip() + "\n" + visible.partition("<tool_call>")[0].partition("<answer>")[0]).strip()
    return ParsedTurn(thought=thought, actions=tuple(actions), malformed=tuple(malformed), answer=answer)


def _parse_call(body: str, *, cut: bool) -> Action | str:
    if cut:
        return "the call was cut off before </tool_call>"
    try:
        call = json.loads(body)
    except json.JSONDecodeError as error:
        return f"the call is not valid JSON ({error.msg} at character {error.pos})"
    except (ValueError, RecursionError):  # thousands of digits or brackets in a row, which Python refuses to read
        return "the call is not valid JSON (a number is too long, or brackets are nested too deeply)"
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return 'a call must be an object {"name": ..., "arguments": {...}}'
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return "the arguments are a string that is not valid JSON"
    if not isinstance(arguments, dict):
        return f"the arguments must be an object, got {type(arguments).__name__}"
    return Action(name=call["name"], arguments=arguments)


def hermes_frame(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The Hermes tool frame for templates that ignore ``tools``: schemas in the system message, results in a user message."""
    shown: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] != "tool":
            shown.append(dict(message))
            continue
        block = f"<tool_response>\n{message['content']}\n</tool_response>"
        if shown and shown[-1].get("frame"):
            shown[-1]["content"] += "\n" + block
        else:
            shown.append({"role": "user", "content": block, "frame": True})
    for message in shown:
        message.pop("frame", None)
    if tools:
        schemas = "\n".join(json.dumps(t, ensure_ascii=False) for t in tools)
        frame = (
            f"# Tools\n\nSignatures of the functions you may call, within <tools></tools>:\n<tools>\n{schemas}\n</tools>\n\n"
            "To call one, return JSON within <tool_call></tool_call>:\n<tool_call>\n"
            '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
        )
        if not shown or shown[0]["role"] != "system":
            shown.insert(0, {"role": "system", "content": ""})
        shown[0]["content"] = (shown[0]["content"] + "\n\n" + frame).strip()
    return shown
