"""The training loop with a scripted engine and a learner without a network: order, schedule, checkpoints, numbers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeLearner, MemoryLog, PolicyEngine
from learner_cases import sample
from loop_bench import PER_ANSWER, RIGHT, TASKS, WRONG, Bench, by_index

from harness.engines.base import Request, Weights
from harness.errors import HarnessError, RunLogError
from harness.events import Kind
from harness.types import Action, Ids, Span
from trainers.algorithms.actguide import ActGuide, ActGuideConfig
from trainers.checkpoints import Best, Checkpoints
from trainers.learner.base import UpdateReport
from trainers.report import credit_record
from trainers.sample import Sample
from trainers.state import RunState, tasks_of_step, with_foreign_plans


class ForgetfulEngine(PolicyEngine):
    """Takes the first weights, and says that it took the later ones."""

    async def sync(self, weights: Weights, version: int) -> str:
        checksum = await super().sync(weights, version)
        return checksum if version == 0 else "0" * 32


def test_the_order_of_arrival_does_not_reach_the_update(tmp_path: Path) -> None:
    early = Bench(tmp_path / "a", delay=lambda request: 0)
    late = Bench(
        tmp_path / "b", delay=lambda request: 7 * (5 - int(request.session.partition("/t")[2].split("/t")[-1][0])) + request.seed % 5
    )
    early.run(steps=3)
    late.run(steps=3)
    arrivals = [[r.session for r in bench.engine.finished] for bench in (early, late)]
    assert arrivals[0] != arrivals[1] and sorted(arrivals[0]) == sorted(arrivals[1])
    assert early.learner.batches == late.learner.batches and len(early.learner.batches) == 3
    assert early.learner.weight == late.learner.weight


def test_rows_come_in_the_order_of_the_tasks_and_mini_batches_hold_whole_tasks(tmp_path: Path) -> None:
    bench = Bench(tmp_path, say=by_index)
    bench.run(tasks_per_step=5, minibatch_tasks=2)
    tasks = [task.id for task in tasks_of_step(TASKS, 0, 0, 5)]
    (batch,) = bench.learner.batches
    assert [[s.group_id for s in minibatch] for minibatch in batch.minibatches] == [
        [tasks[0]] * 4 + [tasks[1]] * 4,
        [tasks[2]] * 4 + [tasks[3]] * 4,
        [tasks[4]] * 4,
    ]
    assert [s.attempt_id[-1] for s in batch.minibatches[0]] == list("01230123")


def test_a_mini_batch_without_rows_is_left_out_and_a_step_without_rows_updates_nothing(tmp_path: Path) -> None:
    first = tasks_of_step(TASKS, 0, 0, 2)[0]

    def only_second(request: Request, prompt: str) -> str:
        return WRONG if first.question in prompt else by_index(request, prompt)

    bench = Bench(tmp_path / "a", say=only_second)
    bench.run(tasks_per_step=2, minibatch_tasks=1)
    assert len(bench.learner.batches[0].minibatches) == 1
    idle = Bench(tmp_path / "b", say=lambda request, prompt: WRONG)
    state = idle.run(steps=2)
    assert (idle.learner.batches, idle.learner.version, state.step, state.trained_tokens) == ([], 0, 2, 0)
    assert idle.log.of(Kind.STEP)[1]["metrics"]["tokens/trained"] == 0


def test_every_span_carries_the_number_of_updates_behind_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, say=by_index)
    bench.run(steps=3)
    versions = [{s.version for minibatch in batch.minibatches for s in minibatch} for batch in bench.learner.batches]
    assert versions == [{0}, {1}, {2}] and bench.engine.version == 3


class Behind(PolicyEngine):
    """One of its tokens in a step is still of the weights before."""

    async def generate(self, request: Request) -> Span:
        span = await super().generate(request)
        return replace(span, version=self.version - 1) if request.session.endswith("/t0/k0/2") and self.version else span


def test_a_span_of_stale_weights_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    bench = Bench(tmp_path, say=by_index, engine_type=Behind)
    with pytest.raises(HarnessError, match=r"1 of 12 attempts hold tokens of other weights than the \d updates made: train/\d/t0/k0/2 "):
        bench.run(steps=6)
    assert len(bench.learner.batches) >= 1 and all(
        s.version == n for n, b in enumerate(bench.learner.batches) for m in b.minibatches for s in m
    )


def test_checkpoints_are_made_every_n_steps_and_at_the_end_and_the_newest_stay(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(steps=7, checkpoint_every=2)
    assert bench.saved == [2, 4, 6, 7]
    assert [p.name for p in bench.checkpoints.complete()] == ["step-000006", "step-000007"]
    entry = bench.log.of(Kind.CHECKPOINT)[-1]
    assert entry["folder"] == "checkpoints/step-000007" and {"learner.json", "state.json"} <= set(entry["files"])
    assert all(len(digest) == 64 for digest in entry["files"].values())
    assert list((tmp_path / "checkpoints").glob("*.partial")) == []


def test_keep_1_keeps_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(steps=3, checkpoint_every=1, keep=1)
    assert [p.name for p in bench.checkpoints.complete()] == ["step-000003"]


def test_a_partial_checkpoint_is_ignored_and_the_newest_whole_one_is_resumed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    state = bench.run(steps=4, checkpoint_every=2)
    (tmp_path / "checkpoints" / "step-000008").mkdir()
    shutil.copytree(tmp_path / "checkpoints" / "step-000004", tmp_path / "checkpoints" / "step-000009.partial")
    found = bench.checkpoints.latest()
    assert found is not None
    assert (found[0].name, found[1]) == ("step-000004", state)


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert Checkpoints(folder=tmp_path / "none").latest() is None


def test_a_leftover_of_an_interrupted_checkpoint_does_not_stop_the_next(tmp_path: Path) -> None:
    leftover = tmp_path / "checkpoints" / "step-000001.partial"
    leftover.mkdir(parents=True)
    (leftover / "garbage").write_text("x")
    bench = Bench(tmp_path)
    bench.run(steps=1)
    assert "garbage" not in bench.log.of(Kind.CHECKPOINT)[0]["files"]


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(RunLogError, match=r"state\.json: not a run state .* resume from an earlier checkpoint"):
        RunState.load(tmp_path)


def test_two_steps_a_resume_and_three_more_equal_five(tmp_path: Path) -> None:
    whole = Bench(tmp_path / "whole")
    end = whole.run(steps=5)
    first = Bench(tmp_path / "cut")
    first.run(steps=2, checkpoint_every=2)
    found = first.checkpoints.latest()
    assert found is not None
    second = Bench(tmp_path / "cut")
    second.learner.load(found[0])
    assert second.run(found[1], steps=5) == end
    assert second.learner.weight == whole.learner.weight and second.learner.batches == whole.learner.batches[2:]


def test_the_token_budget_ends_the_run_with_a_checkpoint_and_an_evaluation(tmp_path: Path) -> None:
    per_step = 3 * (PER_ANSWER[RIGHT] + 3 * PER_ANSWER[WRONG])
    for budget, steps in ((1, 1), (per_step, 1), (per_step + 1, 2), (2 * per_step, 2), (2 * per_step + 1, 3)):
        bench = Bench(tmp_path / str(budget), say=by_index)
        state = bench.run(steps=50, token_budget=budget)
        assert (state.step, state.generated_tokens) == (steps, steps * per_step)
        assert (bench.saved, bench.evaluated) == ([steps], [steps])


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.run(RunState(step=3), steps=3) == RunState(step=3)
    assert bench.engine.requests == [] and bench.saved == []


@pytest.mark.parametrize(("every", "steps"), [(0, [5]), (2, [2, 4, 5]), (5, [5]), (1, [1, 2, 3, 4, 5])])
def test_evaluations_come_every_n_steps_and_at_the_end(tmp_path: Path, every: int, steps: list[int]) -> None:
    bench = Bench(tmp_path)
    bench.run(steps=5, evaluate_every=every)
    assert bench.evaluated == steps


def test_the_checkpoint_that_does_best_on_validation_tasks_is_kept_from_pruning(tmp_path: Path) -> None:
    bench = Bench(tmp_path, validation={1: 0.25, 2: 0.5, 3: 0.5, 4: 0.25, 5: 0.0})
    bench.run(steps=5, checkpoint_every=2, evaluate_every=1, keep=1)
    assert bench.checkpoints.best() == Best(step=2, score=0.5)
    assert [folder.name for folder in bench.checkpoints.complete()] == ["step-000002", "step-000005"]
    assert [(entry["step"], entry["score"]) for entry in bench.log.of(Kind.BEST)] == [(1, 0.25), (2, 0.5)]


def test_a_resumed_run_remembers_the_best(tmp_path: Path) -> None:
    Bench(tmp_path, validation={1: 0.5, 2: 0.25}).run(steps=2, evaluate_every=1, keep=1)
    again = Bench(tmp_path, validation={3: 0.4, 4: 0.6})
    again.run(RunState(step=2), steps=4, evaluate_every=1, keep=1)
    assert again.checkpoints.best() == Best(step=4, score=0.6)
    assert [(entry["step"], entry["score"]) for entry in again.log.of(Kind.BEST)] == [(4, 0.6)]


def test_without_validation_tasks_no_checkpoint_is_the_best(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(steps=2, evaluate_every=1)
    assert bench.checkpoints.best() is None and bench.log.of(Kind.BEST) == []


def test_weights_that_did_not_arrive_are_an_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path, say=by_index, engine_type=ForgetfulEngine)
    with pytest.raises(HarnessError, match="other weights than the learner after sync 1"):
        bench.run(steps=2)
    assert len(bench.learner.batches) == 1 and bench.saved == []


def test_the_metrics_of_an_unguided_step_by_hand(tmp_path: Path) -> None:
    first = tasks_of_step(TASKS, 0, 0, 3)[0]

    def say(request: Request, prompt: str) -> str:
        return WRONG if first.question in prompt else by_index(request, prompt)

    bench = Bench(tmp_path, say=say)
    bench.run(steps=1)
    (entry,) = bench.log.of(Kind.STEP)
    metrics, right, wrong = entry["metrics"], PER_ANSWER[RIGHT], PER_ANSWER[WRONG]
    expected = {
        "reward/unguided_mean": 2 / 12,
        "reward/mean": 2 / 12,
        "groups/total": 3,
        "groups/trainable": 2,
        "groups/trainable_unguided": 2,
        "groups/solved": 2,
        "groups/rescued": 0,
        "groups/failed": 1,
        "groups/unscorable": 0,
        "attempts/unscorable": 0,
        "guided/share": 0.0,
        "guidance/probe_trajectories": 0,
        "guidance/probe_tokens": 0,
        "guidance/levels_tried": 0,
        "tokens/generated": 2 * right + 10 * wrong,
        "tokens/generated_total": 2 * right + 10 * wrong,
        "tokens/trained": 2 * right + 6 * wrong,
        "length/turns_mean": 1.0,
        "length/tokens_mean": (2 * right + 10 * wrong) / 12,
        "mismatch/logprob_max": 0.0,
        "mismatch/logprob_mean": 0.0,
        "policy/loss": 0.5,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert "guidance/level_mean" not in metrics and "length/guided_turns_mean" not in metrics
    assert metrics["time/step"] == pytest.approx(metrics["time/rollout"] + metrics["time/update"] + metrics["time/sync"])
    assert entry["histograms"] == {"ratio/guided": {"edges": [0.0, 1.0], "counts": [3]}}
    assert [step for step, _ in bench.shown] == [1] and bench.shown[0][1] == metrics


def test_the_metrics_and_records_of_a_rescued_step_by_hand(tmp_path: Path) -> None:
    def say(request: Request, prompt: str) -> str:
        return by_index(request, prompt) if "<1>: search" in prompt else WRONG

    algorithm = ActGuide(ActGuideConfig.model_validate({"group": {"group_size": 2, "advantage_eps": 0.0}}))
    bench = Bench(tmp_path, say=say, algorithm=algorithm)
    state = bench.run(steps=1, tasks_per_step=2, minibatch_tasks=2)
    (entry,) = bench.log.of(Kind.STEP)
    metrics, right, wrong = entry["metrics"], PER_ANSWER[RIGHT], PER_ANSWER[WRONG]
    expected = {
        "reward/unguided_mean": 0.0,
        "reward/mean": 1 / 4,
        "groups/rescued": 2,
        "groups/trainable": 2,
        "groups/trainable_unguided": 0,
        "guided/share": 0.5,
        "guidance/level_mean": 1.0,
        "guidance/probe_trajectories": 4,
        "guidance/probe_tokens": 2 * right + 2 * wrong,
        "guidance/discarded_trajectories": 0,
        "guidance/levels_tried": 2,
        "length/tokens_mean": wrong,
        "length/guided_tokens_mean": (right + wrong) / 2,
        "length/guided_turns_mean": 1.0,
        "tokens/generated": 2 * right + 6 * wrong,
        "mismatch/logprob_max": 0.0,  # guided trajectories are compared in the view they were sampled in
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert entry["histograms"]["guidance/level"] == {"edges": [0.5, 1.5], "counts": [2]}
    assert state.generated_tokens == state.trained_tokens == 2 * right + 6 * wrong
    (credit,) = bench.log.of(Kind.CREDIT)
    assert [row["advantage"] for row in credit["rows"]] == [-0.5, -0.5, 1.5, -0.5] * 2
    assert [row["guided"] for row in credit["rows"]] == [False, False, True, True] * 2
    assert all(row["ratio_mean"] == 1.0 for row in credit["rows"])
    arrays = [bench.log.blobs[row["blob"]["offset"]] for row in credit["rows"]]
    assert [array["advantages"] for array in arrays] == [[row["advantage"]] * row["tokens"] for row in credit["rows"]]
    assert [array["ratios"] for array in arrays] == [[1.0] * row["tokens"] for row in credit["rows"]]
    group = bench.log.of(Kind.GROUP)[0]
    assert (group["outcome"], group["level"], group["max_level"], group["probes"]) == ("rescued", 1, 1, [[1, True]])
    assert group["generated_tokens"] == right + 3 * wrong
    hints = {a["attempt_id"]: a["hint"] for a in bench.log.of(Kind.ATTEMPT)}
    assert sum(hint is not None for hint in hints.values()) == 4
    assert set(group["members"]) <= set(hints)


def test_of_a_step_with_too_many_tokens_every_row_keeps_its_first() -> None:
    rows = [sample("a", 12, 0.5, seed=1), sample("b", 12, -0.5, seed=2)]
    ratios = {row.attempt_id: tuple(0.1 * n for n in range(len(row.behaviour))) for row in rows}
    report = UpdateReport(metrics={}, histograms={}, tokens=14, seconds=0.0, version=1, row_ratios=ratios)
    log = MemoryLog()
    record = credit_record(0, rows, report, log.blob, most=7)
    assert log.blobs == [{"ratios": [0.0, 0.1, 0.2], "advantages": [a] * 3} for a in (0.5, -0.5)]
    assert [(row["tokens"], row["ratio_mean"]) for row in record["rows"]] == [(7, pytest.approx(0.3))] * 2


def test_a_loss_without_a_ratio_has_no_advantage_to_show() -> None:
    report = UpdateReport(metrics={}, histograms={}, tokens=7, seconds=0.0, version=1)
    record = credit_record(0, [sample("a", 12, 1.0, seed=1)], report, lambda data: pytest.fail("nothing to store"))
    (row,) = record["rows"]
    assert (row["advantage"], row["ratio_mean"], row["blob"], row["trained"]) == (None, None, None, True)


class SkewedLearner(FakeLearner):
    """Gives every token half the log-probability that the engine recorded."""

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        return [[p / 2 for p in row] for row in super().logprobs(sequences, temperature)]


def test_the_denominator_is_what_the_engine_recorded_or_what_the_learner_says_of_the_same_context(tmp_path: Path) -> None:
    def say(request: Request, prompt: str) -> str:
        return RIGHT if "<1>" in prompt and request.session.endswith("/0") else WRONG

    trained: dict[str, list[Sample]] = {}
    for denominator in ("engine", "learner"):
        algorithm = ActGuide(ActGuideConfig.model_validate({"group": {"group_size": 2}}))
        bench = Bench(tmp_path / denominator, say=say, algorithm=algorithm, learner=SkewedLearner(), denominator=denominator)  # type: ignore[arg-type]
        bench.run(tasks_per_step=2)
        trained[denominator] = list(bench.learner.batches[0].minibatches[0])
    assert [s.guided for s in trained["engine"]] == [False, False, True, True] * 2
    for recorded, recomputed in zip(trained["engine"], trained["learner"], strict=True):
        assert recomputed.behaviour == tuple(p / 2 for p in recorded.behaviour)  # guided rows too: in the view they were sampled in
        assert replace(recomputed, behaviour=recorded.behaviour) == recorded


class LateLearner(FakeLearner):
    """After its second update, the last one, it gives every token 0.25 nats less than the engine does."""

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        late = 0.25 if self.version == 2 else 0.0
        return [[p - late for p in row] for row in super().logprobs(sequences, temperature)]


def test_engine_and_learner_are_compared_after_the_last_sync_too_which_no_rollout_follows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, learner=LateLearner())
    bench.run(steps=2)
    gaps = [entry["metrics"]["mismatch/logprob_max"] for entry in bench.log.of(Kind.STEP)]
    assert gaps == [0.0, pytest.approx(0.25)]


def test_probes_that_rescued_nothing_are_paid_for_and_not_trained(tmp_path: Path) -> None:
    algorithm = ActGuide(ActGuideConfig.model_validate({"group": {"group_size": 2}}))
    bench = Bench(tmp_path, say=lambda request, prompt: WRONG, algorithm=algorithm)
    state = bench.run(steps=2, tasks_per_step=3)
    paid = 3 * (2 + 2) * PER_ANSWER[WRONG]
    assert (state.generated_tokens, state.trained_tokens) == (2 * paid, 0)
    steps = [entry["metrics"] for entry in bench.log.of(Kind.STEP)]
    assert [(m["tokens/generated"], m["tokens/generated_total"]) for m in steps] == [(paid, paid), (paid, 2 * paid)]
    assert [(m["groups/failed"], m["guidance/probe_trajectories"]) for m in steps] == [(3, 6), (3, 6)]
    assert [(m["guidance/discarded_trajectories"], m["guidance/levels_tried"]) for m in steps] == [(6, 3), (6, 3)]
    assert {m["guidance/discarded_tokens"] for m in steps} == {m["guidance/probe_tokens"] for m in steps} == {6 * PER_ANSWER[WRONG]}
    assert {group["generated_tokens"] for group in bench.log.of(Kind.GROUP)} == {4 * PER_ANSWER[WRONG]}


def test_the_tasks_of_a_step_follow_from_seed_and_step() -> None:
    assert tasks_of_step(TASKS, 7, 3, 2) == tasks_of_step(TASKS, 7, 3, 2)
    passes = {tuple(t.id for step in range(3) for t in tasks_of_step(TASKS, seed, step, 2)) for seed in range(5)}
    assert len(passes) > 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_no_task_comes_twice_within_a_pass(count: int) -> None:
    steps = len(TASKS) // count
    orders = []
    for number in range(4):
        seen = [t.id for step in range(number * steps, (number + 1) * steps) for t in tasks_of_step(TASKS, 0, step, count)]
        assert len(seen) == len(set(seen)) == steps * count
        orders.append(seen)
    assert len({tuple(order) for order in orders}) > 1  # a new pass is a new shuffle


@pytest.mark.parametrize("count", [0, 7])
def test_a_step_of_too_many_or_no_tasks_is_refused(count: int) -> None:
    with pytest.raises(HarnessError, match=f"wants {count} different tasks, the set has 6"):
        tasks_of_step(TASKS, 0, 0, count)


def test_with_foreign_plans_no_task_keeps_its_own_where_there_is_another_of_its_length() -> None:
    def plan(name: str, length: int) -> tuple[Action, ...]:
        return tuple(Action(name="visit", arguments={"url": [f"page://{name}/{i}"]}) for i in range(length))

    lengths = [2, 3, 2, 2, 3, 1]
    tasks = [replace(TASKS[i], actions=plan(f"t{i}", length)) for i, length in enumerate(lengths)]
    foreign = with_foreign_plans(tasks)
    assert [t.id for t in foreign] == [t.id for t in tasks] and [len(t.actions) for t in foreign] == lengths
    assert [new.actions == old.actions for new, old in zip(foreign, tasks, strict=True)] == [False] * 5 + [True]
    assert sorted(map(repr, (t.actions for t in foreign))) == sorted(map(repr, (t.actions for t in tasks)))  # every plan is given once
    assert [(new.question, new.gold) for new in foreign] == [(old.question, old.gold) for old in tasks]
