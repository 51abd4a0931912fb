"""Wrong requests and broken machines: what, where and what to do, on standard error, without a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from harness.cli.main import run_command
from harness.config import Section, store
from harness.errors import DataError, RunLogError, UsageError

HARNESS = Path(sys.executable).parent / "harness"


def harness(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HARNESS, *arguments], capture_output=True, text=True, env={**os.environ, **environment})


def raising(error: BaseException) -> click.Command:
    def callback() -> None:
        raise error

    return click.Command("broken", callback=callback)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lst"], "unknown command 'lst'. Did you mean 'list'?"),
        (["list", "trainer"], "unknown kind 'trainer'. Did you mean 'trainers'?"),
        (["list", "--format", "xml"], "'xml' is not one of 'table', 'json'"),
        (["--nope"], "No such option"),
    ],
)
def test_a_wrong_request_is_answered_in_words_with_exit_code_2(arguments: list[str], words: str) -> None:
    done = harness(*arguments)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("unknown model 'x'"), 2, "harness: unknown model 'x'"),
        (DataError("rows.jsonl, row 17: not JSON"), 1, "harness: rows.jsonl, row 17: not JSON"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), 1, "/runs/x: No space left on device (the disk is full: make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs/x"), 1, "/runs/x: Permission denied (mend the rights"),
        (OSError(errno.EADDRINUSE, "Address already in use"), 1, "choose another with --port"),
        (click.UsageError("no such option: -x"), 2, "no such option: -x"),
    ],
)
def test_the_boundary_turns_an_error_into_words_and_an_exit_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(raising(error), []) == code
    captured = capsys.readouterr()
    assert words in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), [])


def test_a_command_whose_reader_left_ends_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([HARNESS, "list", "trainers"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_plain_command_whose_reader_left_ends_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([HARNESS, "list", "trainers", "--format", "json"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_output_to_a_full_disk_is_said_in_words() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([HARNESS, "list", "trainers"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left on device (the disk is full" in done.stderr and "Traceback" not in done.stderr


def test_a_home_that_cannot_be_made_is_said_with_the_variable_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunLogError, match=r"cannot write .*/file/runs/x/config.json: .*HARNESS_HOME"):
        store(Section(), tmp_path / "file" / "runs" / "x" / "config.json")


def test_the_exit_code_of_a_command_is_that_of_the_program() -> None:
    @click.command()
    @click.pass_context
    def three(ctx: click.Context) -> None:
        ctx.exit(3)

    assert run_command(three, []) == 3
    assert run_command(click.Command("fine", callback=lambda: None), []) == 0


def test_the_doctor_finds_a_damaged_database_and_says_how_to_mend_it(harness_home: Path) -> None:
    harness_home.mkdir()
    (harness_home / "leaderboard.sqlite").write_bytes(b"not a database, " * 100)
    done = harness("doctor")
    assert done.returncode == 0, "the database can be rebuilt: nothing that a run needs is missing"
    assert "database: move" in done.stdout and "harness leaderboard rebuild" in done.stdout.replace("\n", " ")


def test_the_doctor_reports_every_part_and_fails_only_for_what_every_run_needs(harness_home: Path) -> None:
    import json

    done = harness("doctor", "--format", "json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0
    assert checks["torch"]["state"] == checks["DeepSpeed"]["state"] == checks["disk"]["state"] == "ok"
    expected = {
        "Python",
        "torch",
        "GPU",
        "transformers",
        "DeepSpeed",
        "C compiler",
        "vLLM",
        "lm-eval",
        "judge exact",
        "judge llm",
        "judge gaia",
        "search",
        "database",
        "disk",
    }
    assert set(checks) == expected
    assert all(check["needed_for"] and (check["state"] == "ok" or check["remedy"]) for check in checks.values())
    assert not harness_home.exists(), "looking changes nothing"
