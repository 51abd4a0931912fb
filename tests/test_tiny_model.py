"""The shipped model fits what it was made from, and is the base it should be."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.tiny import manifest, model_dir
from harness.tiny.behaviour import BOUNDS, unacceptable
from harness.types import Action
from trainers.guidance.inject import plan_text


def test_prompt_plan_template_world_and_files_are_what_the_weights_were_made_from() -> None:
    manifest.check(model_dir(), plan_text)


def test_another_plan_wording_is_named() -> None:
    def reworded(actions: Sequence[Action], level: int) -> str:
        return plan_text(actions, level).replace("route", "path")

    with pytest.raises(DataError, match="other versions of: plan"):
        manifest.check(model_dir(), reworded)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    shutil.copytree(model_dir(), tmp_path / "model")
    with (tmp_path / "model" / "tokenizer.json").open("a") as stream:
        stream.write(" ")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        manifest.check(tmp_path / "model", plan_text)


def test_the_accepted_behaviour_is_within_the_bounds() -> None:
    measured = json.loads((model_dir() / "manifest.json").read_text())["behaviour"]
    assert measured.keys() == BOUNDS.keys()
    assert unacceptable(measured) == []


def test_a_certain_base_is_not_accepted() -> None:
    certain = {**{name: low for name, (low, _) in BOUNDS.items()}, "role_entropy": 0.1, "pass@1": 0.5}
    assert [line.split()[0] for line in unacceptable(certain)] == ["pass@1", "role_entropy"]


def test_the_model_has_at_most_five_million_parameters() -> None:
    from safetensors import safe_open

    with safe_open(model_dir() / "model.safetensors", "numpy") as stored:  # type: ignore[no-untyped-call]
        assert sum(stored.get_tensor(name).size for name in stored.keys()) <= 5_000_000  # noqa: SIM118


@pytest.mark.slow
def test_it_behaves_as_the_manifest_says() -> None:
    from harness.cli.tiny import _measure

    measured = asyncio.run(_measure(model_dir()))
    assert unacceptable(measured) == []
    accepted = json.loads((model_dir() / "manifest.json").read_text())["behaviour"]
    assert measured == pytest.approx(accepted, abs=0.05)
