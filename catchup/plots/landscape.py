"""Figures of the loss around a model: lines of several methods with their spread over seeds; a
plane as map and relief.

Source: the form of Kang, Kang & Kim, AAAI 2024, Figures 3 and 7 (reliefs along the top Hessian
eigenvectors).

Where it misleads: see `catchup.measures.landscape`; and a relief hides what stands behind its
peaks, so the map stands beside it, and two figures compare only on one scale (`top`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..measures.statistics import by_method, span
from ..utils.choices import pick
from .style import INK, add_legend, draw_means, get_axes, look_of, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIRECTIONS = {
    "eigen": "step along the top Hessian eigenvector (length in weight space)",
    "random": "step in a random direction (in lengths of the filters)",
}
HEIGHTS = {
    "loss": "cross-entropy (nats)",
    "rise": "cross-entropy above that of the model (nats)",
    "error": "top-1 error (%)",
}


def plot_lines(
    rows: Sequence[Mapping],
    ax: "Axes | None" = None,
    direction: str = "eigen",
    height: str = "loss",
    log: bool = False,
) -> "Axes":
    """Loss or error along a line through the weights: a method's mean over its seeds, and a band of
    one deviation.

    Args:
        rows: evaluation objects with `landscape` (see
            `catchup.measures.landscape.measure_landscape`); those of one method are averaged.
        ax: where to draw; None makes a figure.
        direction: one of `DIRECTIONS`.
        height: one of `HEIGHTS`; "rise" is the loss minus that at the centre.
        log: a logarithmic axis of heights, on which an explosion looks tame; not for "rise", which
            is 0 at the centre.
    Raises:
        ValueError: if there are no rows, one has no landscape, they differ in images or radii, the
            rows of a method are not seeds of one setting, or a name is unknown.
    """
    pick("direction", direction, DIRECTIONS), pick("height", height, HEIGHTS)
    if log and height == "rise":
        raise ValueError(
            "the rise is 0 at the centre, which a logarithmic axis cannot show: draw the loss"
        )
    groups, radii = by_method(rows, "landscape"), common_radii(rows)
    ax = get_axes(ax)
    for method, group in groups.items():
        curves = [_heights(row["landscape"]["line"], direction, height) for row in group]
        each = {"markersize": 4.5, "markevery": max(1, len(radii) // 10)}
        # a gap wherever one of the seeds has no value
        draw_means(ax, radii, list(zip(*curves, strict=True)), **each, **look_of(method))
    ax.axvline(0, color=INK, linewidth=0.8, linestyle=":", zorder=0)
    ax.set(
        title="How fast it rises beside the model, in the middle",
        xlabel=DIRECTIONS[direction],
        ylabel=HEIGHTS[height],
        yscale="log" if log else "linear",
    )
    return add_legend(ax)


def plot_surface(
    result: Mapping,
    axes: "Iterable[Axes] | None" = None,
    height: str = "loss",
    top: float | None = None,
    name: str = "",
) -> tuple["Axes", "Axes"]:
    """The plane of a landscape twice: a map with contour lines, the model marked in its middle, and
    a relief.

    Args:
        result: of `catchup.measures.landscape.measure_landscape`, with a `surface`.
        axes: two Axes, the second made with projection="3d"; None makes a figure.
        height: "loss" or "error".
        top: where the colours and the relief end, so that figures compare; None: the highest finite
            value. What is higher is cut off there; what is not finite is left blank.
        name: of the method, as in the rows; stands in the title.
    Returns:
        (map, relief).
    Raises:
        ValueError: if there is no surface or nothing finite in it, the name of the height is
            unknown, the top is not finite or not above the lowest value, or the Axes do not fit.
    """
    pick("height", height, ("loss", "error"))
    if not result.get("surface"):
        raise ValueError(
            "this landscape has no surface: measure it with grid_points, for example 11"
        )
    plane = result["surface"]
    values = np.array(plane[height], dtype=float)  # None becomes NaN
    low, high = _span_of(values, top)
    flat, relief = _pair(axes)
    radii, values = np.array(plane["radii"]), np.minimum(values, high)
    levels = np.linspace(low, high, 13)
    # rows run along the first direction: x
    drawn = flat.contourf(radii, radii, values.T, levels, cmap="cividis")
    flat.contour(radii, radii, values.T, levels, colors="white", linewidths=0.5, alpha=0.6)
    flat.plot(0, 0, "+", color="white", markersize=12, markeredgewidth=2)
    flat.figure.colorbar(drawn, ax=flat, label=HEIGHTS[height], shrink=0.8, format="%.3g")
    grid = np.meshgrid(radii, radii, indexing="ij")
    lines = {"rcount": len(radii), "ccount": len(radii), "edgecolor": INK, "linewidth": 0.2}
    relief.plot_surface(  # type: ignore[attr-defined]
        *grid, values, cmap="cividis", vmin=low, vmax=high, **lines
    )
    words = "eigenvector" if plane["directions"] == "eigen" else "random direction"
    for ax in (flat, relief):
        ax.set(xlabel=f"step along {words} 1", ylabel=f"step along {words} 2")
    head = f"{title(name)}: the model is at the cross" if name else "The model is at the cross"
    flat.set(title=head, aspect="equal")
    relief.set(zlim=(low, high), title=f"The same as a relief: {HEIGHTS[height]}")
    relief.locator_params(nbins=5)
    # or the labels are cut off
    relief.set_box_aspect(None, zoom=0.88)  # type: ignore[call-arg]
    return flat, relief


def landscape_caption(rows: Sequence[Mapping]) -> str:
    """The sentence under a figure of landscapes: images, seeds, what was frozen, and what the band
    is.

    Raises:
        ValueError: if there are no rows, one has no landscape, or the rows of a method are not
            seeds of one setting.
    """
    groups = by_method(rows, "landscape")
    settings = [row["landscape"]["settings"] for row in rows]
    images, curved = (
        span(setting[key] for setting in settings) for key in ("n_images", "hessian_images")
    )
    seeds = sorted({len(group) for group in groups.values()})
    head = (
        f"{images} images of {span(row.get('data') for row in rows)} ({curved} for the Hessian),"
        f" statistics of BatchNorm frozen, {span(seeds)} seed{'' if seeds == [1] else 's'} per"
        " method"
    )
    spread = (
        "no spread can be shown"
        if seeds == [1]
        else "lines: means; bands: one sample standard deviation each way"
    )
    return (
        f"{head}; {spread}. A gap: a loss that is not finite. Larger weights make the same step a"
        " smaller one."
    )


def common_radii(rows: Sequence[Mapping]) -> list[float]:
    """The steps, which all rows must share, as well as the images."""
    first = rows[0]["landscape"]
    images, radii = first["settings"]["n_images"], first["line"]["radii"]
    for row in rows:
        here, seen = row["landscape"]["line"]["radii"], row["landscape"]["settings"]["n_images"]
        if here != radii:
            raise ValueError(
                f"the landscapes were measured at different radii (row of {row['method']}, seed "
                f"{row.get('seed')}): measure them alike, or draw them apart"
            )
        if seen != images:
            raise ValueError(
                f"the landscapes were measured on {images} and on {seen} images: measure them"
                " alike, or draw them apart"
            )
    return radii


def _heights(lines: Mapping, direction: str, height: str) -> list[float]:
    """The heights of one row, NaN where there is none."""
    values = np.array(lines[direction]["error" if height == "error" else "loss"], dtype=float)
    centre = values[len(values) // 2] if height == "rise" else 0.0
    return (values - centre).tolist()


def _span_of(values: np.ndarray, top: float | None) -> tuple[float, float]:
    """Lowest value and where to end, which is higher."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise ValueError("no value of this surface is finite: measure it with a smaller radius")
    low, high = float(finite.min()), float(finite.max() if top is None else top)
    if not math.isfinite(high) or top is not None and high <= low:
        raise ValueError(
            f"top must be finite and above the lowest value of the surface, {low:g}, got {top}"
        )
    return low, high if high > low else low + 1.0


def _pair(axes: "Iterable[Axes] | None") -> tuple["Axes", "Axes"]:
    """The given map and relief, or those of a new figure."""
    if axes is None:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(11, 4.6), layout="constrained")
        return figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2, projection="3d")
    given = tuple(axes)
    if len(given) != 2 or given[0].name == "3d" or given[1].name != "3d":
        raise ValueError(
            f"a surface needs two Axes, plain and projection='3d', got {[ax.name for ax in given]}"
        )
    return given
