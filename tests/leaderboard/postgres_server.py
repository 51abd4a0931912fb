"""A PostgreSQL server of the tests' own: made in a folder, reached over a socket in it, gone afterwards."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

START_SECONDS = 60.0


def postgres_programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres`` (the newest version), None where they are not installed."""
    on_path = shutil.which("initdb")
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4].split(".")[0]))
    return Path(on_path).resolve().parent if on_path else Path(found[-1]).parent if found else None


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A running server; yields its URL without a database name at the end (``{}`` stands for it)."""
    folder = Path(tempfile.mkdtemp(prefix="harness-pg-", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    user = _owner(folder)
    log = folder.with_suffix(".log").open("wb")
    make = [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "harness", "--no-sync", "-E", "UTF8", "--locale", "C"]
    server: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run(make, check=True, stdout=log, stderr=log, user=user, cwd=folder)
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60", "-k", str(folder)]
        server = subprocess.Popen([programs / "postgres", "-D", folder / "data", *settings], stdout=log, stderr=log, user=user, cwd=folder)
        url = f"postgresql+psycopg://harness@/{{}}?host={folder}"
        _await(url.format("postgres"), server)
        yield url
    finally:
        if server is not None:
            server.send_signal(2)  # fast shutdown
            server.wait(timeout=60)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink()


def new_database(url: str, name: str) -> str:
    """Create an empty database on the server and return its URL."""
    engine = create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return url.format(name)


def _owner(folder: Path) -> int | None:
    """PostgreSQL refuses to run as root: another user owns the folder then."""
    if os.geteuid() != 0:
        return None
    names = [name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}]
    user = pwd.getpwnam(names[0])
    os.chown(folder, user.pw_uid, user.pw_gid)
    return user.pw_uid


def _await(url: str, server: subprocess.Popen[bytes]) -> None:
    engine, deadline = create_engine(url), time.monotonic() + START_SECONDS
    while True:
        try:
            with engine.connect():
                engine.dispose()
                return
        except OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
