"""What a run says while it works."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from harness.cli.progress import RunProgress


def test_a_step_whose_sampler_and_learner_disagree_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress("actguide · m", steps=9, accepted=1e-3) as progress:
        for step, gap in enumerate((2e-6, 5e-3, float("nan"), 1e-6), start=1):
            progress.step(SimpleNamespace(step=step), {"time/step": 1.0, "mismatch/logprob_max": gap})
            if step == 1:
                assert "apart" not in capsys.readouterr().err and progress.agreed == 2e-6
        progress.step(SimpleNamespace(step=5), {"time/step": 1.0})  # nothing was sampled
        assert progress.agreed is not None and math.isnan(progress.agreed)
    told = [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if "nats a token apart, accepted is 0.001" in line]
    assert told == ["step 2", "step 3"]


def test_a_mean_is_looked_at_where_that_is_what_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress("actguide · m", steps=9, accepted=0.05, gap="mismatch/logprob_mean") as progress:
        progress.step(SimpleNamespace(step=1), {"time/step": 1.0, "mismatch/logprob_max": 0.4, "mismatch/logprob_mean": 0.01})
    assert progress.agreed == 0.01 and "apart" not in capsys.readouterr().err
