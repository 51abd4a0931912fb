"""What of lm-eval's suites is asked for: single samples, limits, forecasts, tasks of one's own, and options that do not apply."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fakes import PolicyEngine, Say, chat_with, tiny_chat
from lm_eval_cases import DIAMOND, THINKS, FailsFor, evaluated, events, letters, shrunk, write_gpqa

from benchmarks.base import SuiteAsk
from benchmarks.lm_eval import GPQA, LMEvalSuite, named_task
from benchmarks.lm_eval.config import LMEvalConfig
from benchmarks.resume import Fate
from harness.budget import Limits
from harness.engines.base import Request
from harness.errors import OutageError, UsageError
from harness.events import Kind
from harness.types import Span
from judges.attempts import OutageConfig

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow  # not for the time it takes: `make test` does without lm-eval


def test_only_the_samples_that_are_named_are_asked(tmp_path: Path, gpqa: Path) -> None:
    engine = PolicyEngine(letters("(A)"))
    (line,) = evaluated(DIAMOND, engine, tmp_path / "run", gpqa, sample=("diamond-rec2", "elsewhere"))
    assert "(1 sample)" in line and [a["task_id"] for a in events(tmp_path / "run", Kind.ATTEMPT)] == ["diamond-rec2"]
    assert evaluated(DIAMOND, engine, tmp_path / "none", gpqa, sample=("elsewhere",)) == []
    assert evaluated(DIAMOND, engine, tmp_path / "none", gpqa, limit=2, sample=("diamond-rec2",)) == [], "only of the first two"


def test_a_forecast_names_each_sample_and_why(tmp_path: Path, gpqa: Path) -> None:
    ask = SuiteAsk(settings=LMEvalConfig(), data=gpqa)
    assert DIAMOND.ids(ask) == ("diamond-rec0", "diamond-rec1", "diamond-rec2")
    evaluated(DIAMOND, FailsFor(letters("(A)"), "question 1?"), tmp_path / "run", gpqa, limit=2)
    (_, first), (_, second), (_, third) = ((place, (what, why)) for place, what, why in DIAMOND.forecast(ask, tmp_path / "run", "run"))
    assert first[0] is Fate.REUSE and "by lm-eval" in first[1]
    assert second == (Fate.RERUN, "engine_error: 503") and third == (Fate.RUN, "not attempted yet")
    assert [what for _, what, _ in DIAMOND.forecast(ask, tmp_path / "empty", "empty")] == [Fate.RUN] * 3


def test_a_token_limit_stops_a_suite_and_a_higher_one_continues_it(tmp_path: Path) -> None:
    write_gpqa(tmp_path, "diamond", 20)
    twenty = shrunk(GPQA, 20, "diamond")
    (line,) = evaluated(twenty, PolicyEngine(letters("(A)")), tmp_path / "run", tmp_path, limits=Limits(tokens=1))
    tried = len(events(tmp_path / "run", Kind.ATTEMPT))
    assert 0 < tried < 20, "what was under way is finished, nothing else is begun"
    assert f"{20 - tried} could not be scored" in line and "stopped by the evaluation's limit of 1 generated tokens" in line
    engine = PolicyEngine(letters("(A)"))
    (line,) = evaluated(twenty, engine, tmp_path / "run", tmp_path, limits=Limits(tokens=10**6))
    assert len(engine.requests) == 20 - tried and "stopped by" not in line and "could not" not in line


class Slow(PolicyEngine):
    """Takes half a minute for prompts that hold a text."""

    def __init__(self, say: Say, text: str) -> None:
        super().__init__(say)
        self._text = text

    async def generate(self, request: Request) -> Span:
        if self._text in tiny_chat().decode(request.ids):
            await asyncio.sleep(30)
        return await super().generate(request)


def test_a_sample_over_its_time_has_no_score_and_its_own_code(tmp_path: Path, gpqa: Path) -> None:
    engine = Slow(letters("(A)"), "question 1?")
    (line,) = evaluated(DIAMOND, engine, tmp_path / "run", gpqa, limits=Limits(sample_seconds=3), outage=OutageConfig(tolerate=0.0))
    assert "1 could not be scored, so between" in line
    assert [a["status"] for a in events(tmp_path / "run", Kind.ATTEMPT)].count("limit") == 1
    evaluated(DIAMOND, PolicyEngine(letters("(A)")), tmp_path / "calm", gpqa)
    first, second = (events(tmp_path / name, Kind.EVALUATION)[0]["comparability_parts"] for name in ("run", "calm"))
    assert {name for name in first if first[name] != second[name]} == {"limits"}


def test_a_truncated_answer_is_open_in_the_upper_bound(tmp_path: Path, gpqa: Path) -> None:
    (line,) = evaluated(DIAMOND, PolicyEngine(letters("<think>It is (B)")), tmp_path / "run", gpqa, chat=chat_with(THINKS))
    assert "3 truncated (counted as wrong), so between 0.0% and 100.0%" in line


def test_an_engine_that_is_down_stops_a_suite(tmp_path: Path, gpqa: Path) -> None:
    with pytest.raises(OutageError, match=r"3 of 3 attempts of the last samples met an outage.*503"):
        evaluated(DIAMOND, FailsFor(letters("(A)"), "question"), tmp_path / "run", gpqa, outage=OutageConfig(retries=0))
    assert [e["phase"] for e in events(tmp_path / "run", Kind.EVALUATION)] == ["started"]


# -- lm-eval:TASK ---------------------------------------------------------------------------------------------------------------

OWN = """task: fern_facts
dataset_path: json
dataset_kwargs:
  data_files:
    test: DATA
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["."]
  max_gen_toks: 8
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that defines the task ``fern_facts`` over two made-up rows."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [{"question": "What grows in shade?", "answer": "a fern"}, {"question": "Is it a tree?", "answer": "no"}]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "fern.yaml").write_text(OWN.replace("DATA", str(tmp_path / "facts.jsonl")))
    return folder


