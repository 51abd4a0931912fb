"""The documents are a tested contract: what can be typed stands in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.cli.main import COMMANDS
from harness.cli.settings import page
from harness.registry import names

REPO = Path(__file__).parent.parent
README = (REPO / "README.md").read_text(encoding="utf-8")


def test_every_setting_stands_in_the_settings_page() -> None:
    assert (REPO / "docs/settings.md").read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_setting_has_a_help_text() -> None:
    assert not re.findall(r"\| (identity|operational) \|  \|", page())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_stands_in_the_readme(command: str) -> None:
    assert f"harness {command}" in README


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in ("trainers", "presets", "benchmarks", "judges", "engines", "models") for n in names(k)]
)
def test_every_name_stands_in_the_readme(kind: str, name: str) -> None:
    assert f"`{name}`" in README, f"{kind}: {name}"


def test_the_readme_tells_the_tree_as_it_is() -> None:
    shown = re.findall(r"^([a-z_]+)/ ", README, re.MULTILINE)
    assert {"harness", "trainers", "benchmarks", "judges", "leaderboard", "tests", "docs"} <= set(shown)
    assert all((REPO / folder).is_dir() for folder in shown)


def test_the_architecture_page_names_only_files_that_exist() -> None:
    text = (REPO / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    named = re.findall(r"`((?:harness|trainers|judges|benchmarks|leaderboard|tests)/[\w/.]+)`", text)
    assert named
    assert [path for path in named if not (REPO / path).exists()] == []
