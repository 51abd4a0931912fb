"""``--out`` and what lies there: a run goes into a new or an empty folder, or goes on in one that the same command began."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.eval import EvalConfig
from harness.cli.folders import begun, name_of_run
from harness.cli.main import cli, run_command
from harness.config import Section, build, store
from harness.events import Kind, Recorder, current_events
from leaderboard.database import default_url, open_database
from leaderboard.store import Store
from trainers.config import RunConfig

COMMANDS = {
    "run": ["run", "--trainer", "zero-rl", "--model", "tiny"],
    "eval": ["eval", "--model", "tiny", "--benchmarks", "miniweb"],
    "diagnose": ["diagnose", "turns", "--model", "tiny"],
}


def made_by(command: str, folder: Path) -> Path:
    config: Section = build(RunConfig, {}) if command == "run" else build(EvalConfig, {})
    store(config, folder / "config.json")
    with Recorder(folder) as log:
        log.record(Kind.RUN, {"phase": "started", "run_id": folder.name, "command": command, "model": "tiny"})
    return folder


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert run_command(cli, [str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def test_a_folder_is_begun_by_the_command_that_wrote_it_and_a_new_or_empty_one_by_none(tmp_path: Path) -> None:
    assert begun(made_by("eval", tmp_path / "eval"), "eval") and begun(made_by("run", tmp_path / "run"), "run")
    assert not begun(tmp_path / "new", "run")
    (tmp_path / "empty").mkdir()
    assert not begun(tmp_path / "empty", "run")
    (tmp_path / "empty" / "output.txt").touch()  # `harness study` opens it before the run begins
    assert not begun(tmp_path / "empty", "run")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_with_other_files_is_refused_and_left_as_it_was(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    said = refusal(capsys, *COMMANDS[command], "--out", folder)
    assert f"{folder} is not empty and holds no run (thesis.tex). Choose a new or an empty folder with --out." in said
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_an_evaluation_is_not_resumed_as_a_training_run_nor_the_other_way_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation, training = made_by("eval", tmp_path / "e"), made_by("run", tmp_path / "r")
    for resume in ([], ["--resume"]):
        said = refusal(capsys, *COMMANDS["run"], *resume, "--out", evaluation)
        assert (
            said
            == f"harness: {evaluation} holds an evaluation, not a training run. Choose another --out, or continue it with `harness eval`.\n"
        )
    said = refusal(capsys, *COMMANDS["eval"], "--out", training)
    assert "holds a training run, not an evaluation. Choose another --out, or continue it with `harness run --resume`." in said


def test_a_run_keeps_its_name_and_folders_of_one_name_make_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    assert name_of_run(tmp_path / "runs" / "eval-tiny") == "eval-tiny"
    one, other = (name_of_run(tmp_path / place / "seed0") for place in ("a", "b"))
    assert one.startswith("seed0-") and other.startswith("seed0-") and one != other
    with Recorder(tmp_path / "a" / "seed0") as log:
        log.record(Kind.RUN, {"phase": "started", "run_id": one, "command": "eval", "model": "tiny"})
    (tmp_path / "a").rename(tmp_path / "moved")
    assert name_of_run(tmp_path / "moved" / "seed0") == one


def test_evaluations_in_folders_of_one_name_both_stand_on_the_board_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    once = ["eval", "--model", "tiny", "--benchmarks", "miniweb", "--limit", "1"]
    for place in ("a", "b"):
        assert run_command(cli, [*once, "--out", str(tmp_path / place / "same")]) == 0
    assert run_command(cli, [*once, "--out", str(tmp_path / "b" / "same")]) == 0, "continued, with nothing left to do"
    attempts = [sum(e.kind is Kind.ATTEMPT for e in current_events(tmp_path / place / "same")) for place in ("a", "b")]
    runs = Store(open_database(default_url(tmp_path))).runs()
    assert attempts == [1, 1] and sorted(Path(run.folder).parent.name for run in runs) == ["a", "b"]
