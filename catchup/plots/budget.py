"""The budget curve: what is found, against the epochs that the networks were given."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from ..measures.statistics import by_method, value_of
from ..utils.choices import pick
from .results import caption
from .style import INK, add_grid, add_legend, draw_means, get_panels, save_figure, style, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEARNT, ERROR, KEPT = "clean_train_error", "top1_error", "without_strongest"
TICKS = (0, 1, 3, 10, 30, 100)  # percent
SMALL = 20  # percent: below it errors stand on a logarithmic axis
HEAD = "The budget decides: each point stands for runs whose schedule ends there"
PANELS = {  # what each panel says, and the name of its numbers
    ERROR: ("Dashed at 0: the images are learnt", "top-1 error (%)"),
    "fgsm_error": ("High: small steps mislead it", "FGSM error (%)"),
    KEPT: ("Low: it leans on few features", "accuracy without the\nstrongest 20 % (%)"),
}


def budget_curves(
    rows: Sequence[Mapping],
    axes: "Iterable[Axes] | None" = None,
    measures: Sequence[str] = (ERROR, KEPT),
) -> np.ndarray:
    """Measures in percent against the epochs of the runs, a panel each, a line a method; beside the
    error on test images (solid) that on training images (dashed). The epochs are on a logarithmic
    axis, and so are errors, from 1 % on, where one is below 20 %. Above stand the images seen,
    where the rows know how many there are (`n_train`).

    Args:
        rows: evaluation objects of one or more budgets (`epochs`), with `clean_train_error` and the
            measures; those of one method and budget are averaged over their seeds and get a band of
            one standard deviation.
        axes: where to draw, one for each measure; None makes a figure.
        measures: some of `PANELS`.
    Returns:
        (number of measures,) Axes.
    Raises:
        ValueError: if there are no rows, one lacks a number, the rows of a method and budget are
            not seeds of one setting, or a measure is not one of `PANELS`.
    """
    for measure in measures:
        pick("measure", measure, PANELS)
    budgets = _budgets(rows, measures)
    axes = get_panels(axes, len(measures), HEAD)
    for method in dict.fromkeys(method for groups in budgets.values() for method in groups):
        groups = {epochs: by[method] for epochs, by in budgets.items() if method in by}
        for ax, measure in zip(axes, measures):
            _draw(ax, method, groups, measure, label=title(method) if ax is axes[-1] else None)
            if measure == ERROR:
                _draw(ax, method, groups, LEARNT, dashed=True)
    for line, label in (("-", "left: test images"), ("--", "left: training images")):
        axes[-1].plot([], [], line, color=INK, label=label)
    for ax, measure in zip(axes, measures):
        _set_heights(ax, measure, [value_of(row, measure) for row in rows])
        _set_budgets(ax, list(budgets), {row.get("n_train") for row in rows})
        add_grid(ax)
    add_legend(axes[-1])
    return axes


def save_budgets(
    rows: Sequence[Mapping], path: Path, measures: Sequence[str] = (ERROR, KEPT)
) -> None:
    """Draws `budget_curves` into a PNG, with the caption that says what was measured.

    Args:
        rows: as for `budget_curves`.
        path: where to write.
        measures: as for `budget_curves`.
    """
    most = max(row["epochs"] for row in rows)
    text = caption([row for row in rows if row["epochs"] == most])

    def draw(figure: "Figure") -> None:
        figure.suptitle(HEAD)
        budget_curves(rows, figure.subplots(1, len(measures), squeeze=False)[0], measures)

    save_figure(path, draw, (4.5 * len(measures), 3.8), fill(text, 62 * len(measures)))


def _set_heights(ax: "Axes", measure: str, values: Sequence[float]) -> None:
    """Words and height of one panel, from the values of all its networks."""
    head, name = PANELS[measure]
    ax.set(title=head, ylabel=name)
    if measure == KEPT:
        ax.set_ylim(0, min(102, 1.2 * max(values)))
    elif min(values) < SMALL:
        # 4 and 3.5 % remain apart beside 80 %, and 0 has a place
        ax.set_yscale("symlog", linthresh=1)
        ax.set_yticks(TICKS, map(str, TICKS))
        ax.set(ylabel=f"{name}, log above 1", ylim=(0, 110))
    else:
        # the errors on training images stand in the panel of the first, down to 0
        around = 0.15 * (max(values) - min(values)) + 0.5
        ax.set_ylim(0 if measure == ERROR else min(values) - around, max(values) + around)


def _set_budgets(ax: "Axes", budgets: list[int], images: set[int | None]) -> None:
    """The axis of the budgets, in epochs and, where their number is one, in images seen."""
    ax.set(xscale="log", xlabel="budget (epochs, logarithmic)")
    ax.set_xticks(budgets, [str(epochs) for epochs in budgets])
    ax.minorticks_off()
    if len(images) == 1 and (n_train := next(iter(images))) is not None:
        above = ax.secondary_xaxis("top")
        above.set_xticks(budgets, [f"{epochs * n_train / 1000:,.0f}" for epochs in budgets])
        above.set_xlabel("thousand images seen")
        above.minorticks_off()


def _budgets(
    rows: Sequence[Mapping], measures: Sequence[str]
) -> dict[int, dict[str, list[Mapping]]]:
    """{epochs: {method: its rows}}, the smallest budget first, after making sure that they may be
    averaged.
    """
    by_method(rows[:1])  # which refuses none
    budgets = {}
    for epochs in sorted({row["epochs"] for row in rows}):
        of_budget = [row for row in rows if row["epochs"] == epochs]
        for field in (LEARNT, *("feature_drop" if name == KEPT else name for name in measures)):
            budgets[epochs] = by_method(of_budget, field)
    return budgets


def _draw(
    ax: "Axes",
    method: str,
    groups: Mapping[int, Sequence[Mapping]],
    column: str,
    dashed: bool = False,
    label: str | None = None,
) -> None:
    """A method's line over the budgets: means of `column` over the seeds, and the band where there
    are several.
    """
    colour, marker, _ = style(method)
    values = {epochs: [value_of(row, column) for row in rows] for epochs, rows in groups.items()}
    line, strength = ("--", 0.6) if dashed else ("-", 1.0)
    look = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4.5}
    draw_means(ax, list(values), list(values.values()), alpha=strength, label=label, **look)
