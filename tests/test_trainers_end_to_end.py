"""SFT, its two successors and self-distillation through the real command line: trained, killed, resumed, shared by ranks, on the board."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from test_end_to_end import HARNESS, board, events, harness, succeed, weights

from harness.events import Kind
from harness.tiny.world import make_tasks, make_world

TINY = [
    "--model",
    "tiny",
    "--set",
    "tasks_per_step=2",
    "--set",
    "minibatch_tasks=2",
    "--set",
    "eval_limit=4",
    "--set",
    "checkpoint_every=1",
    "--set",
    "generation.replicas=1",
]
DRAWN = ["--set", "algorithm.group.group_size=2", "--set", "generation.slots=8"]
PHASES = ["--set", "algorithm.sft.steps=2", "--set", "algorithm.sft.lr=1e-3"]
SETTINGS = {"sft": [], "sft-rl": [*DRAWN, *PHASES], "sft-actguide": [*DRAWN, *PHASES], "opsd": DRAWN}


def conversations(path: Path, *spoilt: str) -> Path:
    tasks = make_tasks(make_world("conversations"), 2, 4, {})
    rows = [json.dumps({"messages": [dict(m) for m in task.demonstration]}) for task in tasks]
    path.write_text("\n".join([*rows[:2], *spoilt, *rows[2:]]) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("trainer", SETTINGS)
def test_a_trainer_runs_is_evaluated_and_stands_on_the_board(trainer: str, tmp_path: Path) -> None:
    said = succeed("run", "--trainer", trainer, *TINY, *SETTINGS[trainer], "--steps", "3", "--out", tmp_path / "run")
    assert f"{trainer} on tiny, miniweb/test: " in said and "4 tasks, unguided" in said
    (row,) = board()
    assert (row["method"], row["model"], row["n"]) == (trainer, "tiny", 4)
    steps = [event.data["metrics"] for event in events(tmp_path / "run", Kind.STEP)]
    supervised = ["policy/nll" in metrics for metrics in steps]
    assert supervised == {"sft": [True] * 3, "opsd": [False] * 3}.get(trainer, [True] * 2 + [False] * 3)
    assert all(metrics["rows/trained"] == 2 for metrics, one in zip(steps, supervised, strict=True) if one)
    if trainer == "opsd":
        assert all(metrics["policy/teacher_kl"] > 0 and metrics["policy/grad_norm"] > 0 for metrics in steps)
        assert all(metrics["mismatch/logprob_max"] < 1e-3 for metrics in steps)
    attempts = [event.data for event in events(tmp_path / "run", Kind.ATTEMPT)]
    assert all(attempt["hint"] is None for attempt in attempts if attempt["level"] == 0)


@pytest.mark.slow
def test_sft_learns_the_conversations_of_a_file(tmp_path: Path) -> None:
    data = f"sft={conversations(tmp_path / 'rows.jsonl')}"
    fast = ["--set", "learner.lr=2e-3", "--set", "tasks_per_step=4", "--set", "minibatch_tasks=4", "--set", "checkpoint_every=100"]
    succeed("run", "--trainer", "sft", *TINY, *fast, "--data", data, "--steps", "8", "--out", tmp_path / "run")
    losses = [event.data["metrics"]["policy/nll"] for event in events(tmp_path / "run", Kind.STEP)]
    assert losses[-1] < losses[0] / 2, losses


@pytest.mark.slow
def test_a_file_with_broken_rows_names_them_all_and_begins_no_run(tmp_path: Path, harness_home: Path) -> None:
    data = f"sft={conversations(tmp_path / 'rows.jsonl', '{broken', json.dumps({'messages': []}))}"
    done = harness("run", "--trainer", "sft", *TINY, "--data", data)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "2 of 6 conversations cannot be trained on, and nothing was" in done.stderr
    assert "row 3: not valid JSON" in done.stderr and "row 4: it begins with nothing" in done.stderr
    assert not list(harness_home.rglob("config.json")), "a run was begun"


@pytest.mark.slow
def test_conversations_for_a_trainer_that_reads_none_are_refused(tmp_path: Path) -> None:
    done = harness("run", "--trainer", "zero-rl", *TINY, "--data", f"sft={conversations(tmp_path / 'rows.jsonl')}")
    assert done.returncode == 2 and "zero-rl trains on no conversations" in done.stderr


@pytest.mark.slow
def test_a_run_killed_in_either_phase_ends_with_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    common = ["run", "--trainer", "sft-rl", *TINY, *SETTINGS["sft-rl"], "--steps", "3", "--seed", "1"]
    succeed(*common, "--out", tmp_path / "whole")
    killed = tmp_path / "killed"
    for step in (1, 2, 4):  # in the first phase, where the second begins, and in the second
        resume = ["--resume"] if (killed / "config.json").exists() else []
        process = subprocess.Popen([str(p) for p in (HARNESS, *common, "--out", killed, *resume)], stderr=subprocess.DEVNULL)
        while not (killed / "checkpoints" / f"step-{step:06d}" / "state.json").exists():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.kill()
        process.wait()
    succeed(*common, "--out", killed, "--resume")
    assert weights(killed, 5) == weights(tmp_path / "whole", 5)
    assert weights(killed, 2) == weights(tmp_path / "whole", 2), "the checkpoint that the second phase began from is kept"
    assert [event.data["step"] for event in events(killed, Kind.STEP)] == list(range(5))


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["sft", "sft-rl", "opsd"])
def test_two_ranks_give_the_weights_of_one(trainer: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    steps = "1" if trainer == "sft-rl" else "2"
    for ranks in ("1", "2"):
        common = ["run", "--trainer", trainer, *TINY, *SETTINGS[trainer], "--steps", steps, "--ranks", ranks]
        succeed(*common, "--out", tmp_path / ranks)
    last = 3 if trainer == "sft-rl" else 2
    one, two = (load_file(tmp_path / ranks / f"checkpoints/step-{last:06d}/hf/model.safetensors") for ranks in ("1", "2"))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4


@pytest.mark.slow
def test_a_run_that_diverges_ends_in_words_and_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = harness("run", "--trainer", "sft", *TINY, "--set", "learner.lr=1e30", "--steps", "5", "--out", folder)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "is not finite" in done.stderr and "demonstration/1/miniweb-train-" in done.stderr
    assert "the last good checkpoint is " in done.stderr and "step-000001" in done.stderr
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000001"]
    assert events(folder, Kind.RUN)[-1].data["phase"] == "failed"
