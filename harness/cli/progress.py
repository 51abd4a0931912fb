"""What a person sees while a run works: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from harness.wording import plural


class Steps(Protocol):
    """The part of a run's state that is shown."""

    @property
    def step(self) -> int: ...


class RunProgress:
    """Progress of a training run and of the evaluations in it; ``agreed`` is what the sampler's and the learner's log-probabilities were at
    most apart, and a step where it is more than ``accepted`` (nats a token; ``gap`` names the metric) is told at once."""

    def __init__(self, title: str, steps: int, start: int = 0, *, accepted: float = math.inf, gap: str = "mismatch/logprob_max") -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._steps = steps
        self._start = start
        self._began = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        self._progress = Progress(*columns, console=self._console, disable=not self._live)
        self._bar = self._progress.add_task(title, total=steps, completed=start, numbers="")
        self._shown = 0.0
        self._accepted, self._gap = accepted, gap
        self.agreed: float | None = None
        self.notice = Notices(self.say)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def step(self, state: Steps, metrics: Mapping[str, float]) -> None:
        """After each training step; plain lines at most every ten seconds, and the last one."""
        numbers = numbers_line(metrics)
        if (gap := metrics.get(self._gap)) is not None:
            self.agreed = max((self.agreed or 0.0, gap), key=lambda each: (math.isnan(each), each))
            if not gap <= self._accepted:
                self.say(
                    f"step {state.step}: the sampler's log-probabilities and the learner's are {gap:.1e} nats a token apart, accepted is "
                    f"{self._accepted:g}: importance ratios are noise. `harness doctor --model` looks for the cause"
                )
        if self._live:
            self._progress.update(self._bar, completed=state.step, numbers=numbers)
        elif time.monotonic() - self._shown > 10 or state.step == self._steps:
            self._shown = time.monotonic()
            left = (time.monotonic() - self._began) / max(state.step - self._start, 1) * (self._steps - state.step)
            self.say(f"step {state.step}/{self._steps}  {numbers}  {clock(left)} left")

    def say(self, words: str) -> None:
        """A line of its own."""
        _say(self._console, words)


class EvalProgress:
    """Progress of evaluations that run as one: a bar in a terminal, a line every tenth elsewhere. ``numbers`` adds words to it."""

    def __init__(self, title: str, samples: int, numbers: Callable[[], str] = lambda: "") -> None:
        self._console = Console(stderr=True)
        self._title, self._tenth, self._numbers = title, 0, numbers
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns, TextColumn("{task.fields[numbers]}"), console=self._console, disable=not self._console.is_terminal
        )
        self._bar = self._progress.add_task(title, total=samples, numbers="")
        self.notice = Notices(lambda words: _say(self._console, words))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def finished(self, done: int, total: int) -> None:
        if self._console.is_terminal:
            self._progress.update(self._bar, completed=done, total=total, numbers=self._numbers())
        elif done * 10 // total > self._tenth:
            self._tenth = done * 10 // total
            print(f"{self._title}: {done}/{total} {plural(total, 'sample')}  {self._numbers()}".rstrip(), file=sys.stderr, flush=True)


class Notices:
    """Lines about something that many episodes meet at once: said at most every five seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._last = say, -math.inf

    def __call__(self, words: str) -> None:
        if time.monotonic() - self._last > 5:
            self._last = time.monotonic()
            self._say(words)


def _say(console: Console, words: str) -> None:
    if console.is_terminal:
        console.print(words, highlight=False)
    else:
        print(words, file=sys.stderr, flush=True)


def numbers_line(metrics: Mapping[str, float]) -> str:
    """The numbers that matter, in words short enough for one line."""
    time_per_step = f"{metrics['time/step']:.1f} s/step"
    if "groups/total" not in metrics:  # nothing was rolled out
        return f"loss {metrics['policy/loss']:.4f}  {time_per_step}" if "policy/loss" in metrics else time_per_step
    parts = [
        f"reward {metrics['reward/unguided_mean']:.3f}" if "reward/unguided_mean" in metrics else "",
        f"trainable {metrics['groups/trainable']:.0f}/{metrics['groups/total']:.0f}",
        f"rescued {metrics['groups/rescued']:.0f}",
        f"guided {metrics['guided/share']:.0%}",
        f"{metrics['throughput/tokens_per_s']:.0f} tok/s" if "throughput/tokens_per_s" in metrics else "",
        time_per_step,
    ]
    return "  ".join(p for p in parts if p)


def clock(seconds: float) -> str:
    """``m:ss``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
