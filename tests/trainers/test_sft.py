"""Expert conversations: what a file may hold, what is named in a broken one, and that they are trained as episodes would have been."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import MemoryLog, PolicyEngine, call, tiny_chat
from learner_cases import largest_difference, save_model, uneven_samples

from harness.cli.run import _place
from harness.cli.training import with_conversations
from harness.config import Section, differences
from harness.envs.search import SYSTEM, TOOLS, SearchEnv, SearchLimits
from harness.episode import AgentConfig
from harness.errors import DataError, UsageError
from harness.registry import load
from harness.tiny.world import make_tasks, make_world
from harness.types import Task
from harness.web.corpus import CorpusWeb
from judges.attempts import Sampler
from judges.exact import ExactJudge
from trainers.algorithms.sft import SFT
from trainers.config import run_config_type
from trainers.demonstrations import check, demonstration, read_conversations
from trainers.learner.base import LearnerConfig
from trainers.learner.deepspeed import DeepSpeedLearner
from trainers.objectives.supervised import CrossEntropy
from trainers.rollouts import StepRollouts
from trainers.sample import Batch, Sample

WORLD = make_world("sft")
TASKS = make_tasks(WORLD, 3, 3, {"split": "train"})
WEB = CorpusWeb(WORLD.pages())


def env(task: Task) -> SearchEnv:
    return SearchEnv(WEB, SearchLimits(results=1))


def user(text: str = "Who?") -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def shows(text: str = "A page.") -> dict[str, Any]:
    return {"role": "tool", "content": text}


SEARCH, ANSWER = call("search", query=["Ada"]), "<answer>Ada</answer>"
GOOD = [user(), says(SEARCH), shows(), says(ANSWER)]


def written(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "conversations.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def row(*messages: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


# -- the file -----------------------------------------------------------------------------------------------------------------


def test_conversations_become_tasks_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, row(*GOOD), "", row(user("When?"), says("Now. " + ANSWER), id="x", source="ignored"))
    first, second = read_conversations(path, web="w")
    assert (first.id, first.question, first.web, first.gold) == ("row-1", "Who?", "w", ())
    assert [dict(m) for m in first.demonstration] == GOOD
    assert (second.id, second.question, second.tags["place"]) == ("x", "When?", f"{path}, row 3")


def test_calls_and_thoughts_may_be_given_as_an_api_gives_them(tmp_path: Path) -> None:
    function = {"name": "search", "arguments": json.dumps({"query": ["Ada"]})}
    calls = says(None, tool_calls=[{"id": "1", "type": "function", "function": function}], reasoning_content="Hm.")  # type: ignore[arg-type]
    (task,) = read_conversations(written(tmp_path, row(user(), calls, shows(), says(ANSWER))), web="w")
    assert task.demonstration[1]["content"] == f"<think>\nHm.\n</think>\n\n{SEARCH}"


def test_the_documented_example_is_read_and_both_forms_are_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/conversations.md").read_text(encoding="utf-8")
    example = page.partition("```json\n")[2].partition("```")[0].splitlines()
    first, second = read_conversations(written(tmp_path, *example), web="w")
    assert first.id == "a-1" and len(first.demonstration) == len(second.demonstration) == 4
    assert first.demonstration[3] == second.demonstration[3]
    asyncio.run(check((first, second), env, tiny_chat(), context_tokens=1000))


BROKEN: Mapping[str, tuple[Any, str]] = {
    "no json": ("{broken", "not valid JSON"),
    "no object": ([1], "expected an object"),
    "no messages": ({"message": []}, "the key 'messages' is missing"),
    "empty": (row(), "it begins with nothing"),
    "a strange role": (row({"role": "critic", "content": "x"}, *GOOD), "message 1 has the role 'critic'"),
    "no question": (row(says(ANSWER)), "it begins with assistant; expected an optional system, a user, then an assistant"),
    "two questions": (row(user(), user(), says(ANSWER)), "it begins with user, user, assistant"),
    "content that is no text": (row(user(), says(3)), "'content' is a number (3), expected a string"),  # type: ignore[arg-type]
    "an assistant without a word": (row(user(), says("")), "'content' is empty"),
    "no answer": (row(user(), says("I do not know.")), "message 2 ends the conversation without <answer>"),
    "no end": (row(*GOOD[:3]), "it ends with a tool message"),
    "a call without a result": (row(user(), says(SEARCH), says(ANSWER)), "message 2 makes 1 calls, but 0 tool messages follow it"),
    "a result without a call": (row(user(), says("Hm."), shows(), says(ANSWER)), "message 2 makes 0 calls, but 1 tool messages"),
    "a turn that asks nothing": (row(user(), says("Hm."), says(ANSWER)), "message 2 makes no call, but the conversation goes on"),
    "a second question": (row(*GOOD[:3], says(ANSWER), user(), says(ANSWER)), "message 4 makes no call, but the conversation goes on"),
    "a question among the results": (row(*GOOD[:3], user(), says(ANSWER)), "message 4 is a user's, expected an assistant's"),
    "a call that cannot be read": (row(user(), says("<tool_call>{x}</tool_call>"), shows(), says(ANSWER)), "message 2 holds a call that"),
    "a call of an api without a name": (row(user(), says(None, tool_calls=[{}]), shows(), says(ANSWER)), "expected a name and an object"),  # type: ignore[arg-type]
    "an id used before": (row(*GOOD, id="row-1"), "the id 'row-1' was used before"),
}


def test_every_broken_row_is_named_with_its_number_and_reason_and_none_is_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, row(*GOOD), *(broken for broken, _ in BROKEN.values()), row(*GOOD))
    with pytest.raises(DataError) as caught:
        read_conversations(path, web="w")
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{len(BROKEN)} of {len(BROKEN) + 2} conversations cannot be trained on, and nothing was.")
    for number, (line, (_, complaint)) in enumerate(zip(lines, BROKEN.values(), strict=True), start=2):
        assert line.startswith(f"{path}, row {number}: ") and complaint in line


def test_a_file_without_a_row_and_no_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no conversation"):
        read_conversations(written(tmp_path, ""), web="w")
    with pytest.raises(DataError, match="no such file"):
        read_conversations(tmp_path / "none.jsonl", web="w")


def test_the_file_of_conversations_is_part_of_what_a_run_is(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("first.jsonl", "second.jsonl"))
    first.write_text("one\n"), second.write_text("two\n")
    kind = run_config_type(load("trainers", "sft").config_type)
    config = with_conversations(kind(trainer="sft"), [f"sft={first}"])
    assert config.conversations == hashlib.sha256(b"one\n").hexdigest()
    assert with_conversations(config, [f"sft={first}"]) == config
    other = with_conversations(kind(trainer="sft"), [f"sft={second}"])
    assert [(row.key, row.tag) for row in differences(config, other)] == [("conversations", "identity")]
    assert with_conversations(kind(trainer="sft"), []).conversations is None
    with pytest.raises(UsageError, match="give the file that the setting means"):
        with_conversations(config, [f"sft={second}"])
    with pytest.raises(UsageError, match="no --data sft=FILE is given"):
        with_conversations(config, [])
    with pytest.raises(DataError, match="no such file"):
        with_conversations(kind(trainer="sft"), [f"sft={tmp_path / 'none'}"])


def test_resuming_with_another_file_of_conversations_is_refused(tmp_path: Path) -> None:
    kind = run_config_type(load("trainers", "sft").config_type)
    place = _place(kind(trainer="sft", conversations="a"), tmp_path, False, "exact")
    assert _place(kind(trainer="sft", conversations="a"), place.folder, True, "exact").resumed
    with pytest.raises(UsageError, match="conversations was a, is now b"):
        _place(kind(trainer="sft", conversations="b"), place.folder, True, "exact")


def test_conversations_that_the_model_cannot_hold_are_all_named(tmp_path: Path) -> None:
    long, forged = row(user(), says("so " * 400 + ANSWER)), row(user(), says("<|im_end|>" + ANSWER))
    path = written(tmp_path, row(*GOOD), long, forged)
    tasks = read_conversations(path, web="w")
    fits = len(asyncio.run(demonstration(tasks[0], env(tasks[0]), tiny_chat())).ids())
    with pytest.raises(DataError) as caught:
        asyncio.run(check(tasks, env, tiny_chat(), context_tokens=fits))
    _, second, third = str(caught.value).splitlines()
    assert "row 2: it is " in second and second.endswith(f"tokens long, agent.context_tokens allows {fits}.")
    assert "row 3: an assistant turn holds the token that ends a turn" in third
    asyncio.run(check(tasks[:1], env, tiny_chat(), context_tokens=fits))
    with pytest.raises(DataError, match="row 1: it is"):
        asyncio.run(check(tasks[:1], env, tiny_chat(), context_tokens=fits - 1))


# -- what is trained ------------------------------------------------------------------------------------------------------------


def test_a_demonstration_is_token_for_token_the_episode_that_says_the_same() -> None:
    for task in TASKS:
        turns = [str(m["content"]) for m in task.demonstration if m["role"] == "assistant"]
        engine = PolicyEngine(lambda request, prompt, turns=turns: turns[prompt.rpartition("Who is ")[2].count("<tool_response>")])  # type: ignore[misc]
        sampler = Sampler(engine=engine, chat=tiny_chat(), env=env, judge=ExactJudge(closed=True), agent=AgentConfig(), log=MemoryLog())
        rollouts = StepRollouts(sampler=sampler, run_seed=0, step=0)
        (member,) = asyncio.run(rollouts.sample(task, size=1))
        shown = asyncio.run(rollouts.demonstration(task))
        assert member.score.value == 1.0
        assert shown.ids() == member.attempt.trajectory.ids() and shown.sampled_mask() == member.attempt.trajectory.sampled_mask()
        assert all(math.isnan(p) for p in shown.behaviour_logprobs())


def test_only_the_experts_turns_are_trained_and_every_one_of_them() -> None:
    shown = asyncio.run(demonstration(TASKS[0], env(TASKS[0]), tiny_chat()))
    trained = tiny_chat().decode([i for i, sampled in zip(shown.ids(), shown.sampled_mask(), strict=True) if sampled])
    assert trained == "".join(str(m["content"]) for m in TASKS[0].demonstration if m["role"] == "assistant")


def test_a_system_message_of_its_own_stands_instead_of_the_environments(tmp_path: Path) -> None:
    path = written(tmp_path, row(*GOOD), row({"role": "system", "content": "Be brief."}, *GOOD))
    plain, own = read_conversations(path, web="w")
    chat = tiny_chat()
    opening = ({"role": "system", "content": SYSTEM}, user())
    assert asyncio.run(demonstration(plain, env(plain), chat)).contexts[0] == chat.prompt(opening, TOOLS)
    brief = ({"role": "system", "content": "Be brief."}, user())
    assert asyncio.run(demonstration(own, env(own), chat)).contexts[0] == chat.prompt(brief, TOOLS)


def test_credit_makes_one_row_a_conversation() -> None:
    sampler = Sampler(
        engine=PolicyEngine(lambda request, prompt: ANSWER),
        chat=tiny_chat(),
        env=env,
        judge=ExactJudge(closed=True),
        agent=AgentConfig(),
        log=MemoryLog(),
    )

    async def collect() -> list[Sample]:
        algorithm = SFT(Section())
        rollouts = StepRollouts(sampler=sampler, run_seed=0, step=4)
        return algorithm.credit([group async for group in algorithm.collect(TASKS, rollouts)])

    rows = asyncio.run(collect())
    assert [r.attempt_id for r in rows] == [f"demonstration/4/{task.id}" for task in TASKS]
    assert {len(r.advantages) for r in rows} == {sum(r.mask) for r in rows}


def test_a_step_is_the_cross_entropy_of_plain_torch_over_all_assistant_tokens(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    directory = save_model(tmp_path / "model")
    config = LearnerConfig(lr=0.05, eps=0.1, weight_decay=0.0, grad_clip=0.0, microbatch_tokens=60)
    rows = uneven_samples()[:4]
    learner = DeepSpeedLearner(directory, config)
    report = learner.update(Batch(minibatches=(rows,), objective=CrossEntropy()))
    found = [(name, tensor.clone()) for name, tensor in learner.weights()]
    learner.close()

    model = AutoModelForCausalLM.from_pretrained(directory)
    losses = []
    for one in rows:
        labels = torch.tensor([i if sampled else -100 for i, sampled in zip(one.ids, one.mask, strict=True)])
        logits = model(torch.tensor([one.ids])).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum"))
    loss = torch.stack(losses).sum() / sum(sum(one.mask) for one in rows)
    loss.backward()
    torch.optim.AdamW(model.parameters(), lr=config.lr, eps=config.eps, weight_decay=0.0).step()
    assert report.metrics["policy/nll"] == pytest.approx(loss.item(), abs=1e-6)
    assert "mismatch/logprob_mean" not in report.metrics  # nobody's log-probabilities to compare with
    assert largest_difference(found, list(model.state_dict().items())) < 1e-6


def test_a_restarted_learner_is_a_new_one_that_goes_on_counting(tmp_path: Path) -> None:
    directory = save_model(tmp_path / "model")
    step: Callable[[], Batch] = lambda: Batch(minibatches=(uneven_samples()[:3],), objective=CrossEntropy())  # noqa: E731
    one = DeepSpeedLearner(directory, LearnerConfig(lr=1e-3))
    one.update(step())
    one.save(tmp_path / "saved")
    one.restart(tmp_path / "saved" / "hf", lr=1e-2)
    other = DeepSpeedLearner(tmp_path / "saved" / "hf", LearnerConfig(lr=1e-2))
    assert (one.version, other.version) == (1, 0) and one.checksum() == other.checksum()
    one.update(step()), other.update(step())
    assert (one.version, one.checksum()) == (2, other.checksum())
    one.close(), other.close()
