"""Runs of several phases: what each trains, where it begins, and that a cut in either one changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from loop_bench import PER_ANSWER, RIGHT, TASKS, WRONG, Bench

from harness.config import Section
from harness.errors import HarnessError
from harness.events import Kind
from trainers.algorithms.grpo import ZeroRL, ZeroRLConfig
from trainers.algorithms.sft import SFT, SFTActGuide, SFTActGuideConfig
from trainers.phases import Phase, Timeline


def sft_actguide(steps: int) -> SFTActGuide:
    settings = {"sft": {"steps": steps, "lr": 0.5}, "group": {"group_size": 2}}
    return SFTActGuide(SFTActGuideConfig.model_validate(settings))


def test_a_supervised_phase_draws_nothing_and_trains_the_experts_turns(tmp_path: Path) -> None:
    bench = Bench(tmp_path, algorithm=SFT(Section()))
    state = bench.run(steps=2, tasks_per_step=3, minibatch_tasks=2)
    assert bench.engine.requests == [] and state.generated_tokens == 0
    assert [[len(minibatch) for minibatch in batch.minibatches] for batch in bench.learner.batches] == [[2, 1], [2, 1]]
    assert state.trained_tokens == 6 * PER_ANSWER[RIGHT]
    metrics = bench.log.of(Kind.STEP)[0]["metrics"]
    assert (metrics["rows/trained"], metrics["tokens/generated"], metrics["tokens/trained"]) == (3, 0, 3 * PER_ANSWER[RIGHT])
    assert not any(name.startswith(("groups/", "reward/", "attempts/")) for name in metrics)
    assert metrics["mismatch/logprob_max"] == 0.0, "of the rows, scored by the engine once it has the new weights"
    assert bench.log.of(Kind.GROUP) == [] and bench.log.of(Kind.ATTEMPT) == []


def test_a_phase_begins_from_the_checkpoint_that_the_one_before_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path, algorithm=sft_actguide(2), say=lambda request, prompt: WRONG)
    bench.run(steps=5, checkpoint_every=100)
    assert bench.learner.restarts == [("step-000002", None)]
    assert bench.saved == [2, 5]
    assert {s.group_id for batch in bench.learner.batches[:2] for minibatch in batch.minibatches for s in minibatch} <= {
        t.id for t in TASKS
    }
    kinds = ["groups/total" in entry["metrics"] for entry in bench.log.of(Kind.STEP)]
    assert kinds == [False, False, True, True, True]
    assert {a["purpose"] for a in bench.log.of(Kind.ATTEMPT)} == {"train", "probe"}


def test_the_checkpoint_that_a_phase_began_from_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, algorithm=sft_actguide(2))
    bench.run(steps=6, checkpoint_every=1, keep=1)
    assert [p.name for p in bench.checkpoints.complete()] == ["step-000002", "step-000006"]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_run_cut_in_either_phase_or_between_them_ends_with_the_same_weights(tmp_path: Path, cut: int) -> None:
    whole = Bench(tmp_path / "whole", algorithm=sft_actguide(2))
    end = whole.run(steps=5)
    first = Bench(tmp_path / "cut", algorithm=sft_actguide(2))
    first.run(steps=cut, checkpoint_every=cut)
    found = first.checkpoints.latest()
    assert found is not None and found[1].step == cut
    second = Bench(tmp_path / "cut", algorithm=sft_actguide(2))
    second.learner.load(found[0])
    assert second.run(found[1], steps=5) == end
    assert second.learner.weight == whole.learner.weight
    assert len(second.learner.restarts) == (cut <= 2)


def test_phases_are_told_by_the_step_alone() -> None:
    a, b, c = (Phase(algorithm=ZeroRL(ZeroRLConfig()), steps=steps) for steps in (2, 3, None))
    line = Timeline(phases=(a, b, c))
    assert [line.phases.index(line.at(step)) for step in range(7)] == [0, 0, 1, 1, 1, 2, 2]
    assert line.starts == (2, 5)
    assert [line.origin(step) for step in range(7)] == [None, None, None, 2, 2, 2, 5]
    for wrong in ((a,), (c, a), (c, c)):
        with pytest.raises(HarnessError, match="needs a number of steps"):
            Timeline(phases=wrong)
