"""lm-eval's suites over an endpoint that has /chat/completions and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import PolicyEngine
from lm_eval_cases import DIAMOND, evaluated, events, letters, shrunk, write_gpqa, write_truthfulqa
from stub_endpoint import StubEndpoint

from benchmarks.lm_eval import GPQA, TRUTHFULQA
from harness.budget import Limits
from harness.cipher import unseal
from harness.cli.main import cli, run_command
from harness.engines.base import Capability, ChatReply, ChatRequest
from harness.events import Kind, read_blob
from harness.types import FinishReason, Usage

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow  # not for the time it takes: `make test` does without lm-eval


class Talks:
    """Says one text, cut where a request's limit is below the tokens that it takes."""

    capabilities = frozenset({Capability.CHAT})

    def __init__(self, text: str, tokens: int = 1, cut: str = "") -> None:
        self.requests: list[ChatRequest] = []
        self._text, self._tokens, self._cut = text, tokens, cut

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        whole = request.max_tokens is None or request.max_tokens >= self._tokens
        generated = self._tokens if whole else int(request.max_tokens or 0)
        usage = Usage(prompt=10, billed_prompt=10, generated=generated, cost=0.5)
        return ChatReply(text=self._text if whole else self._cut, finish=FinishReason.STOP if whole else FinishReason.LENGTH, usage=usage)

    async def close(self) -> None:
        pass


def answers(folder: Path) -> list[tuple[str, str]]:
    return [(a["answer"], a["status"]) for a in events(folder, Kind.ATTEMPT)]


def test_a_prompt_is_one_user_message_at_temperature_zero_under_the_tasks_own_limit(tmp_path: Path, gpqa: Path) -> None:
    engine, ids = Talks("It is (B)."), PolicyEngine(letters("It is (B)."))
    (line,) = evaluated(DIAMOND, engine, tmp_path / "chat", gpqa, answer_tokens=700)
    evaluated(DIAMOND, ids, tmp_path / "ids", gpqa, answer_tokens=700)
    assert answers(tmp_path / "chat") == answers(tmp_path / "ids") == [("(B)", "answered")] * 3 and "(3 samples)" in line
    prompts = {r.messages[0]["content"] for r in engine.requests if len(r.messages) == 1 and r.messages[0]["role"] == "user"}
    assert len(prompts) == 3 and all("Made-up question" in p and p.endswith("Let's think step by step: ") for p in prompts)
    assert {(r.temperature, r.max_tokens) for r in engine.requests} == {(0.0, 700)}
    usage = events(tmp_path / "chat", Kind.ATTEMPT)[0]["usage"]
    assert (usage["prompt_tokens"], usage["generated_tokens"], usage["cost"]) == (10, 1, 0.5)


def test_answers_over_messages_have_a_code_of_their_own(tmp_path: Path, gpqa: Path) -> None:
    evaluated(DIAMOND, Talks("(B)"), tmp_path / "chat", gpqa)
    evaluated(DIAMOND, PolicyEngine(letters("(B)")), tmp_path / "ids", gpqa)
    first, second = (events(tmp_path / name, Kind.EVALUATION)[0]["comparability_parts"] for name in ("chat", "ids"))
    assert {name for name in first if first[name] != second[name]} == {"prompt"}


def test_a_thought_is_no_part_of_the_answer_and_one_that_is_cut_gets_more_room(tmp_path: Path, gpqa: Path) -> None:
    engine = Talks("<think>\n(A)? no\n</think>\n(B)", tokens=60, cut="<think>\n(A)\n</think>\n")
    evaluated(DIAMOND, engine, tmp_path / "run", gpqa, answer_tokens=50, thinking_tokens=1000, limit=1)
    assert answers(tmp_path / "run") == [("(B)", "answered")]
    assert [r.max_tokens for r in engine.requests] == [50, 1050]
    usage = events(tmp_path / "run", Kind.ATTEMPT)[0]["usage"]
    assert (usage["prompt_tokens"], usage["generated_tokens"], usage["cost"]) == (10, 110, 1.0), "both requests count"


def test_a_hidden_thought_gets_more_room_and_a_thought_that_never_ends_is_no_answer(tmp_path: Path, gpqa: Path) -> None:
    hidden = Talks("(B)", tokens=60, cut="")
    evaluated(DIAMOND, hidden, tmp_path / "hidden", gpqa, answer_tokens=50, thinking_tokens=1000, limit=1)
    assert answers(tmp_path / "hidden") == [("(B)", "answered")]
    endless = Talks("(B)", tokens=10**6, cut="<think>\n(A)\n</think>\n")
    evaluated(DIAMOND, endless, tmp_path / "endless", gpqa, answer_tokens=50, thinking_tokens=1000, limit=1)
    assert answers(tmp_path / "endless") == [("[invalid]", "truncated")]


