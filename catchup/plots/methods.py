"""The gallery of methods: what every method made of one pair of images, side by side."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from ..inspection.rows import check_rows
from ..mixers.catchup import filter_influence, relative_filter_influence
from . import tiles
from .panels import canvas, place
from .style import INK, STRONG, WEAK, add_legend, get_axes, title, write_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..inspection.methods import MethodResult

COLUMNS, CHANNELS = 5, 5  # cells in a row, and tiles in the wall of a block
SIDE, TILE, GAP = 96, 32, 9  # pixels of an image, of a map, and between maps
WIDTH, HEIGHT = 2 * SIDE + 4, 3 * TILE + 8  # of the picture in a cell
GAPS = 46, 16  # below and beside a cell
TOP, FOOT, EDGE = 72, 66, 12  # paper around the cells
CHANGES = {
    "by_lam": "λ",
    "by_seed": "chance",
    "by_images": "the images",
    "by_network": "the network",
}


def method_gallery(rows: "Sequence[MethodResult]") -> "Figure":
    """What every method made of one pair: a cell each, titled by where it mixes and what the label
    says.

    Of a method that mixes the input, the mixed image, what the method says it kept outlined, and
    beside it whose pixels they are: bright the image's own, dark its partner's, striped where that
    cannot be told. Of a method that mixes a block, a few of its channels, from the one in which the
    image lags behind its partner the most to the one in which it leads the most: the image's map,
    its partner's, the mixed one. A map that is not used is dimmed and crossed out.

    Args:
        rows: from `catchup.inspection.methods.run_methods`, at least one; all of one image.
    Returns:
        A figure that pyplot does not know of. Its one Axes is a mosaic: the pair, the rows that mix
        the input, those that mix a block; it has one text per cell in the same order.
    Raises:
        ValueError: if there is no row, or they are of different images.
    """
    if not rows or len({row.place for row in rows}) > 1:
        raise ValueError(
            f"the gallery needs results of one image, at least one, got {len(rows)} of "
            f"{len({row.place for row in rows})} images"
        )
    rows = sorted(rows, key=lambda row: row.block is not None)
    cells = [_pair(rows), *(_cell(row) for row in rows)]
    heads = [_names(rows), *(f"{_head(row)}\n{_label(row)}" for row in rows)]
    sheet = tiles.mosaic(np.stack(cells), COLUMNS, GAPS)[: -GAPS[0], : -GAPS[1]]
    size = sheet.shape[1] + 2 * EDGE, TOP + len(sheet) + FOOT
    figure = canvas(*size)
    ax = place(figure, (EDGE, FOOT, sheet.shape[1], len(sheet)))
    ax.imshow(sheet, interpolation="nearest", aspect="auto")
    for k, words in enumerate(heads):
        x, y = tiles.corner(k, cells[0].shape[:2], COLUMNS, GAPS)
        ax.text(x + WIDTH / 2, y - 3, words, size=8.5, ha="center", va="bottom", linespacing=1.25)
    figure.text(EDGE / size[0], 1 - 12 / size[1], _topic(rows), size=12, va="top")
    key = {"size": 8.5, "va": "bottom", "color": INK, "linespacing": 1.45}
    figure.text(EDGE / size[0], 8 / size[1], _key(rows), **key)
    return figure


def who_decides(rows: Sequence[Mapping], ax: "Axes | None" = None) -> "Axes":
    """What decides whose values go on: how far each method's mask moves when one thing changes and
    all else stays.

    Args:
        rows: from `catchup.inspection.methods.mask_sources`, at least one.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if there are no rows.
    """
    values = np.array([[row[name] for name in CHANGES] for row in check_rows(rows)], dtype=float)
    ax, most = get_axes(ax, _table_size(len(rows))), np.nanmax(values)
    ax.imshow(tiles.tint(np.nan_to_num(values / max(most, 1e-9))), aspect="auto")
    write_cells(ax, values, np.isnan(values) | (values < 0.55 * most), ".2f", 9)
    ax.set_xticks(range(len(CHANGES)), [f"{words}\nchanges" for words in CHANGES.values()])
    names = [f"{title(row['method'])}  ({row['passes'][0]} + {row['passes'][1]})" for row in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.set(
        title="How far the mask moves when only this changes",
        ylabel="method (forward + backward passes)",
    )
    return ax


def label_weights(rows: Sequence[Mapping], ax: "Axes | None" = None) -> "Axes":
    """The weight of the image's own label at every λ: a marker at the mean, a line from the lowest
    to the highest.

    Args:
        rows: from `catchup.inspection.methods.result_rows`, of two or three λ.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if there are no rows.
    """
    check_rows(rows)
    methods, lams = (list(dict.fromkeys(row[key] for row in rows)) for key in ("method", "lam"))
    ax = get_axes(ax, _table_size(len(methods)))
    looks = (WEAK, "o", WEAK), (STRONG, "s", "white"), (INK, "^", "white")
    for k, (lam, (colour, marker, inside)) in enumerate(zip(lams, looks, strict=False)):
        ax.axvline(lam, color=colour, linestyle="--", linewidth=1)
        look = {"color": colour, "markersize": 6, "markerfacecolor": inside}
        for line, method in enumerate(methods):
            own = [row["label"] for row in rows if (row["method"], row["lam"]) == (method, lam)]
            level = line + 0.24 * (k - (len(lams) - 1) / 2)
            ax.plot([min(own), max(own)], [level, level], color=colour, linewidth=1.6)
            label = None if line else f"λ = {lam:.2f}"
            ax.plot(fmean(own), level, marker, label=label, **look)
    ax.set(
        xlim=(-0.02, 1.02),
        title="Does the label follow λ?",
        xlabel="weight of the image's own label (0 to 1)",
    )
    ax.set_yticks(range(len(methods)), [title(method) for method in methods])
    ax.invert_yaxis()
    return add_legend(ax)


def gallery_caption(rows: Sequence[Mapping]) -> str:
    """What stands behind the numbers of `label_weights` and `who_decides`; rows from
    `catchup.inspection.methods.result_rows`.
    """
    counts = {key: len({row[key] for row in rows}) for key in ("lam", "place", "seed")}
    return (
        f"one network; {counts['place']} pairs of images, {counts['seed']} seeds and"
        f" {counts['lam']} λ; markers are means, lines reach from the lowest to the highest; masks"
        " differ by 0 (not at all) to 1 (everywhere); ?: whose values they are cannot be told"
    )


def _table_size(lines: int) -> tuple[float, float]:
    """Inches of a new figure with a line per method."""
    return 7.6, 1.2 + 0.3 * lines


def _topic(rows: "Sequence[MethodResult]") -> str:
    """What the figure shows."""
    return (
        f"{len(rows)} methods, one pair, λ = {rows[0].lam:.2f}: the share that the image is to keep"
        " of itself"
    )


def _head(row: "MethodResult") -> str:
    """Name of the method, and where it mixes."""
    return f"{title(row.method)} ({row.block or 'input'})"


def _label(row: "MethodResult") -> str:
    """The label: the image's own class first; of more than two classes the others are summed."""
    order = sorted(row.weights, key=lambda name: (name != row.own_class, -row.weights[name]))
    shares = [f"{row.weights[name]:.2f} {name}" for name in order[:2]]
    rest = sum(row.weights[name] for name in order[2:])
    return " + ".join([*shares, f"{rest:.2f} …"] if order[2:] else shares)


