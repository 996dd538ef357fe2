"""Figures of the report: the papers' printed differences and ours, cell by cell, and how many cells
say what.

A gain is a difference from the table's reference with the sign turned so that more is better,
whatever the cell
counts: less error, more accuracy, less time.

Where it misleads: a cell shows one record, so that neighbours may come from different ones;
`catchup report` names them. The printed differences come without intervals.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...plots.panels import GRID, _ticks, canvas, place
from ...plots.style import FAINT, INK, STRONG, WEAK, add_legend, get_axes, style, title
from .cells import Cell
from .printed import PAPERS, table_of
from .verdict import (
    NOT_COMPARED,
    NOT_RUN,
    OPPOSITE,
    REFERENCE,
    REPRODUCED,
    SAME,
    SCALED,
    TOO_SHORT,
    excludes_zero,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# verdict: colour and hatch of its part of a bar
PARTS = {
    REPRODUCED: (WEAK, ""),
    SAME: (WEAK, "//"),
    SAME + SCALED: ("#56B4E9", "//"),
    OPPOSITE: (STRONG, ""),
    OPPOSITE + SCALED: ("#E69F00", "\\\\"),
    TOO_SHORT: ("#C8C8C8", "."),
    NOT_RUN: ("#EDEDED", ""),
}
ROW = 24  # pixels of a line of a card


def printed_against_ours(cells: Iterable[Cell], ax: "Axes | None" = None) -> "Axes":
    """Every cell a point: the gain as printed, and ours with its interval. Above the zero line on
    the right, and below it on the left, both have one sign.

    Args:
        cells: of `catchup.experiments.report.cells.make_report`; those without both differences
            are passed over. Of one unit: times are in percent, all else in points.
        ax: where to draw; None makes a figure.
    Returns:
        The Axes. Filled markers: the interval excludes zero; hollow ones: it does not, or there is
        none. Whiskers that reach the frame go on beyond it.
    Raises:
        ValueError: if no cell has both differences, or times are among cells of another unit.
    """
    shown = [
        cell
        for cell in cells
        if cell.ours and cell.ours.difference and cell.printed_difference is not None
    ]
    unit, ax, named = _unit(shown), get_axes(ax), set()
    points = np.array(
        [
            (_better(cell) * cell.printed_difference, _better(cell) * cell.ours.difference.mean)
            for cell in shown
        ]
    )
    (left, right), (low, high) = (_limits(values) for values in points.T)
    _quadrants(ax, left, right, low, high)
    for (x, y), cell in zip(points, shown):
        method = _drawn_as(cell).partition(":")[0]
        colour, marker, _ = style(method)
        bounds = _gain_bounds(cell)
        if bounds:
            ax.plot([x, x], np.clip(bounds, low, high), color=colour, alpha=0.45, linewidth=1.2)
        ax.plot(
            [x],
            [y],
            marker,
            color=colour,
            markersize=7,
            markeredgewidth=1.5,
            linestyle="none",
            markerfacecolor=colour if excludes_zero(cell.ours.difference) else "white",
            label=f"_{method}" if method in named else title(method),
        )
        named.add(method)
    ax.set(
        title="Blue quarters: the printed sign; a filled marker's interval excludes 0",
        xlim=(left, right),
        ylim=(low, high),
        xlabel=f"gain over the reference as printed ({unit})",
        ylabel=f"our gain ({unit})",
    )
    return add_legend(ax)


def by_column(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells that can be drawn together: of one table and one quantity, methods apart.

    Returns:
        {"Table 1, Top-1 Err": cells}, those of AutoMix with its name; without the references,
        without cells that are not compared, and without quantities of which no cell was run.
    """
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        printed = cell.printed
        if cell.verdict.word in (REFERENCE, NOT_COMPARED):
            continue
        quantity = printed.column if table_of(printed).methods == "rows" else printed.row
        paper = "" if printed.paper == "catchup" else f"{PAPERS[printed.paper]}, "
        found.setdefault(f"{paper}{printed.table}, {quantity}", []).append(cell)
    return {
        name: group
        for name, group in found.items()
        if any(cell.verdict.word != NOT_RUN for cell in group)
    }


