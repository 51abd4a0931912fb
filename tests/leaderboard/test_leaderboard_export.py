"""``harness leaderboard export``: one board, the same numbers in every format."""

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import false_discovery_control
from test_leaderboard_show import harness, measured

from harness.cli.leaderboard import CORRECTIONS
from harness.errors import UsageError
from leaderboard.export import records, to_csv, to_latex, to_markdown
from leaderboard.ranks import CORRECTIONS as KNOWN_CORRECTIONS
from leaderboard.standings import build
from leaderboard.web.standalone import board_file

HOSTILE = r"a|b & <script>x</script> 50% $\input{x}$ _{~^#"


@pytest.fixture(scope="session")
def exported(board_home: Path) -> dict[str, str]:
    return {
        form: harness(board_home, "export", "--format", form, "--parts").output for form in ("json", "csv", "markdown", "latex", "html")
    }


def numbers(text: str) -> list[str]:
    """Scores, bounds and signed deltas with one decimal, in order, a true minus as a hyphen."""
    return re.findall(r"(?<![\d.])[+±-]?\d+\.\d(?!\d)", text.replace("\N{MINUS SIGN}", "-"))


def expected(exported: dict[str, str]) -> list[list[str]]:
    """For each row of the board its numbers as people read them, from the JSON records."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for r in json.loads(exported["json"]):
        said = rows.setdefault((r["model"], r["method"], r["settings"]), [])
        said += [f"{100 * r[k]:.1f}" for k in ("score", "low", "high") if r[k] is not None]
        if r["delta"] is not None:
            sign = "+" if r["delta"] > 0 else "-" if r["delta"] < 0 else "±"
            said.append(f"{sign}{abs(100 * r['delta']):.1f}")
    return list(rows.values())


def records_with(home: Path, correction: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(harness(home, "export", "--format", "json", "--parts", "--correction", correction).output)
    return found


def test_csv_and_json_hold_the_same_records_in_full_precision(exported: dict[str, str]) -> None:
    rows, lines = json.loads(exported["json"]), list(csv.DictReader(io.StringIO(exported["csv"])))
    assert len(rows) == len(lines) > 20
    for row, line in zip(rows, lines, strict=True):
        assert list(row) == list(line)
        for name, value in row.items():
            if isinstance(value, float):
                assert float(line[name]) == value, name
            else:
                assert line[name] == ("" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)), name


def test_the_correction_of_the_tests_is_chosen_by_an_option(board_home: Path) -> None:
    holm, bh = (records_with(board_home, correction) for correction in CORRECTIONS)
    assert (*KNOWN_CORRECTIONS,) == CORRECTIONS
    families: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in bh:
        if row["p"] is not None:
            families.setdefault((row["benchmark"], row["split"], row["part"]), []).append(row)
    for family in (family for family in families.values() if len(family) > 1):
        assert [row["p_adjusted"] for row in family] == pytest.approx(list(false_discovery_control([row["p"] for row in family])))
    assert {row["correction"] for row in holm} == {None, "holm"} and {row["correction"] for row in bh} == {None, "bh"}
    assert [row["p"] for row in holm] == [row["p"] for row in bh]
    lower = [(b["p_adjusted"], h["p_adjusted"]) for h, b in zip(holm, bh, strict=True) if h["p_adjusted"] != b["p_adjusted"]]
    assert lower and all(b < h for b, h in lower)
    tables = [harness(board_home, "show", "--parts", "--correction", correction).output for correction in CORRECTIONS]
    ps = [re.findall(r"p = 0\.\d+", table) for table in tables]
    assert len(ps[0]) == len(ps[1]) and ps[0] != ps[1]
    pages = [harness(board_home, "export", "--correction", correction).output for correction in CORRECTIONS]
    assert "Holm correction" in pages[0] and "Benjamini-Hochberg correction" in pages[1] and "Holm correction" not in pages[1]
    with pytest.raises(UsageError, match="hold none; use `export --format json`"):
        harness(board_home, "show", "--format", "json", "--correction", "bh")


def test_markdown_and_latex_show_those_numbers_row_by_row(exported: dict[str, str]) -> None:
    wanted = expected(exported)
    table = [line for line in exported["markdown"].splitlines() if line.startswith("| ")][2:]
    assert [numbers(line.split("|", 3)[3]) for line in table] == wanted
    body = exported["latex"].replace("$+$", "+").replace("$-$", "-").replace(r"$\pm$", "±")
    rows = [line for line in body.splitlines() if line.endswith(r"\\")][1:]
    assert [numbers(line.split("&", 2)[2]) for line in rows] == wanted


def test_the_html_file_shows_those_numbers_and_loads_nothing(exported: dict[str, str]) -> None:
    html = exported["html"]
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", html, re.DOTALL)
    said = []
    for row in rows:
        cells = re.findall(r"<td>(.*?)</td>", row, re.DOTALL)
        said.append([sorted(cell_numbers(cell)) for cell in cells if "score" in cell])
    by_row: dict[tuple[str, ...], list[list[str]]] = {}
    for r in json.loads(exported["json"]):
        delta = [] if r["delta"] is None else [f"{'+' if r['delta'] > 0 else '-' if r['delta'] < 0 else '±'}{abs(100 * r['delta']):.1f}"]
        cell = sorted([*(f"{100 * r[k]:.1f}" for k in ("score", "low", "high") if r[k] is not None), *delta])
        by_row.setdefault((r["model"], r["method"], r["settings"]), []).append(cell)
    assert [sorted(row) for row in said] == [sorted(cells) for cells in by_row.values()]
    assert "default-src 'none'" in html and not re.search(r"<script|<link|<img|src=|href=|url\(|@import", html)
    Checked().feed(html)


def cell_numbers(cell: str) -> list[str]:
    score = re.findall(r'class="score">([\d.]+)<', cell)
    bounds = re.findall(r">([\d.]+) to ([\d.]+)</span>", cell)
    chip = re.findall(r'class="chip \w+" tabindex="0">([^<]+)<', cell)
    return [*score, *(b for pair in bounds for b in pair), *(c.replace("\N{MINUS SIGN}", "-") for c in chip)]


class Checked(HTMLParser):
    """Refuses a document whose tags do not close in order."""

    void = frozenset({"meta", "br", "input", "rect", "line", "circle", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def test_show_prints_what_export_writes_and_the_board_equals_the_rows_of_single_runs(board_home: Path, exported: dict[str, str]) -> None:
    assert harness(board_home, "show", "--format", "csv", "--parts").output == exported["csv"]
    single = {row["run"]: row["score"] for row in json.loads(harness(board_home, "show", "--format", "json", "--benchmark", "gaia").output)}
    board = [r for r in json.loads(exported["json"]) if r["benchmark"] == "gaia" and not r["part"]]
    assert {r["runs"][0]: r["score"] for r in board} == single


def test_out_writes_a_file_and_a_folder_that_is_missing_is_said(board_home: Path, tmp_path: Path) -> None:
    target = tmp_path / "board.html"
    harness(board_home, "export", "--out", str(target))
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(UsageError, match="where.csv.*folder that exists"):
        harness(board_home, "export", "--out", str(tmp_path / "no" / "where.csv"), "--format", "csv")


def test_names_from_logs_cannot_break_a_format() -> None:
    board = build([measured("base", [1.0, 0.0], model=HOSTILE), measured("actguide", [1.0, 1.0], model=HOSTILE)])
    latex, markdown = to_latex(board), to_markdown(board)
    assert r"\textbar{}b \& \textless{}script" in latex and r"50\% \$\textbackslash{}input\{x\}\$ \_\{\textasciitilde{}" in latex
    assert all(line.count(" | ") == 2 for line in markdown.splitlines() if line.startswith("| ")) and "<script>" not in markdown.replace(
        "\\<", ""
    )
    assert next(csv.DictReader(io.StringIO(to_csv(board))))["model"] == HOSTILE == records(board)[0]["model"]
    assert "<script>" not in board_file(board, HOSTILE)


def test_an_empty_board_is_an_empty_file_of_each_kind() -> None:
    board = build([])
    assert records(board) == [] and to_csv(board).startswith("model,method") and "\\bottomrule" in to_latex(board)


@pytest.mark.slow
def test_latex_says_when_pdflatex_has_no_letters_for_a_name() -> None:
    plain, other = (to_latex(build([measured("base", [1.0, 0.0], model=name)])) for name in ("Gödel-8b", "模型-8b"))
    assert "lualatex" not in plain and "Gödel-8b" in plain and "lualatex" in other and "模型-8b" in other


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine: install texlive-latex-recommended")
def test_latex_compiles(exported: dict[str, str], tmp_path: Path) -> None:
    latin = measured("base", [1.0, 0.0], model="Gödel-Łódź-8b")
    board = build([measured("base", [1.0, 0.0], model=HOSTILE), measured("actguide", [1.0, 1.0], model=HOSTILE), latin])
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\n%s\\end{document}"
    (tmp_path / "board.tex").write_text(document % (exported["latex"], to_latex(board)), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "board.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:]
    assert (tmp_path / "board.pdf").stat().st_size > 10_000