def _key(rows: "Sequence[MethodResult]") -> str:
    """How to read the cells, as far as such cells are there."""
    keys = []
    if any(row.block is None for row in rows):
        keys.append(
            "Input: the mixed image, outlined what the method says it kept; beside it whose pixels"
            " they are: bright the image's, dark its partner's,\nstriped: cannot be told (moved,"
            " resized, of a third image, or equal in both)."
        )
    if any(row.block for row in rows):
        keys.append(
            f"Block: {CHANNELS} of its channels, left where the image lags behind its partner the"
            " most, right where it leads; image, partner, mixed. Crossed out: not used."
        )
    return "\n".join(keys)


def _row_of_pair(rows: "Sequence[MethodResult]") -> "MethodResult":
    """A row with the partner that most methods were given."""
    places = [row.partner_place for row in rows]
    return rows[places.index(max(places, key=places.count))]


def _names(rows: "Sequence[MethodResult]") -> str:
    """What stands over the pair."""
    row = _row_of_pair(rows)
    return f"the pair\nimage: {row.own_class}, partner: {row.partner_class}"


def _pair(rows: "Sequence[MethodResult]") -> np.ndarray:
    """The two images."""
    sheet = _sheet()
    for k, picture in enumerate(_row_of_pair(rows).pictures):
        sheet[:SIDE, k * (SIDE + 4) : k * (SIDE + 4) + SIDE] = _large(tiles.picture(picture))
    return sheet


