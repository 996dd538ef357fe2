"""What a mean of few paired differences says: its interval, its p value, and what a table of them
says together.

Where it misleads: a test on n images knows steps of 1 / n alone. Two seeds that differ by the same
number of steps show no spread, and their interval would have no width; so the spread of a rounding
is taken for theirs.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import isfinite, nan
from statistics import mean, stdev

# fields that count single test images, by the test whose options say how many
COUNTED = {
    **dict.fromkeys(("last_error", "best_error", "median10_error"), "clean"),
    **dict.fromkeys(("top1_error", "top5_error"), "clean"),
    "without_strongest": "feature-drop",
    "fgsm_error": "fgsm",
    "pgd_error": "pgd",
    "deformation": "deformation",
}


def interval(
    values: Sequence[float], level: float = 0.95, resolution: float = 0.0
) -> tuple[float, float] | None:
    """Student's t interval for the mean of a normal population, from a sample of it: mean ± t_{n−1}
    s / √n.

    Source: Student, "The probable error of a mean", Biometrika 1908; s is the sample standard
    deviation.

    Args:
        values: at least one; independent, as the paired differences of different seeds are.
        level: the share of samples whose interval holds the mean, in (0, 1).
        resolution: the step in which the values are known, ≥ 0, in their unit (see
            `resolution_of`). s is taken as no smaller than the deviation of a rounding to it,
            resolution / √12, and the interval as no narrower than the step. Without one, equal
            values have an interval of no width.
    Returns:
        (low, high), or None for a single value, which says nothing of its spread.
    """
    if not values or not 0 < level < 1:
        raise ValueError(
            f"values must not be empty and level must lie in (0, 1), got {values!r} and {level}"
        )
    if len(values) == 1:
        return None
    from scipy.special import stdtrit

    reach = float(stdtrit(len(values) - 1, (1 + level) / 2))
    spread = max(deviation(values), resolution / 12**0.5)
    half = max(reach * spread / len(values) ** 0.5, resolution / 2)
    return mean(values) - half, mean(values) + half


def p_value(values: Sequence[float], resolution: float = 0.0) -> float | None:
    """Of the two-sided t test that their mean is zero: below 0.05 where `interval` excludes it.

    Args:
        values, resolution: as for `interval`.
    Returns:
        A number in [0, 1], NaN where a value is not finite; None for a single value.
    """
    bounds = interval(values, resolution=resolution)
    if bounds is None:
        return None
    from scipy.special import stdtr, stdtrit

    half = (bounds[1] - bounds[0]) / 2
    if half == 0:
        return float(mean(values) == 0)
    error = half / float(stdtrit(len(values) - 1, 0.975))
    return float(2 * stdtr(len(values) - 1, -abs(mean(values)) / error))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for all that are tested together: the chance of a single false one among
    them stays below 0.05 where those below 0.05 are believed, dependent or not.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 1979.

    Args:
        p_values: in [0, 1]; None and NaN are not tested, and stay.
    Returns:
        One for each, in their order.
    """
    known = {at: p for at, p in enumerate(p_values) if p is not None and isfinite(p)}
    order = sorted(known, key=known.__getitem__)
    raised = [min(1.0, (len(order) - rank) * known[at]) for rank, at in enumerate(order)]
    corrected = dict(zip(order, accumulate(raised, max)))
    return [corrected.get(at, p) for at, p in enumerate(p_values)]


def format_p(p: float | None) -> str:
    """A p value with two decimals; "" for none."""
    return "" if p is None else "< 0.01" if p < 0.01 else f"{p:.2f}"


def resolution_of(row: Mapping, column: str) -> float:
    """The least difference that a test can show: one test image, in percentage points.

    Args:
        row: an evaluation object.
        column: as for `catchup.measures.statistics.value_of`.
    Returns:
        ≥ 0; 0 for what does not count images, or where their number is not known.
    """
    test, n = COUNTED.get(column.partition(".")[0]), row.get("n_test")
    if test is None or not n:
        return 0.0
    sample = ((row.get("measured_with") or {}).get(test) or {}).get("sample")
    classes = (row.get("identity") or {}).get("classes")
    return 100 / (min(n, sample * len(classes)) if sample and classes else n)


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN where a value is not finite, on which `statistics.stdev`
    fails.
    """
    return stdev(values) if all(map(isfinite, values)) else nan
