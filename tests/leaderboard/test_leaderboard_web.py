"""The pages: what they show, how they fail, and that hostile text stays text."""

import html
import json
import random
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from leaderboard_logs import Episode, Recipe, build, evaluate, record_attempt, start
from starlette.testclient import TestClient

from harness.errors import HarnessError
from harness.events import Kind, Recorder
from leaderboard.database import default_url, open_database
from leaderboard.records import GroupInfo, RunInfo
from leaderboard.store import Store
from leaderboard.web.app import Site, create_app
from leaderboard.web.charts import line_chart, nice_top, scale
from leaderboard.web.rescue import MOST_CELLS, rescue_map
from leaderboard.web.run import run_status
from leaderboard.web.security import host_name
from leaderboard.web.server import listen

RUN = "/runs/tiny-actguide-s0"
PAYLOADS = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror=window.hacked=1>',
    "'><svg onload=window.hacked=1>",
    "</title><script>window.hacked=1</script>",
    "</pre></details><iframe srcdoc='<script>parent.hacked=1</script>'>",
    "{{ 7 * 7 }}{% raise %}",
    "<a href='javascript:window.hacked=1'>x</a>",
    "<style>*{display:none}</style><meta http-equiv=refresh content='0;url=//example.org'>",
    "\u202e<base href=//example.org>&lt;b&gt;",
)