def test_a_long_answer_without_a_thought_is_held_to_the_tasks_limit(tmp_path: Path, gpqa: Path) -> None:
    engine = Talks("(A) or rather (B)", tokens=60, cut="(A)")
    evaluated(DIAMOND, engine, tmp_path / "run", gpqa, answer_tokens=50, limit=1)
    assert answers(tmp_path / "run") == [("(A)", "truncated")] and len(engine.requests) == 1


def test_generated_answers_end_at_the_first_blank_line(tmp_path: Path) -> None:
    write_truthfulqa(tmp_path, 1)
    evaluated(shrunk(TRUTHFULQA, 1, "gen"), Talks("Yes. It is even.\n\nQ: And 3?"), tmp_path / "run", tmp_path)
    assert answers(tmp_path / "run") == [("Yes. It is even.", "answered")]


def test_gated_replies_are_in_the_log_in_cipher_only(tmp_path: Path, gpqa: Path) -> None:
    evaluated(DIAMOND, Talks("Made-up reply (B)"), tmp_path / "run", gpqa, limit=1)
    (attempt,) = events(tmp_path / "run", Kind.ATTEMPT)
    assert "Made-up" not in json.dumps(attempt)
    blob = read_blob(tmp_path / "run", attempt["blob"])
    assert "Made-up" not in json.dumps(blob) and unseal(attempt["task_id"], blob["sealed"]) == ["Made-up reply (B)"]


def test_a_cost_limit_stops_a_suite_whose_answers_have_a_price(tmp_path: Path) -> None:
    write_gpqa(tmp_path, "diamond", 20)
    (line,) = evaluated(shrunk(GPQA, 20, "diamond"), Talks("(B)"), tmp_path / "run", tmp_path, limits=Limits(cost=0.6))
    assert "stopped by the evaluation's cost limit of 0.6" in line
    assert 2 <= len(events(tmp_path / "run", Kind.ATTEMPT)) < 20, "what was under way is finished, nothing else is begun"


# -- the command ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stub() -> Iterator[StubEndpoint]:
    with StubEndpoint() as stub:
        yield stub


def write_whole_ifeval(folder: Path, single: int = 248) -> Path:
    """541 made-up prompts with 834 instructions (where ``single`` of them have one alone)."""
    one, two = ["keywords:existence"], ["keywords:existence", "punctuation:no_comma"]
    arguments = {"keywords": ["unknown"]}
    lines = [
        {"key": i, "prompt": f"Say unknown {i}.", "instruction_id_list": one if i < single else two}
        | {"kwargs": [arguments] if i < single else [arguments, {}]}
        for i in range(541)
    ]
    path = folder / "input_data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_gpqa_and_ifeval_run_over_a_chat_endpoint(stub: StubEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gpqa(tmp_path, "diamond", 198)
    data = ["--data", f"gpqa={tmp_path}", "--data", f"ifeval={write_whole_ifeval(tmp_path)}"]
    command = ["eval", "--model", stub.url, "--benchmarks", "gpqa,ifeval", *data, "--limit", "2", "--out", str(tmp_path / "run")]
    assert run_command(cli, [*command, "--split", "diamond"]) == 2, "ifeval has no such part"
    for subset, count in (("main", 448), ("extended", 546)):
        write_gpqa(tmp_path, subset, count)
    assert run_command(cli, command) == 0
    said = capsys.readouterr().out
    assert "gpqa/diamond: exact_match" in said and "gpqa/extended: exact_match" in said
    assert "ifeval/test: prompt_level_strict_acc 1.000" in said and stub.stats()["answered"] == 8


