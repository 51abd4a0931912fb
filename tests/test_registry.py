"""Names from the built-in table and from installed packages, healthy and broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.registry import KINDS, list_entries, load, names

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "third-party-judges"
version = "2.5"
[tool.setuptools]
py-modules = ["third_party", "third_party_broken"]
[project.entry-points."harness.judges"]
strict = "third_party:StrictJudge"
crashes = "third_party_broken:Judge"
absent = "third_party:NoSuchName"
exact = "third_party:StrictJudge"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on which a small foreign package was installed by pip, one of its modules broken."""
    project, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("site")
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "third_party.py").write_text('class StrictJudge:\n    """Accepts nothing.\n\n    At all.\n    """\n')
    (project / "third_party_broken.py").write_text("import a_module_that_nobody_has\n")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([*pip, str(project)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def in_environment(site: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_package_adds_its_entry(installed: Path) -> None:
    code = "from harness.registry import load; print(load('judges', 'strict').__module__)"
    assert in_environment(installed, code) == "third_party\n"


def test_broken_entries_are_listed_with_their_error_beside_the_healthy_ones(installed: Path) -> None:
    code = """
import json, dataclasses
from harness.registry import list_entries
print(json.dumps([dataclasses.asdict(entry) for entry in list_entries("judges")]))
"""
    entries = json.loads(in_environment(installed, code))
    healthy = {e["name"]: e for e in entries if e["error"] is None}
    broken = {e["name"]: e["error"] for e in entries if e["error"]}
    assert healthy["strict"]["summary"] == "Accepts nothing." and healthy["strict"]["source"] == "third-party-judges 2.5"
    assert healthy["exact"]["source"] == "built-in"
    assert broken["crashes"] == "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"
    assert broken["absent"].startswith("AttributeError:") and "another entry has this name" in broken["exact"]


def test_asking_for_a_broken_entry_names_package_and_reason(installed: Path) -> None:
    code = """
from harness.errors import HarnessError
from harness.registry import load, names
print(names("judges"))
try:
    load("judges", "crashes")
except HarnessError as error:
    print(error)
"""
    out = in_environment(installed, code)
    assert "'strict'" in out and "judge 'crashes' comes from third-party-judges 2.5" in out
    assert "a_module_that_nobody_has" in out and "uninstall" in out


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown trainer 'actgide'. Did you mean 'actguide'\? Known: .*zero-rl"):
        load("trainers", "actgide")
    with pytest.raises(UsageError, match=r"unknown kind 'juges'. Did you mean 'judges'"):
        list_entries("juges")


def test_every_built_in_target_can_be_imported() -> None:
    for kind in KINDS:
        for entry in list_entries(kind):
            assert entry.summary, f"{kind} {entry.name} has no summary"
            if entry.source == "built-in":
                assert load(kind, entry.name) is not None


def test_names_are_listed_without_importing_what_they_stand_for() -> None:
    code = """
import sys
from harness.registry import KINDS, list_entries, names
for kind in KINDS:
    names(kind), list_entries(kind)
print(sorted(sys.modules.keys() & {"torch", "transformers", "deepspeed", "vllm", "trainers", "benchmarks", "judges", "harness.engines"}))
"""
    assert in_environment(Path("."), code) == "[]\n"


def test_names_holds_the_built_ins() -> None:
    assert {"zero-rl", "actguide"} <= set(names("trainers"))
    assert {"miniweb", "musique", "hotpotqa"} <= set(names("benchmarks"))
