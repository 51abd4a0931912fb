"""What a tokenizer and its chat template would do to training, found out by rendering a small conversation in every way (spec: the known
bugs of agent training). Nothing here needs weights; what does is in ``trainers.checkup``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from harness.chat import Chat, parse_turn
from harness.checkup import tokens
from harness.checkup.base import Checkup, Verdict
from harness.checkup.conversation import CALLS, QUESTION, RESULTS, THOUGHTS, Conversation, call_text
from harness.envs.search import TOOLS
from harness.errors import HarnessError

UNUSABLE = "template"
"""The name of the one check that there is where nothing can be rendered."""
_THOUGHT = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


def examine_template(tokenizer: Any, *, ends: Sequence[int], vocabulary: int, context: int | None = None) -> list[Checkup]:
    """Every check of tokenizer and template. ``ends`` are the ids at which an engine stops, ``vocabulary`` the rows of the embedding,
    ``context`` the positions that a run would have."""
    try:
        talk = Conversation(tokenizer=tokenizer, chat=Chat(tokenizer))
        talk.play()
    except HarnessError as error:
        return [_unusable(str(error))]
    except Exception as error:  # noqa: BLE001 - a template is a program of its author's, and may fail in any way
        return [_unusable(f"the template fails on a conversation with tools: {type(error).__name__}: {error}")]
    return [
        _prefix(talk),
        _thinking(talk),
        tokens.starts(tokenizer, talk),
        tokens.turn_end(tokenizer, talk, ends),
        tokens.padding_token(tokenizer),
        _schemas(talk),
        _results(talk),
        _calls(tokenizer, talk.chat),
        tokens.forgery(tokenizer, talk.chat),
        tokens.round_trip(talk.chat),
        tokens.sizes(tokenizer, talk, vocabulary, context),
    ]


def _unusable(why: str) -> Checkup:
    return Checkup(
        name=UNUSABLE,
        verdict=Verdict.ERROR,
        found=why,
        consequence="no conversation can be rendered, so no run starts",
        remedy="use an instruct model, or put a chat_template.jinja that closes each turn with eos_token beside its tokenizer",
    )


def _prefix(talk: Conversation) -> Checkup:
    """The ids before each turn begin with all ids before: what is trained is what was sampled, under the contexts of its sampling."""
    name = "prefix over turns"
    if all(ours == whole for ours, whole in talk.states):
        return Checkup(name=name, verdict=Verdict.OK, found="rendering a longer conversation repeats the earlier ids exactly")
    ours, whole = (talk.text(ids) for ids in next(pair for pair in talk.states if pair[0] != pair[1]))
    if ours == whole:
        return Checkup(
            name=name,
            verdict=Verdict.WARNING,
            found="the same text gets other ids when a whole conversation is tokenised again",
            consequence="trainers and servers that tokenise again see ids that were never sampled; this harness keeps the sampled ids",
            remedy="evaluate and serve with the engines hf or vllm, which continue ids",
        )
    plain_ours, plain_whole = (_squeezed(_THOUGHT.sub("", text)) for text in (ours, whole))
    if plain_ours == plain_whole and THOUGHTS[0] not in whole:
        found = "the template strips the thinking of earlier turns: ids(turn n) is no prefix of ids(turn n + 1)"
        remedy = "use a template that keeps <think> blocks of earlier assistant turns (copy chat_template.jinja and drop that condition)"
    elif _squeezed(ours) == _squeezed(whole):
        found = "the template trims or adds blanks in earlier turns: ids(turn n) is no prefix of ids(turn n + 1)"
        remedy = "take trim filters off the message contents in chat_template.jinja"
    else:
        lost = [part for part in (QUESTION["content"], *(call_text(c) for c in CALLS), *RESULTS) if part in ours and part not in whole]
        what = f"drops or rewrites {_cut(str(lost[0]))!r}" if lost else "changes words"
        found = f"the template {what} once the conversation goes on: ids(turn n) is no prefix of ids(turn n + 1)"
        remedy = "use a template that renders every message, whatever follows it"
    return Checkup(
        name=name,
        verdict=Verdict.ERROR,
        found=found,
        consequence=(
            "episodes here continue the sampled ids, so the policy would be trained under contexts that its own template never renders: "
            "behind a chat endpoint it gets other prompts than those it learned from, and trainers that render again train tokens "
            "that were never sampled"
        ),
        remedy=remedy,
    )


def _thinking(talk: Conversation) -> Checkup:
    if talk.opens_thought:
        return Checkup(
            name="thinking",
            verdict=Verdict.WARNING,
            found="the template itself opens <think> before every assistant turn",
            consequence="a thought that is cut off is not known as one: calls drafted in it would be executed, answers in it count",
            remedy="use a template whose generation prompt ends with the assistant header; give agent.response_tokens room to think",
        )
    kept = all(THOUGHTS[0] in talk.text(whole) for _, whole in talk.states)
    words = "kept in later turns" if kept else "stripped from earlier turns by the template (see prefix over turns)"
    closed = "</think>" in talk.text(talk.contexts[0])[-40:]
    return Checkup(name="thinking", verdict=Verdict.OK, found=words + ("; switched off by an empty thought" if closed else ""))


def _schemas(talk: Conversation) -> Checkup:
    shown = talk.text(talk.contexts[0])
    missing = [
        tool["function"]["name"] for tool in TOOLS if f'"{tool["function"]["name"]}"' not in shown and tool["function"]["name"] not in shown
    ]
    if missing or QUESTION["content"] not in shown:
        return Checkup(
            name="prompt",
            verdict=Verdict.ERROR,
            found=f"the prompt lacks {'the tool ' + missing[0] if missing else 'the question'}",
            consequence="the policy cannot know what to do; its rollouts fail and guidance looks useless",
            remedy="use a template that renders system, user and tools",
        )
    return Checkup(name="prompt", verdict=Verdict.OK, found="system text, question and both tools are shown")


def _results(talk: Conversation) -> Checkup:
    """What tools return reaches the policy, one result or several."""
    missing = [result for result, context in zip(RESULTS, talk.contexts[1:], strict=True) if result not in talk.text(context)]
    both = talk.text(talk.chat.observation(RESULTS))
    missing += [result for result in RESULTS if result not in both and result not in missing]
    if missing:
        return Checkup(
            name="tool results",
            verdict=Verdict.ERROR,
            found=f"a tool's result does not reach the policy: {missing[0]!r} is not rendered",
            consequence="the policy answers without evidence; it is rewarded for guessing",
            remedy="use a template that renders messages of role tool",
        )
    return Checkup(name="tool results", verdict=Verdict.OK, found="one result and several are shown in full")


def _calls(tokenizer: Any, chat: Chat) -> Checkup:
    """What the template teaches a model to write is what the parser reads."""
    name = "tool calls"
    for call in CALLS:
        if parse_turn(chat.decode(chat.encode(call_text(call)))).actions != (call,):
            return _unread(f"a call does not survive encoding and decoding: {call_text(call)!r}")
    if "tool_calls" not in tokenizer.chat_template:
        return Checkup(
            name=name,
            verdict=Verdict.OK,
            found="the template has no format of its own; the Hermes format of this harness is shown and read",
        )
    wire = [{"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}} for c in CALLS]
    message = {"role": "assistant", "content": "", "tool_calls": wire}
    before = tokenizer.apply_chat_template([QUESTION], tools=list(TOOLS), tokenize=False, add_generation_prompt=True)
    try:
        after = tokenizer.apply_chat_template([QUESTION, message], tools=list(TOOLS), tokenize=False)
    except Exception as error:  # noqa: BLE001 - a template is a program of its author's, and may fail in any way
        return _unread(f"the template fails on a message with two calls: {type(error).__name__}: {error}")
    segment = after[len(_common(before, after)) :].removesuffix("\n").removesuffix(tokenizer.eos_token)
    if parse_turn(segment).actions != CALLS:
        return _unread(f"the template writes calls as {_cut(segment.strip())!r}, the parser reads <tool_call>{{...}}</tool_call>")
    return Checkup(name=name, verdict=Verdict.OK, found="calls in the template's own format are read back unchanged")


def _unread(found: str) -> Checkup:
    return Checkup(
        name="tool calls",
        verdict=Verdict.ERROR,
        found=found,
        consequence="calls in the format that the model was taught are not seen: its episodes end without an answer and earn nothing",
        remedy="use a model whose format is Hermes (Qwen2.5, Qwen3), or remove tool_calls and tools from chat_template.jinja, "
        "so that the harness shows its own frame",
    )


def _common(left: str, right: str) -> str:
    length = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return left[:length]


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _cut(text: str) -> str:
    return text if len(text) <= 90 else text[:87] + "..."
