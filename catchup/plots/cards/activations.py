"""Cards: one matplotlib figure per look at a model, quick enough to follow a slider.

Plain functions, each the whole of what an explorer shows. The figures are made without pyplot, so
they may be drawn in any thread. What needs a model was computed once, by `observe`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...inspection.activations import Observations
from ...utils.choices import check_index, pick
from .. import tiles
from ..filters import MAP_GRADIENT, NORM
from ..panels import canvas, frame, picture, place, say, wall
from ..style import FAINT, INK, WEAK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TILE, PICTURES = 32, 6  # pixels of a tile of the filter card, and how many images it shows
POINTS = 400  # of a loss curve: what a panel can show
KEPT = "pairs that kept its map (%)"


def filter_card(store: Observations, block: str, filter: int, scale: str = "common") -> "Figure":
    """One filter: its map on several images at the first, middle and last epoch; its norm, gradient
    and lessons.

    Args:
        store: from `observe`.
        block, filter: name and number.
        scale: "common": brightness on one scale, so that growth shows; "own": each map by its own
            largest value.
    Raises:
        ValueError: if there is no such block, filter or scale.
    """
    count = store.filters(block)
    check_index("filter", filter, count, f" in {block}")
    figure, epochs = canvas(960, 430), _three(store.epochs)
    _draw_maps(figure, store, block, filter, epochs, scale)
    head = f"{block}, filter {filter}: {_rank(store, block, filter)} of {count} by norm"
    key = f"line: filter {filter}; dashed: median; dark: middle half; light: all {count}"
    figure.text(0.01, 0.955, head, size=12)
    figure.text(0.6, 0.96, key, size=8)
    panels = ("norm", NORM), ("gradient", MAP_GRADIENT), ("kept", KEPT)
    for row, (name, words) in enumerate(panels):
        ax = place(figure, (625, 307 - 130 * row, 320, 82), words, 9)
        if (block, name) in store.courses:
            _draw_course(ax, *store.courses[block, name], filter, "epoch" if row == 2 else "")
        else:
            say(ax, f"not recorded: observe(…, {'lessons' if name == 'kept' else 'rows'}=…)")
    return figure


def activation_card(
    store: Observations, block: str, epoch: int, image: int, scale: str = "own", show: int = 48
) -> "Figure":
    """The wall of a block's maps on one image at one epoch, and how its norms fall off.

    Tiles keep their places over epochs and images: they stand by their mean norm at the last epoch,
    strongest first.

    Args:
        store: from `observe`.
        block, epoch: which.
        image: its number in the store.
        scale: "own": each map by its own largest value; "common": all by the largest of this image
            and epoch.
        show: at most this many filters, evenly spaced in that order, ≥ 1.
    Raises:
        ValueError: if there is no such block, epoch, image or scale.
    """
    seen, figure = store.at(epoch, block), canvas(960, 530)
    check_index("image", image, len(store.pixels))
    order = store.order(block)
    shown = [order[place] for place in tiles.spaced_ranks(len(order), show)]
    amounts = tiles.brightness(_magnitudes(seen.maps[image], seen.peaks[image]), scale)[shown]
    pixels, answer = tiles.picture(store.pixels[image]), _answer(store, epoch, image)
    picture(figure, (35, 258, 200, 200), pixels, answer)
    _draw_fall_off(place(figure, (55, 60, 190, 140), NORM, 9), store, block, epoch, image, order)
    words = tiles.describe_wall(len(shown), len(order), scale)
    head = f"|activation|, below it its norm; strongest at the last epoch first\n{words}"
    norms = [tiles.short(norm) for norm in seen.norms[image, shown].tolist()]
    columns = tiles.columns_for(len(shown))
    wall(figure, (280, 8, 672, 476), tiles.tint(amounts), norms, columns, head)
    figure.text(0.01, 0.955, f"{block}, epoch {epoch} of {store.epochs[-1]}", size=12)
    return figure


def live_card(
    rows: Sequence[Mapping], losses: Sequence[float], histogram: Mapping | None = None
) -> "Figure":
    """A run so far: the loss of every step, the errors of every epoch, and how the filters' norms
    are spread.

    Args:
        rows: of metrics.jsonl, one per epoch done; may be empty.
        losses: one per step, in nats; may be empty. NaN and infinity are left out, and said.
        histogram: one entry of `recording(...).histograms()`; None where nothing was recorded.
    Raises:
        ValueError: if a row lacks its epoch or the histogram its counts.
    """
    figure = canvas(940, 330)
    left, middle, right = (place(figure, (66 + 312 * k, 55, 232, 225)) for k in range(3))
    _draw_losses(left, np.asarray(losses, dtype=float))
    _draw_errors(middle, rows)
    _draw_norms(right, histogram)
    return figure


def _three(epochs: Sequence[int]) -> list[int]:
    """First, middle and last."""
    return list(dict.fromkeys((epochs[0], epochs[len(epochs) // 2], epochs[-1])))


def _rank(store: Observations, block: str, filter: int) -> str:
    """ "strongest" or "12th strongest", at the last epoch."""
    place = store.order(block).index(filter) + 1
    ending = "th" if 10 <= place % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return "strongest" if place == 1 else f"{place}{ending} strongest"


def _draw_maps(
    figure: "Figure",
    store: Observations,
    block: str,
    filter: int,
    epochs: Sequence[int],
    scale: str,
) -> None:
    """A row of images, and under it a row of the filter's maps per epoch."""
    count, gap = min(PICTURES, len(store.pixels)), 3
    images = np.stack([tiles.picture(image) for image in store.pixels[:count]])
    parts = [store.at(epoch, block) for epoch in epochs]
    maps = [_magnitudes(part.maps[:count, filter], part.peaks[:count, filter]) for part in parts]
    shades = tiles.tint(tiles.resize(tiles.brightness(np.concatenate(maps), scale), TILE))
    sheet = tiles.mosaic(np.concatenate([tiles.resize(images, TILE), shades]), count, (gap, gap))
    names = ["image", *(f"epoch {epoch}" for epoch in epochs)]
    width, high = 500, 340
    side = min(width / count, high / len(names))  # of a tile on the screen
    rect = (75, 35 + high - side * len(names), side * count, side * len(names))
    ax = picture(figure, rect, sheet, f"|activation| ({tiles.SCALES[scale]})")
    for row, words in enumerate(names):
        ax.text(-1.5, row * (TILE + gap) + TILE / 2, words, ha="right", va="center", size=9)


