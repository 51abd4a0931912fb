"""Several ranks give the numbers of one, and the error of one ends all with its message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from learner_cases import save_model

from harness.errors import HarnessError
from trainers.learner.channel import Command, Leader, obey

SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from dataclasses import replace
from learner_cases import sample, some_ids, uneven_samples
from trainers.learner.base import LearnerConfig, TrainingDiverged
from trainers.learner.deepspeed import DeepSpeedLearner
from trainers.objectives.policy_gradient import ClippedObjective
from trainers.sample import Batch

if int(os.environ.get("RANK", "0")):
    from trainers.learner.follow import follow
    follow()
    sys.exit()

directory, out, settings = Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
learner = DeepSpeedLearner(directory, LearnerConfig(lr=0.05, eps=0.1, weight_decay=0.0, **settings))
rows = uneven_samples()
again = [replace(row, attempt_id=f"{row.attempt_id} again") for row in rows]
step = Batch(minibatches=(rows[:1], rows[1:], again), objective=ClippedObjective(kl_coef=0.1))  # one row: the others have nothing to do
first = learner.update(step)
learner.save(out / "step-1")
found = {
    "weights": {name: tensor.tolist() for name, tensor in learner.weights()},
    "metrics": first.metrics, "tokens": first.tokens, "bins": first.histograms["ratio/guided"][1],
    "rows": {attempt: list(ratios) for attempt, ratios in first.row_ratios.items()},
    "logprobs": learner.logprobs([some_ids(n, seed=n) for n in (9, 2, 30, 1, 14)], temperature=0.7),
}
next(learner.weights())  # an abandoned walk
second = learner.update(step)
after = learner.checksum()
learner.load(out / "step-1")
learner.update(step)
found["resumed"] = learner.checksum() == after
try:
    learner.update(Batch(minibatches=((*rows, sample("broken", 9, float("nan"), seed=1)),), objective=ClippedObjective()))
except TrainingDiverged as error:
    found["diverged"] = str(error)
found["untouched"] = learner.checksum() == after
learner.close()
(out / "found.json").write_text(json.dumps(found))
"""


def run(model_dir: Path, out: Path, settings: dict[str, Any], launcher: Sequence[str] = ()) -> dict[str, Any]:
    out.mkdir()
    (out / "script.py").write_text(SCRIPT)
    command = [
        sys.executable,
        *launcher,
        str(out / "script.py"),
        str(Path(__file__).parent),
        str(model_dir),
        str(out),
        json.dumps(settings),
    ]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((out / "found.json").read_text())
    return found