def test_a_task_of_ones_own_runs_from_its_folder_without_the_index_and_the_hub(
    tmp_path: Path, own_task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.lm_eval import tasks

    whole = tasks.TaskManager
    monkeypatch.setattr(tasks, "TaskManager", lambda **options: whole(**options) if options else pytest.fail("all tasks were indexed"))
    suite = named_task("lm-eval:fern_facts")
    say: Say = lambda request, prompt: "a fern. More" if "shade" in prompt else "yes."  # noqa: E731
    engine = PolicyEngine(say)
    (line,) = evaluated(suite, engine, tmp_path / "run", None, include=str(own_task))
    assert "lm-eval:fern_facts/fern_facts: exact_match 0.500" in line and {r.max_tokens for r in engine.requests} == {8}
    judged = {j["attempt_id"].rpartition("-")[2]: j["value"] for j in events(tmp_path / "run", Kind.JUDGEMENT)}
    assert judged == {"0": 1.0, "1": 0.0}
    again = PolicyEngine(say)
    evaluated(suite, again, tmp_path / "run", None, include=str(own_task))
    assert again.requests == []


def test_a_changed_definition_is_another_version_and_is_run_again(tmp_path: Path, own_task: Path) -> None:
    suite = named_task("lm-eval:fern_facts")
    evaluated(suite, PolicyEngine(letters("no.")), tmp_path / "run", None, include=str(own_task))
    path = own_task / "fern.yaml"
    path.write_text(path.read_text().replace("{{question}}", "Say: {{question}}"))
    engine = PolicyEngine(letters("no."))
    evaluated(suite, engine, tmp_path / "run", None, include=str(own_task))
    assert len(engine.requests) == 2 and all("Say: " in tiny_chat().decode(r.ids) for r in engine.requests)
    judges = [e["judge"] for e in events(tmp_path / "run", Kind.EVALUATION) if e["phase"] == "finished"]
    assert len(set(judges)) == 2 and all(judge.startswith("lm-eval ") and "1.0+" in judge for judge in judges)


def test_rows_of_ones_own_replace_those_of_a_task(tmp_path: Path, own_task: Path) -> None:
    rows = tmp_path / "other.jsonl"
    rows.write_text(json.dumps({"question": "What grows in shade?", "answer": "moss"}) + "\n")
    suite = named_task("lm-eval:fern_facts")
    (line,) = evaluated(suite, PolicyEngine(letters("moss.")), tmp_path / "run", rows, include=str(own_task))
    assert "exact_match 1.000" in line and "(1 sample)" in line


def write_rows(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in rows))
    return path


