"""The pages in a real browser: nothing overflows, nothing complains, nothing hostile runs; at two widths and in two themes.

Screenshots of every page go to ``build/screenshots``: look at them when a page changes.
"""

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from leaderboard_logs import Recipe, build, training_step
from test_leaderboard_web import hostile_addresses, hostile_run

from harness.events import Kind, Recorder
from leaderboard.database import default_url, open_database
from leaderboard.ingest import ingest_all
from leaderboard.web.app import Site, create_app
from leaderboard.web.server import listen

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'actguide-harness[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
RUN = "/runs/tiny-actguide-s0"
SAMPLE = f"{RUN}/samples/tiny-actguide-s0/eval/miniweb/test/40/test-000/k0/0"
OTHER = "tiny-base-s0/eval/miniweb/test/0/test-000/k0/0"
PAGES = {
    "board": "/",
    "board-forest": "/?view=forest",
    "board-unfolded": "/?unfold=gaia&unfold=webwalkerqa&model=qwen3-8b",
    "board-sorted": "/?benchmark=webwalkerqa&sort=webwalkerqa/test",
    "runs": "/runs",
    "run": RUN,
    "run-stacked": f"{RUN}?map=stacked",
    "samples": f"{RUN}/samples",
    "sample": SAMPLE,
    "sample-guided": "",  # the first probe of the list
    "sample-gated": "/runs/qwen3-8b-base-s0/samples/qwen3-8b-base-s0/eval/gaia/test/0/3",
    "compare": "/compare?a=tiny-actguide-s0&b=tiny-base-s0",
    "diff": f"/diff?run_a=tiny-actguide-s0&a={SAMPLE.split('/samples/')[1]}&run_b=tiny-base-s0&b={OTHER}",
    "judges": "/judges",
    "reported": "/reported",
    "missing": "/nothing",
}
BUILD = Path(__file__).resolve().parents[2] / "build"


