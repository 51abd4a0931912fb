"""``harness leaderboard show``, ``rebuild`` and the board they print."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from leaderboard_logs import Recipe, build
from scipy import stats as reference

from harness.cli.leaderboard import leaderboard
from harness.errors import UsageError
from leaderboard.report import print_board
from leaderboard.standings import Measurement
from leaderboard.standings import build as build_standings


def harness(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(leaderboard, arguments, env={"HARNESS_HOME": str(home), "COLUMNS": "120"}, catch_exceptions=False)


def measured(method: str, values: list[float], seed: int = 0, **changes: object) -> Measurement:
    fields: dict[str, object] = {"run_id": f"{method}-{seed}", "evaluation_id": "e", "model": "tiny", "method": method, "recipe": "r"}
    fields |= {"seed": seed, "benchmark": "miniweb", "split": "test", "step": 4, "n": len(values), "judge": "exact", "comparability": "c"}
    fields |= {"at": "2026-01-01T00:00:00Z", "verdicts": {f"t{i}": v for i, v in enumerate(values)}}
    return Measurement(**{**fields, **changes})  # type: ignore[arg-type]


def test_json_rows_carry_the_promised_keys_and_wilson_bounds(tmp_path: Path) -> None:
    build(tmp_path / "runs", Recipe(model="tiny", method="base"))
    build(tmp_path / "runs", Recipe(model="tiny", method="actguide", steps=2, groups=2, seed=3))
    rows = json.loads(harness(tmp_path, "show", "--format", "json").output)
    assert len(rows) == 2
    for row in rows:
        assert {"model", "method", "benchmark", "split", "metric", "score", "low", "high", "n", "run", "seed"} <= set(row)
        hits = round(row["score"] * row["n"])
        expected = reference.binomtest(hits, row["n"]).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    trained = next(row for row in rows if row["method"] == "actguide")
    assert (trained["model"], trained["benchmark"], trained["split"], trained["metric"]) == ("tiny", "miniweb", "test", "pass@1")
    assert (trained["n"], trained["run"], trained["seed"]) == (100, "tiny-actguide-s3", 3)


def test_json_of_an_empty_home_is_an_empty_list_and_the_table_teaches_the_next_command(tmp_path: Path) -> None:
    assert json.loads(harness(tmp_path, "show", "--format", "json").output) == []
    assert "make demo" in harness(tmp_path, "show").output


def test_filters_narrow_the_rows(board_home: Path) -> None:
    rows = json.loads(harness(board_home, "show", "--format", "json", "--model", "tiny", "--method", "zero-rl").output)
    assert [row["seed"] for row in rows] == [0, 1, 2]
    (row,) = json.loads(harness(board_home, "show", "--format", "json", "--run", "tiny-base-s0").output)
    assert row["method"] == "base"
    assert {r["part"] for r in json.loads(harness(board_home, "show", "--format", "json", "--parts", "--benchmark", "miniweb").output)} == {
        *("", "hops=3", "hops=4")
    }


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [
        ("model", "tyni", "tiny"),
        ("benchmark", "minweb", "miniweb"),
        ("method", "zero-lr", "zero-rl"),
        ("run", "tiny-base-s9", "tiny-base-s"),
    ],
)
@pytest.mark.parametrize("command", [["show"], ["show", "--format", "json"], ["export", "--format", "csv"]], ids=" ".join)
def test_a_name_that_no_row_has_gets_the_nearest_one(board_home: Path, command: list[str], kind: str, name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"no evaluation has the {kind} '{name}'. Did you mean '{near}"):
        harness(board_home, *command, f"--{kind}", name)


def test_names_that_no_row_has_together_are_said_and_an_empty_board_says_how_to_fill_it(board_home: Path, tmp_path: Path) -> None:
    output = harness(board_home, "show", "--model", "tiny", "--run", "smollm2-135m-base-s0").output
    assert "No finished evaluation has model 'tiny', run 'smollm2-135m-base-s0'." in output and "make demo" not in output
    assert "make demo" in harness(tmp_path, "show", "--model", "tiny").output


def test_the_table_groups_by_model_and_signs_the_delta(board_home: Path) -> None:
    output = harness(board_home, "show").output
    assert output.index("smollm2-135m") < output.index("tiny")
    assert "+45.7 p < 0.001" in output and "not distinguishable" in output and "3 seeds" in output


def test_the_smallest_delta_that_would_be_found_is_explained_where_it_stands_and_nowhere_else(
    board_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "the smallest delta that these questions find four times in five"
    output = " ".join(harness(board_home, "show").output.split())
    assert "finds \N{GREATER-THAN OR EQUAL TO} 12.3: " + said in output and output.count("finds \N{GREATER-THAN OR EQUAL TO}") > 1
    print_board(build_standings([measured("base", [0.0, 1.0])]))
    alone = " ".join(capsys.readouterr().out.split())
    assert "95% interval in brackets" in alone and said not in alone


def test_columns_that_do_not_fit_the_terminal_follow_below(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"benchmark-{i}" for i in range(7)]
    print_board(build_standings([measured("base", [0.0, 1.0], benchmark=name, run_id=name) for name in names]))
    shown = capsys.readouterr().out
    assert all(f"{name} test" in shown for name in names) and shown.count("50.0") == 7
    assert max(map(len, shown.splitlines())) <= 80


def test_rebuild_says_what_it_read(tmp_path: Path) -> None:
    build(tmp_path / "runs", Recipe(model="tiny", method="base", questions=5))
    assert "Rebuilt from 14 events" in harness(tmp_path, "rebuild").output
    assert os.path.exists(tmp_path / "leaderboard.sqlite")


def test_the_delta_is_paired_with_the_base_of_the_same_comparability_code() -> None:
    base, better = [0.0] * 20, [1.0] * 12 + [0.0] * 8
    board = build_standings([measured("base", base), measured("actguide", better)])
    cell = board.entries[1].cells[board.columns[0]]
    assert cell.to_base is not None and cell.to_base.delta == pytest.approx(0.6) and cell.to_base.p == pytest.approx(2 * 0.5**12)
    other = build_standings([measured("base", base, comparability="x"), measured("actguide", better)])
    cell = other.entries[1].cells[other.columns[0]]
    assert cell.to_base is None and any("no base" in note for note in cell.notes)


def test_seeds_of_one_recipe_are_one_entry_and_another_recipe_is_labelled() -> None:
    short = [measured("actguide", [1.0, 0.0], seed=s, recipe="a", config={"steps": 2}) for s in (0, 1)]
    long = measured("actguide", [1.0, 1.0], recipe="b", config={"steps": 40})
    board = build_standings([*short, long])
    assert [(e.seeds, e.label) for e in board.entries] == [((0, 1), "steps 2"), ((0,), "steps 40")]


def test_entries_that_the_test_cannot_separate_from_the_best_are_ties() -> None:
    base, a, b = [0.0] * 40, [1.0] * 20 + [0.0] * 20, [1.0] * 21 + [0.0] * 19
    board = build_standings([measured("base", base), measured("zero-rl", a), measured("actguide", b)])
    ranks = {e.method: e.cells[board.columns[0]].rank_words for e in board.entries}
    assert ranks == {"base": "rank 3", "zero-rl": "tied with the best", "actguide": "best, tied"}


def test_of_repeated_runs_of_one_recipe_and_seed_the_latest_counts() -> None:
    old = measured("base", [0.0, 0.0])
    new = measured("base", [1.0, 1.0], run_id="again", at="2026-02-01T00:00:00Z")
    board = build_standings([new, old])
    (entry,) = board.entries
    assert entry.cells[board.columns[0]].score.value == 1.0
