"""Local copies of GPQA, TruthfulQA and IFEval: every published form is read, and what is wrong with a copy is said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval_cases import gpqa_row, write_gpqa

from benchmarks.base import SuiteAsk
from benchmarks.lm_eval import GPQA
from benchmarks.lm_eval import data as local
from benchmarks.lm_eval.config import LMEvalConfig
from harness.errors import DataError, UsageError


def test_gpqa_is_read_from_its_csv_by_folder_or_by_file(tmp_path: Path) -> None:
    path = write_gpqa(tmp_path, "diamond", 3)
    assert local.gpqa_rows(tmp_path, "diamond") == local.gpqa_rows(path, "diamond")
    assert local.gpqa_rows(path, "diamond")[2] == gpqa_row(2)


def test_options_stand_in_an_order_that_belongs_to_the_question() -> None:
    docs = [local.frozen_choices(gpqa_row(i)) for i in range(400)]
    assert docs == [local.frozen_choices(gpqa_row(i)) for i in range(400)]
    for doc in docs:
        assert doc["choices"]["ABCD".index(doc["answer"][1])] == doc["Correct Answer"]
        assert sorted(doc["choices"]) == sorted(doc[field] for field in local.GPQA_FIELDS[1:])
        assert [doc[f"choice{i}"] for i in (1, 2, 3, 4)] == doc["choices"]
    letters = [doc["answer"] for doc in docs]
    assert all(70 <= letters.count(f"({letter})") <= 130 for letter in "ABCD"), "the right answer has no favourite place"


def test_the_order_does_not_change_with_other_rows_or_random_states() -> None:
    before = local.frozen_choices(gpqa_row(7))
    random.seed(99)
    assert local.frozen_choices({**gpqa_row(7), "Record ID": "rec7"}) == before


def test_a_wrong_number_of_rows_is_an_error_that_says_what_was_expected() -> None:
    with pytest.raises(DataError, match="got 3 rows, expected 198"):
        local.expect_count([{}] * 3, 198, "gpqa_diamond")


def test_a_missing_column_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "gpqa_main.csv").write_text("Question,Answer\nWhy?,Because\n")
    with pytest.raises(DataError, match="'Correct Answer' is missing"):
        local.gpqa_rows(tmp_path, "main")
    with pytest.raises(DataError, match=r"holds no gpqa_extended\.csv"):
        local.gpqa_rows(tmp_path, "extended")


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="Did you mean 'diamond'"):
        GPQA.check(SuiteAsk(settings=LMEvalConfig(), split="diamnd"))


def test_truthfulqa_is_read_in_both_forms(tmp_path: Path) -> None:
    flat = [{"question": "Q?", "mc1_targets": {"yes": 1, "no": 0}, "mc2_targets": {"yes": 1, "so": 1, "no": 0}}]
    two, three = {"choices": ["yes", "no"], "labels": [1, 0]}, {"choices": ["yes", "so", "no"], "labels": [1, 1, 0]}
    hub = [{"question": "Q?", "mc1_targets": two, "mc2_targets": three}]
    (tmp_path / "mc_task.json").write_text(json.dumps(flat))
    (tmp_path / "hub.jsonl").write_text("\n".join(map(json.dumps, hub)))
    assert local.truthfulqa_choices(tmp_path) == hub == local.truthfulqa_choices(tmp_path / "hub.jsonl")


def test_labels_other_than_0_and_1_are_refused(tmp_path: Path) -> None:
    row: dict[str, Any] = {"question": "Q?", "mc1_targets": {"yes": 0, "no": 0}, "mc2_targets": {"yes": 1}}
    (tmp_path / "mc_task.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match="one of them 1"):
        local.truthfulqa_choices(tmp_path)


def test_the_published_files_have_the_published_numbers_of_rows(data_dir: Callable[[str], Path]) -> None:
    folder, prompts = data_dir("truthfulqa/hf-013686a"), local.ifeval_rows(data_dir("ifeval/input_data.jsonl"))
    assert len(local.truthfulqa_choices(folder)) == len(local.truthfulqa_answers(folder)) == 817
    assert len(prompts) == 541 and sum(len(doc["instruction_id_list"]) for doc in prompts) == 834
