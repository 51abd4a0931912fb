"""Rows of a published table, whatever file it comes in: CSV, JSON, JSONL, Parquet, Excel. The one door to openpyxl and pyarrow.

The first line of a CSV or Excel file names the columns. Nothing here knows what a row means.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.rows import Row, read_rows, read_text


def read_table(path: Path) -> list[Row]:
    """The rows of a file by its suffix. Raises ``DataError`` for an unknown suffix or a damaged file."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot be read as a table, expected one of {', '.join(_READERS)}.")
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path that was given.")
    return reader(path)


def text_of(row: Row, *names: str, blank: bool = False) -> str:
    """The text of the first column that the row has; published copies differ in what they call a column. A number becomes text."""
    name = next((name for name in names if row.data.get(name) is not None), names[0])
    value = row.data.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(int(value)) if float(value).is_integer() else str(value)
    return row.text(name, blank=blank)


def _csv(path: Path) -> list[Row]:
    lines = csv.DictReader(io.StringIO(read_text(path), newline=""))
    return [Row(path=path, number=number, data=line) for number, line in enumerate(lines, start=1)]


def _parquet(path: Path) -> list[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        found: Iterable[Mapping[str, Any]] = ParquetFile(path).read().to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({error}).") from error
    return [Row(path=path, number=number, data=data) for number, data in enumerate(found, start=1)]


def _excel(path: Path) -> list[Row]:
    from zipfile import BadZipFile

    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
        header, *lines = book.worksheets[0].iter_rows(values_only=True)
        book.close()
    except (BadZipFile, InvalidFileException, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: not an Excel file that can be read ({error}).") from error
    names = [str(name) for name in header]
    filled = [line for line in lines if any(cell is not None for cell in line)]
    return [Row(path=path, number=n, data=dict(zip(names, line, strict=False))) for n, line in enumerate(filled, start=1)]


_READERS: Mapping[str, Callable[[Path], list[Row]]] = {
    ".csv": _csv,
    ".json": read_rows,
    ".jsonl": read_rows,
    ".parquet": _parquet,
    ".xlsx": _excel,
}
