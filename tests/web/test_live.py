"""The live web against real servers on this machine, which only the constructor's ``allowed`` lets it reach."""

from __future__ import annotations

import asyncio
import gzip
import html
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, OutageError, UsageError, WebError
from harness.web import live, open_web
from harness.web.base import Hit
from harness.web.cache import DiskCache
from harness.web.live import Backend, LiveConfig, LiveWeb, live_web

HTML = "<html><head><title>The Fern</title></head><body><nav>menu</nav><article><p>{}</p></article></body></html>"
FERN = HTML.format("A fern is a plant of damp woods, and it has no flowers at all. " * 5)
Answer = tuple[int, dict[str, str], bytes]


class Site:
    """A server that answers by path; ``seen`` holds (path, headers, body) of every request."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[], Answer]] = {}
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.open, self.most_open = 0, 0
        site, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                with lock:
                    site.seen.append((self.path, dict(self.headers), body))
                    site.open += 1
                    site.most_open = max(site.most_open, site.open)
                try:
                    status, headers, content = site.answers[self.path]()
                    self.send_response(status)
                    for name, value in {"content-type": "text/html; charset=utf-8", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the client has left
                finally:
                    with lock:
                        site.open -= 1

            do_POST = do_GET

            def log_message(self, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def page(self, path: str, content: str | bytes = FERN, status: int = 200, **headers: str) -> str:
        body = content.encode() if isinstance(content, str) else content
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = lambda: (status, named, body)
        return self.url(path)

    def web(self, folder: Path, backend: Backend = "duckduckgo", **limits: Any) -> LiveWeb:
        allowed = frozenset({("127.0.0.1", self.port)})
        search = {"search_url": self.url("/search"), "key": "k"}
        return LiveWeb(backend, LiveConfig(**limits), cache=DiskCache(folder), allowed=allowed, **search)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


def fetch(web: LiveWeb, url: str) -> str:
    return asyncio.run(web.fetch(url)).text


def test_a_page_becomes_its_main_text_and_is_read_once(site: Site, tmp_path: Path) -> None:
    url = site.page("/fern")
    page = asyncio.run(site.web(tmp_path).fetch(f"{url}#top"))
    assert page.title == "The Fern" and page.text.startswith("A fern is a plant") and "menu" not in page.text
    assert asyncio.run(site.web(tmp_path).fetch(url)) == page
    assert [path for path, *_ in site.seen] == ["/fern"]


def test_chinese_pages_are_decoded_by_what_they_declare(site: Site, tmp_path: Path) -> None:
    text = "青岚山位于云溪省北部，最高峰海拔1890米，是该省的第一高峰。" * 4
    html = HTML.format(text).replace("<head>", '<head><meta charset="gb18030">').encode("gb18030")
    assert "青岚山位于云溪省北部" in fetch(site.web(tmp_path), site.page("/zh", html, content_type="text/html"))


def test_failures_are_never_kept(site: Site, tmp_path: Path) -> None:
    web = site.web(tmp_path)
    for status in (404, 429, 500, 503):
        with pytest.raises(WebError, match=f"HTTP status {status}"):
            fetch(web, site.page("/page", status=status))
    site.page("/page")
    assert "fern" in fetch(web, site.url("/page"))
    assert len(site.seen) == 5


def test_redirects_are_followed_as_far_as_allowed(site: Site, tmp_path: Path) -> None:
    for i in range(4):
        site.page(f"/{i}", "", 302, location=f"/{i + 1}")
    site.page("/4")
    assert "fern" in fetch(site.web(tmp_path / "a", redirects=4), site.url("/0"))
    with pytest.raises(WebError, match="more than 3 redirects"):
        fetch(site.web(tmp_path / "b", redirects=3), site.url("/0"))


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
        "//localhost/",
        "file:///etc/passwd",
        "http://user@example.com/",
        "gopher://127.0.0.1/",
    ],
)
def test_a_redirect_cannot_lead_inside(site: Site, tmp_path: Path, target: str) -> None:
    url = site.page("/away", "", 302, location=target)
    with pytest.raises(WebError):
        fetch(site.web(tmp_path), url)
    assert len(site.seen) == 1


def test_a_redirect_to_another_server_of_this_machine_is_refused(site: Site, tmp_path: Path) -> None:
    other = Site()
    with pytest.raises(WebError, match="not on the public web"):
        fetch(site.web(tmp_path), site.page("/away", "", 307, location=other.page("/secret")))
    assert other.seen == []
    other.server.shutdown()


def test_a_name_that_resolves_to_this_machine_is_not_connected_to(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.page("/secret")
    asked = []

    async def rebound(self: object, host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", rebound)
    with pytest.raises(WebError, match="not on the public web"):
        fetch(site.web(tmp_path), f"http://rebound.example:{site.port}/secret")
    assert asked == ["rebound.example"] and site.seen == []


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = []

    async def resolves(self: object, host: str, port: int, **_: object) -> list[Any]:
        return [(2, 1, 6, "", ("8.8.4.4", port))]

    async def connect(self: object, host: str, port: int, *_: object) -> Any:
        connected.append((host, port))
        raise OSError("enough")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolves)
    monkeypatch.setattr(live.httpcore.AnyIOBackend, "connect_tcp", connect)
    with pytest.raises(OSError):
        asyncio.run(live._CheckedBackend(frozenset()).connect_tcp("some.example", 443))
    assert connected == [("8.8.4.4", 443)]


def test_size_counts_after_decompression(site: Site, tmp_path: Path) -> None:
    url = site.page("/bomb", gzip.compress(b"a" * 3_000_000), content_encoding="gzip", content_type="text/plain")
    with pytest.raises(WebError, match="larger than 1,000,000 bytes"):
        fetch(site.web(tmp_path, bytes=1_000_000), url)
    assert len(fetch(site.web(tmp_path, bytes=4_000_000), url)) == 3_000_000


def test_a_slow_page_is_given_up(site: Site, tmp_path: Path) -> None:
    def slow() -> Answer:
        time.sleep(1.5)
        return 200, {}, FERN.encode()

    site.answers["/slow"] = slow
    began = time.monotonic()
    with pytest.raises(WebError, match="longer than 0.3 s|cannot be read"):
        fetch(site.web(tmp_path, seconds=0.3), site.url("/slow"))
    assert time.monotonic() - began < 1.4


@pytest.mark.parametrize("kind", ["application/pdf", "image/png", "application/octet-stream", ""])
def test_only_text_is_read(site: Site, tmp_path: Path, kind: str) -> None:
    with pytest.raises(WebError, match="only text and HTML"):
        fetch(site.web(tmp_path), site.page("/file", content_type=kind))


def test_one_host_is_asked_by_few_at_a_time(site: Site, tmp_path: Path) -> None:
    def page() -> Answer:
        time.sleep(0.05)
        return 200, {}, FERN.encode()

    for i in range(6):
        site.answers[f"/{i}"] = page

    async def all_of_them(web: LiveWeb) -> None:
        await asyncio.gather(*(web.fetch(site.url(f"/{i}")) for i in range(6)))

    asyncio.run(all_of_them(site.web(tmp_path, per_host=2)))
    assert len(site.seen) == 6 and site.most_open == 2


RESULTS = json.dumps({"organic": [{"title": f"T{i}", "link": f"https://e.com/{i}", "snippet": "s"} for i in range(8)]})


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_SLEEPS", (0.0, 0.0, 0.0))


def test_serper_is_asked_with_the_key_and_its_answer_is_kept(site: Site, tmp_path: Path) -> None:
    site.page("/search", RESULTS)
    hits = asyncio.run(site.web(tmp_path, "serper").search("青岚山", 3))
    assert hits == [Hit(title=f"T{i}", url=f"https://e.com/{i}", snippet="s") for i in range(3)]
    assert asyncio.run(site.web(tmp_path, "serper").search("青岚山", 3)) == hits
    ((_, headers, body),) = site.seen
    assert {k.lower(): v for k, v in headers.items()}["x-api-key"] == "k" and json.loads(body) == {"q": "青岚山", "num": 3}
    assert not [path for path in tmp_path.rglob("*.json") if '"k"' in path.read_text()], "the key is not stored"


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("first", [(429, ""), (503, ""), (200, "<html>"), (200, "[]"), (200, '{"organic": 3}')])
def test_a_search_that_fails_is_repeated(site: Site, tmp_path: Path, first: tuple[int, str]) -> None:
    answers = iter([first, first, (200, RESULTS)])

    def search() -> Answer:
        status, content = next(answers)
        return status, {"retry-after": "0"}, content.encode()

    site.answers["/search"] = search
    assert len(asyncio.run(site.web(tmp_path, "serper").search("fern", 5))) == 5
    assert len(site.seen) == 3


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("status", "error", "requests"), [(500, OutageError, 4), (400, OutageError, 1), (403, HarnessError, 1)])
def test_a_search_engine_that_stays_down_is_an_outage_and_is_not_kept(
    site: Site, tmp_path: Path, status: int, error: type[HarnessError], requests: int
) -> None:
    site.page("/search", "", status)
    with pytest.raises(error):
        asyncio.run(site.web(tmp_path, "serper").search("fern", 5))
    assert len(site.seen) == requests
    site.page("/search", RESULTS)
    assert len(asyncio.run(site.web(tmp_path, "serper").search("fern", 5))) == 5


@pytest.mark.parametrize("kind", ["whole", "decimal", "date"])
def test_retry_after_is_waited_for(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(live, "_SLEEPS", (0.0,))
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds: at least one is left
    said = {"whole": "1", "decimal": "0.9", "date": date}[kind]
    answers = iter([(429, {"retry-after": said}, b""), (200, {}, RESULTS.encode())])
    site.answers["/search"] = lambda: next(answers)
    began = time.monotonic()
    asyncio.run(site.web(tmp_path, "serper").search("fern", 5))
    assert time.monotonic() - began >= 0.85


FOUND = (
    '<div class="links_main result__body"><h2><a href="https://e.com/{0}">T{0}</a></h2><a href="https://e.com/{0}">about {0}</a></div>'
    '<div class="links_main result__body"><h2>ad</h2><a href="https://duckduckgo.com/y.js?ad">ad</a></div>'
)
PAGE = "<html><title>{}</title><div id='links'>{}</div></html>"
CHALLENGE = PAGE.format("fern", '<div class="anomaly-modal__title">Unfortunately, bots use DuckDuckGo too.</div>')


@pytest.fixture
def duckduckgo(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """DuckDuckGo's address leads to ``site``; ddgs itself is real."""
    engine = pytest.importorskip("ddgs.engines.duckduckgo")
    monkeypatch.setattr(engine.Duckduckgo, "search_url", site.url("/html/"))
    return site


