"""Eq. 24 against numbers worked out by hand, and its promise against simulated levels."""

from __future__ import annotations

import math
import random

import pytest

from harness.errors import UsageError
from trainers.guidance.identify import groups_to_identify


@pytest.mark.parametrize(
    ("levels", "margin", "confidence", "groups"),
    [
        (5, 0.1, 0.95, 275),  # ln(12 / 0.05) = 5.48064; / 0.02 = 274.03
        (1, 0.5, 0.5, 5),  # ln(4 / 0.5) = 2.07944; / 0.5 = 4.16
        (30, 0.05, 0.99, 1747),  # ln(62 / 0.01) = 8.73230; / 0.005 = 1746.46
        (10, 0.25, 0.9, 44),  # ln(22 / 0.1) = 5.39363; / 0.125 = 43.15
    ],
)
def test_known_numbers(levels: int, margin: float, confidence: float, groups: int) -> None:
    found = groups_to_identify(levels, margin, confidence)
    assert found.groups == groups
    assert found.events == 2 * (levels + 1) and found.xi == round(1 - confidence, 12)
    assert found.bound == pytest.approx(math.log(found.events / found.xi) / (2 * margin**2), rel=1e-12)
    assert groups - 1 < found.bound <= groups


def test_the_bound_keeps_its_promise_on_the_hardest_levels_that_it_allows() -> None:
    """Levels at rho - D and rho + D exactly, rho = 0.5: level 2 is found at least 80 times in 100."""
    found, rng = groups_to_identify(3, 0.3, 0.8), random.Random(0)
    chances = (0.2, 0.2, 0.8, 0.8)

    def identified() -> int | None:
        shares = [sum(rng.random() < q for _ in range(found.groups)) / found.groups for q in chances]
        return next((k for k, share in enumerate(shares) if share >= 0.5), None)

    assert sum(identified() == 2 for _ in range(500)) / 500 >= 0.8


@pytest.mark.parametrize(
    ("levels", "margin", "confidence", "words"),
    [
        (0, 0.1, 0.9, "levels is 0, expected at least 1"),
        (5, 0.0, 0.9, "margin is 0.0, expected above 0 and at most 0.5"),
        (5, 0.51, 0.9, "margin is 0.51"),
        (5, math.nan, 0.9, "margin is nan"),
        (5, 0.1, 1.0, "confidence is 1.0, expected between 0 and 1"),
        (5, 0.1, 0.0, "confidence is 0.0"),
        (5, 0.1, 95.0, "confidence is 95.0"),
        (5, 0.1, math.nan, "confidence is nan"),
    ],
)
def test_what_the_bound_does_not_speak_of_is_refused(levels: int, margin: float, confidence: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        groups_to_identify(levels, margin, confidence)
