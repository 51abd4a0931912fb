"""Shared by every test: an own ``$HARNESS_HOME``, one torch thread, and the folder of real data where there is one."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before anything imports torch
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def harness_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs and the database of a test live in its own folder; commands started by it inherit that."""
    home = tmp_path / "harness-home"
    monkeypatch.setenv("HARNESS_HOME", str(home))
    return home


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """``with largest_file(4096):`` fails every write beyond that many bytes of a file, as a full disk would."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def unused_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def data_dir() -> Callable[[str], Path]:
    """``data_dir("corpora/musique100")``: that path under $HARNESS_TEST_DATA; the test is skipped, by name, where it is absent."""
    root = Path(os.environ.get("HARNESS_TEST_DATA", REPO.parent / "shared" / "data"))

    def locate(name: str) -> Path:
        path = root / name
        if not path.exists():
            if os.environ.get("CI") == "true" and root.exists():
                pytest.fail(f"{path} is missing although the data folder is there")
            pytest.skip(f"{name} is not in {root} (set HARNESS_TEST_DATA)")
        return path

    return locate
