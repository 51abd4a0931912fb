"""At least 100 payloads in every text that others can write, on every page that shows it, in a real browser: all of it stays text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_text import PAYLOADS
from leaderboard_logs import Recipe, start
from test_leaderboard_browser import browser, serving  # noqa: F401 - a fixture

from harness.events import Kind, Recorder

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'actguide-harness[dev]'")

PAPER = "https://arxiv.org/abs/2605.12004"  # the one address elsewhere that a page links to
A_RUN = 14  # payloads a run: every one of its texts holds them all
MOST_OF_A_KIND = 12  # pages visited of one kind of address, such as a sample
GROUPS = [PAYLOADS[i : i + A_RUN] for i in range(0, len(PAYLOADS), A_RUN)]


def hostile_home(home: Path) -> Path:
    """A run a group of payloads; models, methods, tasks, tools, pages, judges, settings and errors all say them."""
    for number, group in enumerate(GROUPS):
        _write(home / "runs" / f"hostile-{number}", " ".join(group), group)
    return home


def _write(run_dir: Path, everything: str, group: tuple[str, ...]) -> None:
    short = everything[:150].replace("\n", " ")  # names are one line
    with Recorder(run_dir) as log:
        start(log, Recipe(model=short, method=group[0], name=run_dir.name))
        head = {"evaluation_id": group[1][:60], "benchmark": group[2][:60], "split": group[3][:60], "step": 0, "n": 2, "judge": short}
        head |= {"model": short, "method": group[0], "seed": 0, "comparability": group[4][:40]}
        log.record(Kind.EVALUATION, {"phase": "started", **head})
        for i, purpose in enumerate(("eval", "train")):
            turn = {"text": f"<think>{everything}</think>{everything}", "tool_errors": 1, "observations": [everything]}
            turn["actions"] = [{"name": everything, "arguments": {everything: everything}}]
            spans = [{"ids": [1] * len(group), "logprobs": [-1.0] * len(group), "version": 0, "finish": "stop"}]
            blob = log.blob({"contexts": [[1]], "target": [[1]], "spans": spans, "pieces": [list(group)]})
            attempt = {"attempt_id": f"{purpose}/{short}?#%{i}", "task_id": short, "question": everything, "web": everything}
            attempt |= {
                "gold": list(group),
                "tags": {"kind": short, short: group[5]},
                "purpose": purpose,
                "step": 0,
                "level": i,
                "index": i,
            }
            attempt |= {"evaluation_id": head["evaluation_id"] if purpose == "eval" else None, "status": everything, "answer": everything}
            log.record(Kind.ATTEMPT, attempt | {"detail": everything, "turns": [turn], "usage": {}, "hint": everything, "blob": blob})
            verdict = {"attempt_id": attempt["attempt_id"], "judge": short, "value": float(i), "status": "judged", "layer": everything}
            log.record(Kind.JUDGEMENT, verdict | {"detail": everything})
        log.record(Kind.EVALUATION, {"phase": "finished", **head})
        cell = {"group_id": "g", "step": 0, "task_id": short, "outcome": "rescued", "level": 1, "max_level": 2, "members": [], "probes": []}
        log.record(Kind.GROUP, cell | {"generated_tokens": 1})
        log.record(Kind.STEP, {"step": 0, "metrics": {short: 1.0, "reward/mean": 0.5}, "histograms": {}})
        log.record(Kind.RUN, {"phase": "failed", "run_id": run_dir.name, "error": everything})


@pytest.fixture(scope="module")
def hostile_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(hostile_home(tmp_path_factory.mktemp("hostile"))) as url:
        yield url


def kind_of(address: str) -> str:
    """Addresses of one page with other names are one kind: ``/runs/*/samples/*?``."""
    path, _, query = address.partition("?")
    known = {"runs", "samples", "compare", "diff", "judges", "reported", "static", ""}
    names = ",".join(sorted(re.findall(r"(\w+)=", query)))
    return "/".join(part if part in known else "*" for part in path.split("/")[:5]) + f"?{names}"


def flat(text: str) -> str:
    """Text as it can be compared: without white space, and without what no page can hold."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\ufffd]+", "", text)


def test_every_payload_is_shown_and_none_acts(browser: playwright.Browser, hostile_url: str) -> None:  # noqa: F811
    context = browser.new_context()
    page, alarms, asked = context.new_page(), [], []
    page.on("dialog", lambda dialog: (alarms.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda message: alarms.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: alarms.append(f"script: {error}"))
    context.on("request", lambda request: asked.append(request.url))
    context.on("page", lambda opened: alarms.append("a window opened") if opened != page else None)
    waiting, seen, kinds, shown = ["/", "/?view=forest", "/runs"], set(), Counter(), ""
    while waiting:
        address = waiting.pop(0)
        if address in seen or kinds[kind_of(address)] >= MOST_OF_A_KIND:
            continue
        seen.add(address)
        kinds[kind_of(address)] += 1
        answer = page.goto(hostile_url + address)
        assert answer is not None and answer.status == 200, address
        assert page.evaluate(STATE, hostile_url) == {"hacked": False, "foreign": []}, address
        assert page.url == hostile_url + address or page.url.startswith(hostile_url), address
        text = flat(page.evaluate("document.documentElement.textContent"))
        shown += text if "/samples/" in address else ""
        links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => new URL(a.getAttribute('href'), document.baseURI).href)")
        assert [link for link in links if not link.startswith((hostile_url, PAPER))] == [], address
        links = [link for link in links if link.startswith(hostile_url)]
        waiting += [link.removeprefix(hostile_url).partition("#")[0] for link in links]
    assert alarms == [] and [url for url in asked if not url.startswith((hostile_url, "data:"))] == []
    assert {"/runs/*?", "/runs/*/samples?", "/runs/*/samples/*?"} <= set(kinds), kinds
    assert [payload for payload in PAYLOADS if flat(payload) not in shown] == []
    context.close()


STATE = """url => {
  const own = e => ({
    LINK: () => e.href.startsWith(url + '/static/'),
    SCRIPT: () => e.src.startsWith(url + '/static/'),
    FORM: () => e.action.startsWith(url + '/'),
    META: () => /^\\d+$/.test(e.content),
  }[e.tagName] || (() => false))();
  const wants = 'script, iframe, img, base, style, object, embed, link, form, dialog, meta[http-equiv], audio, video';
  const inline = e => [...e.attributes].some(a => a.name.startsWith('on') || a.name === 'style');
  const foreign = [...document.querySelectorAll(wants)].filter(e => !own(e));
  const handlers = [...document.querySelectorAll('*')].filter(inline);
  return {hacked: Boolean(window.hacked), foreign: [...foreign, ...handlers].map(e => e.outerHTML.slice(0, 80))};
}"""
