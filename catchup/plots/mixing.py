"""Figures of the mixing itself: the cut of one image, the maps of one step, and what each filter
had of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

import numpy as np

from ..inspection.rows import rows_of_block, rows_of_epoch
from . import tiles
from .style import INK, NEUTRAL, add_grid, add_legend, get_axes, get_panels, style

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
    for stays, (colour, marker, _), label in (
        (True, style("catchup"), "kept"),
        (False, NEUTRAL, "from the partner"),
    ):
        places = [
            place for place, channel in enumerate(order.tolist()) if bool(kept[channel]) is stays
        ]
        ax.stem(
            places,
            rfi[order[places]].tolist(),
            linefmt=colour,
            markerfmt=marker,
            basefmt="none",
            label=label,
        )
    ax.axvline(int(kept.sum()) - 0.5, color="#4D4D4D", linestyle="--", linewidth=1)
    ax.axhline(0, color="#4D4D4D", linewidth=0.8)
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
    count = len(rfi) if rfi.ndim == 1 else -1
    fits = (
        source.ndim == 3
        and source.shape == partner.shape
        and len(source) == count
        and kept.shape == rfi.shape
    )
    if not fits or len(names) != 3:
        raise ValueError(
            "for maps (C, H, W) kept and rfi must be (C,), and there must be 3 names, got"
            f" {tuple(source.shape)}, {tuple(partner.shape)}, {tuple(kept.shape)},"
            f" {tuple(rfi.shape)}, {len(names)}"
        )
    order = np.lexsort((rfi.cpu().numpy(), ~kept.cpu().numpy()))[tiles.spaced_ranks(count, show)]
    stays = kept.cpu().numpy()[order]
    ax, (height, width), wide = ax or _wide(), source.shape[1:], len(order)
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
    left, right = axes = get_panels(
        axes, 2, f"{rows[0]['block']}, epoch {rows[0]['epoch']}", (5.4, 4.2)
    )
    _leads(left, rows)
    kept, other = (style("catchup")[0], "o"), (NEUTRAL[0], "s")
    for field, (colour, marker), filled in (("kept", kept, True), ("replaced", other, False)):
        points = [(row["gradient_plain"], row[f"gradient_{field}"]) for row in rows]
        right.scatter(
            *zip(*points),
            s=26,
            marker=marker,
            facecolors=colour if filled else "none",
            edgecolors=colour,
            label={"kept": "pairs that kept the map", "replaced": "pairs with the partner's"}[
                field
            ],
        )
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
    pairs, steps = (
        sum(row["kept"] + row["replaced"] for row in rows),
        max(row["steps"] for row in rows),
    )
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


def _wide() -> "Axes":
    """The axes of a new figure, wide and low."""
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(11, 3.6), layout="constrained")[1]


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
        column = (_dim(ours[k], not keep), _dim(theirs[k], keep), ours[k] if keep else theirs[k])
        for row, tile in enumerate(column):
            sheet[row * (height + gap) : row * (height + gap) + height, left : left + width] = tile
    return sheet


def _dim(tile: np.ndarray, dim: bool) -> np.ndarray:
    """The tile, or what is left of it where it is not used."""
    return (0.3 * tile + 0.7 * 255).astype(np.uint8) if dim else tile


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
        frames[keep].append(
            [(left, top), (right, top), (right, top + height), (left, top + height), (left, top)]
        )
    ax.add_collection(LineCollection(crosses, colors=INK, linewidths=0.9))
    for keep, (colour, line) in ((True, (style("catchup")[0], "-")), (False, (NEUTRAL[0], "--"))):
        ax.add_collection(
            LineCollection(frames[keep], colors=colour, linewidths=2, linestyles=line)
        )


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
    for keep, words in (
        (True, f"kept: K = {k} of {len(rfi)}"),
        (False, f"from the partner: {len(rfi) - k}"),
    ):
        if (stays == keep).any():
            middle = lefts[stays == keep].mean() + (width - 1) / 2
            ax.annotate(
                words,
                (middle, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                fontsize=9,
                textcoords="offset points",
                ha="center",
                color=style("catchup")[0] if keep else INK,
            )
    if split:
        ax.axvline(lefts[~stays][0] - split / 2 - 1, color=INK, linestyle="--", linewidth=1.2)


def _leads(ax: "Axes", rows: Sequence[Mapping]) -> None:
    """How far images led their partners in the pairs that kept the map, and in those that got the
    partner's.
    """
    rows = sorted(rows, key=lambda row: row["lead_kept"])
    for field, (colour, marker), words in (
        ("lead_kept", (style("catchup")[0], "o"), "pairs that kept the map"),
        ("lead_replaced", (NEUTRAL[0], "s"), "pairs with the partner's"),
    ):
        ax.plot(
            range(len(rows)),
            [row[field] for row in rows],
            marker,
            color=colour,
            markersize=4.5,
            linestyle="none",
            markerfacecolor=colour if field == "lead_kept" else "none",
            label=words,
        )
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
    found = np.array(
        [[row[f"gradient_{kind}"] for kind in ("plain", "kept", "replaced")] for row in rows]
    )
    plain, missing = found[:, 0], np.isnan(found).all(axis=0)
    if missing[0] or missing[1:].all():
        which = "without mixing here" if missing[0] else "with mixing here"
        ax.text(0.5, 0.5, f"no step {which} was measured", transform=ax.transAxes, ha="center")
        return
    most = np.nanmax(found)
    ax.plot([0, most], [0, most], color=INK, linestyle="--", linewidth=1)
    ax.set(xlim=(0, 1.15 * np.nanmax(plain) or 1), ylim=(0, 1.1 * most or 1))
