"""``harness run`` and its judge: one that cannot judge is said before a run exists, and one that has moved may go on judging."""

from __future__ import annotations

from pathlib import Path

import pytest
from judge_server import ScriptedServer, Step

from harness.cli.main import cli, run_command
from harness.cli.run import _place
from harness.config import build
from harness.errors import UsageError
from harness.events import Kind, Recorder
from harness.records import judgement_record
from harness.types import Score, ScoreStatus
from trainers.config import RunConfig


def run(out: Path, judge: str) -> int:
    return run_command(cli, ["run", "--trainer", "zero-rl", "--model", "tiny", "--judge", judge, "--out", str(out)])


def test_a_judge_that_refuses_or_is_not_there_stops_a_run_before_it_exists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unused_port: int
) -> None:
    with ScriptedServer(Step(status=401, content={"error": "no such key"})) as judge:
        assert run(tmp_path / "run", f"llm:{judge.url}#m") == 1
    assert f"the judge {judge.url} serves no request: HTTP 401" in capsys.readouterr().err
    assert run(tmp_path / "run", f"llm:http://127.0.0.1:{unused_port}/v1#m") == 1
    assert "does not answer: no connection" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def judged_by(url: str) -> RunConfig:
    return build(RunConfig, {"judge": f"llm:{url}#m"})


def test_the_same_judge_at_another_url_may_continue_a_run_and_another_judge_may_not(tmp_path: Path) -> None:
    folder = _place(judged_by("http://old/v1"), tmp_path / "run", False, "exact+llm:m@1").folder
    moved = judged_by("http://new/v1")
    assert _place(moved, folder, True, "exact+llm:m@1").resumed, "nothing was judged yet"
    with Recorder(folder) as log:
        score = Score(value=1.0, status=ScoreStatus.JUDGED, layer="llm")
        log.record(Kind.JUDGEMENT, judgement_record("a", "exact+llm:m@1", score))
    assert _place(moved, folder, True, "exact+llm:m@1").resumed
    with pytest.raises(UsageError, match="judge was llm:http://old/v1#m, is now llm:http://new/v1#m"):
        _place(moved, folder, True, "exact+llm:m@2")
    with pytest.raises(UsageError, match="judge was .* is now exact"):
        _place(build(RunConfig, {}), folder, True, "exact-closed")