def assert_agree(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert mine["metrics"] == pytest.approx(theirs["metrics"], rel=1e-5, abs=1e-6)
    assert (mine["tokens"], mine["bins"]) == (theirs["tokens"], theirs["bins"])
    assert mine["rows"] == {attempt: pytest.approx(ratios, rel=1e-5, abs=1e-6) for attempt, ratios in theirs["rows"].items()}
    assert list(mine["weights"]) == list(theirs["weights"])
    for name, values in mine["weights"].items():
        assert flat(values) == pytest.approx(flat(theirs["weights"][name]), abs=1e-6), name
    for a, b in zip(mine["logprobs"], theirs["logprobs"], strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    for found in (mine, theirs):
        assert found["resumed"] and found["untouched"]
        assert "attempts broken;" in found["diverged"]


def flat(values: Any) -> list[float]:
    return [x for part in values for x in flat(part)] if isinstance(values, list) else [values]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone")
    model_dir = save_model(folder / "model")
    return model_dir, run(model_dir, folder / "out", {})


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_ranks_give_the_numbers_of_one(alone: tuple[Path, dict[str, Any]], tmp_path: Path, stage: int) -> None:
    model_dir, expected = alone
    assert_agree(run(model_dir, tmp_path / "out", {"ranks": 2, "zero_stage": stage, "microbatch_tokens": 60}), expected)


@pytest.mark.slow
def test_two_ranks_under_torchrun_give_the_numbers_of_one(alone: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    model_dir, expected = alone
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert_agree(run(model_dir, tmp_path / "out", {"zero_stage": 2}, launcher), expected)


@pytest.mark.slow
def test_a_rank_that_fails_inside_a_collective_fails_the_update_with_its_message(tmp_path: Path) -> None:
    script = """
import sys
from dataclasses import dataclass
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from learner_cases import uneven_samples
import os
from trainers.learner.base import LearnerConfig
from trainers.learner.deepspeed import DeepSpeedLearner
from trainers.objectives.policy_gradient import ClippedObjective
from trainers.sample import Batch
from failing import Failing

learner = DeepSpeedLearner(Path(sys.argv[2]), LearnerConfig(ranks=2))
try:
    learner.update(Batch(minibatches=(uneven_samples(),), objective=Failing()))
except Exception as error:
    print(type(error).__name__, error)
learner.close()
"""
    (tmp_path / "failing.py").write_text(
        "import os\nfrom harness.errors import HarnessError\nfrom trainers.objectives.policy_gradient import ClippedObjective\n"
        "class Failing(ClippedObjective):\n    def terms(self, tokens):\n        if os.environ.get('RANK') == '1':\n"
        "            raise HarnessError('rank 1 ran out of luck')\n        return ClippedObjective.terms(self, tokens)\n"
    )
    (tmp_path / "script.py").write_text(script)
    model_dir = save_model(tmp_path / "model")
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    command = [sys.executable, str(tmp_path / "script.py"), str(Path(__file__).parent), str(model_dir)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=300, check=False)
    assert done.stdout.startswith("HarnessError rank 1 of the learner failed: rank 1 ran out of luck"), done.stdout + done.stderr[-3000:]


def test_commands_are_obeyed_in_order_and_answered() -> None:
    leader = Leader(3)
    done: list[list[str]] = [[], []]

    def rank(number: int) -> None:
        def call(name: str, arguments: Sequence[Any]) -> Any:
            done[number - 1].append(name)
            return (number, *arguments)

        obey(leader.environment, number, call)

    threads = [threading.Thread(target=rank, args=(n,)) for n in (2, 1)]
    for thread in threads:
        thread.start()
    leader.accept()
    leader.post(Command("first", ("x",)))
    assert leader.collect() == [(1, "x"), (2, "x")]
    leader.post({1: Command("second", (7,)), 2: Command("third")})
    assert leader.collect() == [(1, 7), (2,)]
    leader.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert done == [["first", "second"], ["first", "third"]]


def test_the_error_of_one_rank_is_raised_by_the_leader() -> None:
    leader = Leader(2)
    raised: list[Exception] = []

    def rank() -> None:
        def call(_name: str, _arguments: Sequence[Any]) -> Any:
            raise HarnessError("no memory left on this rank")

        try:
            obey(leader.environment, 1, call)
        except HarnessError as error:
            raised.append(error)

    thread = threading.Thread(target=rank)
    thread.start()
    leader.accept()
    leader.post(Command("update"))
    with pytest.raises(HarnessError, match="rank 1 of the learner failed: no memory left on this rank"):
        leader.collect()
    thread.join(5)
    assert raised
    leader.close()


def test_a_rank_that_vanishes_is_an_error() -> None:
    leader = Leader(2)

    def rank() -> None:
        def call(_name: str, _arguments: Sequence[Any]) -> Any:
            raise KeyboardInterrupt  # leaves without a word

        with pytest.raises(KeyboardInterrupt):
            obey(leader.environment, 1, call)

    thread = threading.Thread(target=rank)
    thread.start()
    leader.accept()
    leader.post(Command("update"))
    with pytest.raises(HarnessError, match="rank 1 of the learner hung up"):
        leader.collect()
    thread.join(5)
    leader.close()


def test_a_spawned_rank_that_dies_at_start_is_an_error() -> None:
    leader = Leader(2)
    leader.spawn("trainers.learner.no_such_module")
    with pytest.raises(HarnessError, match="rank 1 of the learner ended with code 1"):
        leader.accept()
    leader.close()
