"""pass@k, pass^k and avg@k against hand-computed values and brute force."""

from itertools import combinations

import pytest

from harness.errors import HarnessError
from harness.metrics import avg_at_k, pass_at_k, pass_hat_k


@pytest.mark.parametrize("successes", range(6))
@pytest.mark.parametrize("k", range(1, 6))
def test_pass_at_k_equals_the_share_of_all_draws_that_hold_a_success(successes: int, k: int) -> None:
    draws = list(combinations([1] * successes + [0] * (5 - successes), k))
    assert pass_at_k(5, successes, k) == pytest.approx(sum(any(d) for d in draws) / len(draws))
    assert pass_hat_k(5, successes, k) == pytest.approx(sum(all(d) for d in draws) / len(draws))


def test_avg_is_the_mean_and_refuses_an_empty_list() -> None:
    assert avg_at_k([1.0, 0.0, 0.5]) == 0.5
    with pytest.raises(HarnessError, match="at least one"):
        avg_at_k([])


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(HarnessError, match="expected 0 to 3"):
        pass_at_k(3, 4, 1)
    with pytest.raises(HarnessError, match="expected 1 to 3"):
        pass_hat_k(3, 1, 4)
