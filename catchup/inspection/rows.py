"""Choosing among rows of (epoch, block, filter), with a clear sentence where there is nothing of
that name.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ..utils.choices import pick


def check_rows(rows: Sequence[Mapping]) -> Sequence[Mapping]:
    """The rows; ValueError if there are none."""
    if not rows:
        raise ValueError("there are no rows, got an empty sequence")
    return rows


def rows_of_block(rows: Sequence[Mapping], block: str | None = None) -> list[Mapping]:
    """The rows of one block; None where there is only one.

    Raises:
        ValueError: if there are no rows, no such block, or None stands for several.
    """
    blocks = list(dict.fromkeys(row["block"] for row in check_rows(rows)))
    if block is None and len(blocks) > 1:
        raise ValueError(f"block must be one of {', '.join(blocks)}, got None")
    name = blocks[0] if block is None else pick("block", block, blocks)
    return [row for row in rows if row["block"] == name]


def rows_of_epoch(rows: Sequence[Mapping], epoch: int | None = None) -> list[Mapping]:
    """The rows of one epoch; None takes the last.

    Raises:
        ValueError: if there is no such epoch.
    """
    epochs = sorted({row["epoch"] for row in rows})
    if epoch is None:
        epoch = epochs[-1]
    if epoch not in epochs:
        raise ValueError(
            f"there are no rows of epoch {epoch!r}; epochs: {', '.join(map(str, epochs))}"
        )
    return [row for row in rows if row["epoch"] == epoch]


def field_table(rows: Sequence[Mapping], field: str) -> tuple[np.ndarray, list[int], np.ndarray]:
    """One field of one block's rows.

    Returns:
        epochs (E,), filters (F,), and values (E, F) float64, NaN where there is no row or no value.
    Raises:
        ValueError: if a row has no such field, or two rows have one epoch and filter.
    """
    epochs, filters = (sorted({row[key] for row in rows}) for key in ("epoch", "filter"))
    values, seen = np.full((len(epochs), len(filters)), np.nan), set()
    at_epoch, at_filter = (
        {name: place for place, name in enumerate(names)} for names in (epochs, filters)
    )
    for row in rows:
        if field not in row:
            raise ValueError(f"the rows have no {field!r}, they have {', '.join(row)}")
        place = at_epoch[row["epoch"]], at_filter[row["filter"]]
        if place in seen:
            raise ValueError(
                f"two rows of epoch {row['epoch']}, filter {row['filter']}: rows of several runs?"
            )
        seen.add(place)
        values[place] = np.nan if row[field] is None else row[field]
    return np.asarray(epochs), filters, values


def viewable(images: Tensor) -> Tensor:
    """Normalised images (N, C, H, W) stretched to [0, 1], each between its own smallest and largest
    value.
    """
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-12)
