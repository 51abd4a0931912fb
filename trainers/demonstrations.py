"""An expert's conversations for supervised training: read from a JSONL file, checked as a whole, rendered as episodes.

The form of a row is told, with examples, in docs/conversations.md. Nothing is skipped or cut: every broken row is named, and nothing
is trained.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.chat import Chat, parse_turn
from harness.envs.base import Env
from harness.errors import DataError
from harness.rows import Row, describe, each_row, read_text
from harness.types import Action, Message, Span, Task, Trajectory


def read_conversations(path: Path, web: str) -> tuple[Task, ...]:
    """The file's conversations as tasks over the environment of ``web``. Raises ``DataError`` that names every broken row and why."""
    tasks: dict[str, Task] = {}
    broken: list[str] = []
    rows = list(each_row(path))
    for row in rows:
        try:
            if isinstance(row, DataError):
                raise row
            task = _task(row, web)
            if task.id in tasks:
                raise row.error(f"the id {task.id!r} was used before, expected each once")
            tasks[task.id] = task
        except DataError as error:
            broken.append(str(error))
    if not rows:
        raise DataError(f"{path}: holds no conversation, expected one a line: " + '{"messages": [...]}')
    _refuse(broken, len(rows))
    return tuple(tasks.values())


def fingerprint(path: Path) -> str:
    """SHA-256 of the file's text, which decides what a run was trained on. Raises ``DataError`` where it cannot be read."""
    return hashlib.sha256(read_text(path).encode()).hexdigest()


async def check(tasks: Sequence[Task], env: Callable[[Task], Env], chat: Chat, context_tokens: int) -> None:
    """Raise ``DataError`` naming every conversation that the model's context or its template cannot hold."""
    broken = []
    for task in tasks:
        shown = await demonstration(task, env(task), chat)
        place = task.tags.get("place", f"task {task.id}")
        if len(shown.ids()) > context_tokens:
            broken.append(f"{place}: it is {len(shown.ids())} tokens long, agent.context_tokens allows {context_tokens}.")
        elif any(chat.end_id in span.ids[:-1] for span in shown.spans):
            broken.append(f"{place}: an assistant turn holds the token that ends a turn; take it out of the text.")
    _refuse(broken, len(tasks))


async def demonstration(task: Task, env: Env, chat: Chat) -> Trajectory:
    """The expert's conversation with the contexts and cuts of an episode. Nobody sampled it: its log-probabilities are NaN."""
    try:
        opening = await env.start(task.public())
    finally:
        await env.close()
    said = task.demonstration
    first = next(i for i, message in enumerate(said) if message["role"] == "assistant")
    before = said[:first] if said[0]["role"] == "system" else opening.messages
    contexts, spans = chat.dialogue((*before, *said[first:]), opening.tools)
    return Trajectory(contexts=contexts, spans=tuple(Span(ids=ids, logprobs=(math.nan,) * len(ids)) for ids in spans))


def _refuse(broken: Sequence[str], rows: int) -> None:
    if broken:
        raise DataError(
            "\n".join([f"{len(broken)} of {rows} conversations cannot be trained on, and nothing was. Mend or remove them:", *broken])
        )


def _task(row: Row, web: str) -> Task:
    messages = tuple(_message(part, place) for place, part in enumerate(row.rows("messages"), start=1))
    question = str(messages[_check_order(row, messages)]["content"])
    identity = row.text("id") if "id" in row.data else f"row-{row.number}"
    return Task(
        id=identity,
        question=question,
        gold=(),
        demonstration=messages,
        web=web,
        tags={"split": "train", "place": f"{row.path}, row {row.number}"},
    )


def _check_order(row: Row, messages: Sequence[Message]) -> int:
    """The place of the question; raises for any other order than system? user (assistant tool+)* assistant."""
    roles = [str(message["role"]) for message in messages]
    start = 1 if roles[:1] == ["system"] else 0
    if roles[start : start + 2] != ["user", "assistant"]:
        raise row.error(
            f"it begins with {', '.join(roles[:3]) or 'nothing'}; expected an optional system, a user, then an assistant message"
        )
    if roles[-1] != "assistant":
        raise row.error(f"it ends with a {roles[-1]} message, expected the expert's answer")
    place = start + 1
    while place < len(roles):
        place = _check_turn(row, messages, place)
    return start


def _check_turn(row: Row, messages: Sequence[Message], place: int) -> int:
    """One assistant turn and the results of its calls; returns the place of the next turn."""
    message, number = messages[place], place + 1
    if message["role"] != "assistant":
        raise row.error(f"message {number} is a {message['role']}'s, expected an assistant's")
    turn = parse_turn(str(message["content"]))
    if turn.malformed:
        raise row.error(f"message {number} holds a call that cannot be read: {turn.malformed[0]}")
    results = 0
    while place + 1 + results < len(messages) and messages[place + 1 + results]["role"] == "tool":
        results += 1
    if results != len(turn.actions):
        raise row.error(f"message {number} makes {len(turn.actions)} calls, but {results} tool messages follow it; expected one a call")
    last = place + 1 + results == len(messages)
    if last and turn.answer is None:
        raise row.error(f"message {number} ends the conversation without <answer>...</answer>")
    if not last and not turn.actions:
        raise row.error(f"message {number} makes no call, but the conversation goes on after it")
    return place + 1 + results


def _message(part: Row, place: int) -> Message:
    role = part.text("role")
    if role not in ("system", "user", "assistant", "tool"):
        raise part.error(f"message {place} has the role {role!r}, expected system, user, assistant or tool")
    if role == "assistant":
        return {"role": role, "content": "\n".join(_assistant(part, place))}
    return {"role": role, "content": part.text("content", blank=role == "tool")}


def _assistant(part: Row, place: int) -> Iterator[str]:
    """Thought, text and calls, as a turn writes them."""
    if part.data.get("reasoning_content"):
        yield f"<think>\n{part.text('reasoning_content')}\n</think>\n"
    calls = part.rows("tool_calls") if part.data.get("tool_calls") else ()
    if not calls or part.data.get("content"):
        yield part.text("content")
    for call in calls:
        yield f"<tool_call>\n{_action(call, place).to_json()}\n</tool_call>"


def _action(call: Row, place: int) -> Action:
    function: Any = call.data.get("function", call.data)
    name, arguments = (function.get("name"), function.get("arguments")) if isinstance(function, dict) else (None, None)
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):
            arguments = json.loads(arguments)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise call.error(f"message {place} has the call {describe(call.data)}, expected a name and an object of arguments")
    return Action(name=name, arguments=arguments)
