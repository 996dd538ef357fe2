"""How far to look: the loss along the top Hessian eigenvector within a radius, beside what the
curvature promises.

The parabola is ½ λ t², with λ the top eigenvalue. The loss also has a slope at weights that are no
minimum of it; it drops out of the mean of both sides, which is what stands beside the parabola.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...inspection.rows import check_rows
from ..landscape import common_radii
from ..panels import canvas, frame, place, say
from ..style import FAINT, style, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def mean_rise(landscape: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Radii t ≥ 0 and how far the loss lies above the centre at t, the mean of both sides, along
    the eigenvector.

    Args:
        landscape: of `catchup.measures.landscape.measure_landscape`.
    Returns:
        (k,), (k,) float64, in nats, NaN where a loss is not finite; k = (points + 1) / 2, the first
        is 0, 0.
    """
    radii, losses = _line(landscape)
    middle = len(radii) // 2
    return radii[middle:], (losses[middle:] + losses[middle::-1]) / 2 - losses[middle]


def sharpness_within(landscape: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Radii r ≥ 0 and the largest rise of the loss over its centre for |t| ≤ r, along the
    eigenvector.

    Source: the lower bound of sharpness of `catchup.measures.landscape.measure_landscape`, for
        every radius up to its own.

    Returns:
        (k,), (k,) float64, in nats; NaN from the first radius on at which a loss is not finite.
    """
    radii, losses = _line(landscape)
    middle = len(radii) // 2
    highest = np.maximum(losses[middle:], losses[middle::-1])
    return radii[middle:], np.maximum.accumulate(highest) - losses[middle]


def radius_card(rows: Sequence[Mapping], radius: float) -> "Figure":
    """Left: the rise within a radius, and the parabola of the top eigenvalue; right: sharpness at
    every radius.

    Args:
        rows: evaluation objects with `landscape`, measured at the same radii; one line each,
            markers hollow from a method's second row on.
        radius: > 0, at most the largest one measured; rounded down to a measured one, but never to
            0.
    Raises:
        ValueError: if there are no rows, they differ in images or radii, or the radius was not
            measured.
    """
    steps = [step for step in common_radii(check_rows(rows)) if step > 0]
    if not 0 < radius <= steps[-1] * (1 + 1e-9):
        raise ValueError(
            f"radius must be greater than 0 and at most {steps[-1]:g}, the largest measured, got"
            f" {radius}"
        )
    from matplotlib.lines import Line2D

    reach = max([step for step in steps if step <= radius * (1 + 1e-9)], default=steps[0])
    figure = canvas(960, 380)
    looks = [_look(rows, number) for number in range(len(rows))]
    left = place(figure, (75, 60, 285, 245), "Mean rise of both sides; dashed: ½ λ t²")
    right = place(figure, (445, 60, 265, 245), "Largest rise within a radius")
    _draw_rise(left, rows, looks, reach)
    _draw_sharpness(right, rows, looks, reach)
    for line, (row, look) in enumerate(zip(rows, looks)):
        height = 0.78 - 0.075 * line
        words = f"{row_name(row)}: λ {row['landscape']['top_eigenvalue']:.3g}"
        figure.text(0.79, height, words, color=look["color"], size=8.5, va="center")
        dot = {"linestyle": "none", "transform": figure.transFigure, **look}
        figure.add_artist(Line2D([0.777], [height], **dot))
    figure.text(0.01, 0.945, f"within a radius of {reach:.2f}", size=12)
    return figure


def row_name(row: Mapping) -> str:
    """The method as figures name it, and the seed where there is one."""
    return title(row["method"]) + (f", seed {row['seed']}" if "seed" in row else "")


def _line(landscape: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Radii and losses along the eigenvector, NaN where there is none."""
    line = landscape["line"]
    return np.array(line["radii"]), np.array(line["eigen"]["loss"], dtype=float)


def _look(rows: Sequence[Mapping], number: int) -> dict:
    """Colour and marker of a row: its method's, hollow from the method's second row on."""
    method = rows[number]["method"]
    colour, marker, _ = style(method)
    again = any(row["method"] == method for row in rows[:number])
    inside = "white" if again else colour
    return {"color": colour, "marker": marker, "markersize": 5.5, "markerfacecolor": inside}


def _draw_rise(ax: "Axes", rows: Sequence[Mapping], looks: Sequence[Mapping], reach: float) -> None:
    """The rise of every row up to the radius, and its parabola."""
    top = 0.0
    for row, look in zip(rows, looks):
        radii, rise = mean_rise(row["landscape"])
        seen = radii <= reach * (1 + 1e-9)
        radii, rise = radii[seen], rise[seen]
        parabola = 0.5 * row["landscape"]["top_eigenvalue"] * radii**2
        ax.plot(radii, parabola, "--", color=look["color"], linewidth=1.2)
        ax.plot(radii, rise, linewidth=1.8, clip_on=False, **look)
        top = max([top, *rise[np.isfinite(rise)]])
    words = "step t along the top eigenvector", "loss over the centre (nats)"
    frame(ax, (0, reach), (0, 1.15 * top or 1), *words)


def _draw_sharpness(
    ax: "Axes", rows: Sequence[Mapping], looks: Sequence[Mapping], reach: float
) -> None:
    """Sharpness of every row over the radius, in powers of ten."""
    drawn = [(look, *sharpness_within(row["landscape"])) for row, look in zip(rows, looks)]
    heights = np.concatenate([rise[1:] for _, _, rise in drawn])
    heights = np.log10(heights[np.isfinite(heights) & (heights > 0)])
    if not len(heights):
        say(ax, "the loss rises nowhere")
        return
    low, high = math.floor(heights.min()), math.ceil(heights.max() + 1e-9)
    ax.plot([reach, reach], [low, high], color=FAINT, linewidth=1.5)
    for look, radii, rise in drawn:
        known = rise > 0  # not so where it is NaN
        ax.plot(radii[known], np.log10(rise[known]), linewidth=1.6, clip_on=False, **look)
    words = "radius (length in weight space)", "log₁₀ of the rise (nats)"
    frame(ax, (0, drawn[0][1][-1]), (low, high), *words)
