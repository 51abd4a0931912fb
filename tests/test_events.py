"""The run log: what was recorded is read back, whatever ended the writer."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.blobs import decode_frame, encode_frame
from harness.errors import RunLogError
from harness.events import Cursor, Event, Kind, Recorder, current_events, read_blob, read_events, takes_back

BLOB = {
    "contexts": [[151644, 872, 198], []],
    "target": [[1, 2], [3]],
    "spans": [{"ids": [7, 2**32 - 1], "logprobs": [-0.5, -1.25], "version": 3, "finish": "stop"}],
    "pieces": [["é", "问"]],
}


def steps(run_dir: Path, after: Cursor | None = None) -> list[int]:
    return [event.data["step"] for _, event in read_events(run_dir, after)]


def test_events_come_back_in_order_with_their_data(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        for n in range(5):
            log.record(Kind.STEP, {"step": n, "metrics": {"reward/mean": n / 4, "name": "日本"}})
    events = [event for _, event in read_events(tmp_path)]
    assert [e.seq for e in events] == [0, 1, 2, 3, 4]
    assert events[3].data == {"step": 3, "metrics": {"reward/mean": 0.75, "name": "日本"}}
    assert events[0].kind is Kind.STEP and events[0].time.endswith("Z")


def test_the_same_records_have_the_same_ids_and_any_difference_another(tmp_path: Path) -> None:
    def ids(name: str, *payloads: dict[str, int]) -> list[str]:
        with Recorder(tmp_path / name) as log:
            return [log.record(Kind.STEP, p) for p in payloads]

    first = ids("a", {"step": 0}, {"step": 0}, {"step": 1})
    assert ids("b", {"step": 0}, {"step": 0}, {"step": 1}) == first
    assert len(set(first)) == 3
    assert ids("c", {"step": 9})[0] != first[0]


def test_numbers_json_lacks_become_null(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        log.record(Kind.STEP, {"step": 0, "metrics": {"policy/loss": math.nan, "policy/kl": math.inf, "ok": 1.5}})
    ((_, event),) = read_events(tmp_path)
    assert event.data["metrics"] == {"policy/loss": None, "policy/kl": None, "ok": 1.5}


def test_a_lone_surrogate_survives(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        log.record(Kind.STEP, {"step": 0, "text": "bro\udcffken"})
    ((_, event),) = read_events(tmp_path)
    assert event.data["text"] == "bro\udcffken"


def test_a_payload_that_is_not_json_is_refused_and_leaves_no_line(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        with pytest.raises(RunLogError, match="payload of a step event must be plain JSON"):
            log.record(Kind.STEP, {"step": object()})
        log.record(Kind.STEP, {"step": 1})
    assert steps(tmp_path) == [1]


def test_a_line_still_being_written_is_not_an_event_and_becomes_one_when_whole(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        log.record(Kind.STEP, {"step": 0})
        log.record(Kind.STEP, {"step": 1})
    path = tmp_path / "events" / "main-0.jsonl"
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert steps(tmp_path) == [0]
    path.write_bytes(whole)
    assert steps(tmp_path) == [0, 1]


def test_reopening_cuts_the_own_torn_tail_only_and_counts_on(tmp_path: Path) -> None:
    for writer in ("main", "judge"):
        with Recorder(tmp_path, writer) as log:
            log.record(Kind.STEP, {"step": 0})
            log.blob(BLOB)
    for path in tmp_path.glob("*/*-0.*"):
        with path.open("ab") as file:
            file.write(b'{"v":1,"to')
    torn_other = (tmp_path / "events" / "judge-0.jsonl").read_bytes()
    with Recorder(tmp_path) as log:
        ref = log.blob(BLOB)
        log.record(Kind.STEP, {"step": 1})
    own = [e for _, e in read_events(tmp_path) if e.writer == "main"]
    assert [(e.seq, e.data["step"]) for e in own] == [(0, 0), (1, 1)]
    assert ref["offset"] == ref["length"]  # directly behind the first frame
    assert (tmp_path / "events" / "judge-0.jsonl").read_bytes() == torn_other


def test_reopening_leaves_whole_records_byte_for_byte(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        log.blob(BLOB)
        log.record(Kind.STEP, {"step": 0})
    before = {p: p.read_bytes() for p in tmp_path.glob("*/main-0.*")}
    Recorder(tmp_path).close()
    assert {p: p.read_bytes() for p in before} == before


KILLED_WRITER = """
import sys
from pathlib import Path
from harness.events import Kind, Recorder
log = Recorder(Path(sys.argv[1]), rotate_bytes=200_000)
n = 0
while True:
    ref = log.blob({"contexts": [list(range(n % 977))]})
    log.record(Kind.ATTEMPT, {"attempt_id": str(n), "purpose": "train", "step": n, "text": "x" * (n % 613), "blob": ref})
    if n == 50:
        print("running", flush=True)
    n += 1
