"""Rows of JSON and JSONL files, read so that a bad one is named: path, row number, what was found, what was expected.

Nothing here knows what a row means, and nothing is skipped: a file is read whole or refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One JSON object of a file; ``number`` counts from 1, in a JSONL file it is the line."""

    path: Path
    number: int
    data: Mapping[str, Any]

    def text(self, key: str, *, blank: bool = False) -> str:
        """The string under ``key``; an empty one is refused unless ``blank``."""
        value = self._get(key, "a string")
        if not isinstance(value, str):
            raise self.error(f"{key!r} is {describe(value)}, expected a string")
        if not blank and not value.strip():
            raise self.error(f"{key!r} is empty, expected some text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of strings under ``key``."""
        value = self._get(key, "a list of strings")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f"{key!r} is {describe(value)}, expected a list of strings")
        return tuple(value)

    def integer(self, key: str) -> int:
        value = self._get(key, "an integer")
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"{key!r} is {describe(value)}, expected an integer")
        return value

    def flag(self, key: str) -> bool:
        value = self._get(key, "true or false")
        if not isinstance(value, bool):
            raise self.error(f"{key!r} is {describe(value)}, expected true or false")
        return value

    def items(self, key: str) -> Sequence[Any]:
        """The list under ``key``, of whatever."""
        value = self._get(key, "a list")
        if not isinstance(value, list):
            raise self.error(f"{key!r} is {describe(value)}, expected a list")
        return value

    def rows(self, key: str) -> tuple[Row, ...]:
        """The list of objects under ``key``; their errors name this row."""
        value = self.items(key)
        for place, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.error(f"{key}[{place}] is {describe(item)}, expected an object")
        return tuple(Row(path=self.path, number=self.number, data=item) for item in value)

    def error(self, found: str) -> DataError:
        """A ``DataError`` about this row."""
        return DataError(f"{self.path}, row {self.number}: {found}.")

    def _get(self, key: str, expected: str) -> object:
        if key not in self.data:
            have = ", ".join(map(repr, self.data)) or "no keys at all"
            raise self.error(f"the key {key!r} is missing, expected {expected} there; the row has {have}")
        return self.data[key]


def read_json(path: Path) -> Any:
    """The JSON value of a whole file."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as broken:
        raise DataError(f"{path}: not valid JSON at line {broken.lineno}, column {broken.colno}: {broken.msg}.") from broken


def read_rows(path: Path) -> list[Row]:
    """The objects of a JSONL file (one a line, blank lines allowed) or of a ``.json`` file that holds a list of objects."""
    rows = []
    for row in each_row(path):
        if isinstance(row, DataError):
            raise row
        rows.append(row)
    return rows


def each_row(path: Path) -> Iterator[Row | DataError]:
    """Like ``read_rows``, for readers that name every broken row: one that is no object comes as the error about it."""
    yield from _rows_of_list(path) if path.suffix == ".json" else _rows_of_lines(path)


def read_text(path: Path) -> str:
    """A UTF-8 file, or an error that says what is wrong with the path."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as missing:
        raise DataError(f"{path}: no such file. Check the path that was given.") from missing
    except IsADirectoryError as folder:
        raise DataError(f"{path}: is a folder, expected a file.") from folder
    except UnicodeDecodeError as broken:
        raise DataError(f"{path}: byte {broken.start} is not UTF-8; the file must be UTF-8 text.") from broken
    except OSError as refused:
        raise DataError(f"{path}: cannot be read: {refused.strerror}.") from refused


def describe(value: object) -> str:
    """A JSON value in a few words: its kind and the start of its text."""
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "null"}
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return f"{kinds.get(type(value), type(value).__name__)} ({text[:40]}{'...' if len(text) > 40 else ''})"


def _rows_of_lines(path: Path) -> Iterator[Row | DataError]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # not splitlines: U+2028 may stand inside a JSON string
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as broken:
            yield DataError(f"{path}, row {number}: not valid JSON ({broken.msg} at column {broken.colno}); expected one object a line.")
            continue
        yield _row(path, number, value)


def _rows_of_list(path: Path) -> Iterator[Row | DataError]:
    value = read_json(path)
    if not isinstance(value, list):
        raise DataError(f"{path}: holds {describe(value)}, expected a list of objects.")
    yield from (_row(path, number, item) for number, item in enumerate(value, start=1))


def _row(path: Path, number: int, value: object) -> Row | DataError:
    if not isinstance(value, dict):
        return DataError(f"{path}, row {number}: {describe(value)}, expected an object.")
    return Row(path=path, number=number, data=value)