def _cell(row: "MethodResult") -> np.ndarray:
    """The picture of a cell, uint8 (HEIGHT, WIDTH, 3)."""
    return _wall(row) if row.block else _image(row)


def _image(row: "MethodResult") -> np.ndarray:
    """The mixed image with its outline, and whose pixels it has."""
    sheet = _sheet()
    mixed, share = _large(tiles.picture(row.pixels)), row.share[0].numpy()
    if row.keep is not None:
        _outline(mixed, _large(row.keep.all(dim=0).numpy()))
    sheet[:SIDE, :SIDE] = mixed
    whose = _large(tiles.tint(np.nan_to_num(share)))
    y, x = np.mgrid[:SIDE, :SIDE]
    stripes = np.where(((x + y) // 3 % 2)[..., None] == 0, 255, 178).astype(np.uint8)
    sheet[:SIDE, SIDE + 4 :] = np.where(_large(np.isnan(share))[..., None], stripes, whose)
    return sheet


def _outline(picture: np.ndarray, inside: np.ndarray) -> None:
    """A black line on white around `inside`, drawn into the picture."""
    for colour, reach in ((255, 2), (0, 1)):
        edge = np.zeros_like(inside)
        for step in range(1, reach + 1):
            edge[step:] |= inside[step:] != inside[:-step]
            edge[:, step:] |= inside[:, step:] != inside[:, :-step]
        picture[edge] = colour


def _wall(row: "MethodResult") -> np.ndarray:
    """A few channels as columns: the image's map, its partner's, the mixed one; one brightness
    scale per column.
    """
    sheet, channels = _sheet(), _channels_to_show(row)
    parts = [maps[channels].numpy() for maps in (row.own, row.partner, row.mixed)]
    drawn = np.split(tiles.tint(tiles.brightness(np.concatenate(parts, axis=1))), 3, axis=1)
    used = [_are_used(row, c) for c in channels]
    for line, maps in enumerate(drawn):
        for k, tile in enumerate(tiles.resize(maps, TILE)):
            top, left = line * (TILE + 4), k * (TILE + GAP)
            shown = tile if line == 2 or used[k][line] else _cross_out(tile)
            sheet[top : top + TILE, left : left + TILE] = shown
    return sheet


def _channels_to_show(row: "MethodResult") -> list[int]:
    """Channels evenly spaced from where the image lags the most to where it leads the most, silent
    ones last to go.
    """
    influence = filter_influence(row.own[None]), filter_influence(row.partner[None])
    order = relative_filter_influence(*influence)[0].argsort(stable=True).tolist()
    return [order[rank] for rank in tiles.spaced_ranks(len(order), CHANNELS)]


def _are_used(row: "MethodResult", channel: int) -> tuple[bool, bool]:
    """Does anything of the image's map go on, and of its partner's? Of a blend both do."""
    if row.keep is None:
        return True, True
    return bool(row.keep[channel].any()), not bool(row.keep[channel].all())


def _cross_out(tile: np.ndarray) -> np.ndarray:
    """The tile dimmed, with its two diagonals."""
    tile = tiles.fade(tile)
    line = np.arange(len(tile))
    tile[line, line] = tile[line, line[::-1]] = 0x4D
    return tile


def _large(picture: np.ndarray) -> np.ndarray:
    """(H, W, …) as (SIDE, SIDE, …)."""
    return tiles.resize(picture[None], SIDE)[0]


def _sheet() -> np.ndarray:
    """The white paper of a cell."""
    return np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
