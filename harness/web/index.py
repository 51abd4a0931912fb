"""A corpus on disk: BM25 over a JSONL file of pages, indexed once and memory-mapped, so that runs share one copy and open it at once.

The index lies beside other caches under ``$HARNESS_HOME`` and is keyed by the file's content. Pages stay in the file itself and are read
from it by offset. Ranking, tokens and ties are those of ``CorpusWeb``; building takes the tokens of the whole corpus into memory once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import home
from harness.errors import DataError, WebError
from harness.rows import Row
from harness.web.base import Hit, Page
from harness.web.tokens import tokens

SNIPPET_CHARACTERS = 1000
_VERSION = 1  # raise it when tokens or the layout change: other versions' folders are then left alone


class IndexedCorpus:
    """The ``Web`` over one JSONL file with ``url``, ``title`` and ``text`` in every row; shared freely, nothing changes after opening."""

    def __init__(self, path: Path) -> None:
        """Open the index of ``path``, building it first where there is none. Raises ``DataError`` for a row that cannot be used."""
        self._path = path
        self.fingerprint = _content_hash(path)
        folder = home() / "cache" / "corpora" / f"{self.fingerprint}-{_VERSION}"
        if not (folder / "facts.json").is_file():
            _build(path, folder)
        import bm25s  # slow to import

        self._index: Any = bm25s.BM25.load(str(folder), mmap=True) if (folder / "vocab.index.json").is_file() else None
        self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        self._url_hashes = np.load(folder / "url_hashes.npy", mmap_mode="r")  # sorted
        self._url_places = np.load(folder / "url_places.npy", mmap_mode="r")  # the page of each hash

    def __len__(self) -> int:
        return len(self._offsets)

    async def search(self, query: str, limit: int) -> list[Hit]:
        """The best ``limit`` pages with a token of the query, best first, ties by place."""
        found = [self._page(int(place)) for place in self._ranking(query)[: max(limit, 0)]]
        return [Hit(title=page.title, url=page.url, snippet=page.text[:SNIPPET_CHARACTERS]) for page in found]

    async def fetch(self, url: str) -> Page:
        first = int(np.searchsorted(self._url_hashes, _url_hash(url)))
        while first < len(self._url_hashes) and self._url_hashes[first] == _url_hash(url):
            page = self._page(int(self._url_places[first]))
            if page.url == url:
                return page
            first += 1
        raise WebError(f"no page at {url!r}. Search first, then visit a URL exactly as a search result shows it.")

    def _ranking(self, query: str) -> Any:
        wanted = [token for token in tokens(query) if self._index is not None and token in self._index.vocab_dict]
        if not wanted:
            return []
        scores = self._index.get_scores(wanted)
        places = scores.nonzero()[0]
        return places[(-scores[places]).argsort(kind="stable")]

    def _page(self, place: int) -> Page:
        with self._path.open("rb") as file:
            file.seek(int(self._offsets[place]))
            return _page(self._path, place + 1, file.readline())


def _build(path: Path, folder: Path) -> None:
    """Write the index into a folder of its own, then give it its name: a killed build leaves nothing that could be mistaken for one."""
    import bm25s

    offsets, hashes, documents = [], [], []
    seen: dict[str, int] = {}
    for place, (offset, page) in enumerate(_pages(path)):
        if seen.setdefault(page.url, place) != place:
            raise DataError(
                f"{path}, page {place + 1}: the URL {page.url!r} was used by page {seen[page.url] + 1} already, expected one each"
            )
        offsets.append(offset)
        hashes.append(_url_hash(page.url))
        documents.append(tokens(f"{page.title}\n{page.title}\n{page.text}"))  # a title counts twice, as in CorpusWeb
    if not offsets:
        raise DataError(f"{path}: holds no page, expected rows with 'url', 'title' and 'text'.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".corpus-", dir=folder.parent))
    try:
        order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
        np.save(partial / "offsets.npy", np.array(offsets, dtype=np.uint64))
        np.save(partial / "url_hashes.npy", np.array(hashes, dtype=np.uint64)[order])
        np.save(partial / "url_places.npy", order.astype(np.uint64))
        if any(documents):
            index = bm25s.BM25(method="lucene")
            index.index(documents, show_progress=False)
            index.save(str(partial))
        (partial / "facts.json").write_text(json.dumps({"pages": len(offsets), "source": str(path)}))
        os.rename(partial, folder)
    except OSError as error:
        if not (folder / "facts.json").is_file():  # else another process was faster, and its index is the same
            raise DataError(f"the index of {path} cannot be written to {folder}: {error}; make room or set HARNESS_HOME") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _pages(path: Path) -> Iterator[tuple[int, Page]]:
    """Each page with the byte at which its line begins."""
    offset, place = 0, 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                place += 1
                yield offset, _page(path, place, line)
            offset += len(line)


def _page(path: Path, number: int, line: bytes) -> Page:
    try:
        data = json.loads(line)
    except ValueError as broken:
        raise DataError(f"{path}, row {number}: not valid JSON ({broken}); expected one object a line.") from broken
    if not isinstance(data, dict):
        raise DataError(f"{path}, row {number}: expected an object with 'url', 'title' and 'text'.")
    row = Row(path=path, number=number, data=data)
    return Page(url=row.text("url"), title=row.text("title", blank=True), text=row.text("text", blank=True))


def _content_hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    try:
        with path.open("rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Check the path of corpus:PATH.") from error
    return digest.hexdigest()


def _url_hash(url: str) -> int:
    return int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest(), "big")
