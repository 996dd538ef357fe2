"""The table of a comparison against numbers worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from catchup.measures.statistics import (
    accuracy_without,
    comparison,
    differences,
    interval,
    method_of,
)
from catchup.utils.text import as_markdown, as_text


def row(method, seed, top1, dropped, **more):
    curve = {"strongest": [[0, 100], [0.2, dropped]]}
    return {"method": method, "seed": seed, "top1_error": top1, "feature_drop": curve, **more}


COLUMNS = {"top1_error": "error", "without_strongest": "without"}


def test_means_deviations_and_paired_differences():
    rows = [
        row("baseline", 0, 10.0, 30.0),
        row("baseline", 1, 14.0, 50.0),
        row("catchup", 1, 11.0, 70.0),
        row("catchup", 0, 9.0, 40.0),
    ]
    assert comparison(rows, COLUMNS) == [
        ["", "error", "without"],
        ["baseline", "12.00 ± 2.83", "40.00 ± 14.14"],
        ["catchup", "10.00 ± 1.41", "55.00 ± 21.21"],
        ["catchup − baseline", "-2.00 ± 1.41", "+15.00 ± 7.07"],  # −1 and −3; +10 and +20
    ]


def cauchy(t):
    """The two-sided p value of t with one degree of freedom."""
    return 1 - 2 * np.arctan(t) / np.pi


def test_intervals_stand_in_the_place_of_deviations_and_n_is_stated():
    rows = [
        row("baseline", 0, 10.0, 30.0),
        row("baseline", 1, 14.0, 50.0),
        row("catchup", 1, 11.0, 70.0),
        row("catchup", 0, 9.0, 40.0),
        row("cutmix", 1, 15.0, 50.0),
        row("cutmix", 7, 99.0, 99.0),
    ]
    # t for 97.5 % and one degree of freedom, from a printed table; s / √n of −1 and −3 is 1
    half = 12.706204736
    table = comparison(rows, COLUMNS, intervals=True)
    assert table[0] == ["", "n", "error", "without"] and table[1] == [
        "baseline",
        "2",
        "12.00 ± 2.83",
        "40.00 ± 14.14",
    ]
    assert table[4] == [
        "catchup − baseline",
        "2",
        # t is 2 and 3, its law Cauchy's: twice the smaller p, the larger is no less
        f"-2.00 [{-2 - half:+.2f}, {-2 + half:+.2f}], p {2 * cauchy(3):.2f}",
        f"+15.00 [{15 - 5 * half:+.2f}, {15 + 5 * half:+.2f}], p {2 * cauchy(3):.2f}",
    ]
    # seed 1 is all they share
    assert table[5] == ["cutmix − baseline", "1", "+1.00 [unknown]", "+0.00 [unknown]"]


def test_differences_are_those_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = rng.normal(30, 3, 7), rng.normal(28, 2, 7)
    rows = [row("a", seed, value, 1.0) for seed, value in enumerate(first)]
    rows += [row("b", seed, second[seed], 2.0) for seed in (6, 2, 3, 0, 5, 1, 4)]
    error, without = differences(rows, COLUMNS)
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    np.testing.assert_allclose([error["low"], error["high"]], expected, rtol=1e-10)
    assert error["mean"] == pytest.approx((second - first).mean())
    assert error["sd"] == pytest.approx((second - first).std(ddof=1))
    assert [error[key] for key in ("method", "minus", "measure", "n")] == [
        "b",
        "a",
        "top1_error",
        7,
    ]
    assert error["seeds"] == list(range(7))
    assert [without[key] for key in ("measure", "mean", "sd", "low", "high")] == [
        "without_strongest",
        1,
        0,
        1,
        1,
    ]


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_interval_is_students(level):
    values = [3.0, -1.0, 4.5, 0.25]
    expected = stats.t.interval(level, 3, loc=np.mean(values), scale=stats.sem(values))
    np.testing.assert_allclose(interval(values, level), expected, rtol=1e-10)
    assert interval([2.0], level) is None and interval([2.0, 2.0], level) == (2.0, 2.0)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(5, 2, (2000, 3))
    held = np.mean([low < 5 < high for low, high in map(interval, samples.tolist())])
    assert abs(held - 0.95) < 4 * (0.95 * 0.05 / 2000) ** 0.5  # four standard errors


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([1.0, 2.0], 0.0), ([1.0, 2.0], 1.0)])
def test_no_values_and_impossible_levels_are_refused(values, level):
    with pytest.raises(ValueError, match="must not be empty and level must lie in"):
        interval(values, level)


def test_a_label_tells_two_settings_of_a_method_apart():
    rows = [
        row("cutmix", 0, 1.0, 2.0, label="cutmix", method_settings={"alpha": 1.0}),
        row("cutmix", 0, 3.0, 5.0, label="cutmix:alpha=0.2", method_settings={"alpha": 0.2}),
        row("catchup", 0, 2.0, 3.0, label="catchup:layers=[0]", method_settings={"layers": [0]}),
    ]
    assert [line[0] for line in comparison(rows, COLUMNS)] == [
        "",
        "cutmix",
        "cutmix:alpha=0.2",
        "catchup:layers=[0]",
        "cutmix:alpha=0.2 − cutmix",
        "catchup:layers=[0] − cutmix",
    ]


def test_single_seeds_have_no_spread_and_unpaired_ones_are_refused():
    assert comparison([row("a", 0, 1.0, 2.0), row("b", 0, 3.0, 5.0)], COLUMNS)[-1] == [
        "b − a",
        "+2.00",
        "+3.00",
    ]
    with pytest.raises(ValueError, match="no seed in common"):
        comparison([row("a", 0, 1.0, 2.0), row("b", 1, 3.0, 5.0)], COLUMNS)
    with pytest.raises(ValueError, match="there are no rows"):
        comparison([], COLUMNS)


def test_rows_of_two_settings_are_never_averaged():
    with pytest.raises(ValueError, match="rows of a differ in epochs"):
        comparison([row("a", 0, 1.0, 2.0, epochs=3), row("a", 1, 3.0, 5.0, epochs=4)], COLUMNS)
    with pytest.raises(ValueError, match="two rows of one seed"):
        comparison([row("a", 0, 1.0, 2.0), row("a", 0, 3.0, 5.0)], COLUMNS)


def test_layer_0_only_is_called_cutmix():
    settings = {"layers": [0], "input_mix": "cutmix"}
    assert method_of({"method": "catchup", "method_settings": settings}) == "cutmix"
    assert (
        method_of({"method": "catchup", "method_settings": {**settings, "input_mix": "mixup"}})
        == "catchup"
    )
    assert (
        method_of({"method": "catchup", "method_settings": {**settings, "layers": None}})
        == "catchup"
    )
    assert method_of({"method": "catchup", "method_settings": {"layers": (0,)}}) == "cutmix"


def test_a_missing_measure_is_named():
    with pytest.raises(ValueError, match="the row of a, seed 0, has no fgsm_error"):
        comparison([row("a", 0, 1.0, 2.0)], {"fgsm_error": "FGSM"})
    bare = {"method": "a", "seed": 0, "top1_error": 1.0, "feature_drop": None}
    assert comparison([bare], {"top1_error": "error"})[1] == ["a", "1.00"]
    with pytest.raises(ValueError, match="has no feature_drop"):
        comparison([bare], {"top1_error": "error", "without_strongest": "without"})
    with pytest.raises(ValueError, match="measured: 0, 0.2"):
        accuracy_without(row("a", 0, 1.0, 2.0), 0.5)


def test_accuracy_without_reads_the_curve():
    assert accuracy_without(row("a", 0, 1.0, 42.0), 0.2) == 42.0


def test_layouts():
    table = [["", "x"], ["long name", "1"]]
    assert as_text(table) == "           x\nlong name  1"
    assert as_markdown(table) == "|  | x |\n|---|---|\n| long name | 1 |"


def test_a_column_may_show_a_key_inside_a_field():
    rows = [
        {**row(method, seed, 1.0, 2.0), "corruption": {"mce": mce}}
        for method, seed, mce in (("a", 0, 50.0), ("a", 1, 52.0), ("b", 0, 47.0), ("b", 1, 50.0))
    ]
    assert comparison(rows, {"corruption.mce": "mCE"}) == [
        ["", "mCE"],
        ["a", "51.00 ± 1.41"],
        ["b", "48.50 ± 2.12"],
        ["b − a", "-2.50 ± 0.71"],
    ]
    assert differences(rows, ["corruption.mce"])[0]["mean"] == -2.5
    with pytest.raises(ValueError, match="the row of a, seed 0, has no corruption"):
        comparison([{**rows[0], "corruption": None}], {"corruption.mce": "mCE"})
    with pytest.raises(ValueError, match="the row of a, seed 0, has no corruption.mce"):
        comparison([{**rows[0], "corruption": {}}], {"corruption.mce": "mCE"})
