"""What an agent is shown of a benchmark: never its name, never its gold. And what training may not ask."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from published_sets import PUBLISHED

from harness.cli.assemble import question_set, refuse_evaluated
from harness.cli.main import cli, run_command
from harness.envs.search import SearchEnv, SearchLimits
from harness.errors import DataError, HarnessError
from harness.registry import load, names
from harness.tasks import TaskSet
from harness.tasks.overlap import overlaps, refuse_overlap, runs
from harness.types import Action, Task
from harness.web.base import Web
from harness.web.corpus import CorpusWeb

NAMES = re.compile(r"gaia|web.?walker|x.?bench|deep.?search|browse.?comp|musique|hotpot|miniweb|benchmark|test split|gold", re.IGNORECASE)


def shown(task: Task, web: Web) -> str:
    """All that reaches the model before it says anything: messages and tool schemas."""
    opening = asyncio.run(SearchEnv(web, SearchLimits()).start(task.public()))
    return json.dumps([list(map(dict, opening.messages)), list(map(dict, opening.tools))], ensure_ascii=False)


def assert_clean(tasks: TaskSet, sample: int) -> None:
    for task in tasks.split("test")[:sample]:
        web = tasks.web(task.web)
        text = shown(task, web)
        assert not NAMES.search(text.replace(json.dumps(task.question, ensure_ascii=False)[1:-1], "")), task.id
        assert task.id not in text
        assert not any(form in text for form in task.gold if len(form) > 3 and form not in task.question), task.id
        if isinstance(web, CorpusWeb):
            env = SearchEnv(web, SearchLimits())
            (found,) = asyncio.run(env.step([Action(name="search", arguments={"query": [task.question]})]))
            assert not any(NAMES.search(url) for url in re.findall(r"\]\((\S+?)\)", found.text)), task.id


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_search_sets_name_and_gold_never_reach_the_agent(tmp_path: Path, name: str) -> None:
    assert_clean(load("benchmarks", name).loader.load(PUBLISHED[name](tmp_path)), sample=700)


def test_the_mini_webs_name_and_gold_never_reach_the_agent() -> None:
    assert_clean(load("benchmarks", "miniweb").loader.load(None), sample=8)


@pytest.mark.parametrize("name", ["musique", "hotpotqa"])
def test_a_corpus_sets_name_and_gold_never_reach_the_agent(data_dir: Callable[[str], Path], name: str) -> None:
    assert_clean(load("benchmarks", name).loader.load(data_dir(f"corpora/{name}100")), sample=20)


def test_every_search_benchmark_is_checked_here() -> None:
    """A new question set must be added to ``PUBLISHED`` or to the tests above."""
    checked = {*PUBLISHED, "miniweb", "musique", "hotpotqa"}
    assert {name for name in names("benchmarks") if hasattr(load("benchmarks", name), "loader")} <= checked


def test_a_name_in_a_prompt_would_be_found(tmp_path: Path) -> None:
    task = Task(id="t", question="Who?", gold=("Nobody",), closing=" (from GAIA)")
    with pytest.raises(AssertionError):
        assert_clean(TaskSet(name="x", tasks={"test": (task,)}, webs={"default": lambda: CorpusWeb([])}, fingerprint=""), sample=1)


QUESTION = "Which keeper of the northern lighthouse painted the harbour in the winter of 1902?"
QUESTION_ZH = "一九〇二年冬天，北方灯塔的哪一位守塔人画下了港口的全景？"


def asks(question: str, identity: str = "a", web: str = "open") -> Task:
    return Task(id=identity, question=question, gold=("x",), web=web)


@pytest.mark.parametrize(
    ("training", "evaluation"),
    [
        (QUESTION, QUESTION),
        (QUESTION.upper().replace(" ", "  "), QUESTION),
        (QUESTION.replace("Which keeper", "What keeper"), QUESTION),
        (f"Answer briefly. {QUESTION} Give one name.", QUESTION),
        (QUESTION_ZH, QUESTION_ZH.replace("，", ",")),
        (QUESTION_ZH.replace("全景", "景色"), QUESTION_ZH),
        ("Who?", "who"),
    ],
)
def test_the_same_question_is_found_in_other_words(training: str, evaluation: str) -> None:
    (found,) = overlaps([asks(training, "train-7")], {"xbench": [asks(evaluation, "eval-3"), asks("Something else entirely?", "eval-4")]})
    assert (found.training, found.evaluation, found.source) == ("train-7", "eval-3", "xbench")


@pytest.mark.parametrize(
    "training",
    [
        "Which keeper of the southern quarry sold the orchard in the summer of 1950?",
        "一九五〇年夏天，南方采石场的哪一位工头卖掉了果园？",
        "Who painted the harbour?",
    ],
)
def test_another_question_on_a_like_subject_is_not(training: str) -> None:
    assert overlaps([asks(training)], {"x": [asks(QUESTION), asks(QUESTION_ZH)]}) == []


def test_questions_over_different_private_corpora_are_different_questions() -> None:
    assert overlaps([asks(QUESTION, web="world-1")], {"x": [asks(QUESTION, web="world-2")]}) == []
    assert len(overlaps([asks(QUESTION, web="world-1")], {"x": [asks(QUESTION, web="world-1"), asks(QUESTION, web="open")]})) == 2


def test_overlapping_training_tasks_are_refused_and_the_pairs_shown_by_id_not_by_text() -> None:
    training = [asks(f"{QUESTION} Part {n}.", f"train-{n}") for n in range(12)]
    with pytest.raises(DataError, match=r"12 training tasks ask what is evaluated:\n  train-0 = eval-1 \(gaia, \d+% alike\)") as caught:
        refuse_overlap(training, {"gaia": [asks(QUESTION, "eval-1")]})
    assert "and 2 more" in str(caught.value) and "lighthouse" not in str(caught.value)
    refuse_overlap(training, {"gaia": [asks(QUESTION_ZH)]})


def test_runs_fold_width_case_and_spacing() -> None:
    assert runs("Ｗho is  it") == runs("who is IT?")


def test_a_training_set_is_checked_against_its_own_held_out_part_and_every_set_that_is_named() -> None:
    def tasks(name: str, **splits: Task) -> TaskSet:
        return TaskSet(name=name, tasks={k: (v,) for k, v in splits.items()}, webs={}, fingerprint="")

    own = tasks("own", train=asks(QUESTION, "t1"), test=asks(QUESTION_ZH, "e1"))
    refuse_evaluated(own.split("train"), own, "test", {})
    with pytest.raises(HarnessError, match="t1 = e2 .gaia"):
        refuse_evaluated(own.split("train"), own, "test", {"gaia": [asks(QUESTION, "e2")]})
    leaking = tasks("own", train=asks(QUESTION, "t1"), test=asks(QUESTION, "e1"))
    with pytest.raises(HarnessError, match="t1 = e1 .own"):
        refuse_evaluated(leaking.split("train"), leaking, "test", {})


def test_conversations_of_a_file_are_checked_as_training_tasks_are(
    tmp_path: Path, data_dir: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_dir("corpora/musique100")
    held_out = question_set("musique", {"musique": data}).tasks.split("test")
    file = tmp_path / "conversations.jsonl"
    messages = [
        [{"role": "user", "content": task.question}, {"role": "assistant", "content": "<answer>x</answer>"}] for task in held_out[:3]
    ]
    file.write_text("".join(json.dumps({"messages": each}) + "\n" for each in messages))
    given = ["--data", f"musique={data}", "--data", f"sft={file}", "--set", "agent.context_tokens=8192", "--out", str(tmp_path / "run")]
    assert run_command(cli, ["run", "--trainer", "sft", "--model", "tiny", "--tasks", "musique", *given]) == 1
    said = capsys.readouterr().err
    assert "3 training tasks ask what is evaluated:" in said
    assert held_out[0].id in said and held_out[0].question not in said and not (tmp_path / "run").exists()
