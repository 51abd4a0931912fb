"""Builds the page that lays two attempts at one task side by side, from the turn in which they part."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile, zip_longest
from typing import Any

from harness.wording import plural
from leaderboard.records import RunInfo, SampleInfo
from leaderboard.transcripts import Transcript
from leaderboard.web.pages.compare import DiffPage, DiffSide, DiffTurn
from leaderboard.web.query import sample_address
from leaderboard.web.sample import transcript_of, turn_cards, verdict_of
from leaderboard.words import HIDDEN, is_hidden, method_title


def diff_page(run_a: RunInfo, a: SampleInfo, run_b: RunInfo, b: SampleInfo, show_gated: bool = False) -> DiffPage:
    """Two attempts, of one run or of two."""
    left, right = transcript_of(run_a, a), transcript_of(run_b, b)
    hidden = is_hidden(a.benchmark, a.gold, show_gated) or is_hidden(b.benchmark, b.gold, show_gated)
    turns = _turns(left), _turns(right)
    first = parting_turn(*turns)
    cards = ((), ()) if hidden else (turn_cards(run_a, a, left), turn_cards(run_b, b, right))
    return DiffPage(
        task_id=a.task_id,
        question=HIDDEN if hidden else a.question,
        same_task=a.task_id == b.task_id and a.question == b.question,
        a=_side(run_a, a, left, hidden),
        b=_side(run_b, b, right, hidden),
        parting=parting_words(*turns, first),
        turns=tuple(
            DiffTurn(
                number=i + 1,
                kind="same" if first is None or i < first else "first" if i == first else "after",
                a=x,
                b=y,
                shared=_shared_text(*turns, i) if i == first else "",
            )
            for i, (x, y) in enumerate(zip_longest(*cards))
        ),
        missing=left.missing if not turns[0] else right.missing if not turns[1] else "",
    )


def parting_turn(a: list[Mapping[str, Any]], b: list[Mapping[str, Any]]) -> int | None:
    """Index of the first turn that differs in what was sampled or in what the tools returned; None where both are alike to the end."""
    for i, (x, y) in enumerate(zip_longest(a, b)):
        if x is None or y is None or _content(x) != _content(y):
            return i
    return None


def parting_words(a: list[Mapping[str, Any]], b: list[Mapping[str, Any]], first: int | None) -> str:
    """Where two attempts part and in what, as one sentence."""
    if first is None:
        return "Both attempts are alike, turn by turn, to the end."
    if first >= min(len(a), len(b)):
        shorter = "A" if len(a) < len(b) else "B"
        return f"They are alike for {first} {plural(first, 'turn')}; then {shorter} had ended."
    x, y = a[first], b[first]
    if x.get("text") == y.get("text"):
        what = "the same words met different tool results"
    elif _calls(x) == _calls(y):
        what = "the words differ, the calls are the same"
    elif not _calls(x) or not _calls(y):
        what = f"{'A' if _calls(x) else 'B'} calls a tool where the other does not"
    else:
        what = "they make different calls"
    return f"They part in turn {first + 1} of {len(a)} and {len(b)}: {what}."


def _turns(transcript: Transcript) -> list[Mapping[str, Any]]:
    return list(transcript.data.get("turns") or [])


def _content(turn: Mapping[str, Any]) -> tuple[object, ...]:
    return turn.get("text"), _calls(turn), turn.get("observations")


def _calls(turn: Mapping[str, Any]) -> list[tuple[object, object]]:
    return [(action.get("name"), action.get("arguments")) for action in turn.get("actions") or []]


def _shared_text(a: list[Mapping[str, Any]], b: list[Mapping[str, Any]], i: int) -> str:
    if i >= min(len(a), len(b)):
        return ""
    pairs = zip(str(a[i].get("text") or ""), str(b[i].get("text") or ""), strict=False)
    return "".join(x for x, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _side(run: RunInfo, sample: SampleInfo, transcript: Transcript, hidden: bool) -> DiffSide:
    place = [f"{run.model} {method_title(run.method)}", f"step {sample.step}" if sample.step is not None else ""]
    place += [f"level {sample.level}" if sample.level else "unguided" if sample.purpose != "eval" else "", f"member {sample.position}"]
    return DiffSide(
        title=", ".join(p for p in place if p),
        href=sample_address(run.run_id, sample.attempt_id),
        verdict=verdict_of(sample.value, sample.verdict),
        answer="" if sample.answer is None else "hidden" if hidden else sample.answer,
        hint=bool(transcript.data.get("hint")),
    )