def test_what_needs_log_likelihoods_is_refused_at_the_start_with_the_remedy(
    stub: StubEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_truthfulqa(tmp_path, 817)
    command = ["eval", "--model", stub.url, "--data", f"truthfulqa={tmp_path}", "--limit", "2", "--out", str(tmp_path / "run")]
    assert run_command(cli, [*command, "--benchmarks", "miniweb,truthfulqa"]) == 2
    said = capsys.readouterr().err
    assert "truthfulqa: mc1, mc2 need log-likelihoods" in said and "--set endpoint.tokenizer=NAME|DIR" in said and "--split gen" in said
    assert stub.stats().get("requests", 0) == 0 and not (tmp_path / "run").exists()
    assert run_command(cli, [*command, "--benchmarks", "truthfulqa", "--split", "gen"]) == 0
    assert "truthfulqa/gen: bleu_acc" in capsys.readouterr().out
    never = ["--split", "gen", "--set", "lm_eval.chat_template=never"]
    assert run_command(cli, [*command, "--benchmarks", "truthfulqa", *never]) == 2
    assert "lm_eval.chat_template=never" in capsys.readouterr().err


def test_options_for_the_question_sets_are_taken_where_suites_stand_beside_them(
    stub: StubEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", f"ifeval={write_whole_ifeval(tmp_path)}", "--limit", "1", "--out", str(tmp_path / "run")]
    command = ["eval", "--model", stub.url, "--benchmarks", "miniweb,ifeval", *data]
    assert run_command(cli, [*command, "--turns", "2,4", "--epochs", "2", "--set", "temperature=0.5"]) == 0
    said = capsys.readouterr().out
    assert "miniweb/test/turns-2: " in said and "miniweb/test/turns-4: " in said and "avg@2" in said
    assert "(1 sample)" in said, "a suite is asked once"
    temperatures = {e["benchmark"]: e["temperature"] for e in events(tmp_path / "run", Kind.EVALUATION)}
    assert temperatures == {"miniweb": 0.5, "ifeval": 0.0}


def test_a_copy_without_all_instructions_is_refused_before_anything_runs(
    stub: StubEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", f"ifeval={write_whole_ifeval(tmp_path, single=250)}", "--out", str(tmp_path / "run")]
    assert run_command(cli, ["eval", "--model", stub.url, "--benchmarks", "miniweb,ifeval", *data]) == 1
    assert "got 832 instructions, expected 834" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_benchmark_may_be_named_with_a_split_of_its_own(stub: StubEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gpqa(tmp_path, "diamond", 198)  # and neither of the other two
    command = ["eval", "--model", stub.url, "--data", f"gpqa={tmp_path}", "--limit", "1", "--out", str(tmp_path / "run"), "--benchmarks"]
    assert run_command(cli, [*command, "miniweb,gpqa/diamond"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said if "/" in line.partition(":")[0]] == ["miniweb/test", "gpqa/diamond"]
    assert said[-1] == f"Run: {tmp_path / 'run'}"
    other = [*command[:-3], "--out", str(tmp_path / "other"), "--benchmarks"]
    assert run_command(cli, [*other, "miniweb/train,gpqa/diamond", "--split", "test"]) == 0, "a split of its own comes first"
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said if "/" in line.partition(":")[0]] == ["miniweb/train", "gpqa/diamond"]


@pytest.mark.parametrize(
    ("benchmarks", "words"),
    [
        ("miniweb/nowhere", "unknown split of miniweb 'nowhere'"),
        ("gpqa/nowhere", "unknown part of gpqa 'nowhere'"),
        ("gpqa,gpqa/diamond", "--benchmarks names gpqa whole and by a split"),
        ("gpqa/", "--benchmarks 'gpqa/': expected NAME or NAME/SPLIT"),
    ],
)
def test_a_split_that_is_none_is_refused_in_words(benchmarks: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(cli, ["eval", "--model", "tiny", "--benchmarks", benchmarks]) == 2
    assert words in capsys.readouterr().err


def test_a_run_without_a_folder_is_named_after_a_split_too(stub: StubEndpoint, harness_home: Path, tmp_path: Path) -> None:
    assert run_command(cli, ["eval", "--model", stub.url, "--benchmarks", "miniweb/test", "--limit", "1"]) == 0
    (folder,) = (harness_home / "runs").iterdir()
    assert "-miniweb-test-" in folder.name and (folder / "config.json").is_file()


def test_data_that_cannot_be_had_is_said_before_anything_runs(
    stub: StubEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.lm_eval import tasks

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(tasks.datasets, "load_dataset", offline)
    assert run_command(cli, ["eval", "--model", stub.url, "--benchmarks", "miniweb,gpqa", "--out", str(tmp_path / "run")]) == 1
    assert "GPQA is gated" in capsys.readouterr().err
    assert stub.stats().get("requests", 0) == 0 and not (tmp_path / "run").exists()


def test_the_closing_line_of_the_question_sets_is_said_before_a_suite_begins(
    stub: StubEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.lm_eval import LMEvalSuite
    from harness.errors import HarnessError

    async def broken(self: object, run: object) -> list[str]:
        raise HarnessError("the suite ended here")

    monkeypatch.setattr(LMEvalSuite, "evaluate", broken)
    data = ["--data", f"ifeval={write_whole_ifeval(tmp_path)}", "--limit", "1", "--out", str(tmp_path / "run")]
    assert run_command(cli, ["eval", "--model", stub.url, "--benchmarks", "miniweb,ifeval", *data]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("miniweb/test: ") and "the suite ended here" in said.err
