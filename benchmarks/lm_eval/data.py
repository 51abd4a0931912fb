"""Local copies of GPQA, TruthfulQA and IFEval in their published forms, as rows for lm-eval's tasks. Nothing is written anywhere."""

from __future__ import annotations

import csv
import hashlib
import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.rows import Row, read_rows, read_text

Doc = dict[str, Any]

GPQA_FIELDS = ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def gpqa_rows(path: Path, subset: str) -> list[Doc]:
    """Rows of ``gpqa_<subset>.csv`` (the published file) or ``.jsonl``; ``path`` is that file or its folder."""
    return [_gpqa_row(row) for row in _table(_file(path, f"gpqa_{subset}", (".csv", ".jsonl", ".json")))]


def frozen_choices(doc: Mapping[str, Any]) -> Doc:
    """A GPQA row with its options in an order of its own: a function of the question, the same in every run and on every machine.

    lm-eval shuffles with the global random state instead, inside a cached step.
    """
    options = [_tidy(doc[field]) for field in ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Correct Answer")]
    seed = hashlib.blake2b("\x1f".join([str(doc["Question"]), *options]).encode(), digest_size=8).digest()
    order = list(range(4))
    random.Random(int.from_bytes(seed, "big")).shuffle(order)
    choices = [options[place] for place in order]
    numbered = {f"choice{i}": choice for i, choice in enumerate(choices, start=1)}
    answer = f"({'ABCD'[order.index(3)]})"
    record = str(doc.get("Record ID") or seed.hex())
    kept = {field: doc[field] for field in GPQA_FIELDS}
    return {**kept, **numbered, "choices": choices, "answer": answer, "record": record, "order": "".join(map(str, order))}


def truthfulqa_choices(path: Path) -> list[Doc]:
    """Multiple choice: ``mc_task.json`` (answer -> label), or the hub's rows (``choices`` beside ``labels``)."""
    return [
        {"question": row.text("question"), "mc1_targets": _targets(row, "mc1_targets"), "mc2_targets": _targets(row, "mc2_targets")}
        for row in read_rows(_file(path, "mc_task", (".json", ".jsonl")))
    ]


def truthfulqa_answers(path: Path) -> list[Doc]:
    """Generation: ``TruthfulQA.csv``, its answers separated by semicolons."""
    return [
        {
            "type": row.text("Type"),
            "category": row.text("Category"),
            "question": row.text("Question"),
            "best_answer": row.text("Best Answer"),
            "correct_answers": _split(row.text("Correct Answers")),
            "incorrect_answers": _split(row.text("Incorrect Answers")),
        }
        for row in _table(_file(path, "TruthfulQA", (".csv",)))
    ]


def ifeval_rows(path: Path) -> list[Doc]:
    """``input_data.jsonl`` of the authors, or the hub's rows (where unused arguments are null)."""
    docs = []
    for row in read_rows(_file(path, "input_data", (".jsonl", ".json"))):
        names, arguments = row.texts("instruction_id_list"), [dict(r.data) for r in row.rows("kwargs")]
        if len(names) != len(arguments):
            raise row.error(f"{len(names)} instructions but {len(arguments)} sets of arguments, expected one each")
        docs.append({"key": row.integer("key"), "prompt": row.text("prompt"), "instruction_id_list": list(names), "kwargs": arguments})
    return docs


def expect_count(docs: Sequence[Doc], expected: int, what: str) -> None:
    """Raise ``DataError`` unless there are as many as were published."""
    if len(docs) != expected:
        raise DataError(f"{what}: got {len(docs)} rows, expected {expected}, as published; check that the copy is whole")


def expect_instructions(docs: Sequence[Doc], expected: int, what: str) -> None:
    """Raise ``DataError`` unless IFEval's prompts hold as many instructions in all as were published."""
    found = sum(len(doc["instruction_id_list"]) for doc in docs)
    if found != expected:
        raise DataError(f"{what}: got {found} instructions, expected {expected}, as published; check that the copy is whole")


def _gpqa_row(row: Row) -> Doc:
    return {field: row.text(field) for field in GPQA_FIELDS} | {"Record ID": str(row.data.get("Record ID") or "")}


def _tidy(text: str) -> str:
    """The way lm-eval prepares an option."""
    return str(text).strip().replace(" [title]", ". ").replace("  ", " ")


def _targets(row: Row, key: str) -> Doc:
    value = row.data.get(key)
    if isinstance(value, dict) and set(value) == {"choices", "labels"}:
        choices, labels = list(value["choices"]), list(value["labels"])
    elif isinstance(value, dict):
        choices, labels = list(value), list(value.values())
    else:
        raise row.error(f"{key!r} is no mapping of answers to labels")
    if not choices or len(choices) != len(labels) or not set(labels) <= {0, 1} or 1 not in labels:
        raise row.error(f"{key!r} must give each answer the label 0 or 1, and one of them 1")
    return {"choices": choices, "labels": labels}


def _split(answers: str) -> list[str]:
    return [answer.strip() for answer in answers.split(";") if answer.strip()]


def _file(path: Path, stem: str, endings: Sequence[str]) -> Path:
    """``path`` itself, or the file called ``stem`` in the folder ``path``."""
    if path.is_dir():
        for ending in endings:
            if (path / f"{stem}{ending}").is_file():
                return path / f"{stem}{ending}"
        raise DataError(
            f"{path} holds no {' or '.join(stem + ending for ending in endings)}; name the folder or the file of the published form"
        )
    if path.suffix not in endings:
        raise DataError(f"{path}: expected a file that ends in {' or '.join(endings)}, or a folder that holds {stem}{endings[0]}")
    return path


def _table(path: Path) -> list[Row]:
    if path.suffix != ".csv":
        return read_rows(path)
    lines = csv.DictReader(io.StringIO(read_text(path), newline=""))
    return [Row(path=path, number=number, data=line) for number, line in enumerate(lines, start=1)]
