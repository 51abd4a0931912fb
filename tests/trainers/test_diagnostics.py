"""The diagnostics of guidance: their arithmetic by hand, and what they find of a policy whose barrier is known."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import PolicyEngine, call, logprobs_of, tiny_chat

from harness.engines.base import Request
from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig
from harness.errors import HarnessError, UsageError
from harness.events import Kind, Recorder
from harness.types import Action, Score, ScoreStatus, Task, Trajectory
from harness.web.base import Page
from harness.web.corpus import CorpusWeb
from judges.attempts import Sampler
from judges.exact import ExactJudge
from trainers.diagnostics import delta_logit, guided_reward, load_diagnostic, off_policy_risk, prefix_pass, turns
from trainers.diagnostics.lab import Amounts, Lab, Unrecorded
from trainers.diagnostics.off_policy_risk import Cell, Ratios, Risk, effective_share, ratios, recovered, risk, smallest_sufficient
from trainers.guidance.inject import as_dropped_messages

WEB = CorpusWeb([Page(url="page://fern", title="Fern", text="A fern grows."), Page(url="page://moss", title="Moss", text="Green moss.")])
PLAN = (Action(name="search", arguments={"query": ["fern"]}), Action(name="visit", arguments={"url": ["page://moss"]}))
TASKS = tuple(Task(id=f"t{i}", question=f"Question {i}?", gold=("yes",), actions=PLAN) for i in range(2))
RIGHT, WRONG = "<answer>yes</answer>", "<answer>no</answer>"
SMALL = Amounts(samples=2, groups=3, continuations=4)


def behind_a_barrier(request: Request, prompt: str) -> str:
    """Right once both pages are seen, follows the plan as far as it goes, and answers wrongly where it knows no further."""
    seen, planned = prompt.count("<tool_response>"), prompt.count("<1>:") + prompt.count("<2>:")
    if seen < min(planned, len(PLAN)):
        return call(PLAN[seen].name, **PLAN[seen].arguments)
    return RIGHT if seen == len(PLAN) else WRONG


def lab(amounts: Amounts = SMALL, tasks: tuple[Task, ...] = TASKS) -> tuple[Lab, PolicyEngine]:
    engine = PolicyEngine(behind_a_barrier)
    sampler = Sampler(
        engine=engine,
        chat=tiny_chat(),
        env=lambda task: SearchEnv(WEB, SearchLimits()),
        judge=ExactJudge(closed=True),
        agent=AgentConfig(),
        log=Unrecorded(),
    )

    def logits(trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """The number of tokens that stand before each turn, so that a difference is the length of the plan."""
        rows = []
        for trajectory in trajectories:
            mask = trajectory.sampled_mask()
            rows.append([float(len(trajectory.contexts[0])) for sampled in mask if sampled])
        return rows

    return Lab(sampler=sampler, engine=engine, tasks=tasks, logits=logits, amounts=amounts, pieces=tiny_chat().pieces), engine


def test_the_risk_is_the_variance_of_the_sum_split_into_tokens_and_covariances() -> None:
    rows = [(0.5, -1.0, 2.0), (1.5, 0.25), (-0.5, 0.0, 1.0), (2.0,)]
    padded = np.array([[*row, *[0.0] * (3 - len(row))] for row in rows])
    covariance = np.cov(padded, rowvar=False)
    found = risk(rows)
    assert found.mean == pytest.approx(padded.sum(1).mean())
    assert found.variance == pytest.approx(covariance.sum())
    assert found.token_variances == pytest.approx(np.trace(covariance))
    assert found.covariances == pytest.approx(2 * np.triu(covariance, 1).sum())


def test_independent_tokens_leave_only_token_variances() -> None:
    rng = random.Random(0)
    found = risk([tuple(rng.gauss(0, 1) for _ in range(3)) for _ in range(20_000)])
    assert found.variance == pytest.approx(3, rel=0.05)
    assert abs(found.covariances) < 0.1


def test_one_trajectory_has_no_variance_and_none_has_nothing() -> None:
    assert risk([(1.0, 2.0)]) == Risk(mean=3.0, variance=0.0, token_variances=0.0, covariances=0.0)
    assert risk([]) == Risk(mean=0.0, variance=0.0, token_variances=0.0, covariances=0.0)


def test_the_statistics_of_ratios_by_hand() -> None:
    shifts = [(math.log(2.0), math.log(0.5)), (math.log(0.005),)]
    found = ratios(shifts, [True, False], clip=0.2)
    assert found.mean == pytest.approx((2.0 + 0.5 + 0.005) / 3)
    assert found.clipped == pytest.approx(2 / 3)  # 2.0 of a success, 0.005 of a failure
    assert found.lost == pytest.approx((0.0 + 0.5) / 2)
    assert found.below == pytest.approx({"0.8": 2 / 3, "0.1": 1 / 3, "0.01": 1 / 3})
    assert found.ess == pytest.approx((1 + 0.005) ** 2 / (2 * (1 + 0.005**2)))
    assert ratios([(0.0,)], [False], clip=0.2).lost is None
    assert ratios([(0.9,)], [True], clip=0.2).clipped == 1.0 and ratios([(0.1,)], [True], clip=0.2).clipped == 0.0


def test_a_wider_clip_loses_fewer_tokens() -> None:
    shifts = [(math.log(1.5),)]
    assert (ratios(shifts, [True], clip=0.2).clipped, ratios(shifts, [True], clip=0.6).clipped) == (1.0, 0.0)


def test_the_effective_share_is_one_for_equal_weights_and_one_nth_for_a_single_carrier() -> None:
    assert effective_share([3.0] * 7) == pytest.approx(1.0)
    assert effective_share([1.0, 0.0, 0.0, 0.0]) == 0.25
    assert effective_share([]) == 0.0
    huge = ratios([(400.0,), (400.0,)], [True, True], clip=0.2)
    assert huge.ess == pytest.approx(1.0), "weights beyond the largest float must not overflow"


def test_a_group_recovers_by_its_best_and_an_outage_is_no_group() -> None:
    assert recovered([0.0, 1.0, 0.0, 0.0, None, None, None, 1.0], 2) == (True, False, True)
    assert recovered([None, None], 2) == ()


def cell(level: int, recovered: tuple[bool, ...], task: str = "t") -> Cell:
    empty = Ratios(ess=1, token_ess=1, mean=1, clipped=0, lost=None, below={})
    return Cell(
        task_id=task,
        level=level,
        levels=3,
        trajectories=1,
        rewards=(),
        recovered=recovered,
        shifts=(),
        risk=risk([]),
        ratios=empty,
    )


def test_the_smallest_sufficient_level_is_the_first_whose_recovery_reaches_rho() -> None:
    cells = [cell(3, (True, True)), cell(0, (False, False)), cell(1, (True, False)), cell(2, (True, True)), cell(1, (False,), "u")]
    assert smallest_sufficient(cells, 0.5) == {"t": 1, "u": None}
    assert smallest_sufficient(cells, 0.9) == {"t": 2, "u": None}
    assert [c.proportion for c in cells[:4]] == [100, 0, 35, 65]


def test_levels_are_spaced_evenly_with_both_ends() -> None:
    assert off_policy_risk.spaced(15, 8) == [0, 2, 4, 6, 9, 11, 13, 15]
    assert off_policy_risk.spaced(2, 2) == [0, 2] and off_policy_risk.spaced(7, 8) == list(range(8))
    bench, _ = lab(Amounts(samples=1, groups=1, levels=2), tasks=TASKS[:1])
    found = asyncio.run(off_policy_risk.diagnose(bench))
    assert [c["level"] for c in found.data["cells"]] == [0, 2]
    assert found.charts[-1].labels == ("0", "1", "2", "none") and found.charts[-1].series[0].points[2] == (2, 1)


def test_the_risk_of_a_policy_is_that_of_its_own_log_probabilities_and_nil_without_a_plan() -> None:
    bench, _ = lab(tasks=TASKS[:1])
    found = asyncio.run(off_policy_risk.diagnose(bench))
    cells = {c["level"]: c for c in found.data["cells"]}
    assert cells.keys() == {0, 1, 2}
    assert cells[0]["shifts"] == (0.0,) * 6 and cells[0]["risk"]["variance"] == 0.0 and cells[0]["ratios"]["ess"] == 1.0
    (attempt,) = (m.attempt for m in asyncio.run(bench.draw(TASKS[0], 2, 1)))
    sampled = [
        [p for p, s in zip(logprobs_of(t.ids()), t.sampled_mask()[1:], strict=True) if s]
        for t in (attempt.trajectory.with_view(attempt.target), attempt.trajectory)
    ]
    assert cells[2]["shifts"][0] == pytest.approx(sum(sampled[0]) - sum(sampled[1]))
    assert cells[2]["shifts"][0] != 0
    recovery = {row["percent"]: row["recovery"] for row in found.data["by_proportion"]}
    assert recovery == {0: 0.0, 50: 0.0, 100: 1.0}
    assert "2: 1" in found.summary[-1], "only the whole plan crosses the barrier"


def test_amounts_of_trajectories_are_those_asked_for() -> None:
    bench, engine = lab(Amounts(samples=3, groups=2, continuations=5), tasks=TASKS[:1])
    found = asyncio.run(off_policy_risk.diagnose(bench))
    assert [(c["trajectories"], len(c["recovered"])) for c in found.data["cells"]] == [(6, 2)] * 3
    asyncio.run(prefix_pass.diagnose(bench))
    assert len({r.session for r in engine.requests if "/k0/" in r.session and r.session.startswith("0/") is False}) == 3 * 5


def test_the_unguided_policy_succeeds_only_from_behind_its_barrier() -> None:
    bench, engine = lab()
    found = asyncio.run(prefix_pass.diagnose(bench))
    assert found.data["pass"] == [0.0, 0.0, 1.0]
    assert [p["first_reachable_state"] for p in found.data["paths"]] == [2, 2]
    assert [p["judged"] for p in found.data["paths"]] == [[4, 4, 4]] * 2
    assert "easy): 0; only from a later state: 2; never: 0" in found.summary[1]
    unguided = [r for r in engine.requests if not r.session.startswith("0/")]
    assert unguided and all("<1>:" not in tiny_chat().decode(r.ids) for r in unguided), "a continuation saw the plan"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (((3.0, 1.0), (4.0, 1.0), (5.0, 2.0)), "+2.67 (3 trajectories, standard error 0.33): higher before, as the paper finds"),
        (
            ((1.0, 3.0), (1.0, 4.0), (2.0, 5.0)),
            "-2.67 (3 trajectories, standard error 0.33): NOT higher before, as the paper finds it to be",
        ),
        (((3.0, 1.0), (1.0, 3.0), (2.0, 1.0)), "cannot be told from zero; the paper finds it higher before"),
        (((3.0, 1.0), (math.nan, 1.0), (2.0, math.nan)), "1 of 3 trajectories have both, too few to compare"),
    ],
)
def test_what_is_said_of_the_barrier_has_a_standard_error(rows: tuple[tuple[float, ...], ...], words: str) -> None:
    paths = [prefix_pass.Path(task_id="t", level=1, given=0, success=True, judged=(2, 2), successes=(0, 1))] * 3
    assert words in prefix_pass._at_the_barrier(paths, rows)


def test_a_shorter_plan_gives_shorter_guidance() -> None:
    bench, _ = lab(Amounts(samples=2, continuations=2, level=1))
    found = asyncio.run(prefix_pass.diagnose(bench))
    assert {p["level"] for p in found.data["paths"]} == {1}
    assert [p["first_reachable_state"] for p in found.data["paths"]] == [None, None]
    assert "never: 2" in found.summary[1]


def test_delta_logit_is_the_difference_of_the_two_views_by_turn() -> None:
    bench, _ = lab()
    found = asyncio.run(delta_logit.diagnose(bench))
    attempt = asyncio.run(bench.guided_attempts())[0].attempt
    plan_tokens = len(attempt.trajectory.contexts[0]) - len(attempt.target[0])
    assert plan_tokens > 0
    first = found.data["trajectories"][0]
    assert first["delta_logit_by_turn"] == [float(plan_tokens)] * 3 and first["level"] == 2 and first["success"]
    shift = asyncio.run(bench.shifts([attempt]))[0]
    spans = [len(s.ids) for s in attempt.trajectory.spans]
    assert first["delta_logprob_by_turn"][0] == pytest.approx(sum(map(abs, shift[: spans[0]])) / spans[0])
    largest = max(shift, key=abs)
    assert first["tokens"][0][2] == pytest.approx(-largest)


def test_means_by_turn_are_over_those_that_reach_it() -> None:
    assert delta_logit.mean_by_turn([(1.0, 2.0), (3.0,)]) == [2.0, 2.0]
    assert delta_logit.mean_by_turn([]) == []
    assert delta_logit.mean_by_turn([(math.nan, 2.0), (1.0, 4.0)]) == [1.0, 3.0]
    assert math.isnan(delta_logit.mean_by_turn([(math.nan,)])[0])


def test_every_injection_can_be_diagnosed_and_replayed_turns_are_states_to_go_on_from() -> None:
    bench, engine = lab(tasks=TASKS[:1])
    replayed = replace(bench, inject=as_dropped_messages)
    found = asyncio.run(off_policy_risk.diagnose(replayed))
    assert {row["percent"]: row["recovery"] for row in found.data["by_proportion"]} == {0: 0.0, 50: 0.0, 100: 1.0}
    assert all("<1>:" not in tiny_chat().decode(r.ids) for r in engine.requests), "actions were replayed, no plan was shown"
    engine.finished.clear()
    found = asyncio.run(prefix_pass.diagnose(replayed))
    (path,) = found.data["paths"]
    assert (path["given"], path["judged"], path["successes"]) == (2, [4, 4, 4], [0, 0, 4])  # before either given turn, and the sampled one
    shown = [tiny_chat().decode(r.ids).count("<tool_response>") for r in engine.finished if not r.session.startswith("0/")]
    assert [shown.count(n) for n in range(3)] == [4, 4, 4]
    shift = found.data["delta_logit_by_turn"]
    assert shift[:2] == [None, None] and shift[2] > 0  # nothing was sampled in the given turns
    assert "replayed, not sampled" in found.summary[-1]


def test_the_reward_under_guidance_is_that_of_single_rollouts_on_their_own_and_guided() -> None:
    bench, engine = lab()
    found = asyncio.run(guided_reward.diagnose(bench))
    assert found.data["reward"] == {"unguided": 0.0, "guided": 1.0}
    assert found.data["tasks"] == [{"task_id": f"t{i}", "level": 2, "unguided": [0.0] * 2, "guided": [1.0] * 2} for i in range(2)]
    assert found.summary[1] == "with the actions given: reward@1 100.0% (2 tasks, 2 rollouts each)"
    shorter, _ = lab(Amounts(samples=2, level=1))
    assert asyncio.run(guided_reward.diagnose(shorter)).data["reward"] == {"unguided": 0.0, "guided": 0.0}
    assert all("eval" not in request.session for request in engine.requests), "nothing of it is an evaluation"


class Silent:
    """Reaches no verdict."""

    name = "silent"

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        return Score(value=None, status=ScoreStatus.PARSE_ERROR, layer="test")


def test_a_rollout_without_a_verdict_counts_nowhere() -> None:
    bench, _ = lab()
    silent = replace(bench, sampler=replace(bench.sampler, judge=Silent()))
    found = asyncio.run(guided_reward.diagnose(silent))
    assert found.data["reward"] == {"unguided": None, "guided": None}
    assert found.summary[0] == "without guidance: nothing was scored"
    assert found.summary[2] == "8 rollouts could not be scored and count nowhere"


def test_a_state_whose_continuations_have_no_verdict_is_not_one_that_fails() -> None:
    path = prefix_pass.Path(task_id="t", level=1, given=0, success=True, judged=(2, 0, 4), successes=(0, 0, 1))
    assert [path.reached[0], path.reached[2], path.rates[0], path.rates[2]] == [0.0, 1.0, 0.0, 0.25]
    assert math.isnan(path.reached[1]) and math.isnan(path.rates[1])


def test_without_expert_actions_there_is_nothing_to_diagnose() -> None:
    bench, _ = lab(tasks=(Task(id="t", question="?", gold=("a",)),))
    with pytest.raises(HarnessError, match="expert actions"):
        asyncio.run(off_policy_risk.diagnose(bench))
    with pytest.raises(UsageError, match="Did you mean 'prefix-pass'"):
        load_diagnostic("prefix-pas")


def length(step: int, guided: bool, count: int, tokens: int) -> turns.Length:
    return turns.Length(step=step, guided=guided, turns=count, tokens=tokens, truncated=count == 9)


def test_turns_of_a_step_are_means_over_unguided_and_guided_trajectories() -> None:
    rows = turns.by_step([length(1, False, 2, 10), length(0, False, 1, 4), length(1, False, 9, 30), length(1, True, 5, 50)])
    assert [row["step"] for row in rows] == [0, 1]
    assert (rows[1]["unguided_turns"], rows[1]["unguided_tokens"], rows[1]["unguided_truncated"]) == (5.5, 20.0, 0.5)
    assert (rows[1]["guided_turns"], rows[0]["guided_turns"]) == (5.0, None)


def test_turns_of_a_run_come_from_its_log_without_evaluations_and_what_was_taken_back(tmp_path: Path) -> None:
    def attempt(purpose: str, step: int, count: int, level: int = 0) -> dict[str, object]:
        used = {"turns": count, "generated_tokens": 10 * count}
        name = f"{purpose}/{step}/{count}"
        return {"attempt_id": name, "purpose": purpose, "step": step, "level": level, "status": "answered", "usage": used}

    with Recorder(tmp_path) as log:
        for payload in (attempt("train", 0, 2), attempt("probe", 0, 4, level=1), attempt("eval", 1, 7), attempt("train", 1, 9)):
            log.record(Kind.ATTEMPT, payload)
        log.record(Kind.REWIND, {"step": 1})
        log.record(Kind.ATTEMPT, attempt("train", 1, 3))
        for task, most in (("a", 2), ("b", 4), ("a", 2)):
            log.record(Kind.GROUP, {"task_id": task, "max_level": most, "step": 1})
    found = turns.of_run(tmp_path, 2)
    assert [(r["unguided_turns"], r["guided_turns"]) for r in found.data["by_step"]] == [(2.0, 4.0), (3.0, None)]
    assert found.data["turns"] == {"2": 1, "3": 1} and found.data["plan_actions"] == {"2": 1, "4": 1}
    assert found.charts[3].labels == ("2", "3", "4") and found.charts[3].series[0].points == ((0, 1), (1, 0), (2, 1))
    with pytest.raises(HarnessError, match="holds no training trajectories"):
        turns.of_run(tmp_path / "nothing", 0)


def test_turns_of_a_model_are_those_of_fresh_unguided_rollouts() -> None:
    bench, _ = lab()
    found = asyncio.run(turns.diagnose(bench))
    assert found.data["turns"] == {"1": 4} and found.data["plan_actions"] == {"2": 2}
    assert len(found.charts) == 2, "there is no curve over one step"
