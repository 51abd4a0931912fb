"""Figures as data, and as files."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.figures import Chart, Series, bars
from harness.plots import draw

LINES = Chart(title="t", x="turn", y="share", series=(Series(name="a", points=((0, 0.5), (1, math.nan), (2, 1.0))),))


def size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_points_that_are_no_numbers_are_left_out_of_the_plain_form() -> None:
    assert LINES.to_plain()["series"] == [{"name": "a", "points": [[0, 0.5], [2, 1.0]]}]


def test_bars_need_a_label_each() -> None:
    with pytest.raises(HarnessError, match="one label each"):
        Chart(title="t", x="x", y="y", kind="bars", series=(Series(name="a", points=((0, 1.0),)),))


def test_charts_are_drawn_side_by_side_three_in_a_row(tmp_path: Path) -> None:
    chart = bars("b", "level", "groups", [("1", 2), ("2", 3)])
    draw([chart], tmp_path / "one.png")
    draw([chart, LINES, chart, LINES], tmp_path / "plots/four.png", "heading")
    one, four = size(tmp_path / "one.png"), size(tmp_path / "plots/four.png")
    assert four == (3 * one[0], 2 * one[1])
    assert sorted(p.name for p in tmp_path.rglob("*.p*")) == ["four.png", "one.png"]


def test_the_door_loads_matplotlib_only_to_draw() -> None:
    code = "import sys, harness.plots, harness.figures; assert 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_matplotlib_the_plot_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HarnessError, match="plots need matplotlib"):
        draw([LINES], tmp_path / "x.png")
