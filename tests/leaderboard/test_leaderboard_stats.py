"""Intervals and tests against closed forms, textbook values and simulation."""

import itertools
import random

import pytest
from scipy import stats as reference

from leaderboard.ranks import benjamini_hochberg, duels, holm, ranks
from leaderboard.stats import clustered, compare, interval, mcnemar_p, questions_needed, sign_flip_p, smallest_gap, wilson


def verdicts(values: list[float]) -> dict[str, float]:
    return {f"t{i}": v for i, v in enumerate(values)}


def test_wilson_matches_hand_computed_values() -> None:
    found = wilson(8, 10)  # (0.8 + z^2/20 +- z sqrt(0.016 + z^2/400)) / (1 + z^2/10), z = 1.959964
    assert (found.low, found.high) == (pytest.approx(0.490162, abs=1e-6), pytest.approx(0.943318, abs=1e-6))
    nothing = wilson(0, 20)
    assert nothing.low == 0.0 and nothing.high == pytest.approx(0.161125, abs=1e-6)


def test_mcnemar_is_the_two_sided_exact_binomial() -> None:
    for wins, losses in ((31, 12), (5, 5), (0, 7), (1, 0)):
        assert mcnemar_p(wins, losses) == pytest.approx(reference.binomtest(wins, wins + losses).pvalue)
    assert mcnemar_p(0, 0) == 1.0


def test_a_pair_of_runs_is_compared_on_shared_questions_only() -> None:
    found = compare([verdicts([1, 1, 0, 1])], [verdicts([0, 1, 0])])
    assert found is not None
    assert (found.n, found.wins, found.losses, found.ties) == (3, 1, 0, 2)
    assert found.delta == pytest.approx(1 / 3) and not found.distinguishable and found.more is not None


def test_nothing_shared_is_no_comparison() -> None:
    assert compare([{"a": 1.0}], [{"b": 1.0}]) is None
    assert compare([{"a": 1.0}], []) is None


def test_fractional_verdicts_use_questions_as_clusters() -> None:
    values = [0.25, 0.5, 0.75, 0.5]
    found = interval([verdicts(values)])
    expected = reference.t.interval(0.95, 3, loc=0.5, scale=reference.sem(values))
    assert (found.low, found.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert clustered([1.0]).low is None


def test_identical_seeds_add_no_seed_variance_and_unlike_seeds_widen_the_interval() -> None:
    one = verdicts([1.0, 0.0] * 50)
    other = verdicts([1.0] * 80 + [0.0] * 20)
    alike, unlike = interval([one, one, one]), interval([one, other])
    assert alike.value == 0.5 and alike.high is not None and alike.low is not None
    assert alike.high - alike.low == pytest.approx(2 * reference.t.ppf(0.975, 99) * reference.sem([1.0, 0.0] * 50))
    assert unlike.high is not None and unlike.low is not None and unlike.high - unlike.low > 0.4


def test_the_interval_over_seeds_covers_the_truth_at_least_as_often_as_promised() -> None:
    rng, covered, trials = random.Random(0), 0, 300
    for _ in range(trials):
        chances = {f"t{i}": min(max(rng.gauss(0.4, 0.25), 0), 1) for i in range(60)}
        shifts = [rng.gauss(0, 0.05) for _ in range(3)]
        found = interval([{t: float(rng.random() < c + s) for t, c in chances.items()} for s in shifts])
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.4 <= found.high
    assert covered / trials >= 0.93


def test_the_needed_number_of_questions_finds_the_difference_four_times_in_five() -> None:
    n = questions_needed(0.1, 0.3 - 0.01)
    assert n == pytest.approx(228, abs=1)  # ((1.95996 + 0.84162) / 0.1)^2 * 0.29
    assert smallest_gap(0.2, 103) == pytest.approx(0.1234, abs=1e-3)
    assert questions_needed(0.0, 0.2) is None and smallest_gap(0.0, 10) is None


def test_the_permutation_test_equals_scipys_exact_one() -> None:
    rng = random.Random(1)
    for _ in range(5):
        a, b = ([rng.choice([0, 0.25, 0.5, 0.75, 1]) for _ in range(9)] for _ in range(2))
        found = compare([verdicts(a)], [verdicts(b)])
        expected = reference.permutation_test(
            (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", vectorized=True, n_resamples=10_000
        )
        assert found is not None and found.method == "permutation of signs" and found.p == pytest.approx(expected.pvalue)


def test_the_permutation_test_of_unit_differences_is_mcnemar() -> None:
    assert sign_flip_p([1.0] * 31 + [-1.0] * 12 + [0.0] * 50) == pytest.approx(mcnemar_p(31, 12))
    assert sign_flip_p([]) == sign_flip_p([0.0, 0.0]) == 1.0
    assert sign_flip_p([1.0]) == 1.0  # one pair can never be told from chance


def test_differences_off_any_grid_are_flipped_at_random_and_agree_with_the_t_test() -> None:
    rng = random.Random(2)
    values = [rng.gauss(0.1, 0.4) for _ in range(80)]
    assert sign_flip_p(values) == pytest.approx(reference.ttest_1samp(values, 0).pvalue, abs=0.015)
    assert sign_flip_p(values) == sign_flip_p(values)


def test_holm_matches_hand_values_and_never_loses_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, 0.02, 0.02, 0.02]) == pytest.approx([0.08] * 4)
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []


