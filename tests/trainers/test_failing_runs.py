"""What stops a training run, and what it leaves behind: losses that are not finite, and tools or judges that are down."""

from __future__ import annotations

import asyncio
import gc
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeLearner, MemoryLog, PolicyEngine, call, tiny_chat
from loop_bench import TASKS, WEB, Bench, by_index, by_seed

from harness.engines.base import Request, Weights
from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig, Draw
from harness.errors import HarnessError, OutageError
from harness.events import Kind
from harness.types import Purpose, Score, ScoreStatus
from harness.web.base import Hit, Page
from judges.attempts import OutageConfig, Sampler
from judges.exact import ExactJudge
from trainers.algorithms.actguide import ActGuide, ActGuideConfig
from trainers.algorithms.grpo import ZeroRL, ZeroRLConfig
from trainers.learner.base import TrainingDiverged, UpdateReport
from trainers.sample import Batch

# -- a loss that is not finite -----------------------------------------------------------------------------------------------


@dataclass
class DivergingLearner(FakeLearner):
    """Its third update fails as a real one does on a NaN loss, or leaves weights that are not finite."""

    silent: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.broken = False

    def update(self, batch: Batch) -> UpdateReport:
        if self.version == 2 and not self.silent:
            raise TrainingDiverged("loss is not finite in attempts train/2/t0/k0/1")
        report = super().update(batch)
        self.broken = self.silent and self.version == 3
        return report

    def weights(self) -> Weights:
        yield "weight", torch.tensor([math.nan if self.broken else float(self.weight)], dtype=torch.float64)


def test_a_loss_that_is_not_finite_stops_the_run_names_its_attempts_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    bench = Bench(tmp_path, say=by_index, learner=DivergingLearner())
    with pytest.raises(TrainingDiverged, match=r"attempts train/2/t0/k0/1; the last good checkpoint is .*step-000002"):
        bench.run(steps=5, checkpoint_every=1)
    assert bench.saved == [1, 2] and bench.evaluated == []
    late = Bench(tmp_path / "late", say=by_index, learner=DivergingLearner())
    with pytest.raises(TrainingDiverged, match="no checkpoint had been made yet"):
        late.run(steps=5)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    bench = Bench(tmp_path, say=by_index, learner=DivergingLearner(silent=True))
    with pytest.raises(TrainingDiverged, match=r"update 3 left weights that are not finite; the last good checkpoint is .*step-000002"):
        bench.run(steps=5, checkpoint_every=1)
    assert bench.saved == [1, 2]


# -- outages ------------------------------------------------------------------------------------------------------------------


class FailingWeb:
    """Down for its first ``down`` requests, then as good as ``WEB``."""

    fingerprint = "failing"

    def __init__(self, down: float) -> None:
        self.left = down

    async def search(self, query: str, limit: int) -> list[Hit]:
        self.left -= 1
        if self.left >= 0:
            raise OutageError("the search host refuses connections")
        return await WEB.search(query, limit)

    async def fetch(self, url: str) -> Page:
        return await WEB.fetch(url)


class FailingJudge:
    """Down for its first ``down`` verdicts, either way that a judge can say so."""

    name = "failing"

    def __init__(self, down: float, raises: bool) -> None:
        self.left, self._raises = down, raises

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        self.left -= 1
        if self.left >= 0 and self._raises:
            raise OutageError("the judge's host refuses connections")
        if self.left >= 0:
            return Score(value=None, status=ScoreStatus.TRANSPORT_ERROR, layer="failing", detail="the judge's host refuses connections")
        return await ExactJudge(closed=True).score(question, gold, answer)


def searches_first(request: Request, prompt: str) -> str:
    if "<tool_response>" not in prompt.rpartition("Question ")[2]:
        return call("search", query=["fern"])
    return by_seed(request, prompt)


def actguide() -> ActGuide:
    return ActGuide(ActGuideConfig.model_validate({"group": {"group_size": 4}}))


@pytest.mark.parametrize("down", [1, 5, 12])
def test_a_search_outage_that_passes_leaves_no_trace_in_what_is_trained(tmp_path: Path, down: int) -> None:
    calm = Bench(tmp_path / "calm", say=searches_first, algorithm=actguide())
    calm.run(steps=2)
    bench = Bench(
        tmp_path / "b", say=searches_first, algorithm=actguide(), web=FailingWeb(down), outages=OutageConfig(retries=2, pause=0.0)
    )
    bench.run(steps=2)
    assert bench.learner.batches == calm.learner.batches and bench.learner.weight == calm.learner.weight
    assert len(bench.engine.requests) == len(calm.engine.requests) + down
    assert [s["metrics"]["attempts/unscorable"] for s in bench.log.of(Kind.STEP)] == [0, 0]
    assert len(bench.log.of(Kind.ATTEMPT)) == len(calm.log.of(Kind.ATTEMPT))


@pytest.mark.parametrize("raises", [True, False])
def test_a_judge_outage_that_passes_is_judged_again_without_another_episode(tmp_path: Path, raises: bool) -> None:
    calm = Bench(tmp_path / "calm", algorithm=actguide())
    calm.run(steps=1)
    judge = FailingJudge(7, raises)
    bench = Bench(tmp_path / "b", algorithm=actguide(), judge=judge, outages=OutageConfig(retries=3, pause=0.0))
    bench.run(steps=1)
    assert bench.learner.weight == calm.learner.weight
    assert len(bench.engine.requests) == len(calm.engine.requests)


