"""``harness eval`` against an endpoint: faults change no score, a killed evaluation goes on where it was, options show in the numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, ScriptedServer, Server, Step, completion
from published_sets import PUBLISHED, write_jsonl
from starlette.testclient import TestClient
from stub_endpoint import StubEndpoint

from harness.cli.eval import EvalConfig
from harness.cli.evaluation import _choose
from harness.cli.folders import name_of_run
from harness.cli.main import cli, run_command
from harness.config import home
from harness.engines.client import Served
from harness.errors import UsageError
from harness.events import Event, Kind, current_events, read_events
from harness.tasks import BROWSECOMP_ZH, GAIA, MINIWEB
from leaderboard.database import default_url, open_database
from leaderboard.web.app import Site, create_app

TASKS = MINIWEB.load(None).split("test")[:12]
ANSWERS = {task.question: task.gold[0] for task in TASKS[::2]}  # every other question is answered rightly
KINDS = ("500", "503", "429", "hang", "broken", "empty", "cut", "reset")  # of failure: what the stub's ``faults`` knows
FAULTS = {"500": 0.1, "broken": 0.05, "reset": 0.05, "hang": 0.05, "429": 0.05}
HARNESS = Path(sys.executable).parent / "harness"


Scores = dict[str, float | None]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """The scores that a server without faults brings."""
    folder = tmp_path_factory.mktemp("clean")
    with pytest.MonkeyPatch.context() as patch, StubEndpoint(answers=ANSWERS, search=True) as stub:
        patch.setenv("HARNESS_HOME", str(folder / "home"))
        evaluate(stub, folder / "run")
    found = scores(folder / "run")
    assert Counter(found.values()) == {0.0: 6, 1.0: 6}
    return found


def arguments(stub: StubEndpoint, out: Path, *more: str) -> list[str]:
    return ["eval", "--model", stub.url, "--benchmarks", "miniweb", "--limit", str(len(TASKS)), "--out", str(out), *more]


def evaluate(stub: StubEndpoint, out: Path, *more: str) -> None:
    assert run_command(cli, arguments(stub, out, *more)) == 0


def events(folder: Path, kind: Kind) -> list[Event]:
    return [event for event in current_events(folder) if event.kind is kind]


def scores(folder: Path) -> Scores:
    task_of = {e.data["attempt_id"]: e.data["task_id"] for e in events(folder, Kind.ATTEMPT)}
    return {task_of[e.data["attempt_id"]]: e.data["value"] for e in events(folder, Kind.JUDGEMENT)}


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """What ``leaderboard show`` prints."""
    capsys.readouterr()
    assert run_command(cli, ["leaderboard", "show"]) == 0
    return capsys.readouterr().out


def board_pages() -> TestClient:
    return TestClient(create_app(Site(engine=open_database(default_url(home())))), base_url="http://127.0.0.1")


def finished(folder: Path) -> list[dict[str, Any]]:
    return [dict(e.data) for e in events(folder, Kind.EVALUATION) if e.data["phase"] == "finished"]


def test_an_endpoint_is_evaluated_by_the_same_loop_and_stands_on_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_API_KEY", "s3cret-key")
    with StubEndpoint(answers=ANSWERS, search=True, key="s3cret-key") as stub:
        evaluate(stub, tmp_path / "run", "--set", "endpoint.price_prompt=1e6")
    said = capsys.readouterr().out
    assert "miniweb/test: 50.0% of 12 tasks, unguided" in said and "answered 12" in said and ", cost " in said
    assert scores(tmp_path / "run") == {task.id: float(task.question in ANSWERS) for task in TASKS}
    attempts = [e.data for e in events(tmp_path / "run", Kind.ATTEMPT)]
    assert all(a["usage"]["turns"] == 2 and a["usage"]["generated_tokens"] > 0 and a["usage"]["cost"] > 0 for a in attempts)
    assert all("fern" in json.dumps(a["turns"][0]["actions"]) and a["turns"][0]["observations"] and a["level"] == 0 for a in attempts)
    assert not any(b"s3cret-key" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert run_command(cli, ["leaderboard", "show", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["benchmark"], row["n"]) == ("stub", "miniweb", 12)


def test_a_server_that_fails_hangs_refuses_and_talks_nonsense_changes_no_score_and_doubles_nothing(tmp_path: Path) -> None:
    with StubEndpoint(answers=ANSWERS, search=True) as stub:
        evaluate(stub, tmp_path / "whole")
    with StubEndpoint(answers=ANSWERS, search=True, faults=FAULTS, retry_after=0.2, seed=5) as stub:
        evaluate(stub, tmp_path / "broken", "--set", "endpoint.timeout=3")
        stats = stub.stats()
    assert sum(stats.get(fault, 0) for fault in FAULTS) >= 3, "the stub was not broken enough to show anything"
    assert scores(tmp_path / "broken") == scores(tmp_path / "whole")
    for kind in (Kind.ATTEMPT, Kind.JUDGEMENT):
        assert Counter(e.data["attempt_id"] for e in events(tmp_path / "broken", kind)).most_common(1)[0][1] == 1
    assert finished(tmp_path / "broken")[0]["usage"]["retries"] >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_fails_every_fifth_request_in_one_way_changes_no_score(tmp_path: Path, clean: Scores, kind: str) -> None:
    with StubEndpoint(answers=ANSWERS, search=True, faults={kind: 0.2}, retry_after=0.1, seed=7) as stub:
        evaluate(stub, tmp_path / "run", "--set", "endpoint.timeout=2")
        stats = stub.stats()
    assert stats[kind] >= 3, "the stub was not broken enough to show anything"
    assert scores(tmp_path / "run") == clean


def test_a_part_of_a_published_set_over_a_corpus_is_shown_with_coverage_and_bounds_and_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PUBLISHED["xbench"](tmp_path)
    corpus = write_jsonl(tmp_path / "pages.jsonl", [{"url": "page://0", "title": "奥林", "text": "第1位守塔人"}])
    asked = [f"奥林的第{n}位守塔人叫什么？" for n in (1, 2, 3)]
    more = ("--benchmarks", "xbench", "--data", f"xbench={data}", "--web", f"corpus:{corpus}", "--limit", "3")
    with StubEndpoint(answers=dict(zip(asked, ("金答1", "守塔人"), strict=False)), search=True) as stub:
        evaluate(stub, tmp_path / "run", *more)
    said = capsys.readouterr().out
    caveat = "not comparable with published results: 3 of 100 questions; searched pages.jsonl instead of the web; judged by rules alone"
    assert "xbench/test: 50.0% of 3 tasks, unguided; 1 could not be scored, so between 33.3% and 66.7%" in said
    assert "coverage 67%; " in said and caveat in said
    assert run_command(cli, ["leaderboard", "show"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert caveat in shown and "coverage 67%" in shown and "between 33.3% and 66.7%" in shown
    page = board_pages().get(f"/runs/{name_of_run(tmp_path / 'run')}").text
    assert caveat in page and ">67%<" in page and ">33.3 to 66.7<" in page


def test_confidence_that_answers_state_is_held_against_them_and_what_states_none_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PUBLISHED["browsecomp-zh"](tmp_path)
    right, wrong, silent = BROWSECOMP_ZH.load(data).split("test")[:3]
    replies = {right.question: f"{right.gold[0]}\n置信度: 90%", wrong.question: "不知道\n置信度: 70%", silent.question: silent.gold[0]}

    def answer(path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Step:
        if path.endswith("/models"):
            return Step(content={"data": [{"id": "m"}]})
        asked = next(m["content"] for m in body["messages"] if m["role"] == "user")
        return completion(next(f"<answer>{said}</answer>" for question, said in replies.items() if question in asked))

    with Server(answer) as server:
        command = ["eval", "--model", server.url, "--benchmarks", "browsecomp-zh", "--data", f"browsecomp-zh={data}", "--limit", "3"]
        for _ in ("run", "reused"):
            assert run_command(cli, [*command, "--out", str(tmp_path / "run")]) == 0
            assert "calibration error 40.0% over 2 answers with a stated confidence" in capsys.readouterr().out  # (0.1 + 0.7) / 2


def test_a_dead_endpoint_leaves_samples_without_a_score_and_a_later_run_gives_them_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    impatient = ("--set", "endpoint.retries=0", "--set", "outage.tolerate=1")
    with StubEndpoint(answers=ANSWERS, faults={"500": 0.5}, seed=2) as stub:
        evaluate(stub, tmp_path / "run", *impatient)
        assert "could not be scored" in capsys.readouterr().out
    lost = [task for task, value in scores(tmp_path / "run").items() if value is None]
    assert 0 < len(lost) < 12
    with StubEndpoint(answers=ANSWERS) as stub:
        assert run_command(cli, arguments(stub, tmp_path / "run", *impatient, "--dry-run")) == 0
        forecast = capsys.readouterr().out
        assert forecast.count("rerun ") >= len(lost) and "engine_error: HTTP 500" in forecast
        assert f"reuse {12 - len(lost)}; regrade 0; rerun {len(lost)}; run 0" in forecast
        evaluate(stub, tmp_path / "run", *impatient)
        assert stub.stats()["answered"] == len(lost)
    assert scores(tmp_path / "run") == {task.id: float(task.question in ANSWERS) for task in TASKS}


def test_a_server_that_fails_everything_stops_the_evaluation_and_the_same_command_continues_it_at_another_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with StubEndpoint(answers=ANSWERS, faults={"500": 1.0}) as stub:
        assert run_command(cli, arguments(stub, out, "--set", "endpoint.retries=0")) == 1
    said = capsys.readouterr()
    assert "12 of 12 attempts of the last samples met an outage" in said.err and "give the same command again" in said.err
    assert [e.data["phase"] for e in events(out, Kind.RUN)] == ["started", "failed"] and not finished(out)
    with StubEndpoint(answers=ANSWERS) as stub:
        evaluate(stub, out)
    assert scores(out) == {task.id: float(task.question in ANSWERS) for task in TASKS}


def test_a_server_that_lists_its_model_and_answers_nothing_ends_the_evaluation_within_its_stated_patience(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    with StubEndpoint(answers=ANSWERS, faults={"500": 1.0}) as stub:
        assert run_command(cli, arguments(stub, tmp_path / "run")) == 1
        url = stub.url
    assert time.monotonic() - began < 30
    assert f"the endpoint {url} lists its models and answers no request: HTTP 500" in capsys.readouterr().err
    assert not recorded(tmp_path / "run"), "nothing was attempted, so nothing has to be tried again"


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "serves no request: HTTP 401"), (404, "serves no request: HTTP 404"), (400, "attempts of the last samples met an outage")],
)
def test_a_server_that_refuses_everything_ends_the_evaluation_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, words: str
) -> None:
    def answer(path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Step:
        return Step(content={"data": [{"id": "m"}]}) if path.endswith("/models") else Step(status=status, content={"error": "not that"})

    began = time.monotonic()
    with Server(answer) as server:
        command = ["eval", "--model", server.url, "--benchmarks", "miniweb", "--limit", "100", "--out", str(tmp_path / "run")]
        assert run_command(cli, command) == 1
    said = capsys.readouterr().err
    assert words in said and "not that" in said and time.monotonic() - began < 30
    assert len(recorded(tmp_path / "run")) < 100


def test_without_a_folder_the_same_command_continues_what_was_stopped_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    def command(stub: StubEndpoint, *more: str) -> list[str]:
        return ["eval", "--model", stub.url, "--benchmarks", "miniweb", "--limit", "4", "--set", "endpoint.retries=0", *more]

    def folders() -> list[Path]:
        return sorted((home() / "runs").iterdir())

    with StubEndpoint(answers=ANSWERS, faults={"500": 0.5}, seed=2) as stub:
        assert run_command(cli, command(stub)) == 1
        (stopped,) = folders()
        kept = sum(value is not None for value in scores(stopped).values())
        time.sleep(1.1)  # folders are named by the second
        assert run_command(cli, command(stub, "--seed", "1", "--set", "outage.tolerate=1")) == 0
        assert len(folders()) == 2, "other settings are another evaluation"
        asked = stub.stats()["requests"]
        capsys.readouterr()
        assert run_command(cli, command(stub, "--set", "outage.tolerate=1")) == 0
        assert f"Continuing {stopped}, which was stopped before its end" in capsys.readouterr().err
        assert len(folders()) == 2 and stub.stats()["requests"] - asked == 4 - kept
        time.sleep(1.1)
        assert run_command(cli, command(stub, "--set", "outage.tolerate=1")) == 0
        assert len(folders()) == 3, "a finished one is left alone"


def test_another_model_or_another_context_at_the_url_is_refused_and_a_named_one_may_be_named_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StubEndpoint(answers=ANSWERS) as stub:
        evaluate(stub, tmp_path / "run", "--sample", TASKS[0].id)
    capsys.readouterr()
    with StubEndpoint(answers=ANSWERS, model="other") as stub:
        assert run_command(cli, arguments(stub, tmp_path / "run", "--sample", TASKS[0].id)) == 2
    assert f"holds an evaluation of stub, and {stub.url} serves other" in capsys.readouterr().err
    with StubEndpoint(answers=ANSWERS, context=2048) as stub:
        assert run_command(cli, arguments(stub, tmp_path / "run", "--sample", TASKS[0].id)) == 2
    said = capsys.readouterr().err
    assert "under other conditions: limits was" in said and "'context_tokens': 4096" in said and "'context_tokens': 2048" in said
    with StubEndpoint(answers=ANSWERS) as stub:
        evaluate(stub, tmp_path / "run", "--sample", TASKS[0].id, "--model-name", "stub")
        assert stub.stats().get("answered", 0) == 0
        assert run_command(cli, arguments(stub, tmp_path / "run", "--sample", TASKS[0].id, "--model-name", "b")) == 2
    assert "model_name was stub, is now b" in capsys.readouterr().err


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_judge_with_a_wrong_key_or_model_stops_the_evaluation_at_its_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    with StubEndpoint(answers=ANSWERS) as stub, ScriptedServer(Step(status=status, content={"error": "no"})) as judge:
        assert run_command(cli, arguments(stub, tmp_path / "run", "--judge", f"llm:{judge.url}#m")) == 1
        assert stub.stats().get("requests", 0) == 0
    said = capsys.readouterr().err
    assert f"the judge {judge.url} serves no request: HTTP {status}" in said and "HARNESS_JUDGE_API_KEY" in said
    assert not (tmp_path / "run").exists()


def test_a_judge_that_is_not_there_stops_the_evaluation_at_its_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unused_port: int
) -> None:
    with StubEndpoint(answers=ANSWERS) as stub:
        for spec in (f"llm:http://127.0.0.1:{unused_port}/v1#m", f"llm:http://127.0.0.1:{unused_port}/v1"):
            assert run_command(cli, arguments(stub, tmp_path / "run", "--judge", spec)) == 1
            said = capsys.readouterr().err
            assert "no connection" in said and f"http://127.0.0.1:{unused_port}/v1" in said
        assert stub.stats().get("requests", 0) == 0


def test_a_key_that_is_withdrawn_in_the_middle_ends_the_evaluation_with_the_answers_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hard = {task.question: "Annie P." for task in TASKS}
    with StubEndpoint(answers=hard) as stub, ScriptedServer(completion("correct"), Step(status=401)) as judge:
        assert run_command(cli, arguments(stub, tmp_path / "run", "--judge", f"llm:{judge.url}#m")) == 1
        assert f"the judge {judge.url} serves no request: HTTP 401" in capsys.readouterr().err
        answered, kept = stub.stats()["answered"], len(events(tmp_path / "run", Kind.ATTEMPT))
        assert 0 < kept <= answered
        with JudgeServer(lambda case: "correct", model="m") as another:
            evaluate(stub, tmp_path / "run", "--judge", f"llm:{another.url}#m")
        assert stub.stats()["answered"] == answered + 12 - kept, "only what was not recorded is asked for again"
    assert set(scores(tmp_path / "run").values()) == {1.0}


def test_a_judge_that_fails_in_the_middle_stops_the_evaluation_and_the_same_command_judges_what_was_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, patient = tmp_path / "run", ("--set", "outage.retries=1", "--set", "outage.pause=0.01")
    hard = {task.question: "Annie P." for task in TASKS} | ANSWERS  # the exact judge leaves these to the model
    with StubEndpoint(answers=hard) as stub:
        with JudgeServer(lambda case: None) as judge:
            assert run_command(cli, arguments(stub, out, "--judge", f"llm:{judge.url}", *patient)) == 1
        assert "met an outage that outlasted all retries" in capsys.readouterr().err
        assert "stub base on miniweb test stopped, 6 of 12 questions judged (" in shown(capsys)
        answered = stub.stats()["answered"]
        with JudgeServer(lambda case: "incorrect") as judge:
            evaluate(stub, out, "--judge", f"llm:{judge.url}", *patient)
        assert stub.stats()["answered"] == answered == 12, "an answer that was there was asked for again"
    assert scores(out) == {task.id: float(task.question in ANSWERS) for task in TASKS}


def test_gaia_is_judged_by_its_own_rule_before_a_model_and_no_other_benchmark_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {name: PUBLISHED[name](tmp_path) for name in ("gaia", "browsecomp-zh")}
    task = GAIA.load(data["gaia"]).split("test")[0]
    with StubEndpoint(answers={task.question: f'"{task.gold[0].upper()}!"'}) as stub, JudgeServer(lambda case: "incorrect") as judge:
        options = ["--limit", "2", "--out", str(tmp_path / "run"), "--judge", f"llm:{judge.url}"]
        command = ["eval", "--model", stub.url, "--benchmarks", ",".join(data), *options]
        command += [part for name, path in data.items() for part in ("--data", f"{name}={path}")]
        assert run_command(cli, command) == 0
        assert run_command(cli, [*command, "--dry-run"]) == 0
    assert "reuse 4" in capsys.readouterr().out
    judges = {e["benchmark"]: e["judge"].rpartition("+llm:made-up-judge@")[0] for e in finished(tmp_path / "run")}
    assert judges == {"gaia": "gaia+exact", "browsecomp-zh": "exact"}
    layers = {e.data["attempt_id"]: e.data["layer"] for e in events(tmp_path / "run", Kind.JUDGEMENT)}
    assert layers[f"eval/0/gaia/{task.id}/k0/0"] == "gaia:quasi-exact"


def test_a_killed_evaluation_is_told_of_and_loses_and_repeats_no_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    with StubEndpoint(answers=ANSWERS, search=True, latency=0.3) as stub:
        command = [str(HARNESS), *arguments(stub, folder, "--set", "endpoint.concurrency=2")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ.copy())
        while process.poll() is None and len(recorded(folder)) < 3:
            time.sleep(0.05)
        assert " is running, " in shown(capsys), "a run at work is not called stopped"
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = recorded(folder)
        said = shown(capsys)
        assert f"{name_of_run(folder)}: stub base on miniweb test stopped, {len(before)} of 12 questions judged; continue it with" in said
        assert f"--out {folder}" in said and "[" not in said, "a stopped evaluation has no score on the board"
        page = board_pages().get(f"/runs/{name_of_run(tmp_path / 'run')}").text
        assert f"{len(before) / 12:.0%} so far" in page and ">not finished<" in page
        assert 3 <= len(before) < 12, "the kill came too early or too late to show anything"
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Not finished" not in shown(capsys) and "stopped" not in board_pages().get(f"/runs/{name_of_run(tmp_path / 'run')}").text
    assert recorded(folder)[: len(before)] == before
    assert sorted(Counter(recorded(folder)).values()) == [1] * 12
    assert scores(folder) == {task.id: float(task.question in ANSWERS) for task in TASKS}


def recorded(folder: Path) -> list[str]:
    """Attempt ids in the order of the log."""
    if not (folder / "events").is_dir():
        return []
    return [str(e.data["attempt_id"]) for _, e in read_events(folder) if e.kind is Kind.ATTEMPT]


def test_each_turn_limit_is_an_evaluation_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StubEndpoint(answers=ANSWERS, search=True) as stub:
        evaluate(stub, tmp_path / "run", "--turns", "1,2", "--sample", TASKS[0].id)
    said = capsys.readouterr().out
    assert "miniweb/test/turns-1: 0.0% of 1 task," in said and "turn_limit 1" in said
    assert "miniweb/test/turns-2: 100.0% of 1 task," in said
    assert len({e["comparability"] for e in finished(tmp_path / "run")}) == 2


def test_epochs_repeat_and_a_run_may_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StubEndpoint(answers=ANSWERS) as stub:
        evaluate(stub, tmp_path / "run", "--epochs", "2")
        assert "avg@2 50.0%; pass@2 50.0%; pass^2 50.0%" in capsys.readouterr().out
        evaluate(stub, tmp_path / "run", "--epochs", "3")
        assert stub.stats()["answered"] == 36
        assert run_command(cli, arguments(stub, tmp_path / "run", "--epochs", "2")) == 2
        assert "epochs was 3, is now 2" in capsys.readouterr().err
        assert run_command(cli, arguments(stub, tmp_path / "run", "--epochs", "3", "--set", "agent.max_turns=3")) == 2
        assert "agent.max_turns was 30, is now 3" in capsys.readouterr().err


def test_a_cost_limit_stops_the_evaluation_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StubEndpoint(answers=ANSWERS) as stub:
        evaluate(
            stub, tmp_path / "run", "--set", "endpoint.price_generated=1e6", "--set", "limits.cost=4", "--set", "endpoint.concurrency=1"
        )
    said = capsys.readouterr().out
    assert "not run" in said and "stopped by the evaluation's cost limit of 4" in said and "could not be scored" in said


@pytest.mark.parametrize(
    ("model", "price", "words"),
    [
        ("http://127.0.0.1:9/v1", "null", "no price is set, so no cost is counted. Set endpoint.price_prompt and endpoint.price_generated"),
        ("http://127.0.0.1:9/v1", "0", "no price is set, so no cost is counted. Set endpoint.price_prompt and endpoint.price_generated"),
        ("tiny", "1", "tiny runs on this machine and has no price. Use limits.tokens or limits.seconds"),
    ],
)
def test_a_cost_limit_is_refused_where_nothing_has_a_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, price: str, words: str
) -> None:
    settings = ("--set", "limits.cost=1", "--set", f"endpoint.price_prompt={price}")
    assert run_command(cli, ["eval", "--model", model, "--benchmarks", "miniweb", "--out", str(tmp_path / "run"), *settings]) == 2
    assert f"limits.cost=1 would never be reached: {words}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


TOKEN_IDS = ("--set", "endpoint.tokenizer=tiny", "--set", "endpoint.concurrency=1", "--set", "agent.response_tokens=16")


def test_turns_of_token_ids_have_a_price_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = ("--set", "endpoint.price_prompt=1e6", "--set", "endpoint.price_generated=2e6")
    with StubEndpoint() as stub:
        evaluate(stub, tmp_path / "run", *TOKEN_IDS, *prices, "--limit", "2")
        first, second = (e.data["usage"] for e in events(tmp_path / "run", Kind.ATTEMPT))
        for used in (first, second):
            assert used["cost"] == used["billed_prompt_tokens"] + 2 * used["generated_tokens"] > 32
            assert used["prompt_tokens"] == used["billed_prompt_tokens"] and used["retries"] is None
        assert f", cost {first['cost'] + second['cost']:.4g}" in capsys.readouterr().out
        evaluate(stub, tmp_path / "limited", *TOKEN_IDS, *prices, "--limit", "2", "--set", "limits.cost=1")
        assert "limit 1" in capsys.readouterr().out, "the second sample was not asked"
        evaluate(stub, tmp_path / "unpriced", *TOKEN_IDS, "--limit", "2")
        assert ", cost" not in capsys.readouterr().out


@pytest.mark.parametrize(("limit", "higher"), [("cost=4", "cost=1000"), ("tokens=4", "tokens=1000")])
def test_a_resumed_evaluation_counts_what_was_spent_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str, higher: str
) -> None:
    one, price = ("--set", "endpoint.concurrency=1"), ("--set", "endpoint.price_generated=1e6")

    def run(limit: str) -> int:
        evaluate(stub, tmp_path / "run", *one, *price, "--set", f"limits.{limit}")
        return int(stub.stats()["answered"])

    with StubEndpoint(answers=ANSWERS) as stub:
        answered = run(limit)
        assert 0 < answered < len(TASKS) / 2
        capsys.readouterr()
        assert run(limit) == answered, "nothing is left of the limit"
        assert "stopped by the evaluation's" in capsys.readouterr().out
        assert run(higher) == len(TASKS)


def test_wrong_requests_are_answered_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StubEndpoint() as stub:
        assert run_command(cli, arguments(stub, tmp_path / "run", "--sample", "nope")) == 2
        assert "unknown sample 'nope'" in capsys.readouterr().err
        assert run_command(cli, arguments(stub, tmp_path / "run", "--turns", "2,x")) == 2
        assert "--turns '2,x'" in capsys.readouterr().err
        assert run_command(cli, arguments(stub, tmp_path / "run", "--web", "nowhere")) == 2
        assert "unknown web 'nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_model_of_an_endpoint_is_the_one_listed_or_the_one_named() -> None:
    one, two = Served(id="a", context=5), Served(id="b")
    assert _choose([one], EvalConfig(model="http://h/v1")) == one
    assert _choose([one, two], EvalConfig(model="http://h/v1", model_name="b")) == two
    assert _choose([], EvalConfig(model="http://h/v1", model_name="c")) == Served(id="c")
    with pytest.raises(UsageError, match=r"\(a, b\); say which with --model-name"):
        _choose([one, two], EvalConfig(model="http://h/v1"))