def test_benjamini_hochberg_matches_hand_values_and_lets_more_through_than_holm() -> None:
    p = [0.01, 0.02, 0.03, 0.5]  # times 4 / rank, from the largest down
    assert benjamini_hochberg(p) == pytest.approx([0.04, 0.04, 0.04, 0.5]) and holm(p) == pytest.approx([0.04, 0.06, 0.06, 0.5])
    assert benjamini_hochberg([]) == []


def test_binary_duels_in_one_matrix_equal_the_paired_test_of_each_pair() -> None:
    rng = random.Random(3)
    arms = [[{f"t{i}": float(rng.random() < p) for i in rng.sample(range(60), 50)}] for p in (0.2, 0.4, 0.6, 0.8)]
    for duel in duels(arms):
        expected = compare(arms[duel.first], arms[duel.second])
        assert expected is not None and (duel.delta, duel.p) == (pytest.approx(expected.delta), pytest.approx(expected.p))


def test_duels_of_several_seeds_at_once_equal_the_paired_test_of_each_pair() -> None:
    rng = random.Random(4)

    def run(p: float, values: tuple[float, ...]) -> dict[str, float]:
        return {f"t{i}": rng.choice(values) if rng.random() < p else 0.0 for i in rng.sample(range(60), 50)}

    seeds = [[run(p, (1.0,)) for _ in range(n)] for p, n in ((0.2, 1), (0.4, 3), (0.5, 2), (0.6, 5), (0.3, 1))]
    tried = [[run(0.6, (0.25, 0.5, 1.0)) for _ in range(n)] for n in (1, 3)]  # several attempts a question
    twins = [[seeds[1][0], seeds[1][0]], [seeds[1][0]]]  # nothing varies between them
    constant = [[dict.fromkeys(seeds[1][0], 1.0)] * 2, [dict.fromkeys(seeds[1][0], 0.0)]]  # nothing varies, and they differ
    apart = [[{"elsewhere": 1.0}, {"elsewhere": 0.0}]]
    arms = [*seeds, *tried, *twins, *constant, *apart]
    found = {(d.first, d.second): d for d in duels(arms)}
    asked = 0
    for i, j in itertools.combinations(range(len(arms)), 2):
        expected = compare(arms[i], arms[j])
        if expected is None or expected.p is None:
            assert (i, j) not in found
            continue
        asked += 1
        duel = found.pop((i, j))
        assert (duel.delta, duel.p) == (pytest.approx(expected.delta), pytest.approx(expected.p, rel=1e-9, abs=1e-300)), (i, j)
    assert asked == 55 and found == {}


def test_ranks_are_intervals_that_shrink_as_the_data_separate_the_entries() -> None:
    def arm(hits: int) -> list[dict[str, float]]:
        return [verdicts([1.0] * hits + [0.0] * (100 - hits))]

    found = ranks([arm(10), arm(60), arm(62), arm(95)])  # nested hits: 10 < 60 = 62 (two discordant) < 95
    assert [(r.low, r.high) for r in found] == [(4, 4), (2, 3), (2, 3), (1, 1)]
    assert [r.words for r in found] == ["4", "2 to 3", "2 to 3", "1"] and {r.of for r in found} == {4}
    mixed = ranks([arm(10), [*arm(60), *arm(62)]])  # an entry of two seeds takes the other path
    assert [(r.low, r.high) for r in mixed] == [(2, 2), (1, 1)]


def test_four_entries_need_a_smaller_p_than_two() -> None:
    def arm(wins: int) -> list[dict[str, float]]:
        return [verdicts([1.0] * wins + [0.0] * (20 - wins))]

    assert mcnemar_p(6, 0) == pytest.approx(0.03125)
    assert [(r.low, r.high) for r in ranks([arm(0), arm(6)])] == [(2, 2), (1, 1)]
    tied = [(1, 4)] * 4  # six pairs: 6 * 0.03125 > 0.05
    assert [(r.low, r.high) for r in ranks([arm(0), arm(6), arm(6), arm(6)])] == tied


def test_the_false_discovery_rate_separates_entries_that_holm_leaves_tied() -> None:
    def arm(wins: int) -> list[dict[str, float]]:
        return [verdicts([1.0] * wins + [0.0] * (20 - wins))]

    arms = [arm(0), arm(6), arm(6), arm(6)]  # three of six pairs have p = 0.031; Holm wants 0.05 / 6, the rate 0.05 * 3 / 6
    assert {(r.low, r.high) for r in ranks(arms, "holm")} == {(1, 4)}
    assert [(r.low, r.high) for r in ranks(arms, "bh")] == [(1, 4)] * 4
    wider = [arm(0), arm(7), arm(7), arm(7)]  # p = 0.0156
    assert {(r.low, r.high) for r in ranks(wider, "holm")} == {(1, 4)}
    assert [(r.low, r.high) for r in ranks(wider, "bh")] == [(4, 4), (1, 3), (1, 3), (1, 3)]


def test_seeds_that_differ_widen_the_smallest_gap_and_no_number_of_questions_makes_up_for_them() -> None:
    def run(right: int) -> dict[str, float]:
        return {f"q{i}": float(i < right) for i in range(100)}

    steady = compare([run(50), run(51)], [run(40), run(41)])
    moody = compare([run(10), run(91)], [run(40), run(41)])
    assert steady is not None and moody is not None and steady.gap is not None
    assert steady.low is not None and moody.low is not None and moody.delta == pytest.approx(steady.delta)
    assert steady.gap < 0.15 and moody.gap is None, "two seeds that lie 81 points apart find no difference at all"
    assert moody.more is None and steady.more is not None
    assert questions_needed(0.1, 0.29, 0.0005) > (questions_needed(0.1, 0.29) or 0)  # type: ignore[operator]
