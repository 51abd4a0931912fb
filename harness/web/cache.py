"""What the live web answered, kept on disk: one JSON file per question, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from harness.config import home


class DiskCache:
    """Only successes are put here; a file that cannot be read counts as absent."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or home() / "cache" / "web"

    def get(self, *key: str | int) -> Any | None:
        try:
            return json.loads(self._path(key).read_text(encoding="utf-8"))["value"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, value: Any, *key: str | int) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"key": list(key), "value": value}, file, ensure_ascii=False)
        os.replace(name, path)

    def _path(self, key: tuple[str | int, ...]) -> Path:
        digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()
        return self._folder / digest[:2] / f"{digest}.json"
