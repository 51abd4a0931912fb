"""A judge that fails in the middle of training, through the command line: the run stops in words, saved, and resumes to the same end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, Step
from test_end_to_end import TINY, events, harness, weights

from harness.events import Kind

PATIENCE = ["--set", "outage.retries=1", "--set", "outage.pause=0.1"]
RUN = ["run", "--trainer", "zero-rl", *TINY, "--set", "algorithm.group.zero_variance=keep", *PATIENCE, "--steps", "3"]


class FailingServer(JudgeServer):
    """Judges ``good`` answers, then refuses: each request (400), or the key (401)."""

    def __init__(self, status: int) -> None:
        self.good, self._status = 10**9, status
        super().__init__(lambda case: "correct" if len(case["answer"]) % 2 else "incorrect")

    def _answer(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Step:
        if len(self.cases) >= self.good:
            return Step(status=self._status, content={"error": "made up"})
        return super()._answer(path, body, headers)


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 401])
def test_a_judge_that_fails_in_training_stops_the_run_saved_and_a_resumed_one_ends_the_same(status: int, tmp_path: Path) -> None:
    with FailingServer(status) as server:

        def run(name: str, *more: str) -> subprocess.CompletedProcess[str]:
            judge = ["--judge", f"llm:{server.url}#made-up-judge", "--out", str(tmp_path / name), "--set", "checkpoint_every=100"]
            return harness(*RUN, *judge, *more, HARNESS_HOME=str(tmp_path / f"home-{name}"))  # verdicts are cached by home

        calm = run("calm")
        assert calm.returncode == 0, calm.stderr
        asked, folder = len(server.cases), tmp_path / "cut"
        server.cases.clear()
        server.good = asked // 2
        cut = run("cut")
        assert cut.returncode == 1 and "Traceback" not in cut.stderr
        assert "The run is saved as it stood before that step" in cut.stderr and "add --resume" in cut.stderr
        step = int(re.findall(r"step (\d)(?: met an outage|: the judge)", cut.stderr)[-1])
        assert [e.data["step"] for e in events(folder, Kind.STEP)] == list(range(step - 1))
        assert [p.name for p in (folder / "checkpoints").iterdir()] == [f"step-{step - 1:06d}"]
        assert events(folder, Kind.RUN)[-1].data["phase"] == "failed"
        judged = [e.data for e in events(folder, Kind.JUDGEMENT)]
        assert all((row["value"] is None) is (row["status"] != "judged") for row in judged)
        if status == 400:
            assert "outage: HTTP 400" in cut.stderr and "trying again in 0.1 s" in cut.stderr
            assert any(row["status"] == "transport_error" for row in judged)
        server.good = 10**9
        resumed = run("cut", "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert weights(folder, 3) == weights(tmp_path / "calm", 3)
        rewards = [[e.data["metrics"]["reward/mean"] for e in events(tmp_path / name, Kind.STEP)] for name in ("calm", "cut")]
        assert rewards[0] == rewards[1]