@pytest.mark.parametrize("what", ["search", "judge", "judge-raises"])
def test_an_outage_that_lasts_stops_the_run_saved_and_a_resumed_one_ends_as_if_nothing_had_been(tmp_path: Path, what: str) -> None:
    calm = Bench(tmp_path / "calm", say=searches_first, algorithm=actguide())
    end = calm.run(steps=3)
    parts: dict[str, Any] = {"say": searches_first, "algorithm": actguide(), "outages": OutageConfig(retries=1, pause=0.0)}
    before = Bench(tmp_path / "b", **parts)
    state = before.run(steps=1)
    down: dict[str, Any] = {"web": FailingWeb(math.inf)} if what == "search" else {"judge": FailingJudge(math.inf, what == "judge-raises")}
    stopped = Bench(tmp_path / "b", **parts, **down, learner=before.learner)
    with pytest.raises(
        OutageError, match=r"12 of 12 attempts of step 2 met an outage that outlasted all retries \(the .* refuses connections\)"
    ):
        stopped.run(state, steps=3)
    assert len(stopped.learner.batches) == 1, "an update was made from nothing"
    assert {a["level"] for a in stopped.log.of(Kind.ATTEMPT)} == {0}, "an outage triggered guidance"
    assert {j["value"] for j in stopped.log.of(Kind.JUDGEMENT)} == {None}, "an outage was scored"
    found = stopped.checkpoints.latest()
    assert found is not None and found[1] == state
    resumed = Bench(tmp_path / "b", **parts)
    resumed.learner.load(found[0])
    assert resumed.run(found[1], steps=3) == end and resumed.learner.weight == calm.learner.weight


def test_the_state_is_saved_where_an_outage_stops_the_run_between_two_checkpoints(tmp_path: Path) -> None:
    bench = Bench(tmp_path, algorithm=actguide(), judge=FailingJudge(math.inf, True))
    with pytest.raises(OutageError, match="of step 1 met .* saved as it stood before that step"):
        bench.run(steps=3)
    assert bench.saved == [0]


class WithdrawnJudge(FailingJudge):
    """Judges ``good`` answers; then its key is refused, as no further try would change."""

    def __init__(self, good: int) -> None:
        super().__init__(0, False)
        self.good = good

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        self.good -= 1
        if self.good < 0:
            raise HarnessError("the judge serves no request: HTTP 401")
        return await super().score(question, gold, answer)


def test_a_judge_that_refuses_the_key_in_the_middle_ends_the_run_saved_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calm = Bench(tmp_path / "calm")
    end = calm.run(steps=3)
    stopped = Bench(tmp_path / "b", judge=WithdrawnJudge(12 + 5))  # a whole step, and a part of the second
    with pytest.raises(
        HarnessError, match=r"step 2: the judge serves no request: HTTP 401\. The run is saved as it stood before that step"
    ):
        stopped.run(steps=3)
    gc.collect()
    assert not caplog.records, "attempts ran on behind the failed one, and failed unobserved"
    assert stopped.saved == [1] and {j["value"] for j in stopped.log.of(Kind.JUDGEMENT)} == {0.0, 1.0}
    found = stopped.checkpoints.latest()
    assert found is not None
    resumed = Bench(tmp_path / "b")
    resumed.learner.load(found[0])
    assert resumed.run(found[1], steps=3) == end and resumed.learner.weight == calm.learner.weight


@pytest.mark.parametrize(("tolerate", "stops"), [(0.0, True), (0.2, True), (0.25, False), (1.0, False)])
def test_tolerate_is_the_share_of_unscored_attempts_that_a_step_may_have(tmp_path: Path, tolerate: float, stops: bool) -> None:
    algorithm = ZeroRL(ZeroRLConfig.model_validate({"group": {"group_size": 4}}))
    outages = OutageConfig(retries=0, tolerate=tolerate)
    bench = Bench(tmp_path, say=by_index, algorithm=algorithm, judge=FailingJudge(3, True), outages=outages)
    if stops:
        with pytest.raises(OutageError, match="3 of 12"):
            bench.run(steps=1)
        return
    bench.run(steps=1)
    assert bench.log.of(Kind.STEP)[0]["metrics"]["attempts/unscorable"] == 3


def test_pauses_double_and_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    said: list[str] = []

    async def no_sleep(seconds: float) -> None:
        if seconds:
            slept.append(seconds)

    monkeypatch.setattr("judges.attempts.asyncio.sleep", no_sleep)
    sampler = Sampler(
        engine=PolicyEngine(by_seed),
        chat=tiny_chat(),
        env=lambda task: SearchEnv(WEB, SearchLimits()),
        judge=FailingJudge(math.inf, True),
        agent=AgentConfig(),
        log=MemoryLog(),
        outages=OutageConfig(retries=3, pause=2.0),
        notice=said.append,
    )
    member = asyncio.run(sampler.attempt(Draw(task=TASKS[0], run_seed=0, purpose=Purpose.TRAIN), temperature=1.0))
    assert slept == [2.0, 4.0, 8.0] and member.score.value is None
    assert said[0] == "outage: the judge's host refuses connections; trying again in 2 s"


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_a_score_is_a_number_between_0_and_1_or_none(value: float) -> None:
    with pytest.raises(HarnessError, match=r"a score lies in \[0, 1\]"):
        Score(value=value, status=ScoreStatus.JUDGED, layer="odd")
    with pytest.raises(HarnessError, match="exactly when it was judged"):
        Score(value=0.0, status=ScoreStatus.OUTAGE, layer="odd")
