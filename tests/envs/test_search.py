"""The two tools over a closed web: what they take, what they refuse, and that each limit changes what it names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.envs.base import Observation
from harness.envs.search import SYSTEM, TOOLS, SearchEnv, SearchLimits
from harness.types import Action, PublicTask
from harness.web.base import Page
from harness.web.corpus import CorpusWeb

PAGES = [Page(url=f"page://{i}", title=f"Oak {i}", text=f"oak mill number {i} " + "x" * 300) for i in range(8)]
WEB = CorpusWeb([*PAGES, Page(url="page://fern", title="Fern", text="A fern.")])


def act(name: str, limits: SearchLimits | None = None, **arguments: Any) -> Observation:
    (observation,) = asyncio.run(SearchEnv(WEB, limits or SearchLimits()).step([Action(name=name, arguments=arguments)]))
    return observation


def test_the_opening_is_the_question_and_two_tools() -> None:
    opening = asyncio.run(SearchEnv(WEB, SearchLimits()).start(PublicTask(id="t", question="Which mill?")))
    assert opening.messages == ({"role": "system", "content": SYSTEM}, {"role": "user", "content": "Which mill?"})
    assert [tool["function"]["name"] for tool in opening.tools] == ["search", "visit"] and opening.tools is TOOLS


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("search", {"query": ["fern"]}, "[Fern](page://fern)\nA fern."),
        ("search", {"query": "fern"}, "[Fern](page://fern)\nA fern."),
        ("search", {"query": ["fern", "zebra"]}, "[Fern](page://fern)\nA fern.\n\nNo results for 'zebra'."),
        ("visit", {"url": ["page://fern"]}, "Fern\nA fern."),
        ("visit", {"url": "page://fern"}, "Fern\nA fern."),
        ("visit", {"url": ["page://fern", "page://fern"], "goal": "read"}, "Fern\nA fern.\n\nFern\nA fern."),
    ],
)
def test_a_good_call_is_answered(name: str, arguments: dict[str, Any], text: str) -> None:
    assert act(name, **arguments) == Observation(text=text)


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("search", {}, 'Error: search needs "query": a list of non-empty strings'),
        ("search", {"queries": ["fern"]}, 'Error: search needs "query": a list of non-empty strings'),
        ("search", {"query": []}, 'Error: search needs "query": a list of non-empty strings'),
        ("search", {"query": [" "]}, 'Error: search needs "query": a list of non-empty strings'),
        ("search", {"query": [3]}, 'Error: search needs "query": a list of non-empty strings'),
        ("search", {"query": {"a": 1}}, 'Error: search needs "query": a list of non-empty strings'),
        ("visit", {"query": ["fern"]}, 'Error: visit needs "url": a list of non-empty strings'),
        ("visit", {"url": ["page://none"]}, "Error: no page at 'page://none'."),
        ("visit", {"url": ["page://fern", "page://none"]}, "Error: no page at 'page://none'."),
        ("python", {"code": "1"}, "Error: there is no tool 'python'; use search or visit"),
    ],
)
def test_a_bad_call_is_an_error_observation(name: str, arguments: dict[str, Any], complaint: str) -> None:
    observation = act(name, **arguments)
    assert observation.error and observation.text.startswith(complaint)


@pytest.mark.parametrize("key", ["search", "visit"])
def test_more_queries_than_the_limit_are_refused(key: str) -> None:
    argument = {"search": "query", "visit": "url"}[key]
    limits = SearchLimits(queries_per_call=2)
    assert not act(key, limits, **{argument: ["page://1", "page://2"]}).error
    refused = act(key, limits, **{argument: ["page://1", "page://2", "page://3"]})
    assert refused.error and refused.text == f"Error: {key} takes at most 2 at once, got 3"


@pytest.mark.parametrize("results", [1, 3, 5, 8])
def test_results_sets_the_hits_of_each_query(results: int) -> None:
    limits = SearchLimits(results=results)
    assert act("search", limits, query=["oak"]).text.count("](page://") == results
    assert act("search", limits, query=["oak", "mill"]).text.count("](page://") == 2 * results


def test_each_item_of_a_call_is_cut_on_its_own() -> None:
    limits = SearchLimits(observation_characters=5)
    assert act("visit", limits, url=["page://fern", "page://fern"]).text == "Fern\n\n\nFern\n"
    assert act("search", limits, query=["fern", "zebra"]).text == "[Fern\n\nNo re"


@pytest.mark.parametrize("characters", [0, 1, 20, 160, 400])
def test_snippet_characters_sets_the_text_of_each_hit(characters: int) -> None:
    text = act("search", SearchLimits(results=1, snippet_characters=characters), query=["oak"]).text
    head, _, snippet = text.partition("\n")
    assert head == "[Oak 0](page://0)" and snippet == PAGES[0].text[:characters]


@pytest.mark.parametrize("characters", [1, 50, 300])
def test_observation_characters_cuts_each_result_good_or_bad(characters: int) -> None:
    limits = SearchLimits(observation_characters=characters)
    whole = f"Oak 0\n{PAGES[0].text}"
    assert act("visit", limits, url=["page://0"]).text == whole[:characters]
    assert len(act("visit", limits, url=["page://" + "9" * 400]).text) == characters
    env = SearchEnv(WEB, limits)
    two = asyncio.run(env.step([Action(name="visit", arguments={"url": ["page://0"]})] * 2))
    assert [len(o.text) for o in two] == [characters, characters]


def test_observations_come_in_the_order_of_the_calls() -> None:
    actions = [Action(name="visit", arguments={"url": [f"page://{i}"]}) for i in (3, 1)]
    assert [o.text[:5] for o in asyncio.run(SearchEnv(WEB, SearchLimits()).step(actions))] == ["Oak 3", "Oak 1"]