def ask_duckduckgo(folder: Path, query: str = "fern") -> list[Hit]:
    return asyncio.run(LiveWeb("duckduckgo", cache=DiskCache(folder)).search(query, 2))


def test_duckduckgo_needs_no_key_and_its_answer_is_kept(duckduckgo: Site, tmp_path: Path) -> None:
    duckduckgo.page("/html/", PAGE.format("fern", "".join(FOUND.format(i) for i in (1, 1, 2, 3))))
    hits = ask_duckduckgo(tmp_path)
    assert hits == [Hit(title=f"T{i}", url=f"https://e.com/{i}", snippet=f"about {i}") for i in (1, 2)]
    assert ask_duckduckgo(tmp_path) == hits
    assert [path for path, _, _ in duckduckgo.seen] == ["/html/"], "one request in all, to one host"


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("status", "content"), [(429, ""), (403, "no"), (202, CHALLENGE), (200, CHALLENGE), (200, "")])
def test_duckduckgo_that_refuses_is_asked_again_and_then_an_outage(duckduckgo: Site, tmp_path: Path, status: int, content: str) -> None:
    duckduckgo.page("/html/", content, status)
    with pytest.raises(OutageError, match="did not answer 4 times"):
        ask_duckduckgo(tmp_path)
    assert len(duckduckgo.seen) == 4
    duckduckgo.page("/html/", PAGE.format("fern", FOUND.format(1)))
    assert len(ask_duckduckgo(tmp_path)) == 1, "the failure was not kept"


