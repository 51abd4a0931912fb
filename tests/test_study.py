"""The study's report, from run logs written by hand: which evaluation counts for which arm, and what is printed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.main import run_command
from harness.cli.study import Plan, evaluations, report, study, verdicts
from harness.events import Kind, Recorder, finished

TASKS = [f"task-{i}" for i in range(10)]


def a_plan(folder: Path) -> Plan:
    return Plan(folder=folder, runs=folder, model="tiny", tasks="miniweb", split="test", steps=2, threads=1, assignments=())


def attempted(attempt: str, task: str, evaluation: str) -> dict[str, object]:
    fields = {"index": 0, "step": 0, "purpose": "eval", "status": "answered", "answer": "a", "detail": "", "usage": {}}
    return {"attempt_id": attempt, "task_id": task, "evaluation_id": evaluation, **fields}


def judged(attempt: str, value: float | None) -> dict[str, object]:
    return {"attempt_id": attempt, "value": value, "judge": "exact", "status": "judged" if value is not None else "transport_error"}


def write_run(folder: Path, right_by_step: dict[int, int], tokens_a_step: int) -> None:
    """A finished run that solved the first ``right_by_step[step]`` tasks in its evaluation after that step."""
    with Recorder(folder) as log:
        log.record(Kind.RUN, {"phase": "started", "run_id": folder.name})
        for step in range(max(right_by_step)):
            metrics = {
                "tokens/generated_total": tokens_a_step * (step + 1),
                "time/step": 30.0,
                "memory/peak_mb": 500.0,
                "groups/trainable": step,
            }
            log.record(Kind.STEP, {"step": step, "metrics": metrics, "histograms": {}})
            if step + 1 in right_by_step:
                write_evaluation(log, folder.name, step + 1, len(TASKS), tokens_a_step, split="validation")
                write_evaluation(log, folder.name, step + 1, right_by_step[step + 1], tokens_a_step, split="test")
        log.record(Kind.RUN, {"phase": "finished", "run_id": folder.name})


def write_evaluation(log: Recorder, run: str, step: int, right: int, tokens_a_step: int, split: str) -> None:
    evaluation = f"{run}/{split}/{step}"
    for number, name in enumerate(TASKS):
        task = f"{split}-{name}"
        attempt = f"{evaluation}/{task}"
        log.record(Kind.ATTEMPT, attempted(attempt, task, evaluation))
        log.record(Kind.JUDGEMENT, judged(attempt, float(number < right)))
    fields = {"phase": "finished", "evaluation_id": evaluation, "step": step, "generated_tokens_total": tokens_a_step * step}
    fields["split"] = split
    log.record(Kind.EVALUATION, fields)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = a_plan(tmp_path)
    for seed in range(2):
        write_run(plan.run_dir("actguide", seed), {2: 6 + seed}, tokens_a_step=300)
        write_run(plan.run_dir("zero-rl", seed), {2: 1, 4: 2, 6: 3}, tokens_a_step=100)
        write_run(plan.run_dir("foreign-plans", seed), {2: 1}, tokens_a_step=300)
    return plan


def test_equal_steps_and_equal_tokens_read_different_evaluations_of_zero_rl(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    report(plan, seeds=2)
    stored = json.loads((plan.folder / "report.json").read_text())
    means = {row["arm"]: row["scores"] for row in stored["scores"]}
    assert means["actguide"] == [0.6, 0.7]
    assert means["zero-rl, equal steps"] == [0.1, 0.1]
    assert means["zero-rl, equal tokens"] == [0.3, 0.3]
    assert means["foreign plans"] == [0.1, 0.1]
    deltas = {(d["left"], d["right"]): d["delta"] for d in stored["differences"]}
    assert deltas["actguide", "zero-rl, equal tokens"] == pytest.approx(0.35)
    assert deltas["foreign plans", "zero-rl, equal steps"] == 0
    printed = capsys.readouterr().out
    assert "60.0%   70.0%   mean  65.0%" in printed
    assert "600 tok, 2 steps, 1.0 min, 500 MB" in printed


def test_the_report_draws_the_training_curves(plan: Plan) -> None:
    report(plan, seeds=2)
    assert (plan.folder / "training.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_counts_as_finished_only_when_its_log_ends_so(tmp_path: Path) -> None:
    assert not finished(tmp_path)
    with Recorder(tmp_path) as log:
        log.record(Kind.RUN, {"phase": "finished"})
        assert finished(tmp_path)
        log.record(Kind.RUN, {"phase": "started"})
        assert not finished(tmp_path), "it was resumed and has not ended again"


def test_what_could_not_be_scored_is_no_verdict(tmp_path: Path) -> None:
    with Recorder(tmp_path) as log:
        for task, value in (("a", 1.0), ("b", None)):
            log.record(Kind.ATTEMPT, attempted(task, task, "e"))
            log.record(Kind.JUDGEMENT, judged(task, value))
    assert verdicts(tmp_path, "e") == {"a": 1.0}
    assert evaluations(tmp_path) == []


def test_a_setting_of_guidance_goes_to_actguides_runs_alone_and_one_of_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(a_plan(tmp_path), assignments=("algorithm.guidance.merge=replace", "learner.lr=0.1"))
    assert plan._arm("actguide").settings == plan.assignments and plan._arm("zero-rl").settings[0] == "learner.lr=0.1"
    assert len(plan._arm("zero-rl").settings) == 2  # and when it is evaluated
    assert run_command(study, ["actguide-vs-zero-rl", "--out", str(tmp_path), "--set", "algorithm.guidance.marge=replace"]) == 2
    assert "Did you mean 'algorithm.guidance.merge'?" in capsys.readouterr().err