def asked_again(suite: LMEvalSuite, run: Path, data: Path, **settings: Any) -> tuple[list[str], list[str]]:
    """What the forecast says of each sample, and the prompts that are then asked; that the two agree is checked here."""
    ask = SuiteAsk(settings=LMEvalConfig(**settings), data=data)
    said = [f"{what}: {why}" for _, what, why in suite.forecast(ask, run, run.name)]
    engine = PolicyEngine(letters("moss."))
    evaluated(suite, engine, run, data, **settings)
    assert len(engine.requests) == sum(not each.startswith("reuse") for each in said)
    return said, [tiny_chat().decode(request.ids) for request in engine.requests]


CHANGED = "rerun: the question set has changed since"


def test_a_sample_whose_question_or_answer_changed_is_run_again_and_no_other(tmp_path: Path, own_task: Path) -> None:
    suite, run, own = named_task("lm-eval:fern_facts"), tmp_path / "run", {"include": str(own_task)}
    rows = write_rows(tmp_path / "rows.jsonl", ("What grows in shade?", "moss"), ("What is red?", "a rose"))
    said, asked = asked_again(suite, run, rows, **own)
    assert len(asked) == 2
    write_rows(rows, ("What grows in shade?", "moss"), ("What is blue?", "moss"))
    said, asked = asked_again(suite, run, rows, **own)
    assert said[0].startswith("reuse: judged 1 by") and said[1] == CHANGED and "What is blue?" in asked[0]
    write_rows(rows, ("What grows in shade?", "a fern"), ("What is blue?", "moss"))
    said, asked = asked_again(suite, run, rows, **own)
    assert said[0] == CHANGED and said[1].startswith("reuse"), "another answer is another sample: the old score is not its score"
    last = [event["metrics"] for event in events(run, Kind.EVALUATION) if event["phase"] == "finished"][-1]
    assert last == {"exact_match,none": 0.5}, "of the new answer to the first and the kept one to the second"


def test_a_sample_of_a_packaged_suite_whose_option_changed_is_run_again(tmp_path: Path, gpqa: Path) -> None:
    run = tmp_path / "run"
    asked_again(DIAMOND, run, gpqa)
    path = gpqa / "gpqa_diamond.csv"
    path.write_text(path.read_text().replace("wrong 1.2", "wrong in another way"))
    said, asked = asked_again(DIAMOND, run, gpqa)
    assert [each == CHANGED for each in said] == [False, True, False] and len(asked) == 1 and "wrong in another way" in asked[0]


def test_a_sample_whose_examples_changed_is_run_again(tmp_path: Path, own_task: Path) -> None:
    """Rows of one's own are every split of the task, the one that its examples come from too."""
    path = own_task / "fern.yaml"
    path.write_text(path.read_text().replace("test_split: test", "test_split: test\nfewshot_split: test\nnum_fewshot: 1"))
    suite, run, own = named_task("lm-eval:fern_facts"), tmp_path / "run", {"include": str(own_task)}
    rows = write_rows(tmp_path / "rows.jsonl", ("What grows in shade?", "moss"), ("What is red?", "a rose"))
    asked_again(suite, run, rows, **own)
    write_rows(rows, ("What grows in shade?", "moss"), ("What is blue?", "the sky"))
    said, asked = asked_again(suite, run, rows, **own)
    assert said == [CHANGED, CHANGED] and all("What is blue?" in prompt for prompt in asked)


