"""Figures of the corruptions: one image under all of them, and the errors of several methods under
each.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..measures.corruptions import FAMILIES
from ..measures.statistics import by_method
from .style import get_axes, strip_axes, title, write_cells
from .tiles import mosaic, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_corruption_grid(tiles: Mapping[str, Tensor], ax: "Axes | None" = None) -> "Axes":
    """One image under every corruption: a row each, severity 1 to 5 from left to right.

    Args:
        tiles: {name: (n, C, H, W) uint8, or floating in [0, 1]}, as `corruption_tiles` makes them;
            all of one shape.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if there are no tiles, or they differ in shape.
    """
    shapes = {tuple(row.shape) for row in tiles.values()}
    if len(shapes) != 1:
        raise ValueError(
            f"tiles must be at least one row, all of one shape (n, C, H, W), got {sorted(shapes)}"
        )
    count, _, height, width = shapes.pop()
    ax = get_axes(ax, (2.3 + 0.72 * count, 0.6 + 0.72 * len(tiles) * height / width))
    sheet = mosaic(np.stack([picture(tile) for row in tiles.values() for tile in row]), count)
    strip_axes(ax).imshow(sheet, interpolation="nearest")
    rows, columns = np.arange(len(tiles)) + 0.5, np.arange(count) + 0.5
    ax.set_yticks((height + 1) * rows - 0.5, [name.replace("_", " ") for name in tiles])
    ax.set_xticks((width + 1) * columns - 0.5, [str(level + 1) for level in range(count)])
    ax.tick_params(length=0)
    ax.set(title="One image under each corruption", xlabel="severity")
    return ax


def plot_corruption_errors(
    rows: Sequence[Mapping], field: str = "corruption", ax: "Axes | None" = None
) -> "Axes":
    """Top-1 error by corruption (down) and method (across), the mean over severities and seeds; all
    together below.

    Args:
        rows: evaluation objects whose `field` holds what `corruption_errors` returned, all for the
            same corruptions and severities; those of one method are averaged over their seeds.
        field: where in a row.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: as `statistics.by_method`, and if the rows differ in corruptions, severities or
            source.
    """
    groups = by_method(rows, field)
    names = _same(rows, field)
    errors = np.array([[_error(group, field, name) for group in groups.values()] for name in names])
    table = np.vstack([errors, errors.mean(axis=0)])
    ax = get_axes(ax, (2.6 + 0.9 * len(groups), 1.2 + 0.3 * len(table)))
    image = ax.imshow(table, cmap="cividis", aspect="auto")
    write_cells(ax, table, image.norm(table) <= 0.5, ".1f", 8)
    ax.set_yticks(range(len(table)), [*(name.replace("_", " ") for name in names), "mean"])
    ax.set_xticks(range(len(groups)), [title(method) for method in groups], rotation=30, ha="right")
    for line in _borders(names):
        ax.axhline(line - 0.5, color="white", linewidth=3)
    ax.set_title("Top-1 error (%) by corruption, mean over severities")
    ax.figure.colorbar(image, ax=ax, label="top-1 error (%)")
    return ax


def _error(rows: Sequence[Mapping], field: str, name: str) -> float:
    """The mean error of a method's rows under one corruption."""
    return fmean(fmean(row[field]["corruptions"][name]) for row in rows)


def _same(rows: Sequence[Mapping], field: str) -> list[str]:
    """The corruptions of the rows, after making sure that their errors may stand side by side."""
    fields = [row[field] for row in rows]
    told = {
        (tuple(record["corruptions"]), tuple(record.get("severities", ())), record.get("source"))
        for record in fields
    }
    if len(told) != 1:
        raise ValueError(
            "the rows differ in corruptions, severities or source, so their errors are not"
            f" comparable: {sorted(map(str, told))}"
        )
    return list(told.pop()[0])


def _borders(names: Sequence[str]) -> list[int]:
    """Where a new family begins, and where the mean stands."""
    family = {name: kind for kind, members in FAMILIES.items() for name in members}
    kinds = [family.get(name) for name in names]
    ends = [place for place in range(1, len(kinds)) if kinds[place] != kinds[place - 1]]
    return [*ends, len(kinds)]
