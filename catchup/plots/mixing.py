"""Figures of the mixing itself: the cut of one image, the maps of one step, and what each filter
had of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

import numpy as np

from ..inspection.rows import rows_of_block, rows_of_epoch
from . import tiles
from .style import INK, NEUTRAL, add_grid, add_legend, draw_dots, get_axes, get_panels, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

GRADIENT = "(nats per activation unit)"
ROWS = ("source", "partner", "mixed")


def rfi_cut(rfi: "Tensor", kept: "Tensor", ax: "Axes | None" = None) -> "Axes":
    """The relative filter influence of one image's channels, sorted, with the cut between kept and
    replaced ones.

    Source: Kang, Kang & Kim, AAAI 2024, Eqs. 5 and 6.

    Args:
        rfi: (C,), from `relative_filter_influence`.
        kept: bool (C,), from `keep_mask`.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if the two are not vectors of one length.
    """
    if rfi.ndim != 1 or rfi.shape != kept.shape:
        raise ValueError(
            f"rfi and kept must be (C,) of one length, got {tuple(rfi.shape)}, {tuple(kept.shape)}"
        )
    ax, order = get_axes(ax), rfi.argsort(stable=True)
    in_order = kept[order].cpu().numpy()
    sides = (True, style("catchup"), "kept"), (False, NEUTRAL, "from the partner")
    for stays, (colour, marker, _), label in sides:
        places = np.flatnonzero(in_order == stays).tolist()
        heights = rfi[order[places]].tolist()
        form = {"linefmt": colour, "markerfmt": marker, "basefmt": "none"}
        ax.stem(places, heights, label=label, **form)
    ax.axvline(int(kept.sum()) - 0.5, color=INK, linestyle="--", linewidth=1)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set(
        title=f"The {int(kept.sum())} channels in which the image lags the most stay",
        xlabel="channels, sorted by relative filter influence",
        ylabel="RFI (share of the norms' sum)",
    )
    return add_legend(ax)


def mixed_maps(
    source: "Tensor",
    partner: "Tensor",
    kept: "Tensor",
    rfi: "Tensor",
    names: Sequence[str] = ROWS,
    show: int = 16,
    ax: "Axes | None" = None,
) -> "Axes":
    """The mask of one step as what it is: the source's maps, its partner's, and the mixed ones,
    filter by filter.

    Columns are filters: the kept ones first, each part sorted by RFI, a dashed line at the cut. A
    map that is not used is dimmed and crossed out. Brightness is |activation|, on one scale for
    both images of a column, so that it shows who is the stronger there.

    Source: Kang, Kang & Kim, AAAI 2024, Eqs. 5 and 6.

    Args:
        source, partner: the block's maps of the two images, (C, H, W) floating.
        kept: bool (C,), from `keep_mask`: True where the source's map stays.
        rfi: (C,), from `relative_filter_influence`.
        names: of the three rows.
        show: at most this many filters, evenly spaced along the order; ≥ 1.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if the shapes do not fit, there are not three names, or `show` is below 1.
    """
    count, fits = len(source), source.ndim == 3 and source.shape == partner.shape
    if not fits or kept.shape != (count,) or rfi.shape != (count,) or len(names) != 3:
        raise ValueError(
            "for maps (C, H, W) kept and rfi must be (C,), and there must be 3 names, got"
            f" {tuple(source.shape)}, {tuple(partner.shape)}, {tuple(kept.shape)},"
            f" {tuple(rfi.shape)}, {len(names)}"
        )
    order = np.lexsort((rfi.cpu().numpy(), ~kept.cpu().numpy()))[tiles.spaced_ranks(count, show)]
    stays = kept.cpu().numpy()[order]
    ax, (height, width), wide = get_axes(ax, (11, 3.6)), source.shape[1:], len(order)
    gap = max(1, round(0.08 * max(height, width)))
    split = (width + gap) // 2 if stays.any() and not stays.all() else 0  # room for the cut
    lefts = np.arange(wide) * (width + gap) + np.where(stays, 0, split)
    ax.imshow(_three_rows(source, partner, order, stays, lefts, gap), interpolation="nearest")
    _cross_out(ax, stays, lefts, (height, width), gap)
    _name_columns(ax, order, rfi, lefts, width, int(kept.sum()), stays, split)
    ax.set_yticks([row * (height + gap) + (height - 1) / 2 for row in range(3)], names)
    which = f"{wide} of {count} filters, evenly spaced" if wide < count else f"all {count} filters"
    ax.set_title("Crossed out: not used. The mixed row takes one map of each column", pad=20)
    ax.set(xlabel=f"filter number and its RFI (share of the norms' sum); {which}")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def lessons(
    rows: Sequence[Mapping],
    block: str | None = None,
    epoch: int | None = None,
    axes: "Iterable[Axes] | None" = None,
) -> np.ndarray:
    """Who got a lesson: in which pairs each filter kept its map, and the gradient it received then.

    Left, per filter, how far the image led its partner (mean RFI) where it kept the map, and where
    it got the partner's. How often it was kept is no question: in about half of its pairs, whatever
    the method. Right, the gradient at the mixed map in those pairs against that of steps in which
    this block was not mixed (of the nearest epoch that has such a step): above the diagonal, mixing
    here gave more than mixing elsewhere or not at all.

    Args:
        rows: from `recording(...).lessons()`.
        block: its name; None where there is only one.
        epoch: None takes the last with a measured step that mixed the block.
        axes: two Axes; None makes a figure.
    Returns:
        (2,) Axes.
    Raises:
        ValueError: if there is no such block or epoch, or nothing was mixed there.
    """
    every = rows_of_block(rows, block)
    rows, when = _with_plain_gradients(_rows_with_lessons(rows, block, epoch), every)
    head = f"{rows[0]['block']}, epoch {rows[0]['epoch']}"
    left, right = axes = get_panels(axes, 2, head, (5.4, 4.2))
    _leads(left, rows)
    for field, colour, inside, marker, label in _sides():
        points = [(row["gradient_plain"], row[f"gradient_{field}"]) for row in rows]
        look = {"marker": marker, "facecolors": inside, "edgecolors": colour, "label": label}
        right.scatter(*zip(*points), s=26, **look)
    _diagonal(right, rows)
    right.set(
        title="Above the line: more gradient than otherwise",
        xlabel=f"gradient when not mixed here{when} {GRADIENT}",
        ylabel=f"gradient when mixed here {GRADIENT}",
    )
    right.legend(loc="lower left", framealpha=0.9)
    add_grid(right)
    return axes


def lessons_caption(
    rows: Sequence[Mapping], block: str | None = None, epoch: int | None = None
) -> str:
    """The sentence under `lessons`: filters, pairs, steps.

    Raises:
        ValueError: as `lessons`.
    """
    rows = _rows_with_lessons(rows, block, epoch)
    pairs = sum(row["kept"] + row["replaced"] for row in rows)
    steps = max(row["steps"] for row in rows)
    return (
        f"{len(rows)} filters of {rows[0]['block']} in epoch {rows[0]['epoch']}; {pairs:,} (image,"
        f" filter) pairs from {steps} step{'s' * (steps > 1)} that mixed this block, one run. Each"
        " point is one filter, a mean over the pairs measured."
    )


def _rows_with_lessons(
    rows: Sequence[Mapping], block: str | None, epoch: int | None
) -> list[Mapping]:
    """The rows of one block and epoch, if there is a lesson in them."""
    rows = rows_of_block(rows, block)
    lessons = [row for row in rows if row["kept"] + row["replaced"]]
    mixed = _epochs_with(lessons, "lead_kept", "lead_replaced")
    if epoch is None and mixed:
        epoch = (_epochs_with(lessons, "lead_kept", "lead_replaced", "gradient_plain") or mixed)[-1]
    chosen = rows_of_epoch(rows, epoch)
    if epoch not in mixed:
        when = "any epoch" if epoch is None else f"epoch {epoch}"
        raise ValueError(
            f"block {rows[0]['block']} was not mixed in {when}, in a step that was measured:"
            " there is no lesson to draw"
        )
    return chosen


def _epochs_with(rows: Sequence[Mapping], *fields: str) -> list[int]:
    """The epochs in which a filter has a number in each of these fields, ascending."""
    return sorted({row["epoch"] for row in rows if not any(isnan(row[field]) for field in fields)})


def _with_plain_gradients(
    rows: Sequence[Mapping], every: Sequence[Mapping]
) -> tuple[list[Mapping], str]:
    """The rows of an epoch, and where their gradients without mixing are from: another epoch, the
    nearest, where every measured step of this one mixed the block.
    """
    epoch, known = rows[0]["epoch"], _epochs_with(every, "gradient_plain")
    if epoch in known or not known:
        return list(rows), ""
    nearest = min(known, key=lambda other: abs(other - epoch))
    plain = {row["filter"]: row["gradient_plain"] for row in every if row["epoch"] == nearest}
    borrowed = [{**row, "gradient_plain": plain[row["filter"]]} for row in rows]
    return borrowed, f", in epoch {nearest}"


def _three_rows(
    source: "Tensor",
    partner: "Tensor",
    order: np.ndarray,
    stays: np.ndarray,
    lefts: np.ndarray,
    gap: int,
) -> np.ndarray:
    """The three rows of tiles as one picture, uint8 (3 (H + gap), …, 3)."""
    ours, theirs = (maps.detach().float().cpu().numpy()[order] for maps in (source, partner))
    pairs = tiles.brightness(np.concatenate([ours, theirs], axis=1))  # one scale per column
    ours, theirs = (tiles.tint(part) for part in np.split(pairs, 2, axis=1))
    height, width = source.shape[1:]
    sheet = np.full((3 * (height + gap), lefts[-1] + width, 3), 255, dtype=np.uint8)
    for k, (keep, left) in enumerate(zip(stays, lefts)):
        column = (
            (ours[k], tiles.fade(theirs[k]), ours[k])
            if keep
            else (tiles.fade(ours[k]), theirs[k], theirs[k])
        )
        for row, tile in enumerate(column):
            sheet[row * (height + gap) : row * (height + gap) + height, left : left + width] = tile
    return sheet


def _cross_out(
    ax: "Axes", stays: np.ndarray, lefts: np.ndarray, size: tuple[int, int], gap: int
) -> None:
    """Two diagonals over each unused tile, and a frame around each mixed one: solid where it is the
    source's own.
    """
    from matplotlib.collections import LineCollection

    height, width = size
    crosses, frames = [], {True: [], False: []}
    for keep, left in zip(stays.tolist(), lefts - 0.5):
        # row 0 is crossed where replaced, row 1 where kept
        top, right = ((height + gap) * keep - 0.5, left + width)
        crosses += [[(left, top), (right, top + height)], [(left, top + height), (right, top)]]
        top = 2 * (height + gap) - 0.5
        corners = (left, top), (right, top), (right, top + height), (left, top + height)
        frames[keep].append([*corners, corners[0]])
    ax.add_collection(LineCollection(crosses, colors=INK, linewidths=0.9))
    for keep, (colour, line) in ((True, (style("catchup")[0], "-")), (False, (NEUTRAL[0], "--"))):
        look = {"colors": colour, "linewidths": 2, "linestyles": line}
        ax.add_collection(LineCollection(frames[keep], **look))


def _name_columns(
    ax: "Axes",
    order: np.ndarray,
    rfi: "Tensor",
    lefts: np.ndarray,
    width: int,
    k: int,
    stays: np.ndarray,
    split: int,
) -> None:
    """Filter numbers and RFI below the columns; above them which part is kept, and the cut."""
    ax.set_xticks(
        lefts + (width - 1) / 2, [f"{c}\n{float(rfi[c]):+.3f}" for c in order], fontsize=8
    )
    offset = {"xytext": (0, 3), "textcoords": "offset points", "fontsize": 9, "ha": "center"}
    kept, others = f"kept: K = {k} of {len(rfi)}", f"from the partner: {len(rfi) - k}"
    for side, words, colour in ((stays, kept, style("catchup")[0]), (~stays, others, INK)):
        if side.any():
            place = lefts[side].mean() + (width - 1) / 2, 1.0
            ax.annotate(words, place, xycoords=("data", "axes fraction"), color=colour, **offset)
    if split:
        ax.axvline(lefts[~stays][0] - split / 2 - 1, color=INK, linestyle="--", linewidth=1.2)


def _sides() -> tuple[tuple[str, str, str, str, str], ...]:
    """Of the pairs that kept a map, and of the others: field, colour, filling, marker and name."""
    colour, other = style("catchup")[0], NEUTRAL[0]
    return (
        ("kept", colour, colour, "o", "pairs that kept the map"),
        ("replaced", other, "none", "s", "pairs with the partner's"),
    )


def _leads(ax: "Axes", rows: Sequence[Mapping]) -> None:
    """How far images led their partners in the pairs that kept the map, and in those that got the
    partner's.
    """
    rows = sorted(rows, key=lambda row: row["lead_kept"])
    for field, colour, inside, marker, label in _sides():
        look = {"color": colour, "marker": marker, "markerfacecolor": inside, "label": label}
        heights = [row[f"lead_{field}"] for row in rows]
        draw_dots(ax, range(len(rows)), heights, markersize=4.5, **look)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set(
        title="Below zero: the image lagged behind its partner",
        ylabel="mean RFI (share of the norms' sum)",
        xlabel=f"{len(rows)} filters, sorted by the RFI where kept",
    )
    ax.legend(loc="upper left", framealpha=0.9)
    add_grid(ax)


def _diagonal(ax: "Axes", rows: Sequence[Mapping]) -> None:
    """Where both gradients are equal; a sentence where there are no two to compare."""
    kinds = [f"gradient_{kind}" for kind in ("plain", "kept", "replaced")]
    gradients = np.array([[row[kind] for kind in kinds] for row in rows])
    plain, missing = gradients[:, 0], np.isnan(gradients).all(axis=0)
    if missing[0] or missing[1:].all():
        which = "without mixing here" if missing[0] else "with mixing here"
        ax.text(0.5, 0.5, f"no step {which} was measured", transform=ax.transAxes, ha="center")
        return
    most = np.nanmax(gradients)
    ax.plot([0, most], [0, most], color=INK, linestyle="--", linewidth=1)
    ax.set(xlim=(0, 1.15 * np.nanmax(plain) or 1), ylim=(0, 1.1 * most or 1))
