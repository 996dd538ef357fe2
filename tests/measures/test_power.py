"""How many seeds: published numbers, the normal law in the limit, a simulation, and pairs worked
out by hand.
"""

import numpy as np
import pytest

from catchup.measures.power import interval_power, pooled_spread, seeds_needed
from catchup.measures.statistics import interval


@pytest.mark.parametrize("gap, needed", [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_cohens_small_medium_and_large_effects_need_what_is_published(gap, needed):
    # paired t test, two-sided 5 %, power 80 %: G*Power, and Cohen's tables
    assert seeds_needed(gap, 1.0) == needed
    assert seeds_needed(10 * gap, 10.0) == needed, "the unit does not matter"
    assert interval_power(gap, 1.0, needed) >= 0.8 > interval_power(gap, 1.0, needed - 1)


def test_it_is_the_chance_that_the_interval_of_the_tables_excludes_zero():
    draws = np.random.default_rng(0).normal(1.5, 2.0, (2000, 6))
    above = np.mean([interval(list(values))[0] > 0 for values in draws])
    assert interval_power(1.5, 2.0, 6) == pytest.approx(above, abs=4 * (0.25 / 2000) ** 0.5)


def test_more_seeds_help_and_more_certainty_costs():
    chances = [interval_power(1.0, 1.0, n) for n in range(2, 30)]
    assert chances == sorted(chances) and interval_power(1.0, 1.0, 10, level=0.99) < interval_power(
        1.0, 1.0, 10
    )
    assert (
        seeds_needed(1.0, 1.0, wanted=0.95) > seeds_needed(1.0, 1.0)
        and seeds_needed(100.0, 1.0) == 2
    )


@pytest.mark.parametrize(
    "given", [(0, 1, 5), (1, 0, 5), (1, 1, 1), (-1, 1, 5), (1, float("nan"), 5)]
)
def test_numbers_outside_their_range_are_named(given):
    with pytest.raises(ValueError, match="got"):
        interval_power(*given)


def test_a_wish_that_cannot_be_met_is_said():
    with pytest.raises(ValueError, match="chance between 0 and 1, got 1"):
        seeds_needed(1, 1, wanted=1)
    with pytest.raises(ValueError, match="more than 1000000 seeds"):
        seeds_needed(1e-4, 1)


def row(label, seed, error):
    return {
        "method": "catchup",
        "label": label,
        "method_settings": {},
        "seed": seed,
        "top1_error": error,
    }


def test_what_the_seeds_share_cancels_in_pairs():
    rows = [
        row(label, seed, error + extra)
        for label, extras in {"a": (0, 1, 2), "b": (1, 0, 2)}.items()
        for seed, (error, extra) in enumerate(zip((10.0, 30.0, 20.0), extras))
    ]
    paired, unpaired = pooled_spread(rows)
    assert paired == pytest.approx(1.0)  # of the differences 1, −1, 0
    variances = np.var([10, 31, 22], ddof=1) + np.var([11, 30, 22], ddof=1)
    assert unpaired == pytest.approx(variances**0.5)
    with pytest.raises(ValueError, match="two settings and two seeds that all share, got 1 and 3"):
        pooled_spread([one for one in rows if one["label"] == "a"])
