"""``harness diagnose`` as a command: what it writes, where it shows, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli.diagnose import DiagnoseConfig, diagnose
from harness.cli.folders import name_of_run
from harness.cli.main import run_command
from harness.config import store
from harness.events import Kind, Recorder, current_events
from harness.tiny import model_dir
from leaderboard.database import default_url, open_database
from leaderboard.store import Store

FEW = ["--limit", "2", "--set", "samples=2", "--set", "groups=2", "--set", "continuations=3", "--set", "generation.slots=8"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def invoke(*arguments: str | Path) -> tuple[int, str, str]:
        code = run_command(diagnose, [str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


def training_run(folder: Path, steps: int = 2) -> Path:
    """What a run of two steps leaves behind, its checkpoint being the shipped model."""
    from trainers.algorithms.actguide import ActGuideConfig
    from trainers.config import run_config_type
    from trainers.state import RunState

    config = run_config_type(ActGuideConfig).model_validate(
        {
            "model": "tiny",
            "agent": {"max_turns": 6, "response_tokens": 200, "context_tokens": 256},
            "generation": {"context": 256, "slots": 8},
            "search": {"results": 1},
            "seed": 3,
        }
    )
    store(config, folder / "config.json")
    checkpoint = folder / "checkpoints" / f"step-{steps:06d}"
    shutil.copytree(model_dir(), checkpoint / "hf")
    RunState(step=steps).save(checkpoint)
    with Recorder(folder) as log:
        log.record(
            Kind.RUN, {"phase": "started", "run_id": folder.name, "command": "run", "model": "tiny", "method": "actguide", "seed": 3}
        )
        for step in range(steps):
            used = {"turns": 1 + step, "generated_tokens": 20, "tool_calls": 0, "tool_errors": 0, "prompt_tokens": 9, "seconds": 0.1}
            attempt: dict[str, Any] = {
                "attempt_id": f"a{step}",
                "task_id": "t",
                "question": "?",
                "purpose": "train",
                "step": step,
                "level": 0,
            }
            log.record(Kind.ATTEMPT, {**attempt, "status": "answered", "usage": used, "gold": [], "web": "w", "tags": {}})
            log.record(Kind.STEP, {"step": step, "metrics": {}, "histograms": {}})
    return folder


def shown(home: Path, run_id: str) -> dict[str, int]:
    """Diagnostics of a run as the board knows them, with their steps."""
    board = Store(open_database(default_url(home)))
    known = board.run(run_id)
    assert known is not None
    return {d.name: d.step for d in board.diagnostics(known.key)}


def test_turns_of_a_run_need_no_weights_and_stand_on_its_page(run: Run, harness_home: Path) -> None:
    folder = training_run(harness_home / "runs" / "r")
    code, out, err = run("turns", "--run", "r")
    assert code == 0, err
    assert "unguided, last 1 step: 2.00 turns" in out and "weights after 2 training steps" in out
    rows = json.loads((folder / "diagnostics" / "turns.json").read_text())["data"]["by_step"]
    assert [row["unguided_turns"] for row in rows] == [1.0, 2.0]
    assert (folder / "diagnostics" / "turns.png").read_bytes().startswith(b"\x89PNG")
    assert shown(harness_home, "r") == {"turns": 2}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["prefix-pas", "--model", "tiny"], 2, "Did you mean 'prefix-pass'?"),
        (["turns"], 2, "either --run DIR or --model NAME"),
        (["turns", "--run", "r", "--model", "tiny"], 2, "either --run DIR or --model NAME"),
        (["turns", "--run", "nothing"], 1, "no run directory"),
        (["turns", "--model", "tyni"], 2, "Did you mean 'tiny'?"),
        (["turns", "--model", "tiny", "--set", "sample=1"], 2, "samples"),
    ],
)
def test_wrong_requests_are_answered_in_words(arguments: list[str], code: int, words: str, run: Run, harness_home: Path) -> None:
    found, _, err = run(*arguments)
    assert found == code and words in err and "Traceback" not in err
    assert not harness_home.exists() or not list(harness_home.rglob("config.json"))


def test_a_run_without_a_checkpoint_and_one_that_trained_nothing_are_named(run: Run, harness_home: Path) -> None:
    folder = training_run(harness_home / "runs" / "r")
    shutil.rmtree(folder / "checkpoints")
    code, _, err = run("delta-logit", "--run", folder)
    assert code == 1 and "no whole checkpoint" in err
    store(DiagnoseConfig(), harness_home / "runs" / "other" / "config.json")
    code, _, err = run("turns", "--run", "other")
    assert code == 2 and "no training run" in err


@pytest.mark.slow
def test_a_checkpoint_is_diagnosed_with_the_settings_of_its_run(run: Run, harness_home: Path) -> None:
    folder = training_run(harness_home / "runs" / "r")
    code, out, err = run("delta-logit", "prefix-pass", "off-policy-risk", "--run", "r", *FEW)
    assert code == 0, err
    assert shown(harness_home, "r") == {"delta-logit": 2, "off-policy-risk": 2, "prefix-pass": 2}
    data = {name: json.loads((folder / "diagnostics" / f"{name}.json").read_text())["data"] for name in shown(harness_home, "r")}
    assert data["delta-logit"]["settings"]["seed"] == 3 and data["delta-logit"]["settings"]["agent"]["context_tokens"] == 256
    assert len(data["delta-logit"]["trajectories"]) == 2
    assert all(value > 0 for row in data["delta-logit"]["trajectories"] for value in row["delta_logit_by_turn"])
    states = [row["judged"] for row in data["prefix-pass"]["paths"]]
    assert all(set(judged) <= {3} for judged in states)
    risks = {row["percent"]: row for row in data["off-policy-risk"]["by_proportion"]}
    assert min(risks) == 0 and max(risks) == 100
    assert risks[0]["variance"] < 1e-6 and abs(risks[0]["mean"]) < 1e-3, "without a plan there is no shift"
    assert risks[0]["ess"] == pytest.approx(1, abs=1e-4) and all(0 < row["ess"] <= 1 + 1e-9 for row in risks.values())
    assert risks[100]["mean"] < 0, "guided tokens are less likely without the plan"
    for cell in data["off-policy-risk"]["cells"]:
        parts = cell["risk"]
        assert parts["token_variances"] + parts["covariances"] == pytest.approx(parts["variance"])
    assert "R_k" in out and "pass@3" in out and "|Delta logit|" in out


@pytest.mark.slow
def test_a_model_is_diagnosed_in_a_run_of_its_own(run: Run, tmp_path: Path, harness_home: Path) -> None:
    code, out, err = run("turns", "--model", "tiny", *FEW, "--out", tmp_path / "base", "--format", "json")
    assert code == 0, err
    assert sum(json.loads(out)["data"]["turns"].values()) == 4
    assert [e.data["phase"] for e in current_events(tmp_path / "base") if e.kind is Kind.RUN] == ["started", "finished"]
    assert shown(harness_home, name_of_run(tmp_path / "base")) == {"turns": 0}
    assert run("turns", "--model", "tiny", "--out", tmp_path / "base")[0] == 2, "an existing run must not be written over"
