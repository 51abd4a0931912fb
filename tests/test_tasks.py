"""Task sets: splits by id hash, and the two published sets on made-up files of their form (the real files: test_tasks_real)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError, UsageError
from harness.tasks import HOTPOTQA, MUSIQUE, TaskLoader, TaskSet, split_of
from harness.tasks.base import SPLITS
from harness.tasks.musique import sub_question
from harness.types import Task


def paragraph(idx: int, title: str, text: str) -> dict[str, Any]:
    return {"idx": idx, "title": title, "paragraph_text": text, "is_supporting": True}


def musique_row(identity: str = "2hop__1_2") -> dict[str, Any]:
    return {
        "id": identity,
        "question": "Where was the builder of Oak Mill born? ",
        "paragraphs": [
            paragraph(0, "Mill", "Oak Mill was built by Ada."),
            paragraph(1, "Mill", "Elm Mill."),
            paragraph(2, "Ada", "Born in Lindal."),
        ],
        "question_decomposition": [
            {"id": 1, "question": "Oak Mill >> builder", "answer": "Ada", "paragraph_support_idx": 0},
            {"id": 2, "question": "Where was #1 born ?", "answer": "Lindal", "paragraph_support_idx": 2},
        ],
        "answer": "Lindal",
        "answer_aliases": ["Lindal Town", "Lindal"],
        "answerable": True,
    }


def hotpot_row() -> dict[str, Any]:
    return {
        "_id": "h1",
        "question": "Where was the builder of Oak Mill born?",
        "answer": "Lindal",
        "type": "bridge",
        "level": "easy",
        "supporting_facts": [["Ada", 0], ["Oak Mill", 0], ["Ada", 1]],
        "context": [["Ada", ["Ada lived.", " Born in Lindal."]], ["Oak Mill", ["Built by Ada."]], ["Elm Mill", ["Another."]]],
    }


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def only_task(tasks: TaskSet) -> Task:
    (task,) = [task for split in tasks.tasks.values() for task in split]
    return task


def calls(task: Task) -> list[tuple[str, str]]:
    return [(action.name, next(iter(action.arguments.values()))[0]) for action in task.actions]


def test_a_split_follows_the_id_alone() -> None:
    pinned = [n for n in range(20) if split_of(f"id{n}", SPLITS) == "test"]
    assert pinned == [0, 5, 12, 15, 17]  # another result would move questions of published runs between splits


def test_splits_have_their_fractions() -> None:
    counts = Counter(split_of(str(n), {"train": 0.6, "validation": 0.1, "test": 0.3}) for n in range(20_000))
    assert counts["train"] == pytest.approx(12_000, rel=0.03)
    assert counts["validation"] == pytest.approx(2_000, rel=0.08)


def test_fractions_are_shares_of_their_sum() -> None:
    ids = [str(n) for n in range(100)]
    assert [split_of(i, {"a": 8, "b": 2}) for i in ids] == [split_of(i, {"a": 0.8, "b": 0.2}) for i in ids]


def test_musique_hops_become_search_and_visit_with_earlier_answers_filled_in(tmp_path: Path) -> None:
    tasks = MUSIQUE.load(write(tmp_path / "one.json", [musique_row()]))
    task = only_task(tasks)
    assert calls(task) == [("search", "Oak Mill builder"), ("visit", "page://0"), ("search", "Where was Ada born?"), ("visit", "page://2")]
    assert task.gold == ("Lindal", "Lindal Town")
    assert task.question == "Where was the builder of Oak Mill born?"
    assert task.tags["hops"] == "2"
    assert task.tags["split"] in tasks.tasks
    assert tasks.closed


def test_musique_pages_come_from_the_corpus_file_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "qa_train.json", [musique_row()])
    rows = [{"title": p["title"], "text": p["paragraph_text"]} for p in musique_row()["paragraphs"]]
    write(tmp_path / "train_corpus.json", [{"title": "Mill", "text": "A third."}, *rows])
    assert [url for _, url in calls(only_task(MUSIQUE.load(tmp_path)))] == [
        "Oak Mill builder",
        "page://1",
        "Where was Ada born?",
        "page://3",
    ]


def test_musique_jsonl_is_read_and_unanswerable_questions_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "musique.jsonl"
    unanswerable = musique_row("other") | {"answerable": False}
    path.write_text("\n".join(json.dumps(row) for row in (unanswerable, musique_row())), encoding="utf-8")
    assert only_task(MUSIQUE.load(path)).id == "2hop__1_2"


@pytest.mark.parametrize(
    ("question", "query"),
    [
        ("who had the #1 hit of 1964", "who had the #1 hit of 1964"),
        ("Are #1 and #2 in #3 ?", "Are A and B in #3?"),
        ("#2 >> capital", "B capital"),
    ],
)
def test_only_placeholders_of_earlier_hops_are_filled_in(question: str, query: str) -> None:
    assert sub_question(question, [] if "hit" in question else ["A", "B"]) == query


def test_hotpotqa_titles_become_search_and_visit_and_the_answer_comes_last(tmp_path: Path) -> None:
    task = only_task(HOTPOTQA.load(write(tmp_path / "one.json", [hotpot_row()])))
    assert calls(task) == [("search", "Oak Mill"), ("visit", "page://1"), ("search", "Ada"), ("visit", "page://0")]
    assert task.gold == ("Lindal",)
    assert (task.tags["hops"], task.tags["type"], task.tags["level"]) == ("2", "bridge", "easy")


def test_the_fingerprint_follows_questions_and_pages(tmp_path: Path) -> None:
    plain = MUSIQUE.load(write(tmp_path / "a.json", [musique_row()])).fingerprint
    other_page = musique_row()
    other_page["paragraphs"][1]["paragraph_text"] = "Elm Mill stands."
    assert MUSIQUE.load(write(tmp_path / "b.json", [musique_row()])).fingerprint == plain
    assert MUSIQUE.load(write(tmp_path / "c.json", [other_page])).fingerprint != plain
    assert MUSIQUE.load(write(tmp_path / "d.json", [musique_row() | {"answer": "X"}])).fingerprint != plain


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != key}


def with_hop(**change: Any) -> dict[str, Any]:
    row = musique_row()
    row["question_decomposition"][1].update(change)
    return row


@pytest.mark.parametrize(
    ("loader", "row", "complaint"),
    [
        (MUSIQUE, without(musique_row(), "question_decomposition"), "'question_decomposition' is missing"),
        (MUSIQUE, musique_row() | {"question_decomposition": []}, "expected one entry a hop"),
        (MUSIQUE, musique_row() | {"answer": None}, "'answer' is null"),
        (MUSIQUE, with_hop(paragraph_support_idx=9), "'paragraph_support_idx' is 9, expected a place in the row's 3 paragraphs"),
        (MUSIQUE, with_hop(paragraph_support_idx=None), "'paragraph_support_idx' is null"),
        (MUSIQUE, musique_row() | {"paragraphs": [paragraph(1, "a", "b")]}, r"paragraphs\[0\] has 'idx' 1, expected 0"),
        (HOTPOTQA, without(hotpot_row(), "_id"), "'_id' is missing"),
        (HOTPOTQA, hotpot_row() | {"supporting_facts": [["Nowhere", 0]]}, "'Nowhere' is not in the corpus"),
        (HOTPOTQA, hotpot_row() | {"supporting_facts": ["Ada"]}, r"expected \[title, sentence number\]"),
        (HOTPOTQA, hotpot_row() | {"context": [["Ada", "text"]]}, r"expected \[title, list of sentences\]"),
    ],
)
def test_a_row_of_another_form_is_named(tmp_path: Path, loader: TaskLoader, row: dict[str, Any], complaint: str) -> None:
    good = musique_row("good") if loader is MUSIQUE else hotpot_row() | {"_id": "good"}
    with pytest.raises(DataError, match=rf"one\.json, row 2: .*{complaint}"):
        loader.load(write(tmp_path / "one.json", [good, row]))


def test_a_paragraph_that_the_corpus_lacks_is_named(tmp_path: Path) -> None:
    write(tmp_path / "qa_train.json", [musique_row()])
    write(tmp_path / "train_corpus.json", [{"title": "Mill", "text": "Oak Mill was built by Ada."}])
    with pytest.raises(DataError, match="row 1: hop 2: the paragraph 'Ada' is not in the corpus"):
        MUSIQUE.load(tmp_path)


def test_an_id_may_appear_once(tmp_path: Path) -> None:
    complaint = r"one\.json, row 3: the question '2hop__1_2' stands in row 1 already, expected each once"
    with pytest.raises(DataError, match=complaint):
        MUSIQUE.load(write(tmp_path / "one.json", [musique_row(), musique_row("other"), musique_row()]))


@pytest.mark.parametrize("loader", [MUSIQUE, HOTPOTQA])
def test_without_data_the_error_says_how_to_give_it(tmp_path: Path, loader: TaskLoader) -> None:
    assert loader.needs_path
    with pytest.raises(UsageError, match=f"--data {loader.name}=PATH"):
        loader.load(None)
    with pytest.raises(DataError, match="no such file or folder"):
        loader.load(tmp_path / "gone")
    with pytest.raises(DataError, match=r"qa_train\.json: no such file"):
        loader.load(tmp_path)
    with pytest.raises(DataError, match="holds no question"):
        loader.load(write(tmp_path / "empty.json", []))


def test_unknown_splits_and_webs_name_the_known_ones(tmp_path: Path) -> None:
    tasks = MUSIQUE.load(write(tmp_path / "one.json", [musique_row()]))
    with pytest.raises(UsageError, match="'tset'.*Did you mean 'test'"):
        tasks.split("tset")
    with pytest.raises(UsageError, match="unknown web of musique 'x'"):
        tasks.web("x")
    assert tasks.web("musique") is tasks.web("musique")