@contextmanager
def serving(home: Path, port: int = 0) -> Iterator[str]:
    sock = listen("127.0.0.1", port)
    app = create_app(Site(engine=open_database(default_url(home)), runs_dir=home / "runs"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def board_url(board_home: Path) -> Iterator[str]:
    with serving(board_home) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install the package chromium")
    with playwright.sync_playwright() as api:
        chromium = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from npm: a checker of accessibility that only tests use."""
    kept = BUILD / "axe-core.js"
    if not kept.exists():
        npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
        fetched = npm and subprocess.run([npm, "pack", "--silent", "axe-core@4.14.1"], cwd=folder, capture_output=True, timeout=120)
        if not fetched or fetched.returncode:
            pytest.skip("axe-core cannot be fetched: it needs npm and a registry")
        shutil.unpack_archive(next(folder.glob("*.tgz")), folder, "gztar")
        BUILD.mkdir(exist_ok=True)
        shutil.copy(folder / "package" / "axe.min.js", kept)
    return kept.read_text(encoding="utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_fits_is_silent_and_accessible(browser: "playwright.Browser", board_url: str, axe: str, width: int, theme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True)
    page, complaints, asked = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    folder = BUILD / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    serious = []
    for name, address in PAGES.items():
        page.goto(board_url + (address or first_probe(page, board_url)))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate("document.querySelectorAll('h1').length") == 1 and page.title().endswith("ActGuide harness")
        page.screenshot(path=folder / f"{name}-{width}-{theme}.png", full_page=True)
        assert (folder / f"{name}-{width}-{theme}.png").stat().st_size > 5_000
        page.evaluate(axe)
        found = page.evaluate("axe.run({resultTypes: ['violations']}).then(r => r.violations)")
        serious += [f"{name}: {v['id']} {v['nodes'][0]['html'][:150]}" for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []
    expected = [c for c in complaints if "404" in c]  # the browser reports the missing page that was asked for
    assert complaints == expected and len(expected) == 1
    assert all(url.startswith(board_url) for url in asked)
    context.close()


def wait_for(page: "playwright.Page", expression: str, seconds: float = 30.0) -> None:
    """Until a JavaScript expression is true; the page's policy forbids the eval behind ``page.wait_for_function``."""
    until = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < until, f"{expression} stayed false for {seconds:.0f} s"
        page.wait_for_timeout(100)


def first_probe(page: "playwright.Page", url: str) -> str:
    page.goto(f"{url}{RUN}/samples?purpose=probe")
    return page.locator("tbody th a").first.get_attribute("href") or ""


def test_every_page_works_without_javascript(browser: "playwright.Browser", board_url: str) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(board_url)
    page.get_by_label("Model").select_option("tiny")
    page.get_by_role("button", name="Show").click()
    assert "model=tiny" in page.url and page.locator("tr.model").all_inner_texts() == ["tiny"]
    page.goto(board_url + RUN)
    assert page.locator("figure.chart svg.plot").first.is_visible()
    page.goto(board_url + PAGES["compare"])
    page.get_by_role("link", name=re.compile("same verdict")).click()
    assert page.locator(".pairs tbody tr").count() == 40
    context.close()


def test_with_javascript_filters_change_the_page_in_place_and_curves_answer(browser: "playwright.Browser", board_url: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(board_url)
    page.evaluate("window.same = true")
    page.get_by_label("Model").select_option("tiny")
    wait_for(page, "document.querySelectorAll('tr.model').length === 1")
    assert page.evaluate("window.same") and "model=tiny" in page.url
    page.go_back()
    wait_for(page, "document.querySelectorAll('tr.model').length === 3")
    page.goto(board_url + RUN)
    chart = page.locator("figure.chart.drawn").first
    assert page.locator("figure.chart.lines:visible").count() == page.locator("figure.chart.drawn:visible").count() >= 8
    chart.locator(".u-over").hover()
    assert re.search(r"\d", chart.locator(".u-legend .u-value").nth(1).inner_text())
    page.close()


def test_the_page_follows_a_run_through_a_server_restart(browser: "playwright.Browser", tmp_path: Path) -> None:
    home = tmp_path
    run_dir = build(home / "runs", Recipe(model="tiny", method="actguide", steps=3, groups=3, finished=False))
    ingest_all(open_database(default_url(home)), home / "runs")
    page = browser.new_page()
    import random

    def steps(first: int, last: int) -> None:
        with Recorder(run_dir) as log:
            for step in range(first, last):
                training_step(log, Recipe(model="tiny", method="actguide", groups=3), step, random.Random(step))

    lines = "[...document.querySelectorAll('#log li')].map(li => li.textContent.split(',')[0])"
    with serving(home) as url:
        page.goto(url + "/runs/tiny-actguide-s0")
        wait_for(page, "document.getElementById('link').textContent.startsWith('Connected')")
        steps(3, 5)
        wait_for(page, f"{lines}.includes('step 4')")
    steps(5, 7)  # while the server is down
    with serving(home, int(url.rsplit(":", 1)[1])):
        wait_for(page, f"{lines}.includes('step 6')")
        assert page.evaluate(lines) == [f"step {i}" for i in range(7)]
        with Recorder(run_dir) as log:
            log.record(Kind.RUN, {"phase": "finished", "run_id": "tiny-actguide-s0"})
        wait_for(page, "document.getElementById('link').textContent.startsWith('The run is over')")
        wait_for(page, "document.querySelector('.status').textContent === 'finished'")
        assert page.locator("figure.chart.drawn").count() > 3  # curves are drawn again after the page was refreshed in place
    page.close()


def test_text_has_enough_contrast_in_both_themes(browser: "playwright.Browser", board_url: str) -> None:
    for theme in ("light", "dark"):
        context = browser.new_context(color_scheme=theme)
        page = context.new_page()
        page.goto(board_url)
        for selector in ("body", ".detail", ".chip.up", ".chip.unclear", ".fold", ".gap", "tr.reported .score"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, (theme, selector)
        context.close()


def test_hostile_text_runs_nothing(browser: "playwright.Browser", tmp_path: Path) -> None:
    hostile_run(tmp_path)
    page, alarms, asked = browser.new_page(), [], []
    page.on("dialog", lambda dialog: alarms.append(dialog.message))
    page.on("console", lambda message: alarms.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    ours = "script:not([src^='/static/']), iframe, img, base, style, link:not([href^='/static/'])"
    with serving(tmp_path) as url:
        for address in hostile_addresses(tmp_path):
            answer = page.goto(url + address)
            assert answer is not None and answer.status == 200, address
            page.wait_for_timeout(20)
            assert page.evaluate("window.hacked") is None and page.url == url + address
            assert page.evaluate(f'document.querySelectorAll("{ours}").length') == 0, address
        assert alarms == [] and all(one.startswith(url) for one in asked)
    page.close()


CONTRAST = """selector => {
  const el = document.querySelector(selector);
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  let back = el, colour;
  do { colour = parse(getComputedStyle(back).backgroundColor); back = back.parentElement; } while (back && colour[3] === 0);
  if (colour[3] === 0) colour = parse(getComputedStyle(document.documentElement).backgroundColor);
  const light = c => { const f = c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
  const [a, b] = [light(parse(getComputedStyle(el).color)), light(colour)].sort((x, y) => y - x);
  return (a + .05) / (b + .05);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_a_board_of_real_runs_in_pictures(browser: "playwright.Browser", width: int, theme: str) -> None:
    """Of the runs below $HARNESS_TEST_BOARD (a folder like $HARNESS_HOME), as they are: into ``build/screenshots/real``."""
    if not (home := os.environ.get("HARNESS_TEST_BOARD")):
        pytest.skip("HARNESS_TEST_BOARD names no folder of real runs")
    folder = BUILD / "screenshots" / "real"
    folder.mkdir(parents=True, exist_ok=True)
    with serving(Path(home)) as url:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        page.goto(f"{url}/runs")
        runs = [str(link.get_attribute("href")) for link in page.locator("tbody th a").all()]
        guided = next(address for address in runs if "actguide" in address)
        for name, address in {"board": "/", "run": guided, "samples": f"{guided}/samples"}.items():
            page.goto(url + address)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            page.screenshot(path=folder / f"{name}-{width}-{theme}.png", full_page=name != "samples")
        page.close()
