"""p values against SciPy, Holm's correction against its definition, and what a test can resolve."""

import numpy as np
import pytest
from scipy import stats

from catchup.measures.significance import format_p, holm, interval, p_value, resolution_of


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_p_value_is_that_of_scipys_t_test(n):
    values = np.random.default_rng(n).normal(1, 2, n).tolist()
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert p_value(values[:1]) is None


def test_an_interval_is_not_narrower_than_the_resolution():
    half = 12.706204736 * 0.5 / (12 * 2) ** 0.5  # t of one degree of freedom, from a printed table
    assert interval([0.25, 0.25], resolution=0.5) == pytest.approx((0.25 - half, 0.25 + half))
    many = interval([0.25] * 40, resolution=0.5)
    assert many == pytest.approx((0.0, 0.5))  # with many the rounding averages out: one step
    wide = interval([1.0, 2.0])
    assert interval([1.0, 2.0], resolution=0.1) == wide
    assert p_value([half, half], resolution=0.5) == pytest.approx(0.05)  # zero is its edge
    assert p_value([1.3, 1.3], resolution=0.5) < 0.05 < p_value([1.29, 1.29], resolution=0.5)
    assert p_value([0.3, 0.3]) == 0 and p_value([0.0, 0.0]) == 1


def test_holm_rejects_what_its_procedure_rejects():
    """The procedure: the smallest against α / m, the next against α / (m − 1), until one fails."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p_values = (rng.random(6) ** 3).tolist()
        corrected, rejected = holm(p_values), set()
        for rank, at in enumerate(np.argsort(p_values)):
            if p_values[at] > 0.05 / (6 - rank):
                break
            rejected.add(int(at))
        assert rejected == {at for at, p in enumerate(corrected) if p <= 0.05}
        assert all(one >= p for one, p in zip(corrected, p_values))


def test_what_was_not_tested_stays_and_does_not_count():
    assert holm([None, 0.02, None, 0.01]) == [None, 0.02, None, 0.02]
    assert holm([]) == [] and holm([None]) == [None]
    assert [format_p(p) for p in (None, 0.001, 0.044)] == ["", "< 0.01", "0.04"]


def test_the_resolution_is_one_image_of_those_that_were_measured():
    row = {
        "n_test": 2500,
        "identity": {"classes": ["a"] * 50},
        "measured_with": {"fgsm": {"sample": 10}, "pgd": {"sample": 100}, "clean": {}},
    }
    assert resolution_of(row, "top1_error") == pytest.approx(100 / 2500)
    assert resolution_of(row, "fgsm_error") == pytest.approx(100 / 500)
    assert resolution_of(row, "pgd_error") == pytest.approx(100 / 2500)  # there are no more
    assert resolution_of(row, "deformation.rotate 20") == pytest.approx(100 / 2500)
    assert resolution_of(row, "corruption.mce") == 0 == resolution_of({}, "top1_error")
