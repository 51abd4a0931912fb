"""The paper's tables and figures: every arm exists, the paper's numbers are those of its text, and the report says what was found."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli.reproduce import Arm, Bench, Reproduction, _report, reproductions
from harness.cli.run import resolve
from harness.cli.study import Plan
from harness.errors import HarnessError
from harness.events import Kind, Recorder

TASKS = [f"task-{i}" for i in range(40)]
BENCH = Bench(folder=Path("shared"), model="tiny", tasks="miniweb", steps=2, data=(), assignments=(), threads=1)


def test_every_table_and_figure_that_the_paper_has_is_there() -> None:
    tables, figures = ("table1", "table2", "table3", "table4", "table5", "table7", "table8"), tuple(f"fig{n}" for n in range(3, 9))
    assert set(reproductions()) == {*tables, *figures}


@pytest.mark.parametrize("name", reproductions())
def test_every_arm_is_a_run_whose_settings_exist(name: str) -> None:
    chosen = reproductions()[name]
    for arm in chosen.arms:
        assert not arm.paper or len(arm.paper) == len(chosen.columns)
        if arm.trainer:
            options: dict[str, Any] = dict.fromkeys(
                ("preset", "ranks", "config_file", "steps", "seed", "engine", "judge", "tasks", "token_budget", "web")
            )
            config = resolve({**options, "trainer": arm.trainer, "model": "tiny", "assignments": arm.set})
            assert config.trainer == arm.trainer


@pytest.mark.parametrize("name", [name for name, chosen in reproductions().items() if chosen.columns])
def test_the_papers_numbers_are_in_its_text(name: str) -> None:
    text = Path(os.environ.get("HARNESS_TEST_DATA", "../shared/data")).parent / "spec" / "paper.txt"
    if not text.is_file():
        pytest.skip("the paper's text is not here")
    words = text.read_text(encoding="utf-8").replace("\\", "")
    for arm in reproductions()[name].arms:
        for value in arm.paper:
            assert f"{value:.2f}" in words, f"{name}, {arm.name}: {value:.2f}"


def test_arms_with_equal_settings_share_a_run_and_others_do_not() -> None:
    full = Arm(name="ActGuide-RL", trainer="actguide")
    assert BENCH.run_dir(full, 0) == BENCH.run_dir(Arm(name="adaptive", trainer="actguide"), 0)
    others = [Arm(name="x", trainer="opsd"), Arm(name="x", trainer="actguide", set=("algorithm.guidance.fallback=false",))]
    assert len({BENCH.run_dir(full, 0), BENCH.run_dir(full, 1), *(BENCH.run_dir(arm, 0) for arm in others)}) == 4


def written(folder: Path, right: int) -> Path:
    with Recorder(folder) as log:
        for number, task in enumerate(TASKS):
            fields = {"index": 0, "step": 2, "purpose": "eval", "status": "answered", "answer": "a", "detail": "", "usage": {}}
            log.record(Kind.ATTEMPT, {"attempt_id": task, "task_id": task, "evaluation_id": "e", **fields})
            log.record(Kind.JUDGEMENT, {"attempt_id": task, "value": float(number < right), "judge": "exact", "status": "judged"})
        log.record(Kind.EVALUATION, {"phase": "finished", "evaluation_id": "e", "split": "test", "step": 2, "generated_tokens_total": 1})
        for step, trainable in enumerate((4.0, 8.0, 8.0, 12.0)):
            log.record(Kind.STEP, {"step": step, "metrics": {"groups/trainable": trainable}, "histograms": {}})
    return folder


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"), [(30, 4, "agrees"), (4, 30, "DISAGREES"), (20, 20, "undecided: our difference cannot be told from zero")]
)
def test_the_report_says_whether_the_ordering_of_the_paper_is_ours(tmp_path: Path, ours: int, theirs: int, verdict: str) -> None:
    chosen = Reproduction(
        title="t", columns=("GAIA",), arms=(Arm(name="a", paper=(35.92,)), Arm(name="b")), claims=(("a", "b"),), not_applicable="none of it"
    )
    folders = {"a": [written(tmp_path / "a", ours)], "b": [written(tmp_path / "b", theirs)]}
    report = "\n".join(_report(chosen, BENCH, folders))
    assert "| a | 35.92 | " + f"{ours / 40:.1%} [" in report and "| b | not reported | " in report
    assert f"a over b: {(ours - theirs) / 40:+.1%}" in report and verdict in report
    assert "Not applicable here: none of it" in report


def test_curves_are_told_as_means_over_quarters_of_the_training(tmp_path: Path) -> None:
    chosen = Reproduction(title="f", arms=(Arm(name="a"),), curves={"groups/trainable": "groups"}, finding="more")
    report = _report(chosen, BENCH, {"a": [written(tmp_path / "a", 1)]})
    assert "| a | 4.00 | 8.00 | 8.00 | 12.00 |" in report


def test_an_arm_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.reproduce.tomllib.loads", lambda _: {"t": {"title": "t", "arms": [], "claims": [["a", "b"]]}})
    with pytest.raises(HarnessError, match="no arm is called a, b"):
        reproductions()


def test_a_study_and_a_table_share_the_run_that_both_need(tmp_path: Path) -> None:
    study = Plan(
        folder=tmp_path, runs=BENCH.folder, model=BENCH.model, tasks=BENCH.tasks, split="test", steps=BENCH.steps, threads=1, assignments=()
    )
    assert study.run_dir("actguide", 1) == BENCH.run_dir(Arm(name="ActGuide-RL", trainer="actguide"), 1)
    assert study.run_dir("foreign-plans", 1) != study.run_dir("actguide", 1) != replace(study, split="validation").run_dir("actguide", 1)
