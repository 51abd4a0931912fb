"""Experiment trackers behind the recorder: the numbers of a run, as it records them, also in TensorBoard, Weights & Biases or trackio.

The run log stays the truth; a tracker is a copy for people who have their own dashboards. One that fails is left out from then on,
with a word on stderr: it never ends a run. Weights & Biases writes offline (``wandb sync`` uploads) unless $WANDB_MODE says otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.errors import MissingDependencyError
from harness.events import Kind

TrackerName = Literal["tensorboard", "wandb", "trackio"]

PROJECT = "actguide-harness"


class Tracker(Protocol):
    """Where numbers go; ``step`` counts training steps from 0."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None: ...

    def histogram(self, step: int, name: str, edges: Sequence[float], counts: Sequence[float]) -> None: ...

    def close(self) -> None: ...


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Raise MissingDependencyError for a tracker whose package is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise MissingDependencyError(f"the tracker {name} is not installed: pip install 'actguide-harness[{name}]'")


@contextmanager
def tracking(names: Sequence[TrackerName], folder: Path, run_id: str, config: Mapping[str, Any]) -> Iterator[Feed]:
    """The feed of the named trackers for the run in ``folder``, under the name that it has on the board; they are closed at the end."""
    check_trackers(names)
    feed = Feed({name: OPEN[name](folder, run_id, config) for name in names})
    try:
        yield feed
    finally:
        feed.close()


class Feed:
    """Listens to a recorder: steps as they are, evaluations as the mean of their verdicts once they are finished."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)
        self._evaluation_of: dict[str, str] = {}
        self._verdicts: dict[str, dict[str, float | None]] = {}

    def __call__(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """Take one event, as it was just recorded."""
        if not self._trackers:
            return
        match kind:
            case Kind.STEP:
                self._step(data)
            case Kind.ATTEMPT if data.get("evaluation_id"):
                self._evaluation_of[data["attempt_id"]] = data["evaluation_id"]
            case Kind.JUDGEMENT if data["attempt_id"] in self._evaluation_of:
                verdicts = self._verdicts.setdefault(self._evaluation_of[data["attempt_id"]], {})
                verdicts[data["attempt_id"]] = data["value"]
            case Kind.EVALUATION if data["phase"] == "finished":
                self._evaluation(data)

    def close(self) -> None:
        self._tell(lambda tracker: tracker.close())

    def _step(self, data: Mapping[str, Any]) -> None:
        step = int(data["step"])
        values = {name: float(value) for name, value in (data.get("metrics") or {}).items() if value is not None}
        self._tell(lambda tracker: tracker.numbers(step, values))
        for name, bins in (data.get("histograms") or {}).items():
            self._histogram(step, name, bins["edges"], bins["counts"])

    def _histogram(self, step: int, name: str, edges: Sequence[float], counts: Sequence[float]) -> None:
        self._tell(lambda tracker: tracker.histogram(step, name, edges, counts))

    def _evaluation(self, data: Mapping[str, Any]) -> None:
        known = [v for v in self._verdicts.pop(data["evaluation_id"], {}).values() if v is not None]
        if known:
            name, step = f"eval/{data['benchmark']}/{data.get('split') or 'all'}", int(data.get("step") or 0)
            values = {f"{name}/score": sum(known) / len(known), f"{name}/scored": float(len(known))}
            self._tell(lambda tracker: tracker.numbers(step, values))

    def _tell(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the run is worth more
                del self._trackers[name]
                print(f"harness: the tracker {name} failed and is left out from now on: {error}", file=sys.stderr)


class TensorBoard:
    """Event files in the run's ``tensorboard`` folder."""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("config", "\n".join(f"    {name}: {value}" for name, value in sorted(config.items())))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def histogram(self, step: int, name: str, edges: Sequence[float], counts: Sequence[float]) -> None:
        """Bins as counted in the run; what lies in a bin is told as its middle."""
        if not sum(counts):
            return
        middles = [(a + b) / 2 for a, b in pairwise(edges)]
        self._writer.add_histogram_raw(
            name,
            min=edges[0],
            max=edges[-1],
            num=sum(counts),
            sum=sum(m * c for m, c in zip(middles, counts, strict=True)),
            sum_squares=sum(m * m * c for m, c in zip(middles, counts, strict=True)),
            bucket_limits=list(edges[1:]),
            bucket_counts=list(counts),
            global_step=step,
        )

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """One run of the project ``actguide-harness``, in the run's ``wandb`` folder; a resumed run goes on under the same id."""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=PROJECT,
            name=run_id,
            id=run_id[-100:],
            dir=str(folder),
            config=dict(config),
            mode=None if "WANDB_MODE" in os.environ else "offline",
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="step")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def histogram(self, step: int, name: str, edges: Sequence[float], counts: Sequence[float]) -> None:
        self._run.log({name: self._wandb.Histogram(np_histogram=(list(counts), list(edges))), "step": step})

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """One run of the project ``actguide-harness`` in trackio's local store ($TRACKIO_DIR)."""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any]) -> None:
        import trackio

        self._trackio = trackio
        self._run = trackio.init(project=PROJECT, name=run_id, config=dict(config), resume="allow", embed=False)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def histogram(self, step: int, name: str, edges: Sequence[float], counts: Sequence[float]) -> None:
        """Trackio keeps numbers only: the mean of the bins' middles stands for the distribution."""
        if sum(counts):
            middles = [(a + b) / 2 for a, b in pairwise(edges)]
            mean = sum(m * c for m, c in zip(middles, counts, strict=True)) / sum(counts)
            self._run.log({f"{name}/mean": mean}, step=step)

    def close(self) -> None:
        self._run.finish()


OPEN: Mapping[str, Callable[[Path, str, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}
