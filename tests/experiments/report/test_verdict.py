"""The verdict rule on cases made by hand, and the differences against SciPy's paired t test."""

import numpy as np
import pytest
from scipy import stats

from catchup.experiments.report.verdict import (
    RULE,
    WORDS,
    Difference,
    Verdict,
    excludes_zero,
    judge,
    paired_difference,
)


def ours(mean, low=None, high=None, n=3):
    return Difference(mean, low, high, n)


@pytest.mark.parametrize(
    ("difference", "printed", "same", "word"),
    [
        (ours(-5.0, -6.0, -4.0), -5.2, True, "reproduced"),
        # within the rounding of two printed numbers
        (ours(-5.0, -5.2, -4.8), -5.21, True, "reproduced"),
        (ours(-5.0, -5.2, -4.8), -5.22, True, "same sign"),  # just outside of it
        (ours(-5.0, -5.2, -4.8), -4.78, True, "same sign"),
        (ours(-5.0, -11.0, 1.0), -5.2, True, "same sign"),  # holds it, and zero as well
        (ours(-5.0, -10.0, 0.0), -5.2, True, "same sign"),  # zero is its edge
        (ours(-9.0, -9.5, -8.5), -5.2, True, "same sign"),  # certain, but of another size
        (ours(-5.2, n=1), -5.2, True, "same sign"),  # one seed
        (ours(0.3, 0.1, 0.5), -5.2, True, "not reproduced"),
        (ours(0.0, -1.0, 1.0), -5.2, True, "not reproduced"),
        (ours(5.0, 4.0, 6.0), 5.2, True, "reproduced"),
        (ours(5.5, 5.205, 6.0), 5.2, True, "reproduced"),  # the printed numbers are rounded
        (ours(5.5, 5.215, 6.0), 5.2, True, "same sign"),
        (ours(5.0, 4.0, 6.0), 5.2, False, "same sign (scaled)"),  # a scaled run reproduces nothing
        (ours(5.2, 5.2, 5.2), 5.2, False, "same sign (scaled)"),
        (ours(-5.0, -6.0, -4.0), 5.2, False, "not reproduced (scaled)"),
        (None, 5.2, False, "not run"),
        (None, None, False, "not compared"),
        (ours(5.0, 4.0, 6.0), None, True, "not compared"),  # nothing printed
        (ours(5.0, 4.0, 6.0), 0.0, True, "not compared"),  # a printed difference without a sign
    ],
)
def test_the_rule(difference, printed, same, word):
    said = judge(difference, printed, same_protocol=same)
    assert said.word == word and word in WORDS
    has_sign = not word.startswith(("not run", "not compared"))
    assert said.agrees is (not word.startswith("not reproduced") if has_sign else None)


@pytest.mark.parametrize("mean", [-5.0, 0.0, 5.0])
def test_a_scaled_run_of_networks_that_still_learn_is_too_short_to_tell(mean):
    difference = ours(mean, mean - 1, mean + 1)
    scaled = judge(difference, 5.2, same_protocol=False, learning="it knows nothing")
    assert str(scaled) == "too short to tell, it knows nothing" and scaled.agrees is (mean > 0)
    # the paper's own protocol is judged as it is: its budget is the paper's
    own, known = (judge(difference, 5.2, same_protocol=True, learning=why) for why in ("it", ""))
    assert own == known


def test_two_seeds_reproduce_nothing():
    assert judge(ours(-5.0, -6.0, -4.0, n=2), -5.2, same_protocol=True).word == "same sign"


@pytest.mark.parametrize(
    ("mean", "claimed", "same", "word"),
    [
        (2.0, 1, True, "same sign"),
        (2.0, 1, False, "same sign (scaled)"),
        (-2.0, 1, True, "not reproduced"),
        (-2.0, -1, False, "same sign (scaled)"),
        (2.0, 0, True, "not compared"),
    ],
)
def test_a_figure_claims_a_sign_and_is_never_reproduced(mean, claimed, same, word):
    assert (
        judge(ours(mean, mean - 0.5, mean + 0.5), None, same_protocol=same, claimed=claimed).word
        == word
    )


def test_a_printed_difference_goes_before_a_claim():
    assert judge(ours(2.0, 1.0, 3.0), 2.0, same_protocol=True, claimed=-1).word == "reproduced"


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (ours(1.0, 0.5, 1.5), "interval excludes 0"),
        (ours(1.0, -0.5, 2.5), "interval includes 0"),
        (ours(1.0, 0.0, 2.0), "interval includes 0"),
        (ours(1.0, n=1), "one seed, no interval"),
        (ours(-1.0, -1.5, -0.5)._replace(kind="quartile range"), "quartile range excludes 0"),
    ],
)
def test_what_is_known_of_zero_is_said(difference, said):
    given = judge(difference, 3.0, same_protocol=False)
    assert given.certainty == said and str(given) == f"{given.word}, {said}"
    assert str(Verdict("not run")) == "not run"


def test_no_scaled_run_is_ever_called_reproduced():
    rng = np.random.default_rng(0)
    for _ in range(300):
        low, mean, high = sorted(rng.normal(0, 2, 3))
        given = judge(Difference(mean, low, high, 5), float(rng.normal(0, 2)), same_protocol=False)
        assert given.word in ("same sign (scaled)", "not reproduced (scaled)")


def test_reproduced_needs_all_three():
    """A random search against the sentence of the rule, written out once more."""
    rng, seen = np.random.default_rng(1), set()
    for _ in range(2000):
        low, mean, high = sorted(rng.normal(1, 1, 3))
        printed = float(rng.normal(1, 1))
        word = judge(Difference(mean, low, high, 5), printed, same_protocol=True).word
        certain = (printed > 0 and low > 0) or (printed < 0 and high < 0)
        assert (word == "reproduced") == (certain and low - 0.01 <= printed <= high + 0.01)
        assert (word == "not reproduced") == (mean * printed <= 0)
        seen.add(word)
    assert seen == {"reproduced", "same sign", "not reproduced"}


@pytest.mark.parametrize("n", [2, 3, 9])
def test_the_paired_difference_is_that_of_scipy(n):
    rng = np.random.default_rng(n)
    first, second = rng.normal(30, 3, n), rng.normal(28, 2, n)
    found = paired_difference(list(second), list(first))
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-10)
    assert found.mean == pytest.approx((second - first).mean()) and found.n == n
    significant = stats.ttest_rel(second, first).pvalue < 0.05
    assert excludes_zero(found) == significant


def test_a_single_pair_has_no_interval():
    assert (
        paired_difference([3.0], [1.0]) == Difference(2.0, None, None, 1)
        and excludes_zero(paired_difference([3.0], [1.0])) is None
    )


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_does_not_pair_up_is_refused(a, b):
    with pytest.raises(ValueError, match="at least one, got"):
        paired_difference(a, b)


def test_the_printed_rule_names_every_word():
    for word in WORDS:
        assert word.removesuffix(" (scaled)") in RULE
    assert "never called reproduced" in RULE and "of twenty" in RULE