def client(home: Path, **changes: Any) -> TestClient:
    site = Site(engine=open_database(default_url(home)), runs_dir=home / "runs", **changes)
    return TestClient(create_app(site), base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture(scope="session")
def pages(board_home: Path) -> TestClient:
    return client(board_home)


def hostile_run(home: Path) -> Path:
    """A run in which everything that a model, a page, a task or a judge can write is a payload."""
    run_dir = home / "runs" / "hostile"
    everything = " ".join(PAYLOADS)
    recipe = Recipe(model=PAYLOADS[0], method=PAYLOADS[1], questions=3, name="hostile")
    with Recorder(run_dir) as log:
        start(log, recipe)
        head = {"evaluation_id": PAYLOADS[2], "benchmark": PAYLOADS[3], "split": PAYLOADS[4], "step": 0, "n": 3, "judge": PAYLOADS[5]}
        head |= {"model": PAYLOADS[0], "method": PAYLOADS[1], "seed": 0, "comparability": PAYLOADS[6]}
        log.record(Kind.EVALUATION, {"phase": "started", **head})
        for i, payload in enumerate(PAYLOADS):
            turn = {"text": f"<think>{everything}</think>{everything}", "tool_errors": 0, "observations": [everything]}
            turn["actions"] = [{"name": payload, "arguments": {payload: everything}}]
            pieces = [[everything]]
            spans = [{"ids": [1], "logprobs": [-1.0], "version": 0, "finish": "stop"}]
            ref = log.blob({"contexts": [[1]], "target": [[1]], "spans": spans, "pieces": pieces})
            attempt = {"attempt_id": f"{payload}?#%z{i}", "task_id": payload, "question": everything, "web": "w", "gold": [everything]}
            attempt |= {"tags": {payload: payload}, "purpose": "eval", "evaluation_id": PAYLOADS[2], "step": 0, "level": 0, "index": i}
            attempt |= {
                "status": payload[:20],
                "answer": everything,
                "detail": everything,
                "turns": [turn],
                "usage": {},
                "hint": everything,
            }
            log.record(Kind.ATTEMPT, attempt | {"blob": ref})
            verdict = {"attempt_id": attempt["attempt_id"], "judge": payload, "value": float(i % 2), "status": "judged", "layer": payload}
            log.record(Kind.JUDGEMENT, verdict | {"detail": everything})
        log.record(Kind.EVALUATION, {"phase": "finished", **head})
        group = {"group_id": "g", "step": 0, "task_id": PAYLOADS[0], "outcome": "rescued", "level": 1, "max_level": 2, "members": []}
        log.record(Kind.GROUP, group | {"probes": [], "generated_tokens": 1})
        log.record(Kind.STEP, {"step": 0, "metrics": {PAYLOADS[1]: 1.0}, "histograms": {}})
        log.record(Kind.RUN, {"phase": "failed", "run_id": "hostile", "error": everything})
    return run_dir


def hostile_addresses(home: Path) -> list[str]:
    attempts = [f"/runs/hostile/samples/{quote(f'{p}?#%z{i}')}" for i, p in enumerate(PAYLOADS)]
    search = f"/runs/hostile/samples?task={quote(PAYLOADS[0])}&step=0"
    return ["/", "/?view=forest", f"/?unfold={quote(PAYLOADS[3])}", "/runs", "/runs/hostile", "/runs/hostile/samples", search, *attempts]


def without_own_scripts(text: str) -> str:
    """A page without the script elements that this site's templates hold: empty, deferred, from /static/."""
    return re.sub(r'<script src="/static/[\w./-]+" defer></script>', "", text)


def test_the_board_shows_scores_intervals_deltas_and_ties(pages: TestClient) -> None:
    text = pages.get("/").text
    assert "<title>Board" in text and "<caption>" in text
    assert '<span class="chip up"' in text and "+45.7" in text and "▲" in text
    assert '<span class="chip unclear"' in text and "not distinguishable, needs about" in text
    assert "tied with the best" in text and "ahead on" in text


def test_the_forest_plot_marks_the_base_and_unfolding_adds_columns(pages: TestClient) -> None:
    assert "dashed line marks the base" in pages.get("/?view=forest").text
    assert "hops 3" not in pages.get("/").text
    assert "hops 3" in pages.get("/?unfold=miniweb").text


def test_an_empty_board_teaches_the_next_command(tmp_path: Path) -> None:
    empty = client(tmp_path)
    assert "make demo" in empty.get("/").text and "make demo" in empty.get("/runs").text


def test_the_run_page_holds_the_map_its_sibling_the_curves_and_their_tables(pages: TestClient) -> None:
    text = pages.get(RUN).text
    for words in (
        "Rescue map",
        "rescued at level",
        "+ RL (zero-RL)",
        "Trainable groups",
        "Guided ratios",
        "Gradient lost on guided tokens",
        "to the clip",
        "Probes",
        "Tokens of probes",
        "without",
        "Level that rescued",
        "Evaluations",
    ):
        assert words in text
    assert text.count("<figure") == text.count("<summary>Table</summary>")
    assert 'http-equiv="refresh"' not in text


def test_only_a_live_run_refreshes(tmp_path: Path) -> None:
    build(tmp_path / "runs", Recipe(model="tiny", method="actguide", steps=3, groups=3, finished=False))
    text = client(tmp_path).get(RUN).text
    assert '<meta http-equiv="refresh" content="10">' in text and "this page follows the run" in text


def test_a_run_that_fell_silent_is_not_called_live() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    fields: dict[str, Any] = dict.fromkeys(RunInfo.__dataclass_fields__)
    run = RunInfo(**{**fields, "status": "started", "updated_at": at.isoformat()})
    assert run_status(run, at + timedelta(seconds=30)).kind == "live"
    silent = run_status(run, at + timedelta(hours=3, minutes=5))
    assert silent.kind == "silent" and silent.words == "silent for 3 h 5 min" and "--resume" in silent.advice


def test_samples_filter_by_purpose_and_verdict(pages: TestClient) -> None:
    right = pages.get(f"{RUN}/samples?purpose=eval&verdict=right").text
    assert "of 47" in right and "verdict wrong" not in right
    assert "of 53" in pages.get(f"{RUN}/samples?purpose=eval&verdict=wrong&page=1").text
    assert "No attempt passes this filter" in pages.get(f"{RUN}/samples?task=nothing").text


def test_a_trained_guided_sample_shows_hint_tint_credit_and_verdict(pages: TestClient) -> None:
    listed = pages.get(f"{RUN}/samples?purpose=probe").text
    address = re.search(r'href="([^"]+/samples/probe/[^"]+)"', listed)
    assert address is not None
    text = pages.get(address[1]).text
    for words in ("behaviour view only", "Plan:", 'class="tok up2 o', "advantage +0.94", "exact:alias", "decided by", "log-prob"):
        assert words in text, words


def test_an_unguided_evaluation_sample_has_no_hint_and_no_tint(pages: TestClient) -> None:
    listed = pages.get(f"{RUN}/samples?purpose=eval").text
    address = re.search(r'href="([^"]+/samples/[^"]*eval[^"]+)"', listed)
    assert address is not None
    text = pages.get(address[1]).text
    assert "behaviour view only" not in text and 'class="tok"' in text and "Trained" not in text


def test_gold_of_a_gated_set_is_hidden(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "gated"
    with Recorder(run_dir) as log:
        start(log, Recipe(model="tiny", method="base", name="gated"))
        payload = {"attempt_id": "a", "task_id": "t", "question": "q", "web": "w", "gold": None, "tags": {}, "purpose": "eval"}
        payload |= {"evaluation_id": None, "step": 0, "level": 0, "index": 0, "status": "answered", "answer": "x", "turns": [], "usage": {}}
        log.record(Kind.ATTEMPT, payload | {"hint": None, "blob": None, "detail": ""})
    assert "hidden: a gated set" in client(tmp_path).get("/runs/gated/samples/a").text


def test_a_sample_whose_run_directory_is_gone_says_so(tmp_path: Path) -> None:
    run_dir = build(tmp_path / "runs", Recipe(model="tiny", method="base", questions=2))
    address = "/runs/tiny-base-s0/samples/tiny-base-s0/eval/miniweb/test/0/test-000/k0/0"
    assert "Turn 1" in client(tmp_path).get(address).text
    (run_dir / "events").rename(run_dir / "elsewhere")
    found = client(tmp_path).get(address)
    assert found.status_code == 200 and "moved or deleted" in found.text


ODD_IDS = ("a\nb", "ab", "ends\n", "/a", "a", "a//b", "a/", "a/../b", "..", "a?b#c", "100%", "\u2028", "a\\b")


class Odd(Episode):
    """An attempt whose id is its task's."""

    @property
    def attempt_id(self) -> str:
        return self.task_id


def test_an_attempt_is_found_whatever_its_id_holds(tmp_path: Path) -> None:
    run_dir, rng = tmp_path / "runs" / "odd", random.Random(0)
    with Recorder(run_dir) as log:
        start(log, Recipe(model="m", method="base", name="odd"))
        for number, odd in enumerate(ODD_IDS):
            record_attempt(log, Odd(task_id=odd, question=f"question {number}", hops=2, right=True), rng)
    browser = client(tmp_path)
    listed = browser.get("/runs/odd/samples").text
    links = [html.unescape(link) for link in re.findall(r'href="(/runs/odd/(?:samples/|sample\?)[^"]*)"', listed)]
    assert len(links) == len(ODD_IDS)
    shown = set()
    for link in links:
        assert not {".", ".."} & {*link.partition("?")[0].split("/")}, link  # a browser would fold them
        answer = browser.get(link)
        assert answer.status_code == 200, link
        shown |= {int(number) for number in re.findall(r"question (\d+)</p>", answer.text)}
    assert shown == {*range(len(ODD_IDS))}


def test_unknown_addresses_get_a_calm_page(pages: TestClient) -> None:
    for address in ("/runs/nothing", f"{RUN}/samples/nothing", "/nothing", "/runs/nothing/samples"):
        found = pages.get(address)
        assert found.status_code == 404 and "<h1>Not found</h1>" in found.text and "Traceback" not in found.text


def test_every_answer_carries_the_strict_policy(pages: TestClient) -> None:
    for address in ("/", RUN, "/nothing", "/static/style.css"):
        headers = pages.get(address).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline(pages: TestClient) -> None:
    for address in ("/", "/?view=forest", "/runs", RUN, f"{RUN}/samples"):
        text = pages.get(address).text
        assert not re.search(r"<script|\sstyle=|\son\w+=|(?:src|href)=\"(?:https?:)?//", without_own_scripts(text))


def test_a_foreign_host_is_refused(pages: TestClient) -> None:
    refused = pages.get("/", headers={"Host": "evil.example"})
    assert refused.status_code == 421 and "nosniff" in refused.headers["x-content-type-options"]
    assert pages.get("/", headers={"Host": "localhost:8765"}).status_code == 200
    assert pages.get("/", headers={"Host": "[::1]:8765"}).status_code == 200
    assert host_name("[::1]:80") == "::1" and host_name("LocalHost:1") == "localhost"


def test_what_another_site_sends_is_refused(pages: TestClient) -> None:
    refused = pages.get("/", headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403 and refused.headers["content-security-policy"].startswith("default-src 'none'")
    assert pages.get("/", headers={"Origin": "null"}).status_code == 403
    assert pages.get("/", headers={"Origin": "http://127.0.0.1"}).status_code == 200


def test_an_unchanged_page_is_not_sent_again_and_a_fresh_one_not_made_again(board_home: Path) -> None:
    visitor = client(board_home)
    first = visitor.get("/runs")
    assert first.headers["cache-control"] == "no-cache" and first.headers["etag"]
    again = visitor.get("/runs", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b"" and "content-security-policy" in again.headers
    assert "etag" not in visitor.get("/nothing").headers and "etag" in visitor.get("/runs?model=tiny").headers


def test_only_reading_is_possible(pages: TestClient) -> None:
    assert pages.post("/").status_code == 405


def test_hostile_text_stays_text_on_every_page(tmp_path: Path) -> None:
    hostile_run(tmp_path)
    browser = client(tmp_path)
    for address in hostile_addresses(tmp_path):
        found = browser.get(address)
        assert found.status_code == 200, address
        assert not re.search(r"<(script|img|iframe|base|style)\b", without_own_scripts(found.text)), address
        assert not re.search(r"<[^>]*\son(error|load)\s*=", re.sub(r'"[^"]*"', '""', found.text)), address
        assert "&lt;script&gt;" in found.text and 'href="javascript' not in found.text
    assert "{{ 7 * 7 }}" in browser.get(hostile_addresses(tmp_path)[-1]).text


def test_bytes_that_no_page_can_hold_are_replaced(tmp_path: Path) -> None:
    broken = "half \ud83d and nul \x00 end"
    with Recorder(tmp_path / "runs" / "broken") as log:
        start(log, Recipe(model=broken, method="base", name="broken"))
        turn = {"text": broken, "actions": [{"name": broken, "arguments": {broken: broken}}], "observations": [broken], "tool_errors": 0}
        payload = {"attempt_id": "a", "task_id": broken, "question": broken, "web": "w", "gold": [broken], "tags": {broken: broken}}
        payload |= {"purpose": "eval", "evaluation_id": None, "step": 0, "level": 0, "index": 0, "status": "answered", "answer": broken}
        log.record(Kind.ATTEMPT, payload | {"turns": [turn], "usage": {}, "hint": broken, "blob": None, "detail": broken})
        log.record(Kind.JUDGEMENT, {"attempt_id": "a", "judge": "j", "value": 1.0, "status": "judged", "layer": "x", "detail": broken})
        log.record(Kind.RUN, {"phase": "failed", "run_id": "broken", "error": broken})
    for address in ("/runs", "/runs/broken", "/runs/broken/samples", "/runs/broken/samples/a"):
        found = client(tmp_path).get(address)
        assert found.status_code == 200 and "half \ufffd and nul \ufffd end" in found.text, address


def test_pages_follow_a_growing_log(tmp_path: Path) -> None:
    recipe = Recipe(model="tiny", method="base", questions=3, name="live")
    with Recorder(tmp_path / "runs" / "live") as log:
        start(log, recipe)
        browser = client(tmp_path)
        assert "no attempt passes" in browser.get("/runs/live/samples").text.lower()
        record_attempt(log, Episode(task_id="t", question="Where?", hops=2, right=True, purpose="eval"), random.Random(0))
        evaluate(log, recipe, 1.0, random.Random(0))
    assert "Where?" in client(tmp_path).get("/runs/live/samples").text


def test_a_damaged_log_does_not_hide_the_other_runs(tmp_path: Path) -> None:
    damaged = build(tmp_path / "runs", Recipe(model="a", method="base", questions=2))
    build(tmp_path / "runs", Recipe(model="z", method="base", questions=2))
    with next((damaged / "events").glob("*.jsonl")).open("ab") as file:
        file.write(b"not json\n")
    text = client(tmp_path).get("/").text
    assert "z" in [row.model for row in Store(open_database(default_url(tmp_path))).runs()] and ">z<" in text


def test_a_taken_port_names_the_port_and_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(HarnessError, match=rf"port {port} on 127.0.0.1 is in use.*--port") as refusal:
            listen("127.0.0.1", port)
    assert refusal.value.exit_code == 1


def test_answers_are_sent_at_once() -> None:
    with listen("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP  # what asyncio asks before it sets TCP_NODELAY on a connection


def test_axis_marks_cover_the_values_and_are_round() -> None:
    assert scale(0.0, 0.52) == (0.0, 0.6000000000000001, [0.0, 0.2, 0.4, 0.6000000000000001])
    assert scale(0.0, 0.0)[:2] == (0.0, 1.0)
    low, high, marks = scale(-3.0, 41.0)
    assert low <= -3 and high >= 41 and 3 <= len(marks) <= 6
    assert [nice_top(v) for v in (0.05, 0.11, 0.6, 0.61, 0.9, 1.0)] == [0.1, 0.2, 0.6, 0.8, 1.0, 1.0]


def test_a_chart_of_one_step_and_of_equal_values_is_drawn() -> None:
    one = line_chart("t", "u", [("a", [(3, 0.5)])])
    flat = line_chart("t", "u", [("a", [(0, 0.0), (1, 0.0)]), ("b", [])])
    assert one is not None and (one.rows, one.numbers) == ((("3", "0.5"),), "[[3],[0.5]]") and flat is not None and len(flat.lines) == 1
    assert line_chart("t", "u", [("a", [])]) is None
    long = line_chart("t", "u", [("a", [(i, i / 8) for i in range(999)]), ("b", [(7, 1.0)])])
    assert long is not None and (len(long.rows), long.rows[-1], long.stride) == (201, ("998", "125", ""), 5)
    assert [len(column) for column in json.loads(long.numbers)] == [999, 999, 999]


def test_the_map_orders_tasks_by_first_solution_and_stacks_where_tasks_rarely_return() -> None:
    def group(step: int, task: str, outcome: str, level: int | None = None) -> GroupInfo:
        return GroupInfo(step=step, task_id=task, outcome=outcome, level=level, max_level=3)

    late = [group(0, "late", "failed"), group(1, "late", "rescued", 2), group(2, "late", "solved")]
    early = [group(0, "early", "rescued", 3), group(1, "early", "solved"), group(2, "early", "solved")]
    drawn = rescue_map("run", "x", late + early)
    assert drawn is not None and drawn.arrangement == "tasks"
    rows = {
        c.words.split(",")[1].split(":")[0].strip(): float(re.split("[hl]", c.path)[0].split()[1])
        for c in drawn.cells
        if c.kind == "solved"
    }
    assert rows["early"] < rows["late"] and "rescued at level 2 of 3" in "".join(c.words for c in drawn.cells)
    assert {c.kind for c in drawn.cells} == {"solved", "rescued s4", "rescued s5", "failed"}
    once = rescue_map("run", "x", [group(0, f"t{i}", "failed") for i in range(9)])
    assert once is not None and once.arrangement == "stacked"
    assert rescue_map("run", "x", []) is None
    many = rescue_map("run", "x", [group(step, f"t{i}", "solved") for step in range(10) for i in range(MOST_CELLS // 5)])
    assert many is not None and len(many.cells) == MOST_CELLS and "One step in 2 is drawn" in many.note and len(many.rows) == 10
