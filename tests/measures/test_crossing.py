"""Crossings: closed forms, a resampling by hand, and what is refused."""

from itertools import product
from math import exp, inf, log, sqrt

import pytest

from catchup.measures.crossing import describe_crossing, find_crossings, turning_point


def row(method, epochs, seed, error, kept=50.0):
    return {
        "method": method,
        "epochs": epochs,
        "seed": seed,
        "data": "digits",
        "n_test": 500,
        "top1_error": error,
        "feature_drop": {"strongest": [[0.0, 90.0], [0.2, kept]]},
    }


def test_the_turn_is_read_off_a_line_over_the_logarithm():
    assert turning_point([10, 100], [-1, 1]) == pytest.approx(sqrt(10 * 100))
    assert turning_point([10, 100], [-1, 3]) == pytest.approx(exp(0.75 * log(10) + 0.25 * log(100)))
    assert turning_point([10, 20, 40, 80], [2, -1, 1, 5]) == pytest.approx(sqrt(20 * 40))
    assert turning_point([10, 20], [0.5, 1]) == 10
    assert turning_point([10, 20], [1, 0]) == inf
    assert turning_point([10, 20], [0, 1]) == pytest.approx(
        10
    )  # a gain of nothing at 10 turns at once


@pytest.mark.parametrize("budgets", [[], [20, 10], [10, 10], [0, 10], [10]])
def test_budgets_that_do_not_ascend_are_refused(budgets):
    with pytest.raises(ValueError, match="ascending"):
        turning_point(budgets, [1, 2])


def rows_of(gaps):
    """`gaps`: {seed: [gain at 10, at 40, at 160 epochs]} of catchup over a baseline of 50 %."""
    return [
        row(method, epochs, seed, 50 - (gain if method == "catchup" else 0), 30 + gain)
        for seed, gains in gaps.items()
        for epochs, gain in zip((10, 40, 160), gains)
        for method in ("baseline", "catchup")
    ]


def test_the_interval_is_that_of_all_resamples():
    gaps = {0: [-8, -2, 4], 1: [-6, 1, 5], 2: [-9, -1, 2]}
    crossing = find_crossings(rows_of(gaps), ("top1_error",))[0]
    means = [sum(column) / 3 for column in zip(*gaps.values())]
    assert crossing.epochs == pytest.approx(turning_point([10, 40, 160], means))
    turns = sorted(
        turning_point([10, 40, 160], [sum(gaps[s][b] for s in pick) / 3 for b in range(3)])
        for pick in product(range(3), repeat=3)
    )
    assert (crossing.low, crossing.high) == pytest.approx((turns[1], turns[25]))  # of 27
    assert crossing.n == 3 and crossing.low < crossing.epochs < crossing.high


def test_more_pairs_than_are_enumerated_are_resampled_the_same_way_each_time():
    gaps = {seed: [-4 + seed % 3, -1 + seed % 2, 3] for seed in range(7)}
    first, again = (find_crossings(rows_of(gaps), ("top1_error",))[0] for _ in range(2))
    assert first == again and first.low <= first.epochs <= first.high


def test_what_counts_as_better_is_the_measures_own():
    more = [
        row(m, e, 0, 50, 20 + (m == "catchup") * e)
        for e in (10, 20)
        for m in ("baseline", "catchup")
    ]
    kept = find_crossings(more, ("without_strongest",))[0]
    assert kept.epochs == 10 and kept.low is None
    assert "at every budget" in describe_crossing(kept)
    never = find_crossings(rows_of({0: [1, 1, -1], 1: [1, 1, -2]}), ("top1_error",))[0]
    assert never.epochs == inf == never.high
    assert "does not pay within what was run (10 … 160 epochs, 2 pairs)" in describe_crossing(never)


def test_the_sentence_holds_the_numbers():
    crossing = find_crossings(rows_of({0: [-1, 1, 2], 1: [-1, 1, 2]}), ("top1_error",))[0]
    said = describe_crossing(crossing)
    assert said == (
        "catchup against baseline, top-1 error: mixing pays from 20 epochs on (95 % of the"
        " resampled pairs: 20 … 20; 10 … 160 epochs, 2 pairs)."
    )
    late = find_crossings(rows_of({0: [-1, -1, 3], 1: [-1, -1, -1]}), ("top1_error",))[0]
    assert "beyond 160" in describe_crossing(late)


def test_rows_without_a_pair_or_a_measure_are_refused():
    with pytest.raises(ValueError, match="share no seed"):
        find_crossings([row("baseline", 10, 0, 5), row("catchup", 10, 1, 5)], ("top1_error",))
    with pytest.raises(ValueError, match="no fgsm_error"):
        find_crossings([row("baseline", 10, 0, 5), row("catchup", 10, 0, 5)], ("fgsm_error",))
    with pytest.raises(ValueError, match="no rows"):
        find_crossings([], ("top1_error",))
