"""What keeps a result from being compared with published ones is said, and follows the judge."""

from __future__ import annotations

from benchmarks.departures import caveat, departures, judged_by


def test_a_benchmark_run_as_published_has_no_caveat() -> None:
    assert departures(asked=100, published=100, searches=True, web="live") == () and caveat(()) == ""
    assert departures(asked=817, published=817) == ()


def test_questions_left_out_and_another_web_are_named() -> None:
    assert departures(asked=3, published=1200) == ("3 of 1,200 questions",)
    assert departures(asked=100, published=100, searches=True) == ("nothing to search",)
    found = departures(asked=3, published=100, searches=True, web="corpus:/data/pages.jsonl")
    assert caveat(found) == "not comparable with published results: 3 of 100 questions; searched pages.jsonl instead of the web"


def test_rules_alone_are_named_as_long_as_they_judge() -> None:
    ruled = judged_by("exact", ("3 of 100 questions",))
    assert ruled == ("3 of 100 questions", "judged by rules alone") == judged_by("exact", ruled)
    assert judged_by("llm:m@1f", ruled) == ("3 of 100 questions",) == judged_by("exact-closed", ruled)
