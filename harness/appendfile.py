"""Files that only grow: numbered, rotated, and whole after any failure. One process writes a file; ``WriterLock`` sees to that.

Knows nothing of what the bytes mean: whoever opens an ``Appender`` says how much of an existing file is complete.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from harness.errors import RunLogError


class WriterLock:
    """Held while a writer is open; the system drops it when the process dies, however that happens."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _write_error(path, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise RunLogError(
                f"another process is writing {path.parent.parent}: wait for it to end, or choose another run directory"
            ) from error

    def release(self) -> None:
        os.close(self._fd)


def locked(path: Path) -> bool:
    """Whether a writer holds the lock at ``path`` now. Writes nothing."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class Appender:
    """``folder/<writer>-<n>.<suffix>``, n growing by one whenever a file would pass ``limit`` bytes.

    ``complete(path)`` returns how many bytes of an existing file are whole; the rest is cut when the file is opened again.
    """

    def __init__(self, folder: Path, writer: str, suffix: str, limit: int, complete: Callable[[Path], int]) -> None:
        self._folder, self._writer, self._suffix, self._limit = folder, writer, suffix, limit
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _write_error(folder, error) from error
        numbers = [path.stem.removeprefix(f"{writer}-") for path in folder.glob(f"{writer}-*.{suffix}")]
        self._open(max((int(n) for n in numbers if n.isdigit()), default=0), complete)

    def append(self, data: bytes) -> tuple[Path, int]:
        """Write ``data`` whole or not at all; returns the file and the offset where it starts."""
        if self._size and self._size + len(data) > self._limit:
            self._rotate()
        start = self._size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.ftruncate(self._fd, start)
            raise _write_error(self._path, error) from error
        self._size += len(data)
        return self._path, start

    def sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _write_error(self._path, error) from error

    def close(self) -> None:
        os.close(self._fd)

    def _rotate(self) -> None:
        self.sync()
        full = self._fd
        self._open(self._n + 1, lambda _: 0)
        os.close(full)

    def _open(self, n: int, complete: Callable[[Path], int]) -> None:
        """Make file ``n`` the current one; if that fails, the one before stays."""
        path = self._folder / f"{self._writer}-{n}.{self._suffix}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            size = complete(path)
            os.ftruncate(fd, size)
            _sync_folder(self._folder)
        except OSError as error:
            raise _write_error(path, error) from error
        self._fd, self._size, self._n, self._path = fd, size, n, path


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_error(path: Path, error: OSError) -> RunLogError:
    return RunLogError(
        f"cannot write {path}: {error.strerror}. What was recorded before is whole; make room or mend the rights, then resume."
    )
