"""How many seeds a difference needs: the chance that Student's interval of paired differences
excludes zero.

Source: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, chapter 2 (the t test
of paired samples); the t statistic of a mean that is not zero follows the noncentral t law.

Where it misleads: the standard deviation has to be known, and one from two or three seeds hardly
is. The differences are taken as normal, and the gap as given; a gap that was measured in the same
few runs is itself uncertain.
"""

import math
from collections.abc import Mapping, Sequence
from operator import sub
from statistics import mean, stdev

from .statistics import by_method

MOST = 10**6  # seeds


def interval_power(gap: float, sd: float, n: int, level: float = 0.95) -> float:
    """The chance that the interval of n paired differences lies wholly on the gap's side of zero.

    Args:
        gap: the true mean of the differences, > 0, in any unit.
        sd: their standard deviation, > 0, in the same unit.
        n: how many, ≥ 2.
        level: of the interval, in (0, 1).
    Returns:
        A number in (0, 1).
    Raises:
        ValueError: if a number is outside its range.
    """
    _check(gap, sd, level)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 seeds, got n = {n}")
    from scipy.special import stdtrit
    from scipy.stats import nct

    bound = float(stdtrit(n - 1, (1 + level) / 2))
    return float(nct.sf(bound, n - 1, gap * math.sqrt(n) / sd))


def seeds_needed(gap: float, sd: float, wanted: float = 0.8, level: float = 0.95) -> int:
    """The fewest seeds with which the interval excludes zero, on the gap's side, with at least this
    chance.

    Args:
        gap, sd, level: as for `interval_power`.
        wanted: the chance, in (0, 1).
    Raises:
        ValueError: if a number is outside its range, or a million seeds would not do.
    """
    _check(gap, sd, level)
    if not 0 < wanted < 1:
        raise ValueError(f"wanted is a chance between 0 and 1, got {wanted}")
    low, high = 1, 2
    while interval_power(gap, sd, high, level) < wanted:
        low, high = high, 2 * high
        if high > MOST:
            raise ValueError(
                f"a gap of {gap} with a standard deviation of {sd} needs more than {MOST} seeds"
            )
    while high - low > 1:  # the chance grows with n
        middle = (low + high) // 2
        if interval_power(gap, sd, middle, level) < wanted:
            low = middle
        else:
            high = middle
    return high


def pooled_spread(rows: Sequence[Mapping], measure: str = "top1_error") -> tuple[float, float]:
    """Standard deviation of a difference between two settings: of paired seeds, and of seeds that
    have nothing to do with each other.

    Args:
        rows: evaluation objects, as for `catchup.measures.statistics.comparison`.
        measure: a field of them.
    Returns:
        (paired, unpaired), in points: the root of the mean variance over all pairs of settings;
        unpaired is the root of the sum of the two settings' own variances.
    Raises:
        ValueError: as `statistics.by_method`, or if there are fewer than two settings or two shared
            seeds.
    """
    values = {
        method: {row["seed"]: row[measure] for row in group}
        for method, group in by_method(rows, measure).items()
    }
    names, seeds = list(values), sorted(set.intersection(*map(set, values.values())))
    if len(names) < 2 or len(seeds) < 2:
        raise ValueError(
            "a spread of differences needs two settings and two seeds that all share, got"
            f" {len(names)} and {len(seeds)}"
        )
    pairs = [(first, second) for place, first in enumerate(names) for second in names[:place]]
    errors = {name: [values[name][seed] for seed in seeds] for name in names}
    paired = [stdev(map(sub, errors[first], errors[second])) ** 2 for first, second in pairs]
    own = {name: stdev(errors[name]) ** 2 for name in names}
    unpaired = [own[first] + own[second] for first, second in pairs]
    return math.sqrt(mean(paired)), math.sqrt(mean(unpaired))


def _check(gap: float, sd: float, level: float) -> None:
    if not (0 < gap < math.inf and 0 < sd < math.inf and 0 < level < 1):
        raise ValueError(
            f"gap and sd must be > 0 and finite, level in (0, 1), got gap {gap}, sd {sd}, level"
            f" {level}"
        )
