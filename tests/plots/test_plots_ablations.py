"""Figures of ablations: what they draw is what the rows and the laws say."""

import matplotlib
import numpy as np
import pytest
from scipy import stats

from catchup.plots.ablations import lam_card, power_curves, setting_differences, smaller_share

matplotlib.use("Agg")
ERRORS = {
    "catchup": (10.0, 12.0, 11.0),
    "catchup:alpha=10": (11.0, 12.5, 13.5),
    "randomchannel": (9.0, 9.5, 11.5),
}


def rows(errors=ERRORS):
    return [
        {
            "method": label.partition(":")[0],
            "label": label,
            "method_settings": {"x": label},
            "seed": seed,
            "top1_error": error,
        }
        for label, values in errors.items()
        for seed, error in enumerate(values)
    ]


def test_each_setting_has_its_seeds_mean_interval_and_printed_number():
    ax = setting_differences(rows(), printed={"randomchannel": 4.18})
    at = {
        round(line.get_ydata()[0], 2): line for line in ax.lines[1:] if len(line.get_xdata()) == 3
    }
    assert list(at[0.78].get_xdata()) == [1.0, 0.5, 2.5] and list(at[-0.22].get_xdata()) == [
        -1.0,
        -2.5,
        0.5,
    ]
    drawn = [[float(x) for x in line.get_xdata()] for line in ax.lines]
    expected = stats.ttest_rel(ERRORS["catchup:alpha=10"], ERRORS["catchup"]).confidence_interval(
        0.95
    )
    assert any(len(xs) == 2 and xs == pytest.approx(list(expected)) for xs in drawn)
    assert [4.18] in drawn and [pytest.approx(4 / 3)] in drawn and [-1.0] in drawn
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "RandomChannelMix",
        "Catch-up Mix (alpha=10)",
    ]
    assert "points" in ax.get_xlabel() and "Catch-up Mix" in ax.get_xlabel()


def test_one_setting_is_nothing_to_compare():
    with pytest.raises(ValueError, match="one setting only, catchup"):
        setting_differences(rows({"catchup": (10.0, 12.0)}))
    with pytest.raises(ValueError, match="top2_error"):
        setting_differences(rows(), measure="top2_error")


def test_power_curves_are_the_noncentral_law():
    ax = power_curves({"large": 2.0, "small": 0.2}, sd=1.0, most=50)
    large, small = (line for line in ax.lines if len(line.get_xdata()) > 2)
    n = large.get_xdata()[-1]
    bound = stats.t.ppf(0.975, n - 1)
    assert n == 50 and small.get_ydata()[-1] == pytest.approx(
        100 * stats.nct.sf(bound, n - 1, 0.2 * n**0.5)
    )
    assert all(high > low for high, low in zip(large.get_ydata(), small.get_ydata()))
    for given in ({"gaps": {}}, {"gaps": {"a": 1.0}, "most": 2}):
        with pytest.raises(ValueError, match="at least one gap and 3 seeds, got"):
            power_curves(sd=1.0, **given)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0, 10.0])
def test_the_smaller_share_is_the_mean_of_the_draws(alpha):
    lams = np.random.default_rng(1).beta(alpha, alpha, 40_000)
    assert smaller_share(alpha) == pytest.approx(np.minimum(lams, 1 - lams).mean(), abs=0.004)


def test_the_card_shows_law_draws_and_share():
    left, right = lam_card(2.0, [0.5] * 10).axes
    (density,) = left.lines
    assert np.mean(density.get_ydata()) == pytest.approx(1, abs=1e-3)
    assert max(density.get_ydata()) == pytest.approx(1.5, abs=1e-3)  # of Beta(2, 2)
    assert "10 draws" in left.get_title() and right.lines[-1].get_ydata()[0] == pytest.approx(31.25)
    assert "draws" not in lam_card(0.1).axes[0].get_title()
    with pytest.raises(ValueError, match="greater than 0, got 0"):
        lam_card(0)
