"""From which budget on a method pays: paired gains over budgets, where they turn, and an interval
by resampling the pairs.

Where it misleads: a budget is one point of one schedule. Between two of them the turn is read off
a straight line over the logarithm of the epochs, and nothing is known beyond the largest. Three
pairs have ten different resamples: their interval says how far the pairs agree, not more.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import exp, inf, log
from typing import NamedTuple

import numpy as np

from .statistics import COLUMNS, by_method, value_of

HIGHER_IS_BETTER = ("without_strongest",)
ENUMERATED = 5  # pairs up to which every resample is taken: 5^5 of them
RESAMPLES = 10_000  # above


class Crossing(NamedTuple):
    """From which budget on a method is better than the first, in one measure.

    Attributes:
        method: the method, as `catchup.measures.statistics.method_of` names it.
        minus: the method it is compared with, the first of the rows.
        measure: the field of the rows.
        budgets: epochs of the runs, ascending.
        n: pairs, one a seed.
        epochs: from here on the mean gain is above 0 at every budget; the smallest budget where it
            is above 0 everywhere; infinite where it is not at the largest.
        low: 2.5th percentile of `epochs` over the resampled pairs; None for a single pair.
        high: 97.5th percentile; infinite where that many resamples do not pay within the budgets.
    """

    method: str
    minus: str
    measure: str
    budgets: tuple[int, ...]
    n: int
    epochs: float
    low: float | None
    high: float | None


def turning_point(budgets: Sequence[int], gains: Sequence[float]) -> float:
    """The budget from which on a gain stays above zero, on straight lines over log(epochs).

    Args:
        budgets: epochs > 0, ascending.
        gains: the gain at each budget, in any unit; > 0 is better.
    Returns:
        Epochs; the first budget if every gain is above 0, infinity if the last is not.
    Raises:
        ValueError: if there are no budgets, they do not ascend, or the gains are of another number.
    """
    ascending = all(0 < a < b for a, b in zip(budgets, budgets[1:], strict=False))
    if not budgets or budgets[0] <= 0 or not ascending or len(gains) != len(budgets):
        raise ValueError(
            f"budgets must be positive, ascending and one a gain, got {list(budgets)} and"
            f" {len(gains)} gains"
        )
    if gains[-1] <= 0:
        return inf
    turn = next((at for at in reversed(range(len(gains))) if gains[at] <= 0), None)
    if turn is None:
        return float(budgets[0])
    share = -gains[turn] / (gains[turn + 1] - gains[turn])
    return exp((1 - share) * log(budgets[turn]) + share * log(budgets[turn + 1]))


def find_crossings(rows: Sequence[Mapping], measures: Sequence[str]) -> list[Crossing]:
    """Every method against the first, in every measure.

    Args:
        rows: evaluation objects of several budgets (`epochs`), each with every measure. Pairs are
            the seeds that both methods have at every budget at which both were run.
        measures: fields of the rows (see `catchup.measures.statistics.value_of`). Less is better
            but for those of `HIGHER_IS_BETTER`.
    Returns:
        One for each method but the first and each measure.
    Raises:
        ValueError: if there are no rows, a row lacks a measure, or two methods share no pair.
    """
    values = {measure: _by_method(rows, measure) for measure in measures}
    first, *others = values[measures[0]]
    return [
        _cross(method, first, measure, values[measure]) for method in others for measure in measures
    ]


def describe_crossing(crossing: Crossing) -> str:
    """The crossing as one sentence, its budgets and pairs in it."""
    name = COLUMNS.get(crossing.measure, crossing.measure)
    span = f"{crossing.budgets[0]} … {crossing.budgets[-1]} epochs, {crossing.n} pairs"
    pair = f"{crossing.method} against {crossing.minus}, {name}:"
    if crossing.epochs == inf:
        return f"{pair} mixing does not pay within what was run ({span})."
    if crossing.epochs == crossing.budgets[0]:
        return f"{pair} mixing pays at every budget that was run ({span})."
    ends = "unknown: one pair"
    if crossing.low is not None and crossing.high is not None:
        ends = " … ".join(
            f"beyond {crossing.budgets[-1]}" if end == inf else f"{end:.0f}"
            for end in (crossing.low, crossing.high)
        )
    return (
        f"{pair} mixing pays from {crossing.epochs:.0f} epochs on (95 % of the resampled pairs:"
        f" {ends}; {span})."
    )


def _by_method(rows: Sequence[Mapping], measure: str) -> dict[str, dict[int, dict[int, float]]]:
    """{method: {epochs: {seed: value}}}."""
    found: dict[str, dict[int, dict[int, float]]] = {}
    for epochs in sorted({row["epochs"] for row in rows}):
        at_budget = [row for row in rows if row["epochs"] == epochs]
        needed = "feature_drop" if measure == "without_strongest" else measure.partition(".")[0]
        for method, group in by_method(at_budget, needed).items():
            found.setdefault(method, {})[epochs] = {
                row["seed"]: _number_of(row, measure) for row in group
            }
    if not found:
        raise ValueError("there are no rows, got an empty sequence")
    return found


def _number_of(row: Mapping, measure: str) -> float:
    value = value_of(row, measure)
    if value is None:
        raise ValueError(
            f"the row of {row['method']}, seed {row['seed']}, {row['epochs']} epochs has no"
            f" {measure}: evaluate it first"
        )
    return value


def _cross(
    method: str, first: str, measure: str, values: Mapping[str, Mapping[int, Mapping[int, float]]]
) -> Crossing:
    """The crossing of one method in one measure."""
    own, other = values[method], values[first]
    budgets = [epochs for epochs in own if epochs in other]
    seeds = [
        seed
        for seed in (own[budgets[0]] if budgets else ())
        if all(seed in own[epochs] and seed in other[epochs] for epochs in budgets)
    ]
    if not seeds:
        raise ValueError(f"{method} and {first} share no seed at all of their budgets {budgets}")
    sign = 1 if measure in HIGHER_IS_BETTER else -1
    gains = sign * np.array(
        [[own[epochs][seed] - other[epochs][seed] for epochs in budgets] for seed in seeds]
    )
    low, high = (None, None) if len(seeds) == 1 else _resampled_ends(budgets, gains)
    epochs = turning_point(budgets, gains.mean(axis=0).tolist())
    return Crossing(method, first, measure, tuple(budgets), len(seeds), epochs, low, high)


def _resampled_ends(budgets: Sequence[int], gains: np.ndarray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the turning point; a pair keeps its whole curve."""
    n = len(gains)
    if n <= ENUMERATED:
        picks = np.array(list(product(range(n), repeat=n)))
    else:
        picks = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    turns = sorted(turning_point(budgets, gains[pick].mean(axis=0).tolist()) for pick in picks)
    last = len(turns) - 1
    return turns[round(0.025 * last)], turns[round(0.975 * last)]
