"""Figures of the causal test: accuracy over the bias dial, and what the strong filters respond
to.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from ..inspection.rows import check_rows, field_table
from ..utils.choices import pick
from .filters import NORM, draw_seeds
from .style import (
    INK,
    STRONG,
    WEAK,
    add_grid,
    add_legend,
    describe_spread,
    draw_dots,
    get_axes,
    get_panels,
    look_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TESTS = {
    "kept": "background agrees as in training",
    "broken": "background drawn at random",
    "reversed": "background names another class",
}
CHANCE = 12.5  # percent: eight classes
SIZES = {"norm": NORM, "growth": "growth of the norm (times its start)"}


def bias_dial(rows: Sequence[Mapping], test: str = "broken", ax: "Axes | None" = None) -> "Axes":
    """Accuracy on one test set against ρ, how often the background gave the class away in training.

    Args:
        rows: {"method", "rho" in [0, 1], "seed", "epochs", "kept_accuracy", "broken_accuracy",
            "reversed_accuracy"} in percent, of one budget.
        test: which test set: one of `TESTS`.
        ax: where to draw; None makes a figure.
    Returns:
        The Axes: a line of means per method, a band of one sample standard deviation, a small
            marker per seed.
    Raises:
        ValueError: if there are no rows, no such test set, several budgets, or a method has two
            rows of one ρ and seed.
    """
    field = f"{pick('test set', test, TESTS)}_accuracy"
    budget = _budget_of(rows)
    ax = get_axes(ax) if count_seeds(rows) else None
    for method in dict.fromkeys(row["method"] for row in rows):
        look = look_of(method)
        points = [(row["rho"], row[field]) for row in rows if row["method"] == method]
        small = {"color": look["color"], "marker": look["marker"], "markersize": 3.5, "alpha": 0.5}
        draw_dots(ax, *zip(*points), **small)
        draw_seeds(ax, points, **look)
    ax.axhline(CHANCE, color=INK, linestyle=":", linewidth=1.2, label=f"chance ({CHANCE:g} %)")
    ax.set(
        title=f"{budget} epochs. Test images: {TESTS[test]}",
        ylabel="top-1 accuracy (%)",
        ylim=(0, 102),
        xlabel="ρ, probability that the background agrees with the class in training",
    )
    return add_legend(ax)


def bias_caption(rows: Sequence[Mapping]) -> str:
    """The sentence under `bias_dial`: runs, their budget, seeds, and what the band means.

    Raises:
        ValueError: as `bias_dial`.
    """
    budget, counts = _budget_of(rows), count_seeds(rows).values()
    low, high = min(counts), max(counts)
    seeds = f"{low}" if low == high else f"{low} to {high}"
    what = f"{len(rows)} runs of {budget} epochs, {seeds} seed{'s' * (high > 1)} per method and ρ"
    return f"{describe_spread(what, high > 1)} Dotted: chance, eight classes."


def shares_over_epochs(rows: Sequence[Mapping], axes: "Iterable[Axes] | None" = None) -> np.ndarray:
    """What the filters answer to, over the epochs: background (solid) against shape (dotted), a
    panel per block.

    Args:
        rows: the "blocks" of `catchup.experiments.follow_filters.summarise`: {"epoch", "block",
            "background_share", "shape_share"}, shares of variance in [0, 1] or None; of several
            runs, each with its "seed", where they are to be averaged.
        axes: one per block; None makes a figure.
    Returns:
        Axes, one per block: lines of means, bands of one sample standard deviation over the runs.
    Raises:
        ValueError: if there are no rows.
    """
    blocks = list(dict.fromkeys(row["block"] for row in check_rows(rows)))
    axes = get_panels(axes, len(blocks), "What the filters answer to", (3.0, 3.6), sharey=True)
    for ax, block in zip(axes, blocks):
        for share, colour, line in (("background", STRONG, "-"), ("shape", WEAK, ":")):
            points = [
                (row["epoch"], 100 * row[f"{share}_share"])
                for row in rows
                if row["block"] == block and row[f"{share}_share"] is not None
            ]
            draw_seeds(ax, points, label=share, color=colour, linestyle=line)
        ax.set(title=block, xlabel="epoch")
        ax.locator_params("x", integer=True)
        add_grid(ax)
    top = max(ax.get_ylim()[1] for ax in axes)
    # only now: a limit set early would hold for all panels, whatever is drawn later
    for ax in axes:
        ax.set_ylim(0, top)
    axes[0].set_ylabel("variance of the response (%)")
    axes[0].legend(frameon=False)
    return axes


def selectivity(
    rows: Sequence[Mapping], size: str = "norm", axes: "Iterable[Axes] | None" = None
) -> np.ndarray:
    """Do the strong filters respond to the background? A point per filter, a panel per block and
    epoch.

    Args:
        rows: {"block", "filter", "norm", "shape_share", "background_share"}, shares of the variance
            of the filter's response in [0, 1], with "epoch" and "growth" where there are such.
        size: what stands on the y axis, one of `SIZES`.
        axes: one Axes per panel; None makes a figure.
    Returns:
        (panels,) Axes. Squares: more background than shape; circles: more shape; dashed: the mean
        of each kind.
    Raises:
        ValueError: if there are no rows, no such size, or a row lacks it.
    """
    panels = _by_panel(rows)
    for mine in panels.values():
        # a missing field fails before drawing
        field_table([{"epoch": 0, **row} for row in mine], pick("size", size, SIZES))
    head = "Squares higher than circles: the background's filters are the stronger"
    axes = get_panels(axes, len(panels), head, (3.8, 4.2), sharex=True, sharey=True)
    for ax, ((block, epoch), mine) in zip(axes, panels.items()):
        _draw_kinds(ax, mine, size)
        ax.set(
            title=block if epoch is None else f"{block}, epoch {epoch}",
            xlim=(-3, 103),
            ylim=(0, None),
            xlabel="variance due to background (%)",
        )
    axes[0].set_ylabel(SIZES[size])
    axes[0].legend(framealpha=0.8, fontsize=9)
    return axes


def selectivity_caption(rows: Sequence[Mapping]) -> str:
    """The sentence under `selectivity`: filters, and what the shares are of.

    Raises:
        ValueError: as `selectivity`.
    """
    counts = ", ".join(
        f"{len(mine)} filters of {block}" + ("" if epoch is None else f" at epoch {epoch}")
        for (block, epoch), mine in _by_panel(rows).items()
    )
    return (
        f"{counts}. Each point is one filter: the share of the variance of its response that"
        " changes of the background alone explain. Dashed: means of the two kinds."
    )


def count_seeds(rows: Sequence[Mapping]) -> Counter:
    """{(method, ρ): its runs}, after making sure that they may be averaged."""
    runs = Counter((row["method"], row["rho"], row["seed"]) for row in check_rows(rows))
    (method, rho, seed), most = runs.most_common(1)[0]
    if most > 1:
        raise ValueError(f"two rows of {method}, ρ = {rho}, seed {seed}: runs of several settings?")
    return Counter((method, rho) for method, rho, _ in runs)


def _budget_of(rows: Sequence[Mapping]) -> int:
    """The epochs of all rows; ValueError if they differ."""
    budgets = sorted({row["epochs"] for row in check_rows(rows)})
    if len(budgets) > 1:
        raise ValueError(f"the rows are of several budgets, got {budgets} epochs: show them apart")
    return budgets[0]


def _by_panel(rows: Sequence[Mapping]) -> dict[tuple[str, int | None], list[Mapping]]:
    """{(block, epoch or None): its rows}."""
    panels: dict[tuple[str, int | None], list[Mapping]] = {}
    for row in check_rows(rows):
        panels.setdefault((row["block"], row.get("epoch")), []).append(row)
    return panels


def _draw_kinds(ax: "Axes", rows: Sequence[Mapping], size: str) -> None:
    """Points of one panel in two kinds, each with its mean."""
    kinds = (
        (True, STRONG, STRONG, "s", "--", "background > shape"),
        (False, WEAK, "none", "o", ":", "shape ≥ background"),
    )
    for led, colour, inside, marker, line, words in kinds:
        mine = [row for row in rows if (row["background_share"] > row["shape_share"]) is led]
        shares, sizes = ([row[key] for row in mine] for key in ("background_share", size))
        look = {"marker": marker, "facecolors": inside, "edgecolors": colour, "label": words}
        ax.scatter([100 * share for share in shares], sizes, s=28, **look)
        if mine:
            ax.axhline(mean(sizes), color=colour, linestyle=line, linewidth=1.2)
    add_grid(ax)