def test_a_log_that_does_not_say_what_was_asked_lends_no_score(tmp_path: Path, own_task: Path) -> None:
    """Logs of versions that recorded no fingerprint."""
    suite, run, own = named_task("lm-eval:fern_facts"), tmp_path / "run", {"include": str(own_task)}
    rows = write_rows(tmp_path / "rows.jsonl", ("What grows in shade?", "moss"))
    asked_again(suite, run, rows, **own)
    (log,) = (run / "events").glob("*.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if line["kind"] == Kind.ATTEMPT:
            del line["data"]["data"]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert asked_again(suite, run, rows, **own)[0] == ["rerun: the log does not say of which data its answer is"]
    assert asked_again(suite, run, rows, **own)[0][0].startswith("reuse")


def test_a_folder_that_is_none_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lm_eval\.include: .*nowhere is no folder"):
        named_task("lm-eval:x").check(SuiteAsk(settings=LMEvalConfig(include=str(tmp_path / "nowhere"))))


# -- the command ----------------------------------------------------------------------------------------------------------------


def refuse(*options: str, benchmarks: str = "ifeval") -> str:
    from click.testing import CliRunner

    from harness.cli.main import cli

    done = CliRunner().invoke(cli, ["eval", "--model", "tiny", "--benchmarks", benchmarks, *options])
    assert isinstance(done.exception, UsageError)
    return str(done.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--turns", "2,4"), "--turns does not apply to ifeval: each sample is one answer"),
        (("--epochs", "3"), "--epochs does not apply to ifeval: lm-eval's task says how often"),
        (("--set", "temperature=0.6"), "temperature does not apply to ifeval"),
        (("--set", "limits.cost=1"), "limits.cost does not apply to ifeval"),
        (("--judge", "llm:http://127.0.0.1:9/v1#m"), "--judge does not apply to ifeval"),
        (("--web", "live"), "--web does not apply to ifeval"),
    ],
)
def test_an_option_that_a_suite_would_ignore_is_refused_in_words(options: tuple[str, ...], words: str) -> None:
    assert words in refuse(*options)


def test_the_command_forecasts_and_samples_a_suite_beside_a_question_set(tmp_path: Path, own_task: Path) -> None:
    import shutil

    from click.testing import CliRunner

    from harness.cli.main import cli
    from harness.tiny import model_dir

    model = tmp_path / "model"
    shutil.copytree(model_dir(), model)
    (model / "script.json").write_text('["no."]')
    include = ["--set", f"lm_eval.include={own_task}", "--out", str(tmp_path / "run")]
    command = [
        "eval",
        "--model",
        str(model),
        "--engine",
        "scripted",
        "--benchmarks",
        "miniweb,lm-eval:fern_facts",
        "--limit",
        "2",
        *include,
    ]
    forecast = CliRunner().invoke(cli, [*command, "--dry-run"], catch_exceptions=False).output
    assert "run      lm-eval:fern_facts/fern_facts/fern_facts-1: not attempted yet" in forecast
    assert forecast.splitlines()[-1] == "reuse 0; regrade 0; rerun 0; run 4"
    done = CliRunner().invoke(cli, [*command, "--sample", "fern_facts-1"], catch_exceptions=False)
    assert done.exit_code == 0 and "exact_match 1.000" in done.output and "miniweb" not in done.output
    assert [a["task_id"] for a in events(tmp_path / "run", Kind.ATTEMPT)] == ["fern_facts-1"]
    wrong = CliRunner().invoke(cli, [*command[:-1], str(tmp_path / "other"), "--sample", "fern_facts-7"])
    assert isinstance(wrong.exception, UsageError) and "unknown sample 'fern_facts-7'" in str(wrong.exception)
