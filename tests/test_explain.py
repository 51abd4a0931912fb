"""``harness explain``, ``guidance-budget`` and ``list presets``: every difference has its sentence, every number its formula."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli.explain import resolved
from harness.cli.main import cli, run_command
from harness.config import describe, differences
from harness.registry import load, names
from trainers.config import run_config_type
from trainers.presets import consequences

SIDES = ("default", *names("presets"))


def said(*arguments: str) -> Result:
    done = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def explained(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said("explain", *arguments, "--format", "json").stdout)
    return found


@pytest.mark.parametrize("trainer", names("trainers"))
@pytest.mark.parametrize(("first", "second"), list(permutations(SIDES, 2)))
def test_every_setting_on_which_two_presets_differ_has_a_sentence(first: str, second: str, trainer: str) -> None:
    sentences = consequences()
    for model in (None, "tiny", "qwen3-8b"):
        found = differences(resolved(first, trainer, model), resolved(second, trainer, model))
        assert [row.key for row in found if row.key not in sentences] == []


def test_every_sentence_is_of_a_setting_that_a_preset_has_and_every_key_of_a_preset_exists() -> None:
    changed = {key for name in names("presets") for key in load("presets", name).settings}
    known = {row.key for trainer in names("trainers") for row in describe(run_config_type(load("trainers", trainer).config_type))}
    assert changed <= known
    assert set(consequences()) == changed
    assert all(sentence.endswith(".") and sentence[0].isupper() and len(sentence) < 260 for sentence in consequences().values())


def test_paper_against_release_names_what_the_authors_code_does_differently() -> None:
    found = {row["key"]: (row["preset"], row["against"]) for row in explained("--preset", "paper", "--against", "release")["differences"]}
    assert found == {
        "denominator": ("engine", "learner"),
        "algorithm.group.zero_variance": ("drop", "keep"),
        "algorithm.objective.aggregate": ("token", "sequence"),
        "algorithm.objective.kl_aggregate": ("trajectory", "token"),
        "algorithm.objective.dual_clip": (None, 3.0),
        "algorithm.objective.kl_clamp": (None, 10.0),
        "algorithm.guidance.search": ("verified", "release"),
        "algorithm.guidance.probe_budget": (None, 5),
        "algorithm.guidance.probe_size": (None, 2),
        "algorithm.guidance.merge": ("union", "replace"),
    }


def test_the_paper_against_no_preset_differs_in_the_probes_and_in_what_the_kl_is_averaged_over() -> None:
    found = explained("--preset", "paper")
    assert [(row["key"], row["preset"], row["against"]) for row in found["differences"]] == [
        ("algorithm.objective.kl_aggregate", "trajectory", "token"),
        ("algorithm.guidance.reuse_probes", False, True),
    ]
    assert found["against"] == "default" and found["not_reproduced"]["default"] == [] and found["not_reproduced"]["paper"]
    tiny = {row["key"] for row in explained("--preset", "paper", "--model", "tiny")["differences"]}
    assert {"learner.lr", "steps", "tasks_per_step", "agent.max_turns"} < tiny  # laid over the model's own settings


def test_without_a_terminal_there_is_one_line_a_difference() -> None:
    lines = said("explain", "--preset", "release", "--against", "paper").stdout.splitlines()
    (merge,) = [line for line in lines if line.startswith("algorithm.guidance.merge: ")]
    assert merge.startswith("algorithm.guidance.merge: release replace, paper union. ") and merge.endswith(".")
    assert sum(line.startswith("not reproduced of release: ") for line in lines) == len(load("presets", "release").not_reproduced)
    assert said("explain", "--preset", "paper", "--against", "paper").stdout.startswith("paper and paper are the same.\n")


@pytest.mark.parametrize("preset", names("presets"))
def test_no_models_own_entry_shows_through_a_preset(preset: str) -> None:
    for model in names("models"):
        left = {row.key for row in differences(resolved(preset, "actguide", model), resolved(preset, "actguide", None))}
        assert {key for key in left if key.startswith("algorithm.") or key in load("presets", preset).settings} == set()
    assert load("presets", "paper").settings.keys() == load("presets", "release").settings.keys()


def test_settings_of_guidance_are_left_out_for_a_trainer_without_it() -> None:
    keys = {row["key"] for row in explained("--preset", "paper", "--against", "release", "--trainer", "zero-rl")["differences"]}
    assert "algorithm.objective.dual_clip" in keys and not any("guidance" in key for key in keys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "--preset", "papr"], "unknown preset 'papr'. Did you mean 'paper'?"),
        (["explain", "--preset", "paper", "--against", "relase"], "Did you mean 'release'?"),
        (["guidance-budget", "--levels", "5", "--margin", "0.9", "--confidence", "0.9"], "margin is 0.9"),
        (["guidance-budget", "--levels", "five", "--margin", "0.1", "--confidence", "0.9"], "'five' is not a valid integer"),
        (["guidance-budget", "--levels", "5", "--margin", "0.1"], "Missing option '--confidence'"),
    ],
)
def test_a_wrong_request_is_answered_in_words(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(cli, arguments) == 2
    assert words in capsys.readouterr().err


def test_the_budget_shows_the_pieces_of_its_formula() -> None:
    out = said("guidance-budget", "--levels", "5", "--margin", "0.1", "--confidence", "0.95").stdout
    assert out.splitlines()[0] == "275 groups per level"
    assert "m >= ln(2 (K + 1) / xi) / (2 D^2)" in out and "ln(12 / 0.05) = 5.4806" in out and "= 274.03, rounded up: 275" in out
    data = json.loads(said("guidance-budget", "--levels", "5", "--margin", "0.1", "--confidence", "0.95", "--format", "json").stdout)
    assert (data["groups"], data["events"], data["xi"]) == (275, 12, 0.05)


def test_presets_are_listed_like_everything_else_that_can_be_named() -> None:
    out = said("list", "presets").stdout
    assert "paper" in out and "Algorithm 1" in out and "release" in out and "built-in" in out
    assert {entry["name"] for entry in json.loads(said("list", "presets", "--format", "json").stdout)} == {"paper", "release"}
