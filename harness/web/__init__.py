"""What an agent's search and visit tools see: a question set's own pages, a corpus on disk, or the live web, behind ``base.Web``."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError
from harness.web.base import Web


def open_web(name: str) -> Web:
    """``corpus:PATH`` (JSONL is indexed on disk once; a JSON file is held in memory) or ``live`` (``live:serper``, ``live:duckduckgo``)."""
    kind, _, rest = name.partition(":")
    if kind == "corpus" and rest:
        return _corpus(Path(rest).expanduser())
    if name in ("live", "live:serper", "live:duckduckgo"):
        from harness.web.live import live_web

        return live_web("serper" if rest == "serper" else "duckduckgo" if rest else None)
    raise UsageError(f"unknown web {name!r}; expected corpus:PATH, live, live:serper or live:duckduckgo")


def identity(name: str, web: Web) -> str:
    """What a result depends on: the content of a corpus, the search engine of the live web; never a path."""
    kind = name.partition(":")[0]
    return f"{kind}:{getattr(web, 'fingerprint', None) or getattr(web, 'name', name)}"


def _corpus(path: Path) -> Web:
    from harness.web.corpus import CorpusWeb
    from harness.web.index import IndexedCorpus

    if not path.is_file():
        raise UsageError(f"corpus:{path}: no such file; name a JSONL file with 'url', 'title' and 'text' in every row")
    return CorpusWeb.from_file(path) if path.suffix == ".json" else IndexedCorpus(path)
