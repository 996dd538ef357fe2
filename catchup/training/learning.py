"""Is a network trained, or still learning? One rule for every record, sentence and verdict.

A network counts as trained when both hold:

1. it knows its training images (a clean error of at most 2 % on them), or, where mixing keeps it
   from knowing them, a run of half its budget ends less than one point of validation error above
   it;
2. it was given at least 5 % of the steps that the paper gives its networks on such images.

The numbers were set with the plan of the runs in `data/results/weights/main`, of which seed 0 was
known. In those runs of 200 epochs plain networks stay below 2 % from epoch 120 on, CutMix, random
channels and Catch-up Mix from 160 or 180 on; 5 % of the paper's steps is 78 epochs there.

Where it misleads: a network that knows its images may still gain from more steps, and the half-
budget run has a schedule of its own. The rule says that a comparison may be read, not that it is
over.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

CLEAN_TRAIN_ERROR = 2.0  # percent
HALF_BUDGET_GAIN = 1.0  # percentage points of validation error
SHARE_OF_STEPS = 0.05
# Steps of the paper over all training images of a set, by the side of its images in pixels: epochs
# and batch size of its Tables 1 and 2 (2000 x 128, 1200 x 256; a share of the images has the same).
PAPER_RUNS = {32: (2000, 128), 64: (1200, 256)}


class Learning(NamedTuple):
    """Whether a network is trained, and why, in words."""

    trained: bool
    reason: str


def judge_learning(
    clean_train_error: float | None,
    share_of_steps: float | None = None,
    half_budget_gain: float | None = None,
) -> Learning:
    """The rule of this file.

    Args:
        clean_train_error: error on training images as they are, neither mixed nor augmented, in
            percent; None if it was not measured, which counts as not known.
        share_of_steps: steps of the run over the paper's, ≥ 0 (see `share_of_paper`); None where
            the paper has no such run.
        half_budget_gain: validation error of a run of half the budget minus that of this one, in
            percentage points; None if there is none.
    Returns:
        The verdict, with the number that decided.
    """
    if share_of_steps is not None and share_of_steps < SHARE_OF_STEPS:
        return Learning(
            False,
            f"{100 * share_of_steps:.1f} % of the paper's steps, less than"
            f" {100 * SHARE_OF_STEPS:.0f} %",
        )
    if clean_train_error is not None and clean_train_error <= CLEAN_TRAIN_ERROR:
        return Learning(True, f"{clean_train_error:.1f} % error on its training images")
    if half_budget_gain is not None and half_budget_gain < HALF_BUDGET_GAIN:
        return Learning(
            True, f"{half_budget_gain:+.1f} points since half the budget, less than one"
        )
    if clean_train_error is None:
        return Learning(False, "its error on training images was not measured")
    known = "" if half_budget_gain is None else f", {half_budget_gain:+.1f} points since half"
    return Learning(False, f"{clean_train_error:.1f} % error on its training images{known}")


def share_of_paper(epochs: int, batch_size: int, side: int) -> float | None:
    """Steps of a run over those of the paper on the same number of such images.

    Args:
        epochs: of the run, ≥ 0.
        batch_size: of the run, ≥ 1.
        side: of its images, in pixels.
    Returns:
        ≥ 0; None where the paper has no run on images of this side.
    """
    if side not in PAPER_RUNS:
        return None
    paper_epochs, paper_batch = PAPER_RUNS[side]
    return (epochs / batch_size) / (paper_epochs / paper_batch)


def assess_record(
    row: Mapping[str, Any], half: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The verdict on the network of an evaluation object, with what it was judged from.

    Args:
        row: the object: its `settings`, finished `epochs`, `clean_train_error`, `last_error`, and
            of its `identity` the shape of the images.
        half: the object of the run of half its epochs, the same in all else. None if there is none:
            then the gain that the row's own `learning` holds is taken, if it holds one.
    Returns:
        {"trained", "reason", "clean_train_error", "share_of_steps", "half_budget_gain"}, the last
        three None where they are not known; None for a network that was not trained here.
    """
    settings, epochs = row.get("settings"), row.get("epochs")
    if not settings or epochs is None:
        return None
    shape = (row.get("identity") or {}).get("shape")
    side = settings.get("window") or (shape[-1] if shape else 0)
    gain = (row.get("learning") or {}).get("half_budget_gain")
    if half is not None:
        before, after = half.get("last_error"), row.get("last_error")
        gain = None if before is None or after is None else before - after
    numbers = {
        "clean_train_error": row.get("clean_train_error"),
        "share_of_steps": share_of_paper(epochs, settings["batch_size"], side),
        "half_budget_gain": gain,
    }
    return {**judge_learning(**numbers)._asdict(), **numbers}


def describe_learning(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line about the networks that are still learning, budget by budget, with the reason of the
    first of each; "" if there are none.

    Args:
        rows: evaluation objects with their `learning`.
    """
    found: dict[int, dict[str, str]] = {}
    for row in rows:
        verdict = row.get("learning")
        if verdict and not verdict["trained"]:
            name = row.get("label") or row["method"]
            found.setdefault(row["epochs"], {}).setdefault(name, verdict["reason"])
    named = [
        f"{epochs} epochs: {', '.join(reasons)} ({next(iter(reasons.values()))})"
        for epochs, reasons in found.items()
    ]
    return f"still learning, too short to tell: {'; '.join(named)}" if named else ""