def _magnitudes(maps: Tensor, peaks: Tensor) -> np.ndarray:
    """(n, h, w) float32, from bytes relative to the peaks (n,)."""
    return (maps.float() * peaks[:, None, None]).numpy()


def _draw_course(
    ax: "Axes", epochs: np.ndarray, values: np.ndarray, filter: int, xlabel: str
) -> None:
    """One quantity of one filter over the epochs against all of its block, values (E, C)."""
    known = ~np.isnan(values).all(axis=1)
    if not known.any():
        say(ax, "nothing was measured")
        return
    epochs, values = epochs[known], values[known]
    low, first, middle, third, high = np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1], axis=1)
    ax.fill_between(epochs, low, high, color="#EDEDED", linewidth=0)
    ax.fill_between(epochs, first, third, color=FAINT, linewidth=0)
    ax.plot(epochs, middle, "--", color=INK, linewidth=1)
    ax.plot(epochs, values[:, filter], "o-", color=WEAK, markersize=3.5, linewidth=1.8)
    span, top = (min(epochs) - 0.2, max(epochs) + 0.2), 1.05 * np.nanmax(values) or 1
    frame(ax, span, (0, top), xlabel, ticks=3, named=_whole)


def _whole(value: float) -> str:
    """Epochs are whole: between them no number stands."""
    return f"{value:g}" if value == int(value) else ""


def _answer(store: Observations, epoch: int, image: int) -> str:
    """What the model says of the image at that epoch."""
    scores = store.scores[epoch][image]
    best = int(scores.argmax())
    percent = 100 * float(scores[best])
    return f"image {image}; the model says\n{store.classes[best]} ({percent:.0f} %)"


