"""The causal test over budgets: what is left where the background does not help, beside what was
learnt.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from ..inspection.rows import check_rows
from ..utils.choices import pick
from .background import CHANCE, TESTS, count_seeds
from .filters import draw_seeds
from .style import (
    INK,
    add_grid,
    add_legend,
    describe_spread,
    draw_dots,
    get_panels,
    look_of,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAD = "Each point stands for runs whose schedule ends there. Solid: {}"


def cues_over_budgets(
    rows: Sequence[Mapping], test: str = "broken", axes: "Iterable[Axes] | None" = None
) -> np.ndarray:
    """Accuracy on one test set (solid) and on the own training images (dashed) against the epochs
    of the runs, a panel for each ρ, a line a method. At equal budget two methods are compared at
    one place; at equal learning where their dashed lines are equally high.

    Args:
        rows: as for `bias_dial`, of any budgets, with "train_accuracy".
        test: which test set: one of `TESTS`.
        axes: one for each ρ; None makes a figure.
    Returns:
        (number of ρ,) Axes: means, a band of one sample standard deviation where there are several
        seeds, small markers for the seeds. The epochs are on a logarithmic axis.
    Raises:
        ValueError: if there are no rows, no such test set, or a method has two rows of one ρ, seed
            and budget.
    """
    field = f"{pick('test set', test, TESTS)}_accuracy"
    shares = sorted({row["rho"] for row in check_rows(rows)})
    budgets = sorted({row["epochs"] for row in rows})
    for epochs in budgets:
        count_seeds([row for row in rows if row["epochs"] == epochs])
    axes = get_panels(axes, len(shares), HEAD.format(TESTS[test]), (4.2, 4.0), sharey=True)
    for ax, rho in zip(axes, shares):
        here = [row for row in rows if row["rho"] == rho]
        for method in dict.fromkeys(row["method"] for row in rows):
            _draw_course(ax, [row for row in here if row["method"] == method], method, field)
        ax.axhline(CHANCE, color=INK, linestyle=":", linewidth=1.2, label=f"chance ({CHANCE:g} %)")
        ax.set(title=f"ρ = {rho:g}", xscale="log", xlabel="budget (epochs, logarithmic)")
        ax.set(xlim=(0.85 * budgets[0], 1.18 * budgets[-1]), ylim=(0, 102))
        ax.set_xticks(budgets, [str(epochs) for epochs in budgets])
        ax.minorticks_off()
        add_grid(ax)
    axes[0].set_ylabel("top-1 accuracy (%)")
    axes[-1].plot([], [], "-", color=INK, label=TESTS[test])
    axes[-1].plot([], [], "--", color=INK, label="training images")
    add_legend(axes[-1])
    return axes


def cues_caption(rows: Sequence[Mapping]) -> str:
    """The sentence under `cues_over_budgets`: runs, budgets, seeds.

    Raises:
        ValueError: if there are no rows.
    """
    counts = Counter((row["method"], row["rho"], row["epochs"]) for row in check_rows(rows))
    low, high = min(counts.values()), max(counts.values())
    seeds = f"{low}" if low == high else f"{low} to {high}"
    budgets = ", ".join(map(str, sorted({row["epochs"] for row in rows})))
    what = f"{len(rows)} runs of {budgets} epochs, each with a schedule that ends there; {seeds}"
    what += f" seed{'s' * (high > 1)} per method, ρ and budget"
    return f"{describe_spread(what, high > 1)} Dotted: chance, eight classes."


def save_cues(rows: Sequence[Mapping], path: Path, test: str = "broken") -> None:
    """Draws `cues_over_budgets` into a PNG, with its caption.

    Args:
        rows, test: as there.
        path: where to write.
    """
    count = len({row["rho"] for row in rows})

    def draw(figure: "Figure") -> None:
        figure.suptitle(HEAD.format(TESTS[pick("test set", test, TESTS)]))
        cues_over_budgets(rows, test, figure.subplots(1, count, squeeze=False, sharey=True)[0])

    save_figure(path, draw, (4.2 * count + 2.4, 4.4), fill(cues_caption(rows), 60 * count + 20))


def _draw_course(ax: "Axes", rows: Sequence[Mapping], method: str, field: str) -> None:
    """A method's lines over the budgets of one ρ."""
    look = look_of(method)
    points = [(row["epochs"], row[field]) for row in rows]
    learnt = [(row["epochs"], row["train_accuracy"]) for row in rows]
    draw_seeds(ax, learnt, **{**look, "linestyle": "--", "label": None}, alpha=0.6)
    small = {"color": look["color"], "marker": look["marker"], "markersize": 3.5, "alpha": 0.5}
    draw_dots(ax, [x for x, _ in points], [y for _, y in points], **small)
    draw_seeds(ax, points, **{**look, "linestyle": "-"})
