"""The paper's tables and figures: every arm exists, the paper's numbers are those of its text, and the report says what was found."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cli.reproduce import Arm, Bench, Reproduction, _assigned, _exceptions, reproductions
from harness.cli.reproduced import Done, _chart, _spread, report
from harness.cli.run import resolve
from harness.cli.study import Plan
from harness.errors import HarnessError, UsageError
from harness.events import Kind, Recorder
from harness.figures import Chart, Finding, Series, bars

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


@pytest.mark.parametrize("name", reproductions())
def test_every_arm_has_settings_for_a_model_of_the_paper_too(name: str) -> None:
    chosen = reproductions()[name]
    replace(BENCH, model="qwen3-4b", tasks="musique", assignments=("learner.lr=1e-6",) if chosen.arms else ()).check(chosen.arms)


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


def read(chosen: Reproduction, runs: dict[str, list[Path]], diagnoses: dict[str, list[Path]] | None = None) -> str:
    """The report, its padding taken out."""
    return re.sub(" +", " ", "\n".join(report(chosen, BENCH, Done(runs=runs, diagnoses=diagnoses or {}))))


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (30, 4, "agrees"),
        (4, 30, "DISAGREES"),
        (20, 20, "undecided: both score the same on each of 40 questions"),
        (20, 18, "undecided: our difference cannot be told from zero"),
        (18, 20, "undecided: our difference points the other way, but cannot be told from zero"),
    ],
)
def test_the_report_says_whether_the_ordering_of_the_paper_is_ours(tmp_path: Path, ours: int, theirs: int, verdict: str) -> None:
    chosen = Reproduction(
        title="t", columns=("GAIA",), arms=(Arm(name="a", paper=(35.92,)), Arm(name="b")), claims=(("a", "b"),), not_applicable="none of it"
    )
    said = read(chosen, {"a": [written(tmp_path / "a", ours)], "b": [written(tmp_path / "b", theirs)]})
    assert f"| a | 35.92 | {100 * ours / 40:.1f} [" in said and "| b | not reported | " in said
    assert verdict in said and (ours == theirs or f"a over b: {100 * (ours - theirs) / 40:+.1f} (" in said)
    assert "Not applicable here: none of it" in said
    assert "Scores in percent; the paper's are of Qwen3-4B-Instruct, ours over 40 questions; [95% interval" in said


def measured(folder: Path, guided: int) -> Path:
    """What a diagnosis of the reward under guidance leaves behind: two rollouts a task, a quarter of them right without guidance."""
    tasks = [
        {"task_id": task, "level": 2, "unguided": [float(n < 10)] * 2, "guided": [float(n < guided), 1.0] if n else []}
        for n, task in enumerate(TASKS)
    ]
    (folder / "diagnostics").mkdir(parents=True)
    (folder / "diagnostics" / "guided-reward.json").write_text(json.dumps({"data": {"tasks": tasks}}))
    return folder


def test_the_reward_under_guidance_stands_beside_the_score_after_training_and_decides_the_ordering(tmp_path: Path) -> None:
    arms = (
        Arm(name="none", guidance=(), paper=(57.9,)),
        Arm(name="plan", guidance=("injection=plan",), paper=(85.7,)),
        Arm(name="prefix", guidance=("injection=assistant-prefix",), paper=(74.5,)),
    )
    chosen = Reproduction(title="t", columns=("reward@1",), arms=arms, claims=(("plan", "prefix"), ("prefix", "none")))
    runs = {arm.name: [written(tmp_path / arm.name, 8)] for arm in arms}
    diagnoses = {"plan": [measured(tmp_path / "d-plan", 39)], "prefix": [measured(tmp_path / "d-prefix", 3)]}
    said = read(chosen, runs, diagnoses)
    assert "| method | paper: reward@1 | ours, while guided, untrained | ours: miniweb, tiny, after training, unguided | by seed |" in said
    assert "| none | 57.90 | 25.0 [" in said and "| plan | 85.70 | 98.7 [" in said and "| prefix | 74.50 | 52.6 [" in said
    assert said.count(" | 20.0 |\n") == 3 and "plan over prefix: +46.2 (" in said and "DISAGREES" not in said
    assert "Orderings of the paper, and ours, while guided" in said


def test_curves_are_told_as_means_over_quarters_of_the_training(tmp_path: Path) -> None:
    arms = (Arm(name="a"), Arm(name="b"))
    chosen = Reproduction(title="f", arms=arms, curves={"groups/trainable": "groups"}, claims=(("a", "b"),), grows=("a",), finding="more")
    runs = {"a": [written(tmp_path / "a", 1)], "b": [written(tmp_path / "b", 1)]}
    said = read(chosen, runs)
    assert "| a | 4.00 | 8.00 | 8.00 | 12.00 |" in said
    assert "a over b: +0.00 (no interval from one seed); undecided" in said and "a, last quarter over first: +8.00 (no interval" in said
    several = read(chosen, {name: folders * 3 for name, folders in runs.items()})
    assert "| a | 4.00 | 8.00 |" in several and "a, last quarter over first: +8.00 (+8.00 to +8.00); agrees" in several
    assert "a over b: +0.00 (+0.00 to +0.00); undecided" in several


def test_a_diagnosis_is_told_as_its_curves_over_all_seeds_and_its_words(tmp_path: Path) -> None:
    folders = []
    for seed, y in enumerate((1.0, 3.0)):
        chart = Chart(title="Pass@4", x="turn", y="share", series=(Series(name="pass", points=((1.0, y), (2.0, 0.5))),))
        finding = Finding(name="prefix-pass", title="t", step=0, summary=(f"said {seed}",), charts=(chart,), data={})
        with Recorder(tmp_path / f"d{seed}") as log:
            log.record(Kind.DIAGNOSTIC, finding.event("diagnostics/prefix-pass.json"))
        folders.append(tmp_path / f"d{seed}")
    said = read(Reproduction(title="f", diagnoses=("prefix-pass",), finding="barriers"), {}, {"prefix-pass": folders})
    assert "| turn | pass |\n" in said and "| 1 | 2.00 (1.00 to 3.00) |" in said and "| 2 | 0.50 |" in said
    assert "- said 0" in said and "said 1" not in said and "Plot: $HARNESS_HOME/studies/shared/d0/diagnostics/prefix-pass.png" in said
    assert said.endswith("The paper's finding: barriers")


def test_bars_of_seeds_are_laid_side_by_side_by_their_labels() -> None:
    seeds = [bars("t", "level", "tasks", counts).to_plain() for counts in ([("2", 3.0), ("none", 1.0)], [("10", 2.0), ("2", 3.0)])]
    said = [re.sub(" +", " ", line) for line in _chart(seeds)]
    assert said[4:] == ["| 2 | 3 |", "| 10 | 1 (0 to 2) |", "| none | 0.50 (0 to 1) |"]


def test_a_zero_has_no_sign_and_equal_seeds_no_range() -> None:
    assert (_spread([-0.001, 0.001]), _spread([1.0, 1.001]), _spread([None])) == ("0.00", "1.00", "-")


def test_settings_go_to_runs_and_to_diagnoses_as_each_has_them() -> None:
    known = reproductions()
    both = ("learner.lr=0.1", "agent.max_turns=4", "samples=2")
    assert _assigned(both, known["table7"]) == (both[:2], both[1:])
    assert _assigned(both[:2], known["table1"]) == (both[:2], ()) and _assigned(both[1:], known["fig3"]) == ((), both[1:])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("table1", "samples=2", "no run or diagnosis here has the setting 'samples'"),
        ("fig3", "learner.lr=0.1", "no run or diagnosis here has the setting 'learner.lr'"),
        ("table8", "algorithm.group.size=2", r"'algorithm\.group\.size'\. Did you mean 'algorithm\.group\.group_size'"),
        ("table8", "algorithm", "expected KEY=VALUE"),
    ],
)
def test_a_setting_that_nothing_here_has_is_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _assigned((text,), reproductions()[name])


@pytest.mark.parametrize("name", ["table2", "table8"])
def test_a_setting_that_only_some_trainers_have_goes_to_their_arms_and_the_report_says_so(name: str, tmp_path: Path) -> None:
    chosen = reproductions()[name]
    given = ("algorithm.group.group_size=2", "learner.lr=0.1")
    bench = replace(BENCH, folder=tmp_path, assignments=_assigned(given, chosen)[0])
    with_it = {arm.name for arm in chosen.arms if given[0] in bench._training(arm).settings}
    without = {arm.name for arm in chosen.arms if arm.trainer == "sft"}
    assert with_it == {arm.name for arm in chosen.arms} - without and without
    assert all(given[1] in bench._training(arm).settings for arm in chosen.arms)
    bench.check(chosen.arms)  # each arm's settings are those of a run
    (said,) = _exceptions(bench.assignments, chosen)
    assert said.startswith(f"`{given[0]}` holds for ") and said.endswith(f"; the trainer of {', '.join(without)} has no such setting.")


def test_a_wrong_value_is_refused_before_the_first_run() -> None:
    bench = replace(BENCH, assignments=("algorithm.group.group_size=many",))
    with pytest.raises(UsageError, match="expected a whole number"):
        bench.check(reproductions()["table8"].arms)


def test_an_evaluation_has_the_judge_and_the_limits_of_the_runs_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        ran.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("harness.cli.reproduce.subprocess.run", run)
    chosen = ("judge=llm", "eval_limit=3", "agent.max_turns=4", "learner.lr=0.1")
    replace(BENCH, folder=tmp_path, assignments=chosen).run(Arm(name="base"), 0)
    settings = [ran[0][n + 1] for n, word in enumerate(ran[0]) if word == "--set"]
    assert settings == ["judge=llm", "limit=3", "agent.max_turns=4"]


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


def test_an_arm_has_settings_of_its_own_on_one_model_alone() -> None:
    table = reproductions()["table8"]
    opsd = next(arm for arm in table.arms if arm.trainer == "opsd")
    plain, other = replace(opsd, on={}), replace(BENCH, model="smollm2-135m")
    assert BENCH.run_dir(opsd, 0) != BENCH.run_dir(plain, 0) and other.run_dir(opsd, 0) == other.run_dir(plain, 0)
    assert "thirtieth of the learning rate" in table.remark
