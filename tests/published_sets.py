"""Made-up question sets in the published forms of GAIA, WebWalkerQA, XBench and BrowseComp-ZH, with the published counts."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.tasks.browsecomp_zh import TOPICS
from harness.tasks.gaia import LEVELS, text_only_ids
from harness.tasks.webwalkerqa import DIFFICULTIES

CANARY = "MADE-UP CANARY 0000"


def xor(text: str, key: bytes) -> str:
    data = text.encode()
    return base64.b64encode(bytes(byte ^ key[i % len(key)] for i, byte in enumerate(data))).decode()


def gaia_rows() -> list[dict[str, Any]]:
    """165 validation rows: the 103 text-only ids with made-up content, 38 with a file, 24 that need pictures all the same."""
    levels = [level for level, count in LEVELS.items() for _ in range(count)]
    rows = []
    for n, (identity, level) in enumerate(zip(sorted(text_only_ids()), levels, strict=True)):
        rows.append({"task_id": identity, "Question": f"What did keeper {n} of Orrin carve?", "Level": level, "Final answer": f"gold-{n}"})
    for n in range(62):
        rows.append({"task_id": f"made-up-{n}", "Question": f"What is in the picture {n}?", "Level": "1", "Final answer": f"other-{n}"})
    return [row | {"file_name": f"{n}.png" if n >= 127 else "", "Annotator Metadata": {"Steps": "1. look"}} for n, row in enumerate(rows)]


def webwalker_rows(flat: bool) -> list[dict[str, Any]]:
    difficulties = [name for name, count in DIFFICULTIES.items() for _ in range(count)]
    rows = []
    for n, difficulty in enumerate(difficulties):
        lang = ("en", "zh", "")[n % 3]
        info = {"domain": ("game", "education")[n % 2], "type": ("single_source", "multi_source")[n % 2], "difficulty_level": difficulty}
        info |= {"lang": lang, "source_website": ["https://site.example/a"], "golden_path": ["root->a"]}
        question = f"Who opened hall {n} of Veldt?" if lang == "en" else f"维尔特的第{n}号大厅由谁启用？"
        head = {"Question" if flat else "question": question, "answer": f"gold-{n}", "root_url": "https://site.example"}
        rows.append(head | info if flat else head | {"info": info})
    return rows


def xbench_rows() -> list[dict[str, str]]:
    key = CANARY.encode()
    rows = []
    for n in range(1, 101):
        plain = {"prompt": f"奥林的第{n}位守塔人叫什么？", "answer": f"金答{n}", "reference_steps": "先查名册"}
        rows.append({"id": str(n), **{name: xor(text, key) for name, text in plain.items()}, "canary": CANARY})
    return rows


def browsecomp_rows() -> list[tuple[str, str, str, str]]:
    key = hashlib.sha256(CANARY.encode()).digest()
    topics = [topic for topic, count in TOPICS.items() for _ in range(count)]
    return [(xor(t, key), xor(f"维尔特的第{n}件藏品是什么？", key), xor(f"金答{n}", key), CANARY) for n, t in enumerate(topics)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_excel(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("Topic", "Question", "Answer", "canary")) -> Path:
    from openpyxl import Workbook

    book = Workbook()
    for row in (header, *rows):
        book.active.append(row)
    book.save(path)
    return path


PUBLISHED: Mapping[str, Callable[[Path], Path]] = {
    "gaia": lambda folder: write_jsonl(folder / "metadata.jsonl", gaia_rows()),
    "webwalkerqa": lambda folder: write_jsonl(folder / "test.jsonl", webwalker_rows(flat=True)),
    "xbench": lambda folder: write_csv(folder / "DeepSearch-2505.csv", xbench_rows()),
    "browsecomp-zh": lambda folder: write_excel(folder / "browsecomp-zh-encrypted.xlsx", browsecomp_rows()),
}
"""Writes one file of each set into a folder."""