def test_a_search_that_finds_nothing_is_an_answer_which_is_not_kept(duckduckgo: Site, tmp_path: Path) -> None:
    for query in ("anomaly.js", 'class="anomaly-modal"'):  # the page repeats the query, escaped
        duckduckgo.page("/html/", PAGE.format(html.escape(query), '<div class="no-results">No results.</div>'))
        assert ask_duckduckgo(tmp_path, query) == []
        duckduckgo.page("/html/", PAGE.format("fern", FOUND.format(1)))
        assert len(ask_duckduckgo(tmp_path, query)) == 1


def test_a_search_that_finds_nothing_is_not_kept_of_serper_either(site: Site, tmp_path: Path) -> None:
    site.page("/search", '{"organic": []}')
    assert asyncio.run(site.web(tmp_path, "serper").search("fern", 5)) == []
    site.page("/search", RESULTS)
    assert len(asyncio.run(site.web(tmp_path, "serper").search("fern", 5))) == 5


def test_the_key_in_the_environment_chooses_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(live.KEY_VARIABLE, raising=False)
    assert live_web().name == "duckduckgo"
    with pytest.raises(HarnessError, match="SERPER_API_KEY"):
        open_web("live:serper")
    monkeypatch.setenv(live.KEY_VARIABLE, "secret")
    assert live_web().name == "serper" and live_web("duckduckgo").name == "duckduckgo"


def test_nothing_on_the_command_line_can_open_this_machine() -> None:
    assert "allowed" not in inspect.signature(live_web).parameters and "allowed" not in LiveConfig.model_fields
    web = open_web("live")
    assert isinstance(web, LiveWeb) and web._allowed == frozenset()


@pytest.mark.parametrize("name", ["corpus:", "corpus", "live:bing", "http://x", ""])
def test_an_unknown_web_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown web"):
        open_web(name)
