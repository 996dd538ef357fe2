"""Figures of what disturbs a model: patches that are covered, waves that are added."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from ..measures.statistics import by_method
from .style import INK, add_legend, draw_means, get_axes, get_panels, style, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COVERED = {"random": "--", "salient": "-"}  # line style


def occlusion_curves(rows: Sequence[Mapping], ax: "Axes | None" = None) -> "Axes":
    """Accuracy against the share of the image that is covered: the patches that matter most to the
    model first (solid), in a random order (dashed).

    Args:
        rows: evaluation objects with `occlusion`; those of one method are averaged over their seeds
            and get a band of one standard deviation.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if there are no rows, one has no occlusion, or the rows of a method are not
            seeds of one setting.
    """
    groups, ax = by_method(rows, "occlusion"), get_axes(ax)
    for method, group in groups.items():
        colour, marker, _ = style(method)
        for order, line in COVERED.items():
            curves = [row["occlusion"][order] for row in group]
            values = [[curve[place][1] for curve in curves] for place in range(len(curves[0]))]
            look = {"linestyle": line, "marker": marker, "markersize": 4}
            if order == "salient":
                look["label"] = title(method)
            draw_means(ax, [100 * share for share, _ in curves[0]], values, color=colour, **look)
    for order, line in COVERED.items():
        ax.plot([], [], line, color=INK, label=f"{order} patches first")
    ax.set(xlabel="patches covered (%)", ylabel="top-1 accuracy (%)", ylim=(0, None))
    return add_legend(ax)


def frequency_maps(rows: Sequence[Mapping], axes: "Iterable[Axes] | None" = None) -> "list[Axes]":
    """The error under a wave of every frequency, a map for each method with one scale, zero
    frequency in the middle; the mean over seeds.

    Source: the form of Yin et al., NeurIPS 2019, Figure 4.

    Args:
        rows: evaluation objects with `frequencies`, all of one side.
        axes: as many as there are methods; None makes a figure.
    Raises:
        ValueError: if there are no rows, one has no frequencies, their sides differ, or the rows of
            a method are not seeds of one setting.
    """
    groups = by_method(rows, "frequencies")
    sides = {len(row["frequencies"]["errors"]) for row in rows}
    if len(sides) > 1:
        raise ValueError(f"the maps have different sides, {sorted(sides)}: measure them alike")
    panels = get_panels(axes, len(groups), "Error under a wave of each frequency", (3.6, 3.6))
    reach = sides.pop() // 2
    maps = {
        method: np.mean([row["frequencies"]["errors"] for row in group], axis=0)
        for method, group in groups.items()
    }
    highest = max(float(values.max()) for values in maps.values())
    for ax, (method, values) in zip(panels, maps.items()):
        extent = (-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5)
        drawn = ax.imshow(values, cmap="cividis", vmin=0, vmax=highest, extent=extent)
        ax.set_title(f"{title(method)}: {fmean(values.ravel()):.0f} % on average")
        ax.set(xlabel="waves across", ylabel="waves down" if ax is panels[0] else "")
    ax.figure.colorbar(drawn, ax=list(panels), label="top-1 error (%)", shrink=0.8)
    return list(panels)
