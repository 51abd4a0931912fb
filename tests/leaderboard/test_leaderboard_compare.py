"""Comparing: two runs question by question, two attempts turn by turn, two judges; unlike codes; the live log; gated sets."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from leaderboard_logs import Recipe, build, build_board, judge, search_set, start
from starlette.testclient import TestClient
from test_leaderboard_show import measured
from test_leaderboard_web import client

from harness.cipher import seal
from harness.events import Cursor, Kind, Recorder, read_events
from leaderboard.calibrations import read_calibrations, save_calibration
from leaderboard.database import default_url, open_database
from leaderboard.ingest import ingest_all
from leaderboard.report import print_board
from leaderboard.snapshot import Snapshot
from leaderboard.standings import Column, column_cells, differing_parts
from leaderboard.standings import build as build_standings
from leaderboard.store import Store
from leaderboard.web import live
from leaderboard.web.board import asked_board
from leaderboard.web.diff import parting_turn, parting_words
from leaderboard.web.findings import findings
from leaderboard.web.judges import kappa
from leaderboard.web.query import BoardQuery
from leaderboard.web.sample import ratio_words

BASE, RL = "tiny-base-s0", "tiny-actguide-s0"


@pytest.fixture(scope="module")
def pages(board_home: Path) -> TestClient:
    return client(board_home)


def turn(text: str, call: str = "", result: str = "") -> dict[str, Any]:
    actions = [{"name": "search", "arguments": {"query": call}}] if call else []
    return {"text": text, "actions": actions, "observations": [result] if result else [], "tool_errors": 0}


def test_two_runs_are_compared_on_every_shared_question(pages: TestClient) -> None:
    text = pages.get(f"/compare?a={RL}&b={BASE}").text
    assert (
        "A is ahead: right alone on 45, wrong alone on 0" in text
        and "exact McNemar, p\N{NO-BREAK SPACE}&lt;\N{NO-BREAK SPACE}0.001" in text
    )
    assert "a gap of about" in text and "A right, B wrong (45)" in text and "A wrong, B right (0)" in text and "1 to 40 of 45" in text
    assert text.count(">side by side<") == 40
    assert pages.get(f"/compare?a={RL}&b={BASE}&page=1").text.count(">side by side<") == 5
    mirrored = pages.get(f"/compare?a={BASE}&b={RL}&show=losses").text
    assert "B is ahead: right alone on 45" in mirrored and mirrored.count(">side by side<") == 40
    assert "No question is in this group" in pages.get(f"/compare?a={RL}&b={BASE}&show=losses").text


def test_a_comparison_of_runs_that_share_nothing_says_so(pages: TestClient) -> None:
    assert "share no question" in pages.get(f"/compare?a={BASE}&b=qwen3-8b-base-s0").text
    assert "Choose two runs" in pages.get("/compare").text and "Choose two runs" in pages.get("/compare?a=nothing").text


def test_unlike_codes_are_compared_with_a_warning_that_names_the_part(pages: TestClient) -> None:
    text = pages.get("/compare?a=qwen3-8b-zero-rl-s0&b=qwen3-8b-base-s0&benchmark=webwalkerqa").text
    assert "unlike settings: agent.max_turns 30, there 10" in text


def test_the_board_ranks_no_unlike_codes_together_and_says_what_differs(pages: TestClient) -> None:
    text = pages.get("/?benchmark=webwalkerqa").text
    assert text.count("ranked apart from the rest: measured under other settings (agent.max_turns 30, there 10; code beef0002)") == 1
    sorted_text = pages.get("/?benchmark=webwalkerqa&sort=webwalkerqa/test").text
    apart = sorted_text.index("Measured under other settings, code beef0002: a ranking of its own")
    assert (
        sorted_text.index("qwen3-8b + ActGuide-RL")
        < sorted_text.index("qwen3-8b base")
        < apart
        < sorted_text.index("qwen3-8b + RL (zero-RL)")
    )


def test_the_terminal_gives_the_reasons_of_unlike_settings_once(capsys: pytest.CaptureFixture[str]) -> None:
    apart = [measured(method, [0.0, 1.0], comparability="x", judge="llm") for method in ("sft", "opsd", "actguide")]
    print_board(build_standings([measured("base", [1.0, 0.0]), measured("zero-rl", [0.0, 1.0]), *apart]))
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("judge exact, there llm") == 1 == text.count("ranked apart from the rest, as above"), text


def test_a_code_whose_parts_were_not_recorded_is_told_by_judge_and_questions() -> None:
    ours, theirs = measured("base", [1.0]), measured("actguide", [1.0, 0.0], comparability="x", judge="llm")
    assert differing_parts(ours, theirs) == ["judge exact, there llm", "questions 1, there 2"]
    board = build_standings([ours, measured("zero-rl", [1.0]), measured("actguide", [0.0], comparability="x")])
    notes = [n for e in board.entries for c in e.cells.values() for n in c.notes if "ranked apart" in n]
    assert len(notes) == 1 and "the log does not say which part" in notes[0]
    parts = {"judge": "exact", "agent": {"max_turns": 10}}
    told = [replace(ours, code_parts=parts), replace(theirs, code_parts=parts | {"agent": {"max_turns": 30}})]
    assert differing_parts(*told) == ["agent.max_turns 10, there 30"]
    ranked = {e.method: e.cells[board.columns[0]].rank for e in board.entries}
    assert ranked["actguide"] is None and ranked["base"] is not None and ranked["base"].of == 2


def test_deltas_of_a_column_are_corrected_together() -> None:
    base, better = [0.0] * 20, [1.0] * 6 + [0.0] * 14
    alone = build_standings([measured("base", base), measured("actguide", better)])
    delta = alone.entries[1].cells[alone.columns[0]].to_base
    assert delta is not None and delta.distinguishable and delta.adjusted is None and delta.gap is not None
    both = build_standings([measured("base", base), measured("actguide", better), measured("zero-rl", better)])
    deltas = [e.cells[both.columns[0]].to_base for e in both.entries[1:]]
    assert [d.adjusted for d in deltas if d] == pytest.approx([2 * 0.03125] * 2) and not any(d.distinguishable for d in deltas if d)


def test_the_first_sentence_compares_no_unlike_codes() -> None:
    old, new = {"comparability": "old"}, {"comparability": "new", "at": "2026-02-01T00:00:00Z"}
    base = [measured("base", [0.0] * 30, **old), measured("base", [1.0] * 10 + [0.0] * 20, seed=1, **new)]
    left = measured("zero-rl", [1.0] * 29 + [0.0], **old)
    right = measured("actguide", [1.0] * 20 + [0.0] * 10, **new)
    (said,) = findings(build_standings([*base, left, right]))
    assert said.startswith("tiny: ActGuide-RL reaches 66.7% on miniweb test, from 33.3% for the base") and "96.7" not in said
    assert findings(build_standings([*base, left])) == []


def test_an_address_of_the_board_holds_its_whole_state(pages: TestClient) -> None:
    query = BoardQuery(view="forest", model="m", benchmark="gaia", unfold=(("gaia", "level"),), sort="gaia/test", reported=False)
    assert query.address() == "/?view=forest&model=m&benchmark=gaia&sort=gaia%2Ftest&unfold=gaia%3Alevel&reported=0"
    assert BoardQuery().address() == "/" and query.address(unfold=(), view="table").count("unfold") == 0
    text = pages.get("/?model=qwen3-8b&unfold=gaia&unfold=webwalkerqa").text
    heads = re.findall(r'class="sort"[^>]*>([^<]+)<', text)
    assert (
        heads == ["level 1", "level 2", "level 3", "all", "easy", "medium", "hard", "all"] and "smollm2" not in text.split("<table", 1)[1]
    )
    assert 'aria-sort="descending"' in pages.get("/?sort=gaia/test").text and 'aria-sort="ascending"' in pages.get("/?sort=-gaia/test").text
    assert "No row passes" in pages.get("/?model=unknown").text


def test_reported_rows_are_marked_never_ranked_and_can_be_left_out(pages: TestClient) -> None:
    text = pages.get("/?model=qwen3-8b").text
    rows = re.findall(r'<tr class="reported">.*?</tr>', text, re.DOTALL)
    assert len(rows) == 3 and "41.7" in rows[2] and not any("chip" in row or "rank" in row or "best" in row for row in rows)
    assert '<tr class="reported">' not in pages.get("/?model=qwen3-8b&reported=0").text
    reported = pages.get("/reported").text
    assert "arXiv 2605.12004" in reported and "51.28" in reported and "Table 8" in reported


def test_attempts_part_at_the_first_turn_that_differs() -> None:
    same, more = turn("look", "a", "page"), turn("more", "b")
    assert parting_turn([same, more], [same, more]) is None and parting_turn([same], [same, more]) == 1
    a, b = [same, turn("x", "one"), more], [same, turn("x", "two"), more]
    assert (
        parting_turn(a, b) == 1 and parting_words(a, b, 1) == "They part in turn 2 of 3 and 3: the same words met different tool results."
    )
    cases = {
        ("y", "one"): "the words differ, the calls are the same",
        ("y", "two"): "they make different calls",
        ("y", ""): "A calls a tool",
    }
    for (text, call), words in cases.items():
        assert words in parting_words([turn("x", "one")], [turn(text, call)], 0)
    assert parting_words([same], [same, more], 1) == "They are alike for 1 turn; then A had ended."
    assert "alike" in parting_words([same], [same], None)


def test_two_attempts_stand_side_by_side_from_where_they_part(pages: TestClient) -> None:
    address = re.search(r'href="(/diff[^"]+)"', pages.get(f"/compare?a={RL}&b={BASE}").text)
    assert address is not None
    text = pages.get(address[1].replace("&amp;", "&")).text
    assert "They part in turn 1" in text and "Here they part" in text and text.count('class="card turn"') >= 2
    assert pages.get(f"/diff?run_a={RL}&a=nothing&run_b={RL}&b=nothing").status_code == 404


def test_judges_agreement_and_calibration(board_home: Path, tmp_path: Path) -> None:
    text = client(board_home).get("/judges").text
    assert "42.9% (30.0 to 56.7)" in text and "of 49 attempts judged alike" in text and "harness judge calibrate --judge exact" in text
    rate = {"count": 1, "of": 40, "rate": 0.025, "low": 0.004, "high": 0.129}
    save_calibration(tmp_path, {"judge": "llm:x/y", "cases": 80, "false_accepts": rate, "false_rejects": rate})
    (tmp_path / "judges" / "broken.json").write_text("{", encoding="utf-8")
    assert set(read_calibrations(tmp_path)) == {"llm:x/y"} and read_calibrations(None) == {}
    (tmp_path / "runs").mkdir()
    calibrated = client(tmp_path).get("/judges").text
    assert "2.5% (0.4 to 12.9)" in calibrated and "none here" in calibrated
    assert "The judge exact was not checked" in client(board_home).get("/").text
    build(tmp_path / "runs", Recipe(model="tiny", method="base", questions=2))
    assert "The judge exact was not checked" in client(tmp_path).get("/").text
    save_calibration(tmp_path, {"judge": "exact", "cases": 80})
    assert "was not checked" not in client(tmp_path).get("/").text


def test_kappa_is_agreement_beyond_chance() -> None:
    assert kappa(20, 15, 5, 10) == pytest.approx(0.4)  # 0.7 observed, 0.5 by chance
    assert kappa(10, 10, 0, 0) == 1.0 and kappa(5, 0, 0, 0) is None and kappa(0, 0, 0, 0) is None


def test_a_regrade_shows_the_earlier_verdict_beside_the_current_one(board_home: Path) -> None:
    text = (
        client(board_home, show_gated=True)
        .get(f"/runs/qwen3-8b-base-s0/samples/{quote('qwen3-8b-base-s0/eval/webwalkerqa/test/0/3')}")
        .text
    )
    assert "Other judges" in text and "llm:verdict" in text and "judge llm:made-up" in text


def test_text_of_gated_sets_is_hidden_until_the_operator_says_otherwise(tmp_path: Path) -> None:
    with Recorder(tmp_path / "runs" / "g") as log:
        recipe = Recipe(model="m", method="base", name="g")
        start(log, recipe)
        search_set(log, recipe, "gaia", {"level": ("1", "2")}, 0.5)
        log.record(Kind.RUN, {"phase": "finished", "run_id": "g"})
    addresses = ["/runs/g/samples", "/runs/g/samples/g/eval/gaia/test/0/1", "/compare?a=g&b=g&show=all"]
    addresses.append("/diff?run_a=g&a=g/eval/gaia/test/0/1&run_b=g&b=g/eval/gaia/test/0/1")
    for address in addresses:
        hidden, shown = client(tmp_path).get(address).text, client(tmp_path, show_gated=True).get(address).text
        assert "made-up question" not in hidden and "answer 1" not in hidden and "made up" not in hidden and "hidden" in hidden, address
        assert "made-up question" in shown, address


def test_a_sealed_question_is_read_from_its_cipher_for_the_operator_only(tmp_path: Path) -> None:
    with Recorder(tmp_path / "runs" / "s") as log:
        start(log, Recipe(model="m", method="base", name="s"))
        row = {"attempt_id": "a", "task_id": "t", "question": "(withheld)", "web": "w", "gold": None, "tags": {}, "purpose": "eval"}
        row |= {"evaluation_id": None, "step": 0, "level": 0, "index": 0, "status": "answered", "answer": "x", "turns": [], "usage": {}}
        row |= {"hint": None, "blob": None, "detail": "", "sealed": seal("t", ["Which made-up lake?", ["Blue Lake"]])}
        log.record(Kind.ATTEMPT, row)
        log.record(Kind.ATTEMPT, row | {"attempt_id": "b", "sealed": "damaged"})
    hidden, shown = (client(tmp_path, show_gated=flag).get("/runs/s/samples/a").text for flag in (False, True))
    assert "made-up lake" not in hidden and "Which made-up lake?" in shown and "Blue Lake" in shown
    assert "(withheld)" in client(tmp_path, show_gated=True).get("/runs/s/samples/b").text


@pytest.mark.parametrize("file_bytes", [2**20, 1])  # the credit event lies in the attempt's own file, or in a later one
def test_tokens_show_their_own_ratios_where_the_log_holds_them(file_bytes: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "r"
    with Recorder(run_dir, rotate_bytes=file_bytes) as log:
        start(log, Recipe(model="m", method="actguide", name="r"))
        spans = [{"ids": [1, 2], "logprobs": [-1.0, -0.5], "version": 0, "finish": "stop"}]
        blob = log.blob({"contexts": [[1]], "target": [[1]], "spans": spans, "pieces": [["one ", "two"]]})
        row = {
            "attempt_id": "a",
            "task_id": "t",
            "question": "q",
            "web": "w",
            "gold": ["x"],
            "tags": {},
            "purpose": "probe",
            "evaluation_id": None,
        }
        row |= {
            "step": 0,
            "level": 1,
            "index": 0,
            "status": "answered",
            "answer": "x",
            "detail": "",
            "usage": {},
            "hint": "h",
            "blob": blob,
        }
        log.record(Kind.ATTEMPT, row | {"turns": [turn("one two")]})
        judge(log, "a", "exact", True)
        arrays = log.blob({"advantages": [0.9, -0.9], "ratios": [0.25, 1.2e-6]})
        credit = {"attempt_id": "a", "advantage": 0.9, "tokens": 2, "guided": True, "ratio_mean": 0.5, "trained": True, "blob": arrays}
        log.record(Kind.CREDIT, {"step": 0, "rows": [credit]})
    text = client(tmp_path).get("/runs/r/samples/a").text
    assert 'class="tok up2 o2" title="id 1, log-prob -1.000, advantage +0.90, ratio 0.250"' in text
    assert 'class="tok down2 o1" title="id 2, log-prob -0.500, advantage -0.90, ratio 1.2e-06"' in text
    assert '<td class="num">0.250</td>' in text and '<td class="num">1.2e-06</td>' in text


@pytest.mark.parametrize(
    ("ratio", "words"), [(1.0, "1.000"), (0.25, "0.250"), (0.01, "0.010"), (0.00987, "9.9e-03"), (1.23e-6, "1.2e-06"), (0.0, "0.000")]
)
def test_a_ratio_is_shown_to_two_digits_however_small_it_is(ratio: float, words: str) -> None:
    assert ratio_words(ratio) == words


@pytest.mark.parametrize(
    ("advantage", "words"),
    [
        (0.9, "Trained: advantage +0.90, mean ratio 0.500. Its tokens were made more likely"),
        (-0.9, "made less likely"),
        (0.0, "In the batch with advantage 0"),
        (None, "Trained by a loss that takes neither advantage nor ratio."),
    ],
)
def test_what_was_trained_is_said_of_every_kind_of_loss(advantage: float | None, words: str, tmp_path: Path) -> None:
    with Recorder(tmp_path / "runs" / "r") as log:
        start(log, Recipe(model="m", method="opsd", name="r"))
        spans = [{"ids": [1], "logprobs": [-1.0], "version": 0, "finish": "stop"}]
        blob = log.blob({"contexts": [[1]], "target": [[1]], "spans": spans, "pieces": [["one"]]})
        row = {"attempt_id": "a", "task_id": "t", "question": "q", "web": "w", "gold": ["x"], "tags": {}, "purpose": "train", "blob": blob}
        row |= {"evaluation_id": None, "step": 0, "level": 0, "index": 0, "status": "answered", "answer": "x", "detail": "", "usage": {}}
        log.record(Kind.ATTEMPT, row | {"turns": [turn("one")], "hint": None})
        ratio = None if advantage is None else 0.5
        credit = {
            "attempt_id": "a",
            "advantage": advantage,
            "tokens": 1,
            "guided": False,
            "ratio_mean": ratio,
            "trained": True,
            "blob": None,
        }
        log.record(Kind.CREDIT, {"step": 0, "rows": [credit]})
    text = client(tmp_path).get("/runs/r/samples/a").text
    assert words in text and "1 sampled tokens, trained" in text


def test_the_stream_of_a_run_goes_on_where_the_reader_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.01)
    run_dir = build(tmp_path / "runs", Recipe(model="tiny", method="actguide", steps=5, groups=2, questions=2))

    async def read(after: Cursor, most: int) -> list[str]:
        found: list[str] = []
        async for text in live.follow(run_dir, after):
            found.append(text)
            if len(found) == most:
                break
        return found

    whole = anyio.run(read, Cursor(), 10_000)
    cut = anyio.run(read, Cursor(), 4)
    place = re.search(r"^id: (.*)$", cut[-1], re.MULTILINE)
    assert place is not None
    resumed = live.parse_cursor(place[1])
    assert resumed is not None
    rest = anyio.run(read, resumed, 10_000)
    assert cut + rest[1:] == whole and whole[0].startswith("retry:")  # nothing lost, nothing twice
    assert 'event: end\ndata: "finished"' in whole[-1] and sum("step 3," in text for text in whole) == 1


def test_a_forged_cursor_and_a_forged_line_do_no_harm() -> None:
    for text in (None, "", "x", "[]", '{"a": -1}', '{"a": "b"}', "1"):
        assert live.parse_cursor(text) is None
    assert live.message("log", "x\n\nevent: end\ndata: 1").count("\n") == 3


def test_the_event_stream_answers_over_http_and_ends_with_the_run(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", Recipe(model="tiny", method="base", questions=2, name="r"))
    browser = client(tmp_path)
    browser.get("/runs")
    answer = browser.get("/runs/r/events")
    assert answer.headers["content-type"].startswith("text/event-stream") and answer.headers["cache-control"] == "no-store"
    assert answer.text.count("event: log") == 4 and "event: end" in answer.text  # start, evaluation started and finished, end
    last = str(list(read_events(run_dir))[-2][0])
    assert browser.get("/runs/r/events", headers={"Last-Event-ID": last}).text.count("event: log") == 1
    assert browser.get("/runs/nothing/events").status_code == 404


def test_the_board_is_made_anew_only_when_the_database_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = Store.measurements
    monkeypatch.setattr(Store, "measurements", lambda self: made.append(1) or original(self))
    monkeypatch.setattr("leaderboard.web.app.READ_ON_SECONDS", 0.0)
    monkeypatch.setattr("leaderboard.web.cache.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("leaderboard.web.cache.PATIENCE_SECONDS", 60.0)
    build(tmp_path / "runs", Recipe(model="a", method="base", questions=2))
    browser = client(tmp_path)
    assert browser.get("/").text == browser.get("/").text and len(made) == 1
    build(tmp_path / "runs", Recipe(model="b", method="base", questions=2))
    assert ">b<" in browser.get("/").text and len(made) == 2
    assert browser.get("/?view=forest").status_code == browser.get("/compare").status_code == 200 and len(made) == 2


def test_a_new_result_costs_its_own_column_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(column: Column, *rest: Any) -> Any:
        asked.append(column.benchmark)
        return column_cells(column, *rest)

    monkeypatch.setattr("leaderboard.snapshot.column_cells", counted)
    build_board(tmp_path)
    engine = open_database(default_url(tmp_path))
    ingest_all(engine, tmp_path / "runs")
    store = Store(engine)
    first = Snapshot(store)
    board, _ = asked_board(first, BoardQuery())
    assert set(asked) == {c.benchmark for c in board.columns} and len(asked) == len(board.columns) > 1
    asked.clear()
    between = Snapshot(store, before=first)  # which nobody asks for anything
    again, _ = asked_board(Snapshot(store, before=between), BoardQuery())
    assert asked == [] and again == board
    build(tmp_path / "runs", Recipe(model="new", method="base", questions=5))  # on miniweb alone
    ingest_all(engine, tmp_path / "runs")
    fuller, _ = asked_board(Snapshot(store, before=first), BoardQuery())
    assert asked == ["miniweb"] and len(fuller.entries) == len(board.entries) + 1
    asked.clear()
    asked_board(Snapshot(store, before=first), BoardQuery(correction="bh"))
    assert len(asked) == len(board.columns)


def test_the_address_chooses_how_many_tests_are_corrected(pages: TestClient) -> None:
    base, better, best = [0.0] * 20, [1.0] * 6 + [0.0] * 14, [1.0] * 8 + [0.0] * 12  # p = 0.03125 twice, and 0.0078125
    four = [measured("base", base), measured("zero-rl", better), measured("sft", better), measured("actguide", best)]

    def deltas(correction: str) -> dict[str, tuple[float | None, bool]]:
        board = build_standings(four, cells=partial(column_cells, correction=correction))
        found = {e.method: e.cells[board.columns[0]].to_base for e in board.entries}
        return {method: (delta.adjusted, delta.distinguishable) for method, delta in found.items() if delta is not None}

    assert deltas("holm") == {"zero-rl": (0.0625, False), "sft": (0.0625, False), "actguide": (0.0234375, True)}
    assert deltas("bh") == {"zero-rl": (0.03125, True), "sft": (0.03125, True), "actguide": (0.0234375, True)}
    holm, bh = (pages.get(f"/?model=qwen3-8b&unfold=webwalkerqa{extra}").text for extra in ("", "&correction=bh"))
    assert "after the Holm correction over the column" in holm and "Benjamini-Hochberg correction" not in holm
    assert "after the Benjamini-Hochberg correction over the column" in bh and "correction=bh" in bh


def test_vendored_files_are_the_published_ones_and_bring_their_licences() -> None:
    import hashlib
    import json
    from importlib.resources import files

    folder = files("leaderboard.web") / "static" / "vendor"
    for name, origin in json.loads((folder / "manifest.json").read_text()).items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == origin["sha256"], name
        licence = (folder / f"{name.split('.')[0]}.LICENSE").read_text()
        assert {"0BSD": "Zero-Clause BSD", "MIT": "Permission is hereby granted"}[origin["license"]] in licence
