"""Configuration: layers, words for what is wrong, tags and hashes."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from pydantic import model_validator

from harness.config import (
    Difference,
    Section,
    build,
    describe,
    differences,
    home,
    identity,
    identity_hash,
    load_yaml,
    merge,
    operational,
    parse_assignment,
    restore,
    store,
    to_json,
)
from harness.errors import DataError, RunLogError, UsageError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Learner(Section):
    lr: float = identity(1e-6, gt=0)
    """Learning rate
    of AdamW."""
    betas: tuple[float, float] = identity((0.9, 0.999))
    """Decay rates."""
    port: int = operational(29500)
    """Port of the process group."""


class Run(Section):
    steps: int = identity(64, ge=1)
    """Training steps."""
    colour: Colour = identity(Colour.RED)
    """An enumeration."""
    merge: Literal["union", "replace"] = identity("union")
    """A choice."""
    out: Path | None = operational(None)
    """A folder."""
    verbose: bool = operational(False)
    """A switch."""
    learner: Learner = Learner()
    reference: Learner | None = None

    @model_validator(mode="after")
    def _not_thirteen(self) -> Run:
        if self.steps == 13:
            raise ValueError("steps 13 is bad luck; take 12 or 14")
        return self


def complaint(*layers: dict[str, object]) -> str:
    with pytest.raises(UsageError) as caught:
        build(Run, *layers)
    return str(caught.value)


def test_later_layers_win_and_mappings_merge() -> None:
    layers = ({"a": {"x": 1, "y": 2}, "b": [1, 2]}, {"a": {"y": 3}}, {"b": [9]})
    assert merge(*layers) == {"a": {"x": 1, "y": 3}, "b": [9]}
    assert layers[0] == {"a": {"x": 1, "y": 2}, "b": [1, 2]}


def test_a_group_replaces_a_plain_value_and_the_other_way_round() -> None:
    assert merge({"a": 1}, {"a": {"x": 2}}) == {"a": {"x": 2}}
    assert merge({"a": {"x": 2}}, {"a": None}) == {"a": None}


def test_defaults_stand_where_no_layer_speaks() -> None:
    run = build(Run, {"learner": {"lr": 0.5}}, {"colour": "blue", "out": "/tmp/x", "reference": {"lr": 1}})
    assert run == Run(colour=Colour.BLUE, out=Path("/tmp/x"), learner=Learner(lr=0.5), reference=Learner(lr=1.0))


def test_yaml_is_version_1_2(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("lr: 1e-6\nname: no\nflag: true\nlist: [1, 2]\nnested: {a: on}\n")
    assert load_yaml(path) == {"lr": 1e-6, "name": "no", "flag": True, "list": [1, 2], "nested": {"a": "on"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3"),
        ("a: 1\na: 2\n", "line 2"),
        ("- 1\n- 2\n", "expected settings as 'key: value' lines, got the list"),
        ("1: x\n", "expected settings"),
        ("a: !!python/object:os.system x\n", "line 1"),
    ],
)
def test_bad_yaml_is_named_with_path_and_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load_yaml(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_an_empty_file_is_an_empty_layer_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert load_yaml(tmp_path / "c.yaml") == {}
    with pytest.raises(DataError, match=r"no such configuration file: .*absent\.yaml"):
        load_yaml(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(DataError, match=r"cannot read .*latin\.yaml"):
        load_yaml(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("learner.lr=1e-4", {"learner": {"lr": 1e-4}}),
        ("steps=3", {"steps": 3}),
        ("name=no", {"name": "no"}),
        ("judge.url=http://x/?a=b", {"judge": {"url": "http://x/?a=b"}}),
        ("betas=[0.9, 0.95]", {"betas": [0.9, 0.95]}),
        ("out=null", {"out": None}),
    ],
)
def test_assignments_read_as_yaml(text: str, layer: dict[str, object]) -> None:
    assert parse_assignment(text) == layer


@pytest.mark.parametrize("text", ["steps", "=3", "a..b=3", "a=[1"])
def test_a_bad_assignment_says_what_was_expected(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected KEY=VALUE|not a YAML value"):
        parse_assignment(text)


def test_an_unknown_setting_names_the_nearest() -> None:
    assert complaint({"learner": {"lrr": 1}}) == "unknown setting 'learner.lrr'. Did you mean 'learner.lr'?"
    assert complaint({"stepz": 1}) == "unknown setting 'stepz'. Did you mean 'steps'?"


def test_what_is_wrong_with_a_setting_of_a_file_is_said_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("learner: {lrr: 1, betas: [x, 0.9]}\nsteps: many\n")
    with pytest.raises(UsageError) as caught:
        build(Run, {"learner": {"lr": 1e-4}}, load_yaml(path), {"name": 3})
    lines = str(caught.value).splitlines()
    assert f"{path}: unknown setting 'learner.lrr'. Did you mean 'learner.lr'?" in lines
    assert f"{path}: steps: got the text 'many', expected a whole number" in lines
    assert any(line.startswith(f"{path}: learner.betas.0: ") for line in lines)
    with pytest.raises(UsageError, match="^steps: got the text 'few'"):
        build(Run, load_yaml(path), {"steps": "few", "learner": {"betas": [0.9, 0.9], "lrr": 1}})


def test_a_setting_given_without_its_section_is_found_by_its_last_name() -> None:
    class Outer(Section):
        learner: Learner = Learner()

    with pytest.raises(UsageError, match=r"unknown setting 'port'. Did you mean 'learner.port'\?"):
        build(Outer, {"port": 1})


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"steps": "ten"}, "steps: got the text 'ten', expected a whole number"),
        ({"steps": 2.5}, "steps: got 2.5, expected a whole number"),
        ({"steps": True}, "steps: got true, expected a whole number"),
        ({"steps": 0}, "steps: got 0, expected greater than or equal to 1"),
        ({"verbose": "no"}, "verbose: got the text 'no', expected true or false"),
        ({"colour": "green"}, "colour: got the text 'green', expected 'red' or 'blue'"),
        ({"merge": "both"}, "merge: got the text 'both', expected 'union' or 'replace'"),
        ({"learner": {"lr": None}}, "learner.lr: got null, expected a number"),
        ({"learner": {"lr": "1e-4 "}}, "learner.lr: got the text '1e-4 ', expected a number"),
        ({"learner": {"betas": 0.9}}, "learner.betas: got 0.9, expected a list"),
        ({"learner": 3}, "learner: got 3, expected a group of settings"),
        ({"steps": 13}, "steps 13 is bad luck; take 12 or 14"),
    ],
)
def test_a_wrong_value_is_told_in_words(layer: dict[str, object], words: str) -> None:
    assert words in complaint(layer)


def test_every_problem_is_told_at_once() -> None:
    assert len(complaint({"steps": "x", "nope": 1, "learner": {"lr": -1}}).splitlines()) == 3


def test_a_required_setting_is_asked_for() -> None:
    class Needy(Section):
        path: Path = identity(...)
        """No default."""

    with pytest.raises(UsageError, match="path: a value is required"):
        build(Needy)
    assert describe(Needy)[0].default is None


def test_a_setting_without_a_tag_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match=r"Untagged\.lr has no tag"):

        class Untagged(Section):
            lr: float = 1e-6


def test_operational_settings_do_not_enter_the_identity_hash_and_every_identity_setting_does() -> None:
    base = identity_hash(Run())
    assert identity_hash(build(Run, {"out": "/x", "verbose": True, "learner": {"port": 1}})) == base
    changes: list[dict[str, object]] = [
        {"steps": 65},
        {"colour": "blue"},
        {"merge": "replace"},
        {"learner": {"betas": [0.9, 0.99]}},
        {"reference": {}},
    ]
    for layer in changes:
        assert identity_hash(build(Run, layer)) != base, layer


def test_the_identity_hash_is_the_same_in_every_process_and_through_json() -> None:
    assert identity_hash(Learner()) == "ee876c1a9d0394e3"
    assert identity_hash(build(Learner, json.loads(json.dumps(to_json(Learner()))))) == "ee876c1a9d0394e3"


def test_differences_are_dotted_tagged_and_in_order() -> None:
    other = build(Run, {"learner": {"port": 1, "lr": 2}, "steps": 3})
    assert differences(Run(), other) == [
        Difference(key="steps", first=64, second=3, tag="identity"),
        Difference(key="learner.lr", first=1e-6, second=2.0, tag="identity"),
        Difference(key="learner.port", first=29500, second=1, tag="operational"),
    ]
    assert differences(other, other) == []


def test_every_setting_is_described_with_its_help() -> None:
    rows = {row.key: row for row in describe(Run)}
    assert rows["learner.lr"].help == "Learning rate of AdamW." and rows["learner.lr"].default == 1e-6
    assert rows["learner.port"].tag == "operational" and rows["steps"].tag == "identity"
    assert rows["steps"].type == "int" and "reference.lr" in rows


def test_a_stored_configuration_comes_back_equal(tmp_path: Path) -> None:
    run = build(Run, {"out": "/x", "reference": {"lr": 3}})
    store(run, tmp_path / "run" / "config.json")
    assert restore(Run, tmp_path / "run" / "config.json") == run
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["steps"] == 64
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no stored configuration"), ("{", "damaged"), ("[]", "damaged"), ('{"version": 2, "config": {}}', "version 2")],
)
def test_a_stored_configuration_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunLogError, match=words):
        restore(Run, path)


def test_home_is_the_variable_or_a_folder_of_the_user(harness_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home() == harness_home
    monkeypatch.delenv("HARNESS_HOME")
    assert home() == Path.home() / ".harness"
