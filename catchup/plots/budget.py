"""The budget curve: what is found, against the epochs that the networks were given."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from ..measures.statistics import by_method, value_of
from .results import caption
from .style import INK, add_grid, add_legend, get_panels, style, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEARNT, ERROR, KEPT = "clean_train_error", "top1_error", "without_strongest"
TICKS = (0, 1, 3, 10, 30, 100)  # percent
HEAD = "The budget decides: each point stands for runs whose schedule ends there"


def budget_curves(rows: Sequence[Mapping], axes: "Iterable[Axes] | None" = None) -> np.ndarray:
    """Left the error on test images (solid) and on training images (dashed), right the accuracy
    without the strongest 20 % of features, in percent, against the epochs of the runs. Logarithmic
    axes, that of the error from 1 % on.

    Args:
        rows: evaluation objects of one or more budgets (`epochs`), with `clean_train_error` and
            `feature_drop`; those of one method and budget are averaged over their seeds and get a
            band of one standard deviation.
        axes: where to draw, two Axes; None makes a figure.
    Returns:
        (2,) Axes.
    Raises:
        ValueError: if there are no rows, one lacks a number, or the rows of a method and budget are
            not seeds of one setting.
    """
    budgets = _budgets(rows)
    left, right = axes = get_panels(axes, 2, HEAD)
    for method in dict.fromkeys(method for groups in budgets.values() for method in groups):
        found = {epochs: groups[method] for epochs, groups in budgets.items() if method in groups}
        _draw(left, method, found, ERROR)
        _draw(left, method, found, LEARNT, dashed=True)
        _draw(right, method, found, KEPT, label=title(method))
    for line, label in (("-", "left: test images"), ("--", "left: training images")):
        right.plot([], [], line, color=INK, label=label)
    # 4 and 3.5 % remain apart beside 80 %, and 0 has a place
    left.set_yscale("symlog", linthresh=1)
    left.set_yticks(TICKS, map(str, TICKS))
    left.set(
        title="Dashed at 0: the images are learnt",
        ylabel="top-1 error (%), log above 1",
        ylim=(0, 110),
    )
    right.set(
        title="Low: it leans on few features",
        ylabel="accuracy without the\nstrongest 20 % (%)",
        ylim=(0, 102),
    )
    for ax in axes:
        ax.set(xscale="log", xlabel="budget (epochs, logarithmic)")
        ax.set_xticks(list(budgets), [str(epochs) for epochs in budgets])
        ax.minorticks_off()
    add_grid(left), add_legend(right)
    return axes


def save_budgets(rows: Sequence[Mapping], path: Path) -> None:
    """Draws `budget_curves` into a PNG, with the caption that says what was measured.

    Args:
        rows: as for `budget_curves`. path: where to write.
    """
    from matplotlib.figure import Figure

    # no pyplot: nothing global, no window
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    figure.suptitle(HEAD)
    budget_curves(rows, figure.subplots(1, 2))
    most = max(row["epochs"] for row in rows)
    figure.supxlabel(fill(caption([row for row in rows if row["epochs"] == most]), 125), fontsize=9)
    figure.savefig(path, dpi=130)


def _budgets(rows: Sequence[Mapping]) -> dict[int, dict[str, list[Mapping]]]:
    """{epochs: {method: its rows}}, the smallest budget first, after making sure that they may be
    averaged.
    """
    by_method(rows[:1])  # which refuses none
    budgets = {}
    for epochs in sorted({row["epochs"] for row in rows}):
        of_budget = [row for row in rows if row["epochs"] == epochs]
        for field in (LEARNT, ERROR, "feature_drop"):
            budgets[epochs] = by_method(of_budget, field)
    return budgets


def _draw(
    ax: "Axes",
    method: str,
    found: Mapping[int, Sequence[Mapping]],
    column: str,
    dashed: bool = False,
    label: str | None = None,
) -> None:
    """A method's line over the budgets: means of `column` over the seeds, and the band where there
    are several.
    """
    colour, marker, _ = style(method)
    values = {epochs: [value_of(row, column) for row in rows] for epochs, rows in found.items()}
    middle = [mean(some) for some in values.values()]
    line, strength = ("--", 0.6) if dashed else ("-", 1.0)
    ax.plot(
        list(values),
        middle,
        line,
        color=colour,
        marker=marker,
        markersize=4.5,
        alpha=strength,
        label=label,
    )
    spread = [stdev(some) if len(some) > 1 else 0.0 for some in values.values()]
    if any(spread):
        ax.fill_between(
            list(values),
            [m - s for m, s in zip(middle, spread)],
            [m + s for m, s in zip(middle, spread)],
            color=colour,
            alpha=0.2 * strength,
            linewidth=0,
        )