def table_card(cells: Sequence[Cell], head: str = "") -> "Figure":
    """One line per cell: the printed difference (grey bar), ours with its interval, both as
    numbers, the verdict.

    Args:
        cells: of one quantity of one table, as `by_column` returns them. head: above the figure.
    Returns:
        A figure that pyplot does not know, drawn quickly enough to follow a list of tables. A
        whisker that ends in an arrow goes on beyond the frame.
    Raises:
        ValueError: if there are no cells.
    """
    if not cells:
        raise ValueError("there are no cells to draw, got an empty sequence")
    figure = canvas(1010, 95 + ROW * len(cells))
    ax = place(figure, (170, 45, 360, ROW * len(cells)))
    edge = 1.15 * max([abs(value) for cell in cells for value in _values(cell)] or [1.0])
    for row, cell in enumerate(reversed(cells)):
        _draw_cell(ax, row, cell, edge)
        _write_cell(figure, 45 + ROW * (row + 0.5), cell)
    _draw_scale(ax, len(cells), edge, _difference_label(cells[0]))
    _write_head(figure, head)
    return figure


def verdict_bars(cells: Iterable[Cell], ax: "Axes | None" = None) -> "Axes":
    """How many cells of each table have which verdict; references and what is not compared are left
    out.

    Args:
        cells: of `catchup.experiments.report.cells.make_report`. ax: where to draw; None makes
            a figure.
    Raises:
        ValueError: if no cell is left.
    """
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        if cell.verdict.word in PARTS:
            paper = "" if cell.printed.paper == "catchup" else f"{PAPERS[cell.printed.paper]}, "
            of_table = counts.setdefault(paper + cell.printed.table, dict.fromkeys(PARTS, 0))
            of_table[cell.verdict.word] += 1
    if not counts:
        raise ValueError("there is nothing to draw: no cell is compared with a reference")
    ax, places, start = get_axes(ax), np.arange(len(counts))[::-1], np.zeros(len(counts))
    for word, (colour, hatch) in PARTS.items():
        sizes = np.array([of_table[word] for of_table in counts.values()])
        if sizes.any():
            ax.barh(
                places, sizes, left=start, color=colour, hatch=hatch, edgecolor="white", label=word
            )
        start += sizes
    ax.set_yticks(places, list(counts))
    ax.set(
        title="What was run of each table, and what it says", xlabel="cells of the table", ylabel=""
    )
    return add_legend(ax)


def _unit(cells: Sequence[Cell]) -> str:
    """ "points" or "%"; ValueError for both, and for none."""
    units = {"%" if _is_time(cell) else "points" for cell in cells}
    if len(units) != 1:
        found = (
            "times are in percent, all else in points: draw them apart"
            if units
            else "no cell has both differences"
        )
        raise ValueError(f"{found}; got {len(cells)} cells with a printed difference and ours")
    return units.pop()


def _is_time(cell: Cell) -> bool:
    return table_of(cell.printed).column(cell.printed).step_cost


def _drawn_as(cell: Cell) -> str:
    """The method whose colour and marker the cell has: CutMix for Catch-up Mix that only ever draws
    the input.
    """
    return "cutmix" if cell.ours.method == "catchup:layers=[0]" else cell.ours.method


def _better(cell: Cell) -> int:
    return cell.printed.better or 1


