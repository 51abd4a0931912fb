"""The corpus on disk: the ranking of the one in memory, one index for everybody, and files that cannot be used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.errors import DataError, UsageError, WebError
from harness.web import index, open_web
from harness.web.corpus import CorpusWeb, read_pages
from harness.web.index import IndexedCorpus

ROWS = [
    {"url": "w://oak", "title": "Oak Mill", "text": "A mill on the river Tarn, built by Ada Brook. " * 30, "lang": "en"},
    {"url": "w://ada", "title": "Ada Brook", "text": "Ada Brook was born in Lindal."},
    {"url": "w://zh", "title": "青岚山", "text": "青岚山位于云溪省北部，最高峰海拔1890米。"},
    {"url": "w://zh2", "title": "云溪省", "text": "云溪省的省会是白石城。\u2028第二行"},
    {"url": "w://empty", "title": "", "text": ""},
]


def write(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("query", ["Ada Brook", "青岚山在哪里", "省会", "river", "１８９０", "nothing of the kind", ""])
def test_it_ranks_as_the_corpus_in_memory_does(tmp_path: Path, query: str) -> None:
    path = write(tmp_path / "pages.jsonl")
    disk, memory = IndexedCorpus(path), CorpusWeb(read_pages(path))
    assert len(disk) == 5
    assert asyncio.run(disk.search(query, 3)) == asyncio.run(memory.search(query, 3))


def test_every_page_is_fetched_by_its_address(tmp_path: Path) -> None:
    path = write(tmp_path / "pages.jsonl")
    disk = IndexedCorpus(path)
    assert [asyncio.run(disk.fetch(row["url"])) for row in ROWS] == read_pages(path)
    with pytest.raises(WebError, match="no page at 'w://none'"):
        asyncio.run(disk.fetch("w://none"))


def test_the_index_is_built_once_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "pages.jsonl")
    first = IndexedCorpus(path)
    monkeypatch.setattr(index, "_build", lambda *args: pytest.fail("built again"))
    again = IndexedCorpus(write(tmp_path / "copy.jsonl"))
    assert again.fingerprint == first.fingerprint, "a copy shares the index"
    assert isinstance(again._offsets, np.memmap) and isinstance(again._index.scores["data"], np.memmap)


def test_a_changed_file_gets_an_index_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "pages.jsonl")
    before = IndexedCorpus(path).fingerprint
    write(path, [*ROWS, {"url": "w://new", "title": "Newt", "text": "A newt."}])
    after = IndexedCorpus(path)
    assert after.fingerprint != before and asyncio.run(after.search("newt", 1))[0].url == "w://new"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no page"),
        ('{"url": "a", "title": "t", "text": "x"}\n{"url": "a", "title": "t", "text": "y"}', "used by page 1 already"),
        ('{"url": "a", "title": "t", "text": "x"}\n{oops', "row 2: not valid JSON"),
        ('{"title": "t", "text": "x"}', "'url' is missing"),
        ("[1]", "expected an object"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_leaves_no_index(tmp_path: Path, harness_home: Path, content: str, complaint: str) -> None:
    path = tmp_path / "pages.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=complaint):
        IndexedCorpus(path)
    assert not list((harness_home / "cache").rglob("facts.json"))


def test_the_command_line_names_it_by_path(tmp_path: Path) -> None:
    assert isinstance(open_web(f"corpus:{write(tmp_path / 'pages.jsonl')}"), IndexedCorpus)
    (tmp_path / "pages.json").write_text(json.dumps(ROWS))
    assert isinstance(open_web(f"corpus:{tmp_path / 'pages.json'}"), CorpusWeb)
    with pytest.raises(UsageError, match="no such file"):
        open_web("corpus:/nowhere/pages.jsonl")


def test_published_corpora_serve_as_a_web(data_dir: Callable[[str], Path]) -> None:
    web = open_web(f"corpus:{data_dir('corpora/musique100/train_corpus.json')}")
    assert len(asyncio.run(web.search("Johann Strauss", 5))) == 5
