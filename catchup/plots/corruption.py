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
from .style import get_axes, strip_axes, title
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
    if ax is None:
        from matplotlib import pyplot

        size = 2.3 + 0.72 * count, 0.6 + 0.72 * len(tiles) * height / width
        ax = pyplot.subplots(figsize=size, layout="constrained")[1]
    sheet = mosaic(np.stack([picture(tile) for row in tiles.values() for tile in row]), count)
    strip_axes(ax).imshow(sheet, interpolation="nearest")
    ax.set_yticks(
        (height + 1) * (np.arange(len(tiles)) + 0.5) - 0.5,
        [name.replace("_", " ") for name in tiles],
    )
    ax.set_xticks(
        (width + 1) * (np.arange(count) + 0.5) - 0.5,
        [str(severity + 1) for severity in range(count)],
    )
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
    errors = np.array(
        [
            [
                fmean(fmean(row[field]["corruptions"][name]) for row in group)
                for group in groups.values()
            ]
            for name in names
        ]
    )
    table = np.vstack([errors, errors.mean(axis=0)])
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(
            figsize=(2.6 + 0.9 * len(groups), 1.2 + 0.3 * len(table)), layout="constrained"
        )[1]
    image = get_axes(ax).imshow(table, cmap="cividis", aspect="auto")
    for (down, right), value in np.ndenumerate(table):
        ax.text(
            right,
            down,
            f"{value:.1f}",
            ha="center",
            va="center",
            fontsize=8,
            color="black" if image.norm(value) > 0.5 else "white",
        )
    ax.set_yticks(range(len(table)), [*(name.replace("_", " ") for name in names), "mean"])
    ax.set_xticks(range(len(groups)), [title(method) for method in groups], rotation=30, ha="right")
    for line in _borders(names):
        ax.axhline(line - 0.5, color="white", linewidth=3)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title("Top-1 error (%) by corruption, mean over severities")
    ax.figure.colorbar(image, ax=ax, label="top-1 error (%)")
    return ax


def _same(rows: Sequence[Mapping], field: str) -> list[str]:
    """The corruptions of the rows, after making sure that their errors may stand side by side."""
    told = {
        (
            tuple(row[field]["corruptions"]),
            tuple(row[field].get("severities", ())),
            row[field].get("source"),
        )
        for row in rows
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
    return [place for place in range(1, len(kinds)) if kinds[place] != kinds[place - 1]] + [
        len(kinds)
    ]
