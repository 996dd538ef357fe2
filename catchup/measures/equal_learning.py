"""Two methods at equal learning: beside a run of one method stands the shortest run of the plain
one that knows as many of its own training images.

Methods that mix learn their images later, so that at an equal budget one compares a network that
has finished with one that has not. At equal learning the plain one gets less.

Where it misleads: the two have then seen different numbers of images, and equal shares of training
images known are not the same images.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .statistics import method_of

WITHIN = 0.5  # percentage points of clean training accuracy


class Match(NamedTuple):
    """A run and its like.

    Attributes:
        row: of the longest run of a method and seed.
        plain: of the shortest plain run of that seed that has learnt as much; None without one.
        tried: (epochs, train_accuracy in percent) of every plain run of that seed, the shortest
            first.
    """

    row: Mapping
    plain: Mapping | None
    tried: tuple[tuple[int, float], ...]


def match_learning(
    rows: Sequence[Mapping], method: str, *, plain: str = "baseline", within: float = WITHIN
) -> list[Match]:
    """For every seed of a method: its longest run, and the shortest plain run whose accuracy on its
    training images is within `within` points of it.

    Args:
        rows: of one setting but for method, seed and epochs: {"method", "seed", "epochs",
            "train_accuracy" in percent, …}.
        method: as `catchup.measures.statistics.method_of` names it.
        plain: likewise.
        within: percentage points, ≥ 0.
    Returns:
        One for each seed of the method, by seed; none if it has no rows.
    Raises:
        ValueError: if a method has two rows of one seed and budget.
    """
    runs: dict[tuple[str, int], dict[int, Mapping]] = {}
    for row in rows:
        own = runs.setdefault((method_of(row), row["seed"]), {})
        if row["epochs"] in own:
            raise ValueError(
                f"two rows of {method_of(row)}, seed {row['seed']}, {row['epochs']} epochs: runs of"
                " several settings?"
            )
        own[row["epochs"]] = row
    found = []
    for seed in sorted(seed for name, seed in runs if name == method):
        own, others = runs[method, seed], runs.get((plain, seed), {})
        longest = own[max(own)]
        tried = tuple((epochs, others[epochs]["train_accuracy"]) for epochs in sorted(others))
        like = [
            others[epochs]
            for epochs, accuracy in tried
            if round(abs(accuracy - longest["train_accuracy"]), 9) <= within
        ]
        found.append(Match(longest, like[0] if like else None, tried))
    return found


def describe_match(match: Match, field: str = "broken_accuracy", name: str = "cue broken") -> str:
    """The match as one sentence: both budgets, what both know, and the difference in `field`, in
    percent; or that there is no such plain run.
    """
    row = match.row
    head = f"seed {row['seed']}: {method_of(row)} at {row['epochs']} epochs knows"
    head += f" {row['train_accuracy']:.1f} % of its training images"
    if match.plain is None:
        tried = ", ".join(f"{accuracy:.1f} % at {epochs}" for epochs, accuracy in match.tried)
        return f"{head}; no plain run knows about as many ({tried or 'there is none of this seed'})"
    plain = match.plain
    return (
        f"{head}, {method_of(plain)} at {plain['epochs']} {plain['train_accuracy']:.1f} %; {name}:"
        f" {row[field]:.1f} and {plain[field]:.1f} %, {row[field] - plain[field]:+.1f}"
    )
