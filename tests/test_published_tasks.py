"""The four search sets in their published forms: counts, ciphers, drifting names, gates. All rows here are made up."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from published_sets import (
    CANARY,
    PUBLISHED,
    browsecomp_rows,
    gaia_rows,
    webwalker_rows,
    write_csv,
    write_excel,
    write_jsonl,
    write_parquet,
    xbench_rows,
)

from harness.errors import DataError
from harness.registry import load
from harness.tasks import BROWSECOMP_ZH, GAIA, WEBWALKERQA, XBENCH
from harness.tasks.gaia import SOURCE as GAIA_SOURCE
from harness.types import Task


def tags(tasks: tuple[Task, ...], name: str) -> Counter[str]:
    return Counter(task.tags[name] for task in tasks)


def test_gaia_takes_the_103_text_only_questions_of_its_165(tmp_path: Path) -> None:
    tasks = GAIA.load(write_parquet(tmp_path / "2023/validation/metadata.parquet", gaia_rows()).parents[2]).split("test")
    assert len(tasks) == 103 and tags(tasks, "level") == {"1": 39, "2": 52, "3": 12}
    assert all(task.sealed and task.gold[0].startswith("gold-") for task in tasks)


def test_gaia_takes_copies_with_other_column_names_and_numeric_levels(tmp_path: Path) -> None:
    names = {"Question": "question", "Final answer": "answer", "Level": "level"}
    rows = [{names.get(k, k): v for k, v in row.items()} for row in gaia_rows()[:103]]
    copy = write_jsonl(tmp_path / "dev.jsonl", [row | {"level": int(row["level"])} for row in rows])
    assert tags(GAIA.load(copy).split("test"), "level") == {"1": 39, "2": 52, "3": 12}


def test_a_missing_gaia_question_is_an_error_with_both_counts(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"gaia: got 102 questions \(1 38, 2 52, 3 12\) by level, expected 103 questions \(1 39, 2 52, 3 12\)"
    ):
        GAIA.load(write_jsonl(tmp_path / "metadata.jsonl", gaia_rows()[1:]))


def test_gaia_without_answers_is_the_test_split_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="answer is withheld; expected the validation split"):
        GAIA.load(write_jsonl(tmp_path / "metadata.jsonl", [row | {"Final answer": "?"} for row in gaia_rows()]))


@pytest.mark.parametrize("flat", [True, False])
def test_webwalkerqa_reads_the_hubs_form_and_the_flattened_one_alike(tmp_path: Path, flat: bool) -> None:
    rows = webwalker_rows(flat)
    path = (
        write_jsonl(tmp_path / "test.jsonl", rows)
        if flat
        else write_parquet(tmp_path / "data/main-00000-of-00001.parquet", rows).parents[1]
    )
    loaded = WEBWALKERQA.load(path)
    tasks = loaded.split("test")
    assert tags(tasks, "difficulty") == {"easy": 160, "medium": 280, "hard": 240}
    assert set(tags(tasks, "type")) == {"single_source", "multi_source"} and set(tags(tasks, "topic")) == {"game", "education"}
    assert set(tags(tasks, "language")) == {"en", "zh"}
    assert not any(task.sealed for task in tasks)
    other = WEBWALKERQA.load(write_jsonl(tmp_path / "other.jsonl", webwalker_rows(not flat)))
    assert loaded.fingerprint == other.fingerprint


def test_a_row_without_its_question_is_named_with_the_columns_it_has(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "Question"} for row in webwalker_rows(flat=True)]
    with pytest.raises(DataError, match=r"test\.jsonl, row 1: the key 'question' is missing"):
        WEBWALKERQA.load(write_jsonl(tmp_path / "test.jsonl", rows))


def test_xbench_is_decrypted_in_memory_only(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "DeepSearch-2505.csv", xbench_rows())
    tasks = XBENCH.load(path).split("test")
    assert (tasks[0].id, tasks[0].question, tasks[0].gold) == ("xbench-001", "奥林的第1位守塔人叫什么？", ("金答1",))
    assert len(tasks) == 100 and all(task.sealed for task in tasks)
    assert [p.name for p in tmp_path.rglob("*")] == [path.name]


@pytest.mark.parametrize("change", [{"canary": "another canary of other length"}, {"prompt": "no base64!"}])
def test_an_xbench_row_that_does_not_decrypt_is_named(tmp_path: Path, change: dict[str, str]) -> None:
    rows = xbench_rows()
    rows[6] |= change
    with pytest.raises(DataError, match=r"row 7: 'prompt' does not decrypt to UTF-8"):
        XBENCH.load(write_csv(tmp_path / "DeepSearch-2505.csv", rows))


def test_a_copy_that_was_decrypted_already_is_refused_in_words(tmp_path: Path) -> None:
    plain = {"prompt": "奥林的第7位守塔人叫什么？", "answer": "金答7"}
    with pytest.raises(
        DataError, match=r"row 1: 'prompt' holds plain text, expected base64 of the cipher; name the file as it was published"
    ):
        XBENCH.load(write_csv(tmp_path / "DeepSearch-2505.csv", [row | plain for row in xbench_rows()]))
    rows = [{"Topic": "体育", "Question": "维尔特的第7件藏品是什么？", "Answer": "金答7", "canary": CANARY}]
    with pytest.raises(DataError, match="row 1: 'Question' holds plain text"):
        BROWSECOMP_ZH.load(write_jsonl(tmp_path / "plain.jsonl", rows))


def test_browsecomp_zh_has_its_topics_and_asks_for_confidence(tmp_path: Path) -> None:
    tasks = BROWSECOMP_ZH.load(write_excel(tmp_path / "browsecomp-zh-encrypted.xlsx", browsecomp_rows())).split("test")
    assert len(tasks) == 289 and tags(tasks, "topic")["影视"] == 45 and len(tags(tasks, "topic")) == 11
    assert all("置信度" in task.closing and "置信度" not in task.question and task.sealed for task in tasks)


def test_browsecomp_zh_with_a_missing_row_says_which_topic(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got 288 questions .*影视 44.* expected 289 questions .*影视 45"):
        BROWSECOMP_ZH.load(write_excel(tmp_path / "x.xlsx", browsecomp_rows()[1:]))


def test_a_question_that_appears_twice_is_an_error(tmp_path: Path) -> None:
    rows = browsecomp_rows()
    with pytest.raises(DataError, match=r"x\.xlsx, row 2: the question '.*' stands in row 1 already"):
        BROWSECOMP_ZH.load(write_excel(tmp_path / "x.xlsx", [rows[1], *rows[1:]]))


def test_another_question_is_another_fingerprint(tmp_path: Path) -> None:
    rows = gaia_rows()
    one = GAIA.load(write_jsonl(tmp_path / "a.jsonl", rows))
    two = GAIA.load(write_jsonl(tmp_path / "b.jsonl", [rows[0] | {"Question": "What else?"}, *rows[1:]]))
    assert one.fingerprint != two.fingerprint


def refuse_gated(*args: Any, **options: Any) -> str:
    response = httpx2.Response(403, request=httpx2.Request("GET", "https://huggingface.co"))
    raise GatedRepoError("403 Client Error", response=response)


def test_a_closed_gate_is_explained_with_its_link() -> None:
    with pytest.raises(
        DataError, match=r"gated: accept its terms at https://huggingface.co/datasets/gaia-benchmark/GAIA.* --data gaia=PATH"
    ):
        GAIA_SOURCE.rows(None, download=refuse_gated)


def test_without_network_the_error_names_the_page_and_the_way_out() -> None:
    def offline(*args: Any, **options: Any) -> str:
        raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder")

    with pytest.raises(
        DataError, match=r"could not be fetched from https://huggingface.co/datasets/gaia-benchmark/GAIA .*--data gaia=PATH"
    ):
        GAIA_SOURCE.rows(None, download=offline)


def test_the_hub_is_asked_for_the_file_of_the_questions_only(tmp_path: Path) -> None:
    write_parquet(tmp_path / "2023/validation/metadata.parquet", gaia_rows())
    asked: list[tuple[Any, Any]] = []

    def download(repo: str, **options: Any) -> str:
        asked.append((repo, options))
        return str(tmp_path)

    assert len(GAIA_SOURCE.rows(None, download=download)) == 165
    ((repo, options),) = asked
    assert (
        repo == "gaia-benchmark/GAIA"
        and options["repo_type"] == "dataset"
        and "2023/validation/metadata.parquet" in options["allow_patterns"]
    )


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_folder_without_questions_says_what_is_expected(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(DataError, match="holds no questions of .*, expected a file like"):
        load("benchmarks", name).loader.load(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        load("benchmarks", name).loader.load(tmp_path / "absent")


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet", ".pdf"])
def test_a_damaged_or_strange_file_is_an_error_in_words(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(os.urandom(64))
    with pytest.raises(DataError, match="cannot be read as a table|that can be read"):
        BROWSECOMP_ZH.load(path)


def test_the_published_files_have_their_known_counts(data_dir: Callable[[str], Path]) -> None:
    xbench = XBENCH.load(data_dir("xbench")).split("test")
    browsecomp = BROWSECOMP_ZH.load(data_dir("browsecomp-zh")).split("test")
    webwalker = WEBWALKERQA.load(data_dir("webwalkerqa")).split("test")
    assert (len(xbench), len(browsecomp), len(webwalker)) == (100, 289, 680)
    assert tags(webwalker, "language") == {"zh": 433, "en": 247}
    assert all(task.gold[0] and task.question for task in (*xbench, *browsecomp, *webwalker))


def test_the_shipped_gaia_ids_are_the_text_only_ones(data_dir: Callable[[str], Path]) -> None:
    from harness.tasks.gaia import text_only_ids

    rows = json.loads((data_dir("gaia-ids") / "gaia_validation_165_ids.json").read_text(encoding="utf-8"))
    assert text_only_ids() == {row["task_id"] for row in rows if row["in_text103"]}