def _draw_fall_off(
    ax: "Axes", store: Observations, block: str, epoch: int, image: int, order: Sequence[int]
) -> None:
    """Norms in the order of the tiles, this epoch's and the last one's."""
    epochs = (epoch, store.epochs[-1])
    now, last = (store.at(which, block).norms[image].numpy()[order] for which in epochs)
    ax.fill_between(np.arange(len(now)), now, step="mid", color=WEAK, linewidth=0)
    ax.plot(last, "--", color=INK, linewidth=1.2)
    _write_key(ax, f"blue: epoch {epoch}\ndashed: epoch {store.epochs[-1]}")
    top = 1.05 * max(now.max(), last.max()) or 1
    frame(ax, (0, max(1, len(order) - 1)), (0, top), "filters, in the tiles' order", ticks=3)


def _write_key(ax: "Axes", words: str) -> None:
    """What the lines are, in the upper right corner."""
    ax.text(0.98, 0.97, words, transform=ax.transAxes, size=8, ha="right", va="top")


def _draw_losses(ax: "Axes", losses: np.ndarray) -> None:
    """Loss per step, in windows where there are more steps than a panel can show."""
    bad, width = int((~np.isfinite(losses)).sum()), max(1, -(-len(losses) // POINTS))
    ax.title.set_text("Loss of each step" + (f" ({bad} not finite)" if bad else ""))
    if not np.isfinite(losses).any():
        say(ax, "no finite loss" if bad else "waiting for the first step")
        return
    starts = range(0, len(losses), width)
    means = [_mean(losses[start : start + width]) for start in starts]
    ax.plot([min(start + width, len(losses)) for start in starts], means, color=WEAK, linewidth=1.2)
    # where the run stands, after one step too
    ax.plot([len(losses)], [means[-1]], "o", color=WEAK, markersize=4)
    step = "step" + (f" (means over {width})" if width > 1 else "")
    limits = min(0, 1.05 * np.nanmin(means)), 1.05 * max(np.nanmax(means), 1e-9)
    frame(ax, (0, len(losses) + 1), limits, step, "training loss (nats)")


def _mean(values: np.ndarray) -> float:
    """The mean of what is finite; NaN, a gap in the line, where nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _draw_errors(ax: "Axes", rows: Sequence[Mapping]) -> None:
    """Errors per epoch, validation and clean training images."""
    ax.title.set_text("Error after each epoch")
    lines = (
        ("val_error_percent", "validation", WEAK, "o-"),
        ("clean_train_error_percent", "training", INK, "s--"),
    )
    last, top = 0, 0.0
    for field, name, colour, line in lines:
        points = [(_epoch(row), row[field]) for row in rows if row.get(field) is not None]
        if points:
            ax.plot(*zip(*points), line, color=colour, markersize=4, linewidth=1.4, label=name)
            last, top = max(last, points[-1][0]), max(top, *(height for _, height in points))
    if not last:
        say(ax, "no epoch was validated yet" if rows else "waiting for the first epoch")
        return
    _write_key(ax, "circles: validation\nsquares: clean training images")
    frame(ax, (0.5, last + 0.5), (0, 1.25 * top or 1), "epoch", "top-1 error (%)", named=_whole)


def _epoch(row: Mapping) -> int:
    """The row's epoch."""
    if "epoch" not in row:
        raise ValueError(f"a row of metrics needs its epoch, it has {', '.join(row) or 'nothing'}")
    return row["epoch"]


def _draw_norms(ax: "Axes", histogram: Mapping | None) -> None:
    """The norms of a joint histogram, its gradients summed away."""
    ax.title.set_text("Norms of the maps")
    if histogram is None:
        say(ax, "nothing recorded yet")
        return
    for key in ("counts", "norm_edges"):
        pick("field of the histogram", key, histogram)
    counts, edges = np.asarray(histogram["counts"]).sum(axis=1), np.log10(histogram["norm_edges"])
    filled = np.flatnonzero(counts)
    where = "the block"
    if "block" in histogram:
        where = f"{histogram['block']}, epoch {histogram['epoch']}"
    ax.title.set_text(f"Norms in {where}\n({histogram.get('zero_norm', 0):,} more are 0)")
    if not len(filled):
        say(ax, "no map with a norm above 0")
        return
    ax.stairs(counts, edges, fill=True, color=WEAK, alpha=0.7)
    decades, words = (edges[filled[0]], edges[filled[-1] + 1]), "(image, filter) pairs"
    frame(ax, decades, (0, 1.05 * counts.max()), NORM, words, named=lambda x: f"{10**x:.3g}")
