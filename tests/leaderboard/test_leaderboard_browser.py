"""The pages in a real browser: nothing overflows, nothing complains, nothing hostile runs; at two widths and in two themes."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from test_leaderboard_web import hostile_addresses, hostile_run

from leaderboard.database import default_url, open_database
from leaderboard.web.app import Site, create_app
from leaderboard.web.server import listen

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'actguide-harness[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
RUN = "/runs/tiny-actguide-s0"
SAMPLE = f"{RUN}/samples/tiny-actguide-s0/eval/miniweb/test/40/test-000/k0/0"
ADDRESSES = ("/", "/?view=forest", "/?unfold=miniweb", "/runs", RUN, f"{RUN}?map=stacked", f"{RUN}/samples", SAMPLE, "/nothing")


@contextmanager
def serving(home: Path) -> Iterator[str]:
    sock = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(create_app(Site(engine=open_database(default_url(home)), runs_dir=home / "runs")), log_level="error")
    )
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


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_overflows_or_complains(browser: "playwright.Browser", board_url: str, width: int, theme: str, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page, complaints, asked = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for i, address in enumerate(ADDRESSES):
        page.goto(board_url + address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert page.evaluate("document.querySelectorAll('h1').length") == 1 and page.title().endswith("ActGuide harness")
        page.screenshot(path=tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").stat().st_size > 5_000
    expected = [c for c in complaints if "404" in c]  # the browser reports the missing page that was asked for
    assert complaints == expected and len(expected) == 1
    assert all(url.startswith(board_url) for url in asked)
    context.close()


def test_text_has_enough_contrast_in_both_themes(browser: "playwright.Browser", board_url: str) -> None:
    for theme in ("light", "dark"):
        context = browser.new_context(color_scheme=theme)
        page = context.new_page()
        page.goto(board_url)
        for selector in ("body", ".detail", ".chip.up", ".chip.unclear", ".fold"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, (theme, selector)
        context.close()


def test_hostile_text_runs_nothing(browser: "playwright.Browser", tmp_path: Path) -> None:
    hostile_run(tmp_path)
    page, alarms, asked = browser.new_page(), [], []
    page.on("dialog", lambda dialog: alarms.append(dialog.message))
    page.on("console", lambda message: alarms.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    with serving(tmp_path) as url:
        for address in hostile_addresses(tmp_path):
            answer = page.goto(url + address)
            assert answer is not None and answer.status == 200, address
            page.wait_for_timeout(20)
            assert page.evaluate("window.hacked") is None and page.url == url + address
            assert page.evaluate("document.querySelectorAll('script, iframe, img, base, style').length") == 0
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
