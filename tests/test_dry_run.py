"""``harness eval --dry-run`` says what the command itself would do or refuse; wrong requests are refused before anything is made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli.folders import name_of_run
from harness.cli.main import cli, run_command
from harness.tasks import MINIWEB
from harness.tiny import model_dir

SUMS = "reuse 0; regrade 0; rerun 0; run 2"


def write_corpus(path: Path, text: str) -> str:
    path.write_text(json.dumps({"url": "page://0", "title": "Ferns", "text": text}) + "\n")
    return f"corpus:{path}"


@pytest.fixture
def scripted(tmp_path: Path) -> list[str]:
    """The command that evaluates two tasks with an engine that says what it was told, into ``run``."""
    model = tmp_path / "model"
    shutil.copytree(model_dir(), model)
    (model / "script.json").write_text('["<answer>moss</answer>"]')
    known = ["--model", str(model), "--engine", "scripted", "--benchmarks", "miniweb", "--limit", "2"]
    return ["eval", *known, "--out", str(tmp_path / "run")]


def test_a_forecast_refuses_what_the_evaluation_refuses(tmp_path: Path, scripted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = [*scripted, "--web", write_corpus(tmp_path / "pages.jsonl", "They grow in shade.")]
    assert run_command(cli, [*command, "--dry-run"]) == 0 and SUMS in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert run_command(cli, command) == 0
    assert run_command(cli, [*command, "--dry-run"]) == 0 and "reuse 2; regrade 0; rerun 0; run 0" in capsys.readouterr().out
    write_corpus(tmp_path / "pages.jsonl", "They grow anywhere.")
    for last in ([], ["--dry-run"]):
        assert run_command(cli, [*command, *last]) == 2
        said = capsys.readouterr()
        assert (
            f"holds {name_of_run(tmp_path / 'run')}/miniweb/test under other conditions: tools was" in said.err and "reuse" not in said.out
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--web", "nonsense"), "unknown web 'nonsense'; expected corpus:PATH"),
        (("--web", "corpus:/nope"), "corpus:/nope: no such file"),
        (("--engine", "nope"), "unknown engine 'nope'"),
        (("--judge", "nope"), "unknown judge 'nope'"),
        (("--benchmarks", ""), "--benchmarks '' names none; expected names separated by commas"),
        (("--benchmarks", " , "), "--benchmarks ' , ' names none"),
        (("--benchmarks", "lm-eval:"), "'lm-eval:' names no task; expected lm-eval:TASK"),
    ],
)
@pytest.mark.parametrize("last", [["--dry-run"], []])
def test_a_wrong_part_is_refused_with_and_without_dry_run(
    options: tuple[str, ...], words: str, last: list[str], scripted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(cli, [*scripted, *options, *last]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.out == ""


@pytest.mark.parametrize(
    "command", [["eval", "--model", "tiny", "--benchmarks", "miniweb"], ["run", "--trainer", "zero-rl", "--model", "tiny"]]
)
def test_a_file_is_no_folder_for_a_run(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "inside"):
        assert run_command(cli, [*command, "--out", str(out)]) == 2
        assert f"{file} is a file, so {out} is no folder for a run. Choose a new or an empty folder with --out." in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_an_unknown_sample_of_many_is_answered_with_those_that_are_near(scripted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ids = [task.id for task in MINIWEB.load(None).split("test")]
    assert run_command(cli, [*scripted, "--sample", ids[0] + "x", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert f"unknown sample '{ids[0]}x'. Did you mean '{ids[0]}'? {len(ids)} are known, e.g. " in said
    assert 1 < sum(each in said for each in ids) < 10
    assert run_command(cli, [*scripted, "--sample", "~", "--dry-run"]) == 2
    assert f"unknown sample '~'. {len(ids)} are known, e.g. {min(ids)}, " in capsys.readouterr().err
