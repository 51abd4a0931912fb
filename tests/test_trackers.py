"""Trackers: what a run records is what a dashboard reads back, and none of them can end a run."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from harness.config import build
from harness.errors import MissingDependencyError, UsageError
from harness.events import Kind, Recorder, read_events
from harness.trackers import Feed, check_trackers, tracking
from trainers.config import RunConfig

HISTOGRAM = {"edges": [0.0, 1.0, 2.0], "counts": [3, 1]}
SCORES = {"eval/miniweb/test/score": 0.5, "eval/miniweb/test/scored": 2.0}


def record_a_run(folder: Path, feed: Feed) -> None:
    """Two steps and an evaluation of three questions, one of them without a verdict."""
    with Recorder(folder, listener=feed) as log:
        for step in (0, 1):
            metrics = {"reward/mean": 0.25 * (step + 1), "policy/kl": None}
            log.record(Kind.STEP, {"step": step, "metrics": metrics, "histograms": {"ratio/guided": HISTOGRAM}})
        head = {"evaluation_id": "e", "benchmark": "miniweb", "split": "test", "step": 2}
        log.record(Kind.EVALUATION, {"phase": "started", **head})
        for i, value in enumerate((1.0, 0.0, None)):
            log.record(Kind.ATTEMPT, {"attempt_id": f"a{i}", "evaluation_id": "e"})
            log.record(Kind.JUDGEMENT, {"attempt_id": f"a{i}", "value": value})
        log.record(Kind.ATTEMPT, {"attempt_id": "t", "evaluation_id": None})
        log.record(Kind.JUDGEMENT, {"attempt_id": "t", "value": 1.0})
        log.record(Kind.EVALUATION, {"phase": "finished", **head})


class Told:
    """A tracker that keeps what it is told, and may fail."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.values: list[tuple[int, Mapping[str, float]]] = []
        self.histograms: list[tuple[int, str]] = []
        self.closed, self.fails_at = False, fails_at

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise ConnectionError("no such dashboard")
        self.values.append((step, values))

    def histogram(self, step: int, name: str, edges: Sequence[float], counts: Sequence[float]) -> None:
        self.histograms.append((step, name))

    def close(self) -> None:
        self.closed = True


def test_steps_and_finished_evaluations_are_told_once(tmp_path: Path) -> None:
    told = Told()
    feed = Feed({"told": told})
    record_a_run(tmp_path, feed)
    feed.close()
    assert told.values == [(0, {"reward/mean": 0.25}), (1, {"reward/mean": 0.5}), (2, SCORES)] and told.closed
    assert told.histograms == [(0, "ratio/guided"), (1, "ratio/guided")]


def test_a_failing_tracker_is_left_out_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, other = Told(fails_at=1), Told()
    record_a_run(tmp_path, Feed({"broken": broken, "other": other}))
    assert len(broken.values) == 1 and len(other.values) == 3
    assert capsys.readouterr().err.count("the tracker broken failed and is left out from now on: no such dashboard") == 1
    assert sum(1 for _ in read_events(tmp_path)) == 12


def test_tensorboard_files_hold_the_numbers_of_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'actguide-harness[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking(("tensorboard",), tmp_path, "a-run", {"seed": 3}) as feed:
        record_a_run(tmp_path, feed)
    read = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"histograms": 0}).Reload()
    assert [(e.step, e.value) for e in read.Scalars("reward/mean")] == [(0, 0.25), (1, 0.5)]
    assert [(e.step, e.value) for e in read.Scalars("eval/miniweb/test/score")] == [(2, 0.5)]
    (first, _) = read.Histograms("ratio/guided")
    assert (first.histogram_value.num, first.histogram_value.sum) == (4, 3 * 0.5 + 1.5)
    assert "policy/kl" not in read.Tags()["scalars"]


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """Records of a ``.wandb`` file: LevelDB's log format behind a header of 7 bytes; records here are shorter than a block of 32 KiB."""
    at = 7
    while at + 7 <= len(content):
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if kind == 0:  # the rest of a block
            at += 32768 - at % 32768
            continue
        assert kind == 1, "a record in several pieces"
        if at + 7 + length > len(content):
            return
        yield content[at + 7 : at + 7 + length]
        at += 7 + length


@pytest.mark.slow
def test_wandb_writes_the_numbers_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'actguide-harness[wandb]'")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    with tracking(("wandb",), tmp_path, "a-run", {"seed": 3}) as feed:
        record_a_run(tmp_path, feed)
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    deadline, records = time.monotonic() + 60, []
    while not any(record.HasField("exit") for record in records) and time.monotonic() < deadline:  # its process may still be writing
        time.sleep(0.1)
        records = [wandb_internal_pb2.Record.FromString(data) for data in leveldb_records(file.read_bytes())]
    rows = []
    for record in records:
        if record.HasField("history"):
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
    assert [(r["step"], r["reward/mean"]) for r in rows if "reward/mean" in r] == [(0, 0.25), (1, 0.5)]
    assert [r["step"] for r in rows if r.get("eval/miniweb/test/score") == 0.5] == [2]
    assert len([r for r in rows if "ratio/guided" in r or any(k.startswith("ratio/guided") for k in r)]) == 2


@pytest.mark.slow
def test_trackio_stores_the_numbers(tmp_path: Path) -> None:
    """In a process of its own: trackio reads $TRACKIO_DIR once, when something first imports it."""
    pytest.importorskip("trackio", reason="trackio is not installed: pip install 'actguide-harness[trackio]'")
    script = """
import json, sys
from pathlib import Path
from harness.trackers import tracking
from test_trackers import record_a_run
from trackio.sqlite_storage import SQLiteStorage

folder = Path(sys.argv[1])
with tracking(("trackio",), folder, "a-run", {"seed": 3}) as feed:
    record_a_run(folder, feed)
(folder / "rows.json").write_text(json.dumps(SQLiteStorage.get_logs("actguide-harness", "a-run")))
"""
    paths = [str(Path(__file__).parent), *(p for p in [os.environ.get("PYTHONPATH")] if p)]
    own = {"TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=os.environ | own, check=True, timeout=300)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(r["step"], r["reward/mean"]) for r in rows if "reward/mean" in r] == [(0, 0.25), (1, 0.5)]
    assert [r["step"] for r in rows if r.get("eval/miniweb/test/score") == 0.5] == [2]


def test_unknown_and_missing_trackers_are_said_before_a_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(RunConfig, {"trackers": ["tensorboard"]}).trackers == ("tensorboard",)
    with pytest.raises(UsageError, match="tensorboard"):
        build(RunConfig, {"trackers": ["tensorbored"]})
    monkeypatch.setattr("harness.trackers.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"actguide-harness\[wandb\]"):
        check_trackers(("wandb",))