"""


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.11])
def test_a_writer_killed_at_any_moment_leaves_whole_records_and_can_go_on(tmp_path: Path, delay: float) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline() == b"running\n"
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(timeout=delay + 0.001)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    before = steps(tmp_path)
    assert before == list(range(len(before))) and len(before) > 50
    with Recorder(tmp_path, rotate_bytes=200_000) as log:
        log.record(Kind.ATTEMPT, {"attempt_id": "after", "purpose": "train", "step": len(before), "blob": log.blob(BLOB)})
    events = [e for _, e in read_events(tmp_path)]
    assert [e.seq for e in events] == list(range(len(before) + 1))
    assert all(read_blob(tmp_path, e.data["blob"]) for e in events)


def test_files_rotate_at_the_limit_and_readers_see_one_log(tmp_path: Path) -> None:
    with Recorder(tmp_path, rotate_bytes=1000) as log:
        refs = [log.blob(BLOB) for _ in range(20)]
        for n in range(20):
            log.record(Kind.STEP, {"step": n, "text": "x" * 200})
    assert len(list((tmp_path / "events").glob("*.jsonl"))) > 3
    assert max(p.stat().st_size for p in tmp_path.glob("*/main-*")) <= 1000
    assert steps(tmp_path) == list(range(20))
    assert len({r["file"] for r in refs}) > 1 and all(read_blob(tmp_path, r) == BLOB for r in refs)


def test_the_tenth_file_comes_after_the_ninth(tmp_path: Path) -> None:
    with Recorder(tmp_path, rotate_bytes=1) as log:
        for n in range(12):
            log.record(Kind.STEP, {"step": n})
    assert steps(tmp_path) == list(range(12))
    with Recorder(tmp_path, rotate_bytes=1) as log:
        log.record(Kind.STEP, {"step": 12})
    assert steps(tmp_path) == list(range(13))


def test_a_cursor_continues_where_it_stood_across_growth_and_rotation(tmp_path: Path) -> None:
    seen: list[int] = []
    cursor = None
    with Recorder(tmp_path, rotate_bytes=300) as log:
        for n in range(30):
            log.record(Kind.STEP, {"step": n})
            if n % 4 == 0:
                for place, event in read_events(tmp_path, cursor):
                    cursor = Cursor.parse(str(place))
                    seen.append(event.data["step"])
    seen += steps(tmp_path, cursor)
    assert seen == list(range(30))


def test_a_cursor_taken_in_the_middle_yields_exactly_the_rest(tmp_path: Path) -> None:
    for writer in ("a", "b"):
        with Recorder(tmp_path, writer, rotate_bytes=300) as log:
            for n in range(6):
                log.record(Kind.STEP, {"step": n})
    everything = list(read_events(tmp_path))
    for i, (cursor, _) in enumerate(everything):
        assert [e.id for _, e in read_events(tmp_path, cursor)] == [e.id for _, e in everything[i + 1 :]]


def test_a_file_that_shrank_behind_the_cursor_is_named(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        log.record(Kind.STEP, {"step": 0})
    ((cursor, _),) = read_events(tmp_path)
    (tmp_path / "events" / "main-0.jsonl").write_bytes(b"")
    with pytest.raises(RunLogError, match=r"main-0\.jsonl is shorter"):
        list(read_events(tmp_path, cursor))


def test_two_writers_share_a_run_and_are_merged_by_time(tmp_path: Path) -> None:
    with Recorder(tmp_path, "main") as main, Recorder(tmp_path, "judge-2") as judge:
        for n in range(4):
            (main if n % 2 else judge).record(Kind.STEP, {"step": n})
    events = [e for _, e in read_events(tmp_path)]
    assert [e.data["step"] for e in events if e.writer == "main"] == [1, 3]
    assert [e.data["step"] for e in events if e.writer == "judge-2"] == [0, 2]
    assert [e.time for e in events] == sorted(e.time for e in events)


def test_a_second_recorder_of_one_name_is_refused_while_the_first_is_open(tmp_path: Path) -> None:
    with Recorder(tmp_path), pytest.raises(RunLogError, match="another process is writing"):
        Recorder(tmp_path)
    Recorder(tmp_path).close()


@pytest.mark.parametrize("name", ["", "a/b", "../x"])
def test_a_writer_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunLogError, match="part of a file name"):
        Recorder(tmp_path, name)


def test_a_damaged_line_is_named_with_file_and_place(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        log.record(Kind.STEP, {"step": 0})
        log.record(Kind.STEP, {"step": 1})
    path = tmp_path / "events" / "main-0.jsonl"
    first = path.read_bytes().index(b"\n") + 1
    content = bytearray(path.read_bytes())
    content[first] = ord("!")
    path.write_bytes(content)
    with pytest.raises(RunLogError, match=rf"main-0\.jsonl at byte {first}: not an event"):
        steps(tmp_path)


def test_a_line_of_a_newer_schema_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    line = {"v": 2, "seq": 0, "time": "2030-01-01T00:00:00.000Z", "id": "x", "kind": "step", "data": {}}
    (tmp_path / "events" / "main-0.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(RunLogError, match="schema version 2"):
        steps(tmp_path)


def test_blobs_come_back_whole_with_log_probabilities_at_single_precision(tmp_path: Path) -> None:
    logprobs = [-0.1, -math.pi, -1e-30]
    with Recorder(tmp_path) as log:
        log.blob({"contexts": [[1]]})
        ref = log.blob({**BLOB, "spans": [{"ids": [1, 2, 3], "logprobs": logprobs, "version": 0, "finish": "length"}]})
    back = read_blob(tmp_path, ref)
    assert back["contexts"] == BLOB["contexts"] and back["pieces"] == BLOB["pieces"]
    assert back["spans"][0] == {"ids": [1, 2, 3], "logprobs": array("f", logprobs).tolist(), "version": 0, "finish": "length"}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(width=32, allow_nan=False, allow_subnormal=False),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=4), inner), max_leaves=30))  # fmt: skip
def test_any_json_data_survives_a_frame(value: object) -> None:
    assert decode_frame(encode_frame({"data": value}), "here") == {"data": value}


def test_every_flipped_byte_of_a_frame_is_noticed() -> None:
    frame = encode_frame(BLOB)
    for i in range(len(frame)):
        damaged = bytearray(frame)
        damaged[i] ^= 0x10
        with pytest.raises(RunLogError, match="here"):
            decode_frame(bytes(damaged), "here")


def test_a_damaged_or_missing_blob_is_named_with_file_and_place(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        log.blob(BLOB)
        ref = log.blob(BLOB)
    path = tmp_path / ref["file"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunLogError, match=rf"main-0\.bin at byte {ref['offset']}: the blob fails its CRC-32"):
        read_blob(tmp_path, ref)
    path.write_bytes(content[:-5])
    with pytest.raises(RunLogError, match="torn"):
        read_blob(tmp_path, ref)
    path.unlink()
    with pytest.raises(RunLogError, match=r"main-0\.bin is missing"):
        read_blob(tmp_path, ref)
    with pytest.raises(RunLogError, match="under blobs/"):
        read_blob(tmp_path, {**ref, "file": "../../etc/passwd"})


FULL_DISK_WRITER = """
import resource, sys
from pathlib import Path
from harness.errors import RunLogError
from harness.events import Kind, Recorder
log = Recorder(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
written, failure = 0, None
try:
    while True:
        log.record(Kind.STEP, {"step": written, "text": "x" * 300})
        written += 1
except RunLogError as error:
    failure = str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.record(Kind.STEP, {"step": written})
print(written, failure)
"""


def test_a_full_disk_is_said_in_words_leaves_no_half_record_and_the_log_goes_on_when_there_is_room(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", FULL_DISK_WRITER, str(tmp_path)], capture_output=True, text=True, check=True)
    written, failure = done.stdout.split(maxsplit=1)
    assert 5 < int(written) < 14
    assert "cannot write" in failure and "main-0.jsonl" in failure and "whole" in failure
    assert steps(tmp_path) == list(range(int(written) + 1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunLogError, match="cannot write"):
        Recorder(tmp_path / "run")


def test_a_path_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunLogError, match=r"cannot write .*run"):
        Recorder(tmp_path / "run")


def test_current_events_leave_out_what_a_rewind_took_back(tmp_path: Path) -> None:
    def attempt(log: Recorder, name: str, step: int, purpose: str = "train") -> None:
        log.record(Kind.ATTEMPT, {"attempt_id": name, "purpose": purpose, "step": step})
        log.record(Kind.JUDGEMENT, {"attempt_id": name, "value": 1.0})

    with Recorder(tmp_path) as log:
        for step in range(3):
            attempt(log, f"t{step}", step)
            log.record(Kind.STEP, {"step": step, "first": True})
            if step == 1:
                log.record(Kind.CHECKPOINT, {"step": 2})
                attempt(log, "e2", 2, "eval")
        log.record(Kind.REWIND, {"step": 2})
        attempt(log, "t2", 2)
        log.record(Kind.STEP, {"step": 2, "first": False})
    events = list(current_events(tmp_path))
    assert [e.data["attempt_id"] for e in events if e.kind is Kind.ATTEMPT] == ["t0", "t1", "e2", "t2"]
    assert [e.data["attempt_id"] for e in events if e.kind is Kind.JUDGEMENT] == ["t0", "t1", "e2", "t2"]
    assert [(e.data["step"], e.data["first"]) for e in events if e.kind is Kind.STEP] == [(0, True), (1, True), (2, False)]
    assert sum(e.kind is Kind.CHECKPOINT for e in events) == 1


@pytest.mark.parametrize(
    ("kind", "data", "taken"),
    [
        (Kind.GROUP, {"step": 4}, False),
        (Kind.GROUP, {"step": 5}, True),
        (Kind.CREDIT, {"step": 5}, True),
        (Kind.ATTEMPT, {"step": 5, "purpose": "probe"}, True),
        (Kind.ATTEMPT, {"step": 5, "purpose": "eval"}, False),
        (Kind.ATTEMPT, {"step": 6, "purpose": "eval"}, True),
        (Kind.CHECKPOINT, {"step": 5}, False),
        (Kind.CHECKPOINT, {"step": 6}, True),
        (Kind.EVALUATION, {"step": None}, False),
        (Kind.RUN, {"phase": "started"}, False),
        (Kind.JUDGEMENT, {"attempt_id": "x"}, False),
    ],
)
def test_rewind_to_step_5_takes_back(kind: Kind, data: dict[str, object], taken: bool) -> None:
    assert takes_back(5, Event(id="", kind=kind, writer="main", seq=0, time="", data=data)) is taken


def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    assert list(read_events(tmp_path)) == [] and list(current_events(tmp_path)) == []
