"""Figures of ablations: settings of one method against each other, seed by seed, and what chance
there was to tell.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..measures.power import interval_power
from ..measures.statistics import by_method, differences
from ..utils.choices import pick
from .panels import canvas, frame, place
from .results import AXIS_LABELS, beta_density
from .style import (
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    STRONG,
    WEAK,
    add_grid,
    add_legend,
    draw_dots,
    get_axes,
    style,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def setting_differences(
    rows: Sequence[Mapping],
    ax: "Axes | None" = None,
    measure: str = "top1_error",
    printed: Mapping[str, float] | None = None,
) -> "Axes":
    """Each setting minus the first, seed by seed: small markers; their mean with its 95 % interval;
    what is printed.

    Args:
        rows: evaluation objects with a `label` each; those of the first label are what the others
            are compared with.
        ax: where to draw; None makes a figure.
        measure: one of `AXIS_LABELS`.
        printed: differences of a paper by label, in the unit and with the sign of the measure;
            drawn as grey bars.
    Raises:
        ValueError: as `measures.statistics.differences`, or if there is nothing to compare the
            first setting with.
    """
    pick("measure", measure, AXIS_LABELS)
    rivals, groups = differences(rows, (measure,)), by_method(rows, measure)
    if not rivals:
        raise ValueError(
            f"there is one setting only, {next(iter(groups))}: name another to compare it with"
        )
    first = rivals[0]["minus"]
    ax, reference = get_axes(ax), {row["seed"]: row[measure] for row in groups[first]}
    ax.axvline(0, color=INK, linewidth=1)
    for line, rival in enumerate(reversed(rivals)):
        method, (colour, marker, _) = rival["method"], style(rival["method"])
        gaps = [
            row[measure] - reference[row["seed"]]
            for row in groups[method]
            if row["seed"] in reference
        ]
        if printed and method in printed:
            bar = {"color": FAINT, "markersize": 20, "markeredgewidth": 5}
            ax.plot([printed[method]], [line], "|", **bar)
        small = {"color": colour, "marker": marker, "alpha": 0.5, "markersize": 4}
        draw_dots(ax, gaps, [line - 0.22] * len(gaps), **small)
        if rival["low"] is not None:
            ax.plot([rival["low"], rival["high"]], [line, line], color=colour, linewidth=1.8)
        ax.plot([rival["mean"]], [line], marker, color=colour, markersize=8)
    ax.set_yticks(range(len(rivals)), [title(rival["method"]) for rival in reversed(rivals)])
    quantity = AXIS_LABELS[measure].removesuffix(" (%)")
    ax.set(
        xlabel=f"{quantity}, minus that of {title(first)} (points)",
        ylim=(-0.6, len(rivals) - 0.4),
        title="Lines: 95 % intervals of the mean; small: single seeds",
    )
    return add_grid(ax)


def power_curves(
    gaps: Mapping[str, float],
    sd: float,
    ax: "Axes | None" = None,
    most: int = 100,
    wanted: float = 0.8,
) -> "Axes":
    """The chance that the interval excludes zero, against the number of paired seeds, a line per
    true difference.

    Args:
        gaps: {name: true mean difference > 0, in points}.
        sd: standard deviation of the paired differences, in points.
        ax: where to draw; None makes a figure.
        most: seeds at the right end, ≥ 3.
        wanted: the chance that the dashed line marks.
    Raises:
        ValueError: if there is no gap, `most` is too small, or as
            `catchup.measures.power.interval_power`.
    """
    if not gaps or most < 3:
        raise ValueError(
            f"power curves need at least one gap and 3 seeds, got {len(gaps)} gaps and most ="
            f" {most}"
        )
    seeds = sorted({round(value) for value in np.geomspace(2, most, 40)})
    curves = {name: [100 * interval_power(gap, sd, n) for n in seeds] for name, gap in gaps.items()}
    ax = get_axes(ax)
    ax.axhline(100 * wanted, color=INK, linestyle="--", linewidth=1)
    for number, (name, chances) in enumerate(curves.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        ax.plot(seeds, chances, color=colour, marker=marker, markevery=8, markersize=5, label=name)
    ax.set(
        title="Who wants to see a small difference needs many seeds",
        xscale="log",
        ylim=(0, 102),
        xlabel=f"paired seeds (standard deviation of a difference: {sd:.2g} points)",
        ylabel="chance that the interval\nexcludes zero (%)",
    )
    ticks = [n for n in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if n <= most]
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.minorticks_off()
    return add_legend(ax)


def lam_card(alpha: float, lams: Sequence[float] = ()) -> "Figure":
    """What α does to λ: the density of Beta(α, α), λ that were drawn, and how much goes to the
    smaller side.

    Source: Kang, Kang & Kim, AAAI 2024, appendix B.3 and Figure 8.

    Args:
        alpha: > 0.
        lams: drawn with this α; may be empty.
    Returns:
        A figure that pyplot does not know, drawn quickly enough to follow a slider.
    Raises:
        ValueError: if α is not a number > 0.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a number greater than 0, got {alpha}")
    figure, grid = canvas(900, 300), (np.arange(400) + 0.5) / 400
    draws = f", and {len(lams)} draws" if len(lams) else ""
    left = place(figure, (60, 50, 380, 210), f"α = {alpha:g}: the law of λ{draws}")
    heights = np.array([beta_density(lam, alpha) for lam in grid])
    drawn, edges = np.histogram(lams, bins=20, range=(0, 1), density=bool(len(lams)))
    left.stairs(drawn, edges, fill=True, color=FAINT)
    left.plot(grid, heights, color=WEAK, linewidth=2)
    top = max(2.0, beta_density(0.5, alpha), float(np.quantile(heights, 0.97)))
    frame(left, (0, 1), (0, 1.1 * top), "λ, share of the channels kept", "density (per unit of λ)")
    right = place(figure, (525, 50, 360, 210), "The smaller of the two shares, on average")
    alphas = np.geomspace(0.05, 20, 60)
    shares = [100 * smaller_share(value) for value in alphas]
    right.plot(np.log10(alphas), shares, color=INK, linewidth=1.5)
    right.plot([math.log10(alpha)], [100 * smaller_share(alpha)], "o", color=STRONG, markersize=8)
    decades = math.log10(0.05), math.log10(20)
    frame(right, decades, (0, 50), "α", "% of the channels", named=lambda x: f"{10**x:.2g}")
    return figure


def smaller_share(alpha: float) -> float:
    """The mean of min(λ, 1 − λ) for λ ~ Beta(α, α), α > 0: ½ − Γ(2α) / (4^α α Γ(α)²).

    It goes from 0 (one image alone) for α → 0 to ½ (half and half) for α → ∞; α = 1 gives ¼.
    """
    scale = math.lgamma(2 * alpha) - 2 * math.lgamma(alpha)
    return 0.5 - math.exp(scale - alpha * math.log(4)) / alpha
