"""Question sets as others published them: found in a user's own file or folder, or fetched from the hub when they are first asked for.

Counts are part of the form: a set with another number of questions, or other splits, is another set, and an error says which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import DataError, MissingDependencyError
from harness.rows import Row
from harness.tables import read_table
from harness.tasks.base import TaskSet, distinct, fingerprint_of
from harness.types import Task
from harness.web.absent import AbsentWeb

OPEN_WEB = "open"
"""The ``web`` of tasks that bring no pages of their own; the command line says what answers their tools."""

Download = Callable[..., str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a set is published. ``files`` are patterns of the file that holds the questions, the best first."""

    name: str
    repo: str  # dataset id on the Hugging Face hub
    files: tuple[str, ...]
    gated: bool = False

    @property
    def page(self) -> str:
        return f"https://huggingface.co/datasets/{self.repo}"

    def rows(self, path: Path | None, download: Download | None = None) -> list[Row]:
        """The rows of PATH (a file, or a folder that holds one), or of the hub's file where there is no PATH."""
        return read_table(self._file(self._fetch(download) if path is None else path))

    def _file(self, path: Path) -> Path:
        if path.is_file():
            return path
        if not path.is_dir():
            raise DataError(f"{path}: no such file or folder; {self.name} expects {self._wanted()} (from {self.page}).")
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        for pattern in self.files:
            for file in inside:
                if fnmatch(file.relative_to(path).as_posix(), pattern):
                    return file
        raise DataError(f"{path}: holds no questions of {self.name}, expected {self._wanted()} (from {self.page}).")

    def _wanted(self) -> str:
        return f"a file like {' or '.join(self.files)}"

    def _fetch(self, download: Download | None) -> Path:
        try:
            from huggingface_hub import errors, snapshot_download
        except ImportError as error:
            raise MissingDependencyError(f"{self.name} is fetched with the package huggingface_hub, which is not installed") from error
        own = f"or name your own copy with --data {self.name}=PATH"
        fetch: Callable[..., Any] = download or snapshot_download
        try:
            return Path(fetch(self.repo, repo_type="dataset", allow_patterns=list(self.files)))
        except errors.GatedRepoError as error:
            raise DataError(
                f"{self.name} is gated: accept its terms at {self.page}, log in with `hf auth login` (or set HF_TOKEN), {own}."
            ) from error
        except (errors.HfHubHTTPError, OSError, ValueError) as error:
            gate = f" It is gated: its terms must be accepted at {self.page}." if self.gated else ""
            raise DataError(
                f"{self.name} could not be fetched from {self.page} ({_first_line(error)}).{gate} Check the network, {own}."
            ) from error


def question_set(source: Source, found: Iterable[tuple[Row, Task]]) -> TaskSet:
    """The open-web set of these tasks, each with the row that it comes from, all of them in the split ``test``."""
    tasks = distinct(found)
    return TaskSet(
        name=source.name,
        tasks={"test": tasks},
        webs={OPEN_WEB: _absent},
        fingerprint=fingerprint_of(tasks, "open web"),
    )


def question_id(name: str, question: str) -> str:
    """A name for a question that its publisher gave none: the same in every copy and order of the file."""
    return f"{name}-{hashlib.blake2b(question.strip().encode(), digest_size=5).hexdigest()}"


def check_counts(source: Source, what: str, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raise ``DataError`` unless there are exactly as many questions of each kind as were published."""
    if dict(found) == dict(expected):
        return
    got, wanted = (f"{sum(counts.values())} questions ({_words(counts)})" for counts in (found, expected))
    raise DataError(f"{source.name}: got {got} by {what}, expected {wanted}. Use the published file from {source.page}.")


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {counts[kind]}" for kind in sorted(counts)) or "none"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@cache
def _absent() -> Any:
    return AbsentWeb()