def _gain_bounds(cell: Cell) -> tuple[float, float] | None:
    """The interval of our gain; None for a single seed."""
    _, low, high, *_ = cell.ours.difference
    return None if low is None else (_better(cell) * low, _better(cell) * high)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Around all values and zero, with room."""
    low, high = min(0.0, values.min()), max(0.0, values.max())
    room = 0.12 * (high - low) or 1.0
    return low - 2 * room, high + 2 * room


def _quadrants(ax: "Axes", left: float, right: float, low: float, high: float) -> None:
    """The two quarters in which print and ours have one sign, tinted and named; so are the
    others.
    """
    for x, y in ((right, high), (left, low)):
        ax.fill_between([0, x], 0, y, color="#DCEBF7", linewidth=0, zorder=0)
    for x, y, words in (
        (1, 1, "same sign"),
        (1, 0, "other sign"),
        (0, 1, "other sign"),
        (0, 0, "same sign"),
    ):
        ax.text(
            0.98 if x else 0.02,
            0.98 if y else 0.02,
            words,
            transform=ax.transAxes,
            color=INK,
            size=9,
            ha="right" if x else "left",
            va="top" if y else "bottom",
        )
    ax.axhline(0, color=INK, linewidth=1)
    ax.axvline(0, color=INK, linewidth=1)
    both = max(left, low), min(right, high)
    ax.plot(both, both, ":", color=INK, linewidth=1, label="as printed")


def _values(cell: Cell) -> list[float]:
    """What has to lie inside the frame."""
    ours = cell.ours.difference.mean if cell.ours and cell.ours.difference else None
    return [value for value in (cell.printed_difference, ours) if value is not None]


def _draw_cell(ax: "Axes", row: int, cell: Cell, edge: float) -> None:
    """The line of a cell."""
    if cell.printed_difference is not None:
        ax.plot(
            [cell.printed_difference], [row], "|", color=FAINT, markersize=19, markeredgewidth=5
        )
    if not cell.ours or not cell.ours.difference:
        return
    mean, low, high, *_ = cell.ours.difference
    colour, marker, _ = style(_drawn_as(cell))
    if low is not None:
        ax.plot(np.clip([low, high], -edge, edge), [row, row], color=colour, linewidth=1.8)
        for end, arrow in ((low, "<"), (high, ">")):
            if abs(end) > edge:
                ax.plot([np.sign(end) * 0.985 * edge], [row], arrow, color=colour, markersize=6)
    ax.plot(
        [mean],
        [row],
        marker,
        color=colour,
        markersize=7,
        zorder=5,
        markeredgewidth=1.5,
        markerfacecolor=colour if excludes_zero(cell.ours.difference) else "white",
    )


def _write_cell(figure: "Figure", height: float, cell: Cell) -> None:
    """Name, numbers and verdict, beside the line at this height in pixels."""
    width, tall = figure.get_size_inches() * figure.dpi
    name = cell.printed.row if table_of(cell.printed).methods == "rows" else cell.printed.column
    printed = "–" if cell.printed_difference is None else f"{cell.printed_difference:+.2f}"
    ours = "–" if not cell.ours or not cell.ours.difference else f"{cell.ours.difference.mean:+.2f}"
    count = f" (n = {cell.ours.difference.n})" if cell.ours and cell.ours.difference else ""
    for x, words, side in (
        (160, name, "right"),
        (595, printed, "right"),
        (655, ours, "right"),
        (668, f"{cell.verdict}{count}", "left"),
    ):
        figure.text(x / width, height / tall, words, size=8.5, ha=side, va="center")


def _write_head(figure: "Figure", head: str) -> None:
    """The heading, and the names of the columns of numbers."""
    width, tall = figure.get_size_inches() * figure.dpi
    figure.text(10 / width, 1 - 14 / tall, head, size=11, va="center")
    for x, words in ((595, "printed"), (655, "ours")):
        figure.text(x / width, 1 - 34 / tall, words, size=8.5, ha="right", va="center", color=INK)


def _draw_scale(ax: "Axes", rows: int, edge: float, words: str) -> None:
    """Vertical lines with their numbers below, and what they count; the lines of cells have names
    instead.
    """
    ax.set(xlim=(-edge, edge), ylim=(-0.5, rows - 0.5), xlabel=words)
    (left, bottom, width, _), tall = (
        ax.get_position().bounds,
        ax.figure.get_figheight() * ax.figure.dpi,
    )
    for x in _ticks(-edge, edge, 6):
        ax.plot([x, x], [-0.5, rows - 0.5], color=GRID if x else INK, linewidth=0.8, zorder=0.5)
        ax.figure.text(
            left + width * (x / edge + 1) / 2,
            bottom - 5 / tall,
            f"{x:g}",
            size=8,
            ha="center",
            va="top",
        )
    ax.figure.text(left + width / 2, bottom - 20 / tall, words, size=8.5, ha="center", va="top")


def _difference_label(cell: Cell) -> str:
    """What the axis shows, and where better is."""
    unit = "%" if _is_time(cell) else "points"
    side = {1: "; more is better", -1: "; less is better", 0: ""}[cell.printed.better]
    return f"difference from {cell.reference} ({unit}{side}); grey bar: printed"
