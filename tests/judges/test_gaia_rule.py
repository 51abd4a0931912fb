"""GAIA's quasi-exact match: the published rule, and the traps that are mended."""

from __future__ import annotations

import asyncio

import pytest

from harness.types import ScoreStatus
from judges.exact import ExactJudge
from judges.gaia import QuasiExactJudge, quasi_exact

RIGHT = [
    ("17", "17"),
    ("17", "17.0"),
    ("17", "$17"),
    ("17", "17%"),
    ("1000", "1,000"),
    ("0.5", ".5"),
    ("3, 4, b", "3,4,B"),
    ("3; 4", "3;4.0"),
    ("red, blue", "Red,blue"),
    ("St. Petersburg", "st petersburg"),
    ("The Beatles", "the beatles!"),
    ("right", " Right. "),
    # traps
    ("1,000", "1000"),
    ("1,000", "1,000"),
    ("$1,234.50", "1234.5"),
    ("17", "１７"),
    ("3，4", "3, 4"),
    ("Ｐａｒｉｓ", "paris"),
    ("inf", "Inf"),
    ("nan", "NaN"),
    ("None", "none"),
    ("!", "!"),
]
WRONG = [
    ("17", "18"),
    ("17", "seventeen"),
    ("17", "17 apples"),
    ("17", ""),
    ("3, 4", "4, 3"),
    ("3, 4", "3, 4, 5"),
    ("3, 4", "3"),
    ("red, blue", "red, green"),
    ("The Beatles", "Beatles"),
    ("Paris", "Paris, France"),
    # traps
    ("1,000", "1"),
    ("inf", "1e999"),
    ("1000", "1_000"),
    ("None", ""),
    ("!", "?"),
    ("5", "inf"),
    ("0", "nan"),
]


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_what_the_rule_accepts(gold: str, answer: str) -> None:
    assert quasi_exact(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_what_the_rule_refuses(gold: str, answer: str) -> None:
    assert not quasi_exact(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_the_exact_judge_refuses_nothing_that_the_rule_accepts(gold: str, answer: str) -> None:
    assert ExactJudge().decide("What is it?", (gold,), answer).value != 0.0


def test_the_exact_judge_decides_the_common_forms_itself() -> None:
    values = [ExactJudge().decide("What is it?", (gold,), answer).value for gold, answer in RIGHT[:12]]
    assert values.count(1.0) == 10  # all but 17% and $17 for a gold of 17, which a model may decide


def test_the_judge_of_the_rule_decides_everything() -> None:
    def score(gold: str, answer: str) -> tuple[float | None, ScoreStatus]:
        found = asyncio.run(QuasiExactJudge().score("q", (gold,), answer))
        return found.value, found.status

    assert score("17", "17.0") == (1.0, ScoreStatus.JUDGED)
    assert score("a person", "someone") == (0.0, ScoreStatus.JUDGED)
    assert score("  ", "someone") == (None, ScoreStatus.UNDECIDED)
