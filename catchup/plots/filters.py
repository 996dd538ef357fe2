"""Figures of single filters: norm against gradient, and how norms, gradients and reliance move over
epochs.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..inspection.rows import field_table, rows_of_block, rows_of_epoch
from ..utils.choices import pick
from ..utils.optional import require
from .style import (
    BRIGHTEST,
    COLOURS,
    FAINT,
    INK,
    LINES,
    MARKERS,
    STRONG,
    WEAK,
    add_grid,
    add_legend,
    draw_means,
    get_axes,
    get_panels,
    look_of,
    style,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NORM = "norm of the map (activation units)"
MAP_GRADIENT = "gradient (nats per activation unit)"
RELIANCE = {
    "top10_share": "share of the norms held by a tenth (%)",
    "gini": "Gini of the norms (0: all equal)",
    "effective_filters": "effective number of filters",
}


def norm_gradient(
    histograms: Sequence[Mapping],
    epochs: Iterable[int] | None = None,
    block: str | None = None,
    axes: "Iterable[Axes] | None" = None,
) -> np.ndarray:
    """Joint histograms of the norm of a map and of the gradient it receives, one panel per epoch,
    with the marginals.

    Both axes are logarithmic and shared; brightness counts (image, filter) pairs on one logarithmic
    scale. Pairs with a norm or gradient of exactly zero have no logarithm: `norm_gradient_caption`
    says how many they are.

    Source: the form of Kang, Kang & Kim, AAAI 2024, Figure 1b.

    Args:
        histograms: from `recording(...).histograms()`.
        epochs: which, in this order; None takes the first, the middle and the last.
        block: its name; None where there is only one.
        axes: one Axes per epoch, with room above and to the right for the marginals; None makes a
            figure.
    Returns:
        (epochs,) Axes.
    Raises:
        ValueError: if there is no such block or epoch, or no pair was counted. ImportError: without
            seaborn.
    """
    seaborn = require("seaborn")
    rows = _histograms(histograms, epochs, block)
    most = max(np.max(row["counts"]) for row in rows)
    if not most:
        raise ValueError(f"the histograms of {rows[0]['block']} hold no pair: nothing was recorded")
    limits = [_occupied_decades(rows, kind, side) for side, kind in enumerate(("norm", "gradient"))]
    head = f"{rows[0]['block']}: the lower, the less gradient"
    axes = get_panels(axes, len(rows), head, (3.9, 4.2), sharex=True, sharey=True)
    for ax, row in zip(axes, rows):
        mesh = _joint(seaborn, ax, row, most, limits)
        ax.set_title(f"epoch {row['epoch']}", y=1.2)
    for ax in axes[1:]:
        ax.set_ylabel("")
    axes[-1].figure.colorbar(mesh, ax=list(axes), label="(image, filter) pairs", pad=0.02)
    return axes


def norm_gradient_caption(
    histograms: Sequence[Mapping], epochs: Iterable[int] | None = None, block: str | None = None
) -> str:
    """The sentence under `norm_gradient`: images per epoch, how many pairs no logarithm shows,
    where the bins end.

    Raises:
        ValueError: as `norm_gradient`.
    """
    rows = _histograms(histograms, epochs, block)
    left = "; ".join(
        f"epoch {row['epoch']}: {row['images']:,} images, {int(np.sum(row['counts'])):,} pairs"
        f" shown, {row['zero_norm']:,} of norm 0, {row['zero_gradient']:,} of gradient 0"
        for row in rows
    )
    ends = " and ".join(
        f"{kind}s {rows[0][f'{kind}_edges'][0]:.0e} to {rows[0][f'{kind}_edges'][-1]:.0e}"
        for kind in ("norm", "gradient")
    )
    return (
        f"{rows[0]['block']}, counts of (image, filter) pairs in the sampled batches of one run."
        f" {left}. Bins cover {ends}; what lies beyond is in the outermost."
    )


def history_caption(rows: Sequence[Mapping], block: str | None = None) -> str:
    """The sentence under `norms_over_epochs`: filters, epochs, images and
    batches behind a point.

    Raises:
        ValueError: as `norms_over_epochs`.
    """
    rows = rows_of_block(rows, block)
    images, batches = ([row[key] for row in rows] for key in ("images", "batches"))
    epochs = {row["epoch"] for row in rows}
    return (
        f"{len({row['filter'] for row in rows})} filters of {rows[0]['block']}, {len(epochs)}"
        f" epoch{'s' * (len(epochs) > 1)} of one run. Each point is a mean over {_range(images)}"
        f" images from {_range(batches)} sampled batches."
    )


def norms_over_epochs(
    rows: Sequence[Mapping],
    block: str | None = None,
    colour_by: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """The norm of every filter of a block over the epochs: who grows first, and who stays behind.

    Args:
        rows: from `recording(...).rows()`.
        block: its name; None where there is only one.
        colour_by: None tells apart the quarter that is strongest and the quarter that is weakest in
            the last epoch. A field of the rows colours every line by its value in the last epoch
            instead (dark: little).
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if there is no such block or field.
    """
    rows = rows_of_block(rows, block)
    epochs, _, norms = field_table(rows, "norm")
    values = None if colour_by is None else field_table(rows_of_epoch(rows), colour_by)[2][0]
    ax = get_axes(ax)  # only now: nothing above may leave an empty figure behind
    if values is None:
        _draw_quarters(ax, epochs, norms)
        head = "Who is strong in the end: was it ahead from the start?"
    else:
        _draw_by_value(ax, epochs, norms, values, colour_by)
        head = f"Bright lines: high {_words(colour_by)} in the last epoch"
    ax.set(title=f"{rows[0]['block']}: {head}", xlabel="epoch", ylabel=NORM, ylim=(0, None))
    ax.locator_params("x", integer=True)
    return add_legend(ax) if colour_by is None else add_grid(ax)


def weak_and_strong(
    rows_by_run: Mapping[tuple[str, int], Sequence[Mapping]], axes: "Iterable[Axes] | None" = None
) -> np.ndarray:
    """The gradient that the weak and the strong filters of a block receive, over the epochs: a
    panel per method.

    Source: the question of Kang, Kang & Kim, AAAI 2024, Figure 1b.

    Args:
        rows_by_run: {(method, seed): rows of `catchup.inspection.strength.weak_and_strong`}, all of
            one block.
        axes: one per method, on one scale; None makes a figure.
    Returns:
        Axes, one per method; solid: the weak filters, dotted: the strong ones, one line each per
        seed; logarithmic.
    Raises:
        ValueError: if there are no runs, or of several blocks.
    """
    blocks = {row["block"] for rows in rows_by_run.values() for row in rows}
    if len(blocks) != 1:
        raise ValueError(f"the runs must be of one block, at least one run, got {sorted(blocks)}")
    methods = list(dict.fromkeys(method for method, _ in rows_by_run))
    head = f"{blocks.pop()}: how much there still is to learn"
    axes = get_panels(axes, len(methods), head, (4.6, 4.0))
    for ax, method in zip(axes, methods):
        mine = [rows for (name, _), rows in rows_by_run.items() if name == method]
        for side, line in (("weak", "-"), ("strong", ":")):
            for place, rows in enumerate(mine):
                label = f"_{place}" if place else f"{side}est {rows[0]['filters']}"
                points = [(row["epoch"], row[f"{side}_map_gradient"]) for row in rows]
                ax.semilogy(*zip(*points), line, color=style(method)[0], label=label)
        ax.set(title=title(method), xlabel="epoch", ylabel=MAP_GRADIENT)
        ax.locator_params("x", integer=True)
        add_grid(ax).legend(frameon=False)
    ends = [end for ax in axes for end in ax.get_ylim()]
    for ax in axes:
        ax.set_ylim(min(ends), max(ends))
    return axes


def reliance_over_epochs(
    rows: Sequence[Mapping],
    measure: str = "effective_filters",
    block: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """How concentrated the norms are, over the epochs: a line per method at one block, or per
    block.

    Args:
        rows: from `catchup.inspection.reliance.measure_reliance`, each with an "epoch", and with
            "method" and "seed" where several are compared; seeds are averaged, the band is one
            sample standard deviation each way.
        measure: one of `RELIANCE`.
        block: which block, where methods are compared; None where there is only one.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if there are no rows, or no such measure or block, or methods are compared over
            several blocks.
    """
    pick("measure", measure, RELIANCE)
    key = "method" if any("method" in row for row in rows) else "block"
    rows = rows_of_block(rows, block) if key == "method" or block or not rows else rows
    ax, scale = get_axes(ax), 100 if measure == "top10_share" else 1
    for place, name in enumerate(dict.fromkeys(row[key] for row in rows)):
        points = [(row["epoch"], scale * row[measure]) for row in rows if row[key] == name]
        draw_seeds(ax, points, **(look_of(name) if key == "method" else _look_at(place, name)))
    where = f" in {rows[0]['block']}" if key == "method" else ""
    ways = "Higher" if measure == "effective_filters" else "Lower"
    ax.set(
        title=f"{ways}: the norms are spread over more filters{where}",
        xlabel="epoch",
        ylabel=RELIANCE[measure],
    )
    ax.locator_params("x", integer=True)
    return add_legend(ax)


def draw_seeds(ax: "Axes", points: Sequence[tuple[float, float]], **look) -> None:
    """Points (x, y) of several seeds: the line of means, and a band of one sample standard
    deviation each way.
    """
    places = sorted({x for x, _ in points})
    heights = [[y for x, y in points if x == place] for place in places]
    draw_means(ax, places, heights, markersize=5, linewidth=1.6, **look)


def _look_at(place: int, name: str) -> dict[str, str]:
    """The look of what is no method, by its place in the figure."""
    colour, marker, line = COLOURS[place % 6], MARKERS[place % 9], LINES[place % 4]
    return {"color": colour, "marker": marker, "linestyle": line, "label": name}


def _histograms(
    histograms: Sequence[Mapping], epochs: Iterable[int] | None, block: str | None
) -> list[Mapping]:
    """The histograms to show, one per epoch."""
    rows = rows_of_block(histograms, block)
    if epochs is None:
        known = sorted({row["epoch"] for row in rows})
        epochs = dict.fromkeys((known[0], known[len(known) // 2], known[-1]))
    shown = [row for epoch in epochs for row in rows_of_epoch(rows, epoch)]
    if not shown:
        raise ValueError(f"epochs must name at least one epoch, got {epochs!r}")
    return shown


def _occupied_decades(rows: Sequence[Mapping], kind: str, side: int) -> tuple[float, float]:
    """The decades that hold any pair in any of the histograms, along the norms (side 0) or the
    gradients (1).
    """
    spans = []
    for row in rows:
        filled = np.flatnonzero(np.asarray(row["counts"]).sum(axis=1 - side))
        if len(filled):
            spans.append((row[f"{kind}_edges"][filled[0]], row[f"{kind}_edges"][filled[-1] + 1]))
    return np.log10(min(low for low, _ in spans)), np.log10(max(high for _, high in spans))


def _joint(seaborn, ax: "Axes", row: Mapping, most: float, limits: Sequence[tuple[float, float]]):
    """One joint histogram with its marginals; returns the mesh."""
    from matplotlib.colors import LogNorm

    counts = np.asarray(row["counts"], dtype=float)
    edges = [np.log10(row[f"{kind}_edges"]) for kind in ("norm", "gradient")]
    x, y = np.meshgrid(*((bounds[1:] + bounds[:-1]) / 2 for bounds in edges), indexing="ij")
    pairs = {"x": x.ravel(), "y": y.ravel(), "weights": counts.ravel(), "bins": tuple(edges)}
    shades = {"cmap": "cividis", "norm": LogNorm(1, max(most, 2)), "vmin": None, "vmax": None}
    seaborn.histplot(**pairs, **shades, thresh=None, ax=ax)
    mesh = ax.collections[-1]
    # bins that nothing fell into stay white
    mesh.set_array(np.ma.masked_equal(mesh.get_array(), 0))
    top, side = ax.inset_axes([0, 1.02, 1, 0.16]), ax.inset_axes([1.02, 0, 0.16, 1])
    look = {"element": "step", "color": INK, "alpha": 0.35, "linewidth": 1}
    seaborn.histplot(x=x[:, 0], weights=counts.sum(axis=1), bins=list(edges[0]), ax=top, **look)
    seaborn.histplot(y=y[0], weights=counts.sum(axis=0), bins=list(edges[1]), ax=side, **look)
    for inset, shared in ((top, {"xlim": limits[0]}), (side, {"ylim": limits[1]})):
        inset.set(xticks=[], yticks=[], xlabel="", ylabel="", **shared)
        inset.spines[:].set_visible(False)
    ax.set(xlim=limits[0], ylim=limits[1], xlabel=NORM, ylabel=MAP_GRADIENT)
    ax.locator_params(integer=True, nbins=5)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda power, _place: _decade(power))
    return mesh


def _decade(power: float) -> str:
    """A power of ten where it is a whole one; where less than a decade is shown, the number
    itself.
    """
    return f"$10^{{{power:g}}}$" if power == round(power) else f"{10**power:.2g}"


def _draw_quarters(ax: "Axes", epochs: np.ndarray, norms: np.ndarray) -> None:
    """A line per filter; first and last quarter by the norm of the last epoch told apart by colour
    and line.
    """
    order, quarter = np.argsort(-norms[-1], kind="stable"), max(1, norms.shape[1] // 4)
    parts = (
        (order[quarter:-quarter], FAINT, "-", "between"),
        (order[-quarter:], WEAK, "--", f"weakest {quarter} in the end"),
        (order[:quarter], STRONG, "-", f"strongest {quarter} in the end"),
    )
    for members, colour, line, words in parts:
        look = {"color": colour, "linestyle": line, "linewidth": 1.1, "alpha": 0.8}
        for place, number in enumerate(members):
            label = f"_{number}" if place else words
            ax.plot(epochs, norms[:, number], label=label, **look)


def _draw_by_value(
    ax: "Axes", epochs: np.ndarray, norms: np.ndarray, values: np.ndarray, field: str
) -> None:
    """A line per filter, coloured by one value each, as one collection with a colour bar."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap

    shades = ListedColormap(colormaps["cividis"](np.linspace(0, BRIGHTEST, 256)))
    courses = [np.column_stack([epochs, column]) for column in norms.T]
    lines = LineCollection(courses, array=values, cmap=shades, linewidths=1.2)
    ax.add_collection(lines)
    ax.autoscale_view()
    ax.figure.colorbar(lines, ax=ax, label=f"{_words(field)} in the last epoch")


def _words(field: str) -> str:
    """A field's name as words."""
    known = {"map_gradient": MAP_GRADIENT, "norm": NORM}
    return known.get(field, field.replace("_", " "))


def _range(values: Sequence[int]) -> str:
    """ "320" or "320 to 640"."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
