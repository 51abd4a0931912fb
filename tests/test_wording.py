"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from harness.wording import plural


@pytest.mark.parametrize(("n", "expected"), [(0, "tries"), (1, "try"), (1.0, "try"), (0.5, "tries"), (2, "tries")])
def test_a_noun_is_singular_behind_one_only(n: float, expected: str) -> None:
    assert plural(n, "try", "tries") == expected and plural(n, "run") == ("run" if expected == "try" else "runs")
