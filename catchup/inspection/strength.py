"""Strong and weak filters of a recording, compared: who is weak, whether it stays so, and what
gradient it gets.

Source: the story of Kang, Kang & Kim, AAAI 2024, Section 1: filters that are slow at first stay
slow, since gradient dries up once the strong ones classify the training images. Functions of the
rows that `catchup.recording` leaves.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

KEYS = ("norm", "map_gradient", "weight_gradient")


def weak_and_strong(
    rows: Sequence[Mapping], block: str, share: float = 0.25, ranked_at: int | None = None
) -> list[dict]:
    """Means over the weakest and the strongest filters of a block, epoch by epoch.

    Args:
        rows: from `Record.rows`.
        block: its name.
        share: of the filters on either side, in (0, 0.5]; rounded down, at least one.
        ranked_at: the epoch whose norms decide who is weak, the same filters then in every epoch;
            None ranks anew in each epoch.
    Returns:
        One row per epoch: {"epoch", "block", "filters": on either side, and weak_… and strong_norm,
        …_map_gradient, …_weight_gradient}, units as in `Record.rows`.
    Raises:
        ValueError: if `share` is out of range, or there are no rows of that block or epoch.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"share must lie in (0, 0.5], got {share}")
    epochs = rows_by_epoch(rows, block, *(() if ranked_at is None else (ranked_at,)))
    compared = []
    for epoch, filters in epochs.items():
        judges = filters if ranked_at is None else epochs[ranked_at]
        norms = {row["filter"]: row["norm"] for row in judges}
        order = [number for _, number in sorted((norm, number) for number, norm in norms.items())]
        own = {row["filter"]: row for row in filters}
        ranked = [own[number] for number in order]
        count = max(1, int(share * len(ranked)))
        row = {"epoch": epoch, "block": block, "filters": count}
        for side, part in (("weak", ranked[:count]), ("strong", ranked[-count:])):
            row |= {f"{side}_{key}": sum(each[key] for each in part) / count for key in KEYS}
        compared.append(row)
    return compared


def order_correlation(rows: Sequence[Mapping], block: str, early: int, late: int) -> float:
    """Do the filters that were weak early stay weak? Spearman's rank correlation of the norms of
    two epochs.

    Args:
        rows: from `Record.rows`.
        block: its name.
        early, late: epochs.
    Returns:
        In [-1, 1]: 1 if nobody overtook anybody, 0 if early strength says nothing about late
        strength; nan if all are equal. A block of few filters gives a noisy figure: with 16, |r| <
        0.5 is within chance.
    Raises:
        ValueError: if there are no rows of that block or of one of the epochs.
    """
    epochs = rows_by_epoch(rows, block, early, late)
    norms = [
        [row["norm"] for row in sorted(epochs[epoch], key=lambda row: row["filter"])]
        for epoch in (early, late)
    ]
    return rank_correlation(*(torch.tensor(side, dtype=torch.float64) for side in norms))


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's ρ of two (N,) tensors, ties sharing their mean rank; in [-1, 1], nan if N < 2 or
    one is constant.

    Raises:
        ValueError: if they are not vectors of one length.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"two (N,) tensors are needed, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if len(first) < 2:
        return math.nan
    ranks = [
        ((side[:, None] > side).sum(1) + ((side[:, None] == side).sum(1) - 1) / 2).double()
        for side in (first, second)
    ]
    a, b = (rank - rank.mean() for rank in ranks)
    return float((a @ b) / (a.norm() * b.norm()))


def rows_by_epoch(rows: Sequence[Mapping], block: str, *needed: int) -> dict[int, list[Mapping]]:
    """{epoch: rows of the block}, ascending. ValueError, naming what there is, without the block or
    a needed epoch.
    """
    epochs: dict[int, list[Mapping]] = {}
    for row in sorted((row for row in rows if row["block"] == block), key=lambda row: row["epoch"]):
        epochs.setdefault(row["epoch"], []).append(row)
    if not epochs:
        raise ValueError(
            f"there are no rows of block {block!r}; there are"
            f" {sorted({row['block'] for row in rows})}"
        )
    for epoch in needed:
        if epoch not in epochs:
            raise ValueError(
                f"there is no epoch {epoch!r} of block {block!r}; there are"
                f" {', '.join(map(str, epochs))}"
            )
    return epochs
