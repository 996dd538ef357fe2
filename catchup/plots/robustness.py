"""Figures of what a model makes of unusual images: deformed ones, foreign ones, and how sure it is
of itself.
"""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np

from ..measures.statistics import by_method
from .style import FAINT, INK, STRONG, WEAK, add_legend, draw_dots, get_axes, look_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_reliability(calibration: Mapping, ax: "Axes | None" = None) -> "Axes":
    """The reliability diagram: accuracy against confidence, bin by bin; on the diagonal a model is
    as right as sure.

    Source: Guo et al., ICML 2017, Figure 1.

    Args:
        calibration: {"ece", "bins"} as `catchup.measures.calibration.measure_calibration` returns
            it.
        ax: where to draw; None makes a figure.
    Returns:
        The Axes: a bar per bin that holds images, as high as its accuracy; a marker at its mean
        confidence; grey, from the bottom, the share of the images in it.
    Raises:
        ValueError: if no bin holds an image.
    """
    bins = calibration["bins"]
    held = [[100 * value for value in row] for row in bins if row[3]]
    if not held:
        raise ValueError(f"there is nothing to draw: none of {len(bins)} bins holds an image")
    ax, width = get_axes(ax), 100 / len(bins)
    edges, sure, right, shares = zip(*held)
    ax.plot([0, 100], [0, 100], ":", color=INK, label="as right as sure")
    look = {"color": WEAK, "alpha": 0.7, "edgecolor": "white", "label": "accuracy in the bin"}
    ax.bar(edges, right, width, align="edge", **look)
    ax.bar(edges, shares, width, align="edge", color=FAINT, alpha=0.8, label="share of the images")
    ax.plot(sure, right, "D", color=STRONG, markersize=5, label="accuracy at the mean confidence")
    ax.set(
        title=f"Below the dotted line: surer than right (ECE {calibration['ece']:.1f} %)",
        xlabel="confidence (%)",
        ylabel="top-1 accuracy (%)",
        xlim=(0, 100),
        ylim=(0, 102),
    )
    return add_legend(ax)


def deformation_bars(rows: Sequence[Mapping], ax: "Axes | None" = None) -> "Axes":
    """Accuracy under every deformation, a bar per method.

    Args:
        rows: evaluation objects with `deformation`, {deformation: top-1 accuracy in percent}, the
            same ones in each.
        ax: where to draw; None makes a figure.
    Returns:
        The Axes: bars of means over the seeds, whiskers of one sample standard deviation, a small
            marker per seed.
    Raises:
        ValueError: if there are no rows, one has no deformations or other ones, or the rows of a
            method are not seeds of one setting.
    """
    groups = by_method(rows, "deformation")
    names = list(rows[0]["deformation"])
    for row in rows:
        if list(row["deformation"]) != names:
            raise ValueError(
                f"the rows need the same deformations, got {', '.join(names)} and "
                f"{', '.join(row['deformation'])}"
            )
    ax, width, places = get_axes(ax), 0.8 / len(groups), np.arange(len(names))
    for number, (method, group) in enumerate(groups.items()):
        look = look_of(method)
        spots = places + (number - (len(groups) - 1) / 2) * width
        values = [[row["deformation"][name] for row in group] for name in names]
        spread = [stdev(of_name) for of_name in values] if len(group) > 1 else None
        heights, bars = list(map(mean, values)), {"color": look["color"], "label": look["label"]}
        ax.bar(spots, heights, width, yerr=spread, alpha=0.75, capsize=2, **bars)
        for spot, of_name in zip(spots, values):
            draw_dots(ax, spot, of_name, marker=look["marker"], color=INK, markersize=3)
    ax.set_xticks(places, [_tick_label(name) for name in names], fontsize=8)
    ax.set(
        title="Accuracy on deformed test images, higher is better",
        xlabel="deformation",
        ylabel="top-1 accuracy (%)",
        ylim=(0, None),
    )
    return add_legend(ax)


def ood_histograms(
    inside: Sequence[float], outside: Sequence[float], ax: "Axes | None" = None, n_bins: int = 40
) -> "Axes":
    """How sure a model is of images like those it learned from, and of others.

    Args:
        inside, outside: scores, minus the largest softmax, as `catchup.measures.ood.ood_scores`
            returns them.
        ax: where to draw; None makes a figure.
        n_bins: >= 1.
    Returns:
        The Axes: two outlines over the confidence, each of shares that sum to 100 %.
    Raises:
        ValueError: if one of the two is empty.
    """
    sets = ("inside", inside, WEAK, "-", "//"), ("outside", outside, STRONG, "--", None)
    for kind, scores, *_ in sets:
        if not len(scores):
            raise ValueError(f"there are no {kind} scores to draw")
    ax, edges = get_axes(ax), np.linspace(0, 100, n_bins + 1)
    for kind, scores, colour, line, hatch in sets:
        sure, count = -100 * np.asarray(scores, dtype=float), len(scores)
        shares = {"bins": edges, "weights": np.full(count, 100 / count), "color": colour}
        outline = {"linestyle": line, "linewidth": 1.8, "label": f"{kind} ({count} images)"}
        ax.hist(sure, histtype="stepfilled", alpha=0.3, hatch=hatch, **shares)
        ax.hist(sure, histtype="step", **shares, **outline)
    ax.set(
        title="The less the two overlap, the better outside images are told apart",
        xlabel="confidence, the largest softmax (%)",
        ylabel="images (% of the set)",
        xlim=(0, 100),
    )
    return add_legend(ax)


def _tick_label(name: str) -> str:
    """A deformation as a tick: "rotate 20" is "rotate\\n±20°", "zoom 60" is "zoom\\n60 %"."""
    kind, _, amount = name.partition(" ")
    return f"{kind}\n{amount} %" if kind == "zoom" else f"{kind}\n±{amount}°"
