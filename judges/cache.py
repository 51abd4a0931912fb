"""Replies of judging models on disk, so that the same question is paid for once. One small file an entry, written whole or not at all.

A key is a hash of all that can change the reply: place, model, contract, question, gold, answer. Only replies with a verdict are kept: a
failure may pass.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Entries under ``folder``; several processes may share it."""

    folder: Path

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The entry, or None where there is none that can be read."""
        try:
            entry = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return entry if isinstance(entry, dict) and entry.get("key") == key else None

    def put(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep an entry. A folder that cannot be written is no reason to lose a verdict: the next run pays again."""
        path = self._path(key)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({**entry, "key": key}, ensure_ascii=False), encoding="utf-8")
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def cache_key(*parts: str | Sequence[str]) -> str:
    """32 hex digits over all parts."""
    return hashlib.blake2b(json.dumps(parts, ensure_ascii=False).encode(), digest_size=16).hexdigest()
