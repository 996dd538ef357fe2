"""Figures of runs and evaluations: feature drop, error bars, training curves, the law of the mixing
ratio.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from textwrap import fill
from typing import TYPE_CHECKING

from ..measures.statistics import by_method, span
from ..utils.choices import pick
from .style import (
    INK,
    add_grid,
    add_legend,
    describe_spread,
    draw_dots,
    draw_means,
    get_axes,
    look_of,
    save_figure,
    style,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS_LABELS = {
    "top1_error": "top-1 error (%)",
    "top5_error": "top-5 error (%)",
    "fgsm_error": "top-1 error under FGSM (%)",
    "pgd_error": "top-1 error under PGD (%)",
    "last_error": "validation error, last epoch (%)",
    "best_error": "validation error, best epoch (%)",
    "median10_error": "validation error, median of ten (%)",
}
DROPPED = {"strongest": ("-", 1.0), "weakest": ("--", 0.5)}  # line style and opacity
CURVES = {
    "val_error_percent": "validation error (%)",
    "clean_train_error_percent": "error on clean training images (%)",
    "val_loss": "validation loss (nats)",
    "train_loss": "training loss, mixed images (nats)",
    "train_accuracy_mixed_percent": "λ-weighted training accuracy (%)",
    "lr": "learning rate",
}


def feature_drop_curves(rows: Sequence[Mapping], ax: "Axes | None" = None) -> "Axes":
    """Accuracy against the share of features removed: strongest first (solid), weakest first
    (dashed, lighter).

    Source: the form of Kang, Kang & Kim, AAAI 2024, Figure 5.

    Args:
        rows: evaluation objects with `feature_drop`; those of one method are averaged over their
            seeds and get a band of one standard deviation, a single one a line alone.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if there are no rows, one has no feature drop, or the rows of a method are not
            seeds of one setting.
    """
    groups, ax = by_method(rows, "feature_drop"), get_axes(ax)
    for method, group in groups.items():
        for which in DROPPED:
            _draw_drop(ax, method, which, [row["feature_drop"][which] for row in group])
    curves = [row["feature_drop"][which] for row in rows for which in DROPPED]
    best = max(accuracy for curve in curves for _, accuracy in curve)
    for which, (line, strength) in DROPPED.items():
        ax.plot([], [], line, color=INK, alpha=strength, label=f"{which} first")
    ax.set(
        title="Steep solid line: the model leans on few features",
        xlabel="features removed (%)",
        ylabel="top-1 accuracy (%)",
        xlim=(-2, None),
        ylim=(0, min(102, 1.15 * best)),
    )
    return add_legend(ax)


def caption(rows: Sequence[Mapping]) -> str:
    """The sentence under a figure of evaluation objects: images, seeds, and what the band or bar
    means.

    Raises:
        ValueError: as `error_bars`, except that no measure is needed.
    """
    groups = by_method(rows)
    images, data = (span(row.get(key) for row in rows) for key in ("n_test", "data"))
    counts = {len(group) for group in groups.values()}
    what = (
        f"{images} test images of {data}, {span(sorted(counts))} seed{'' if counts == {1} else 's'}"
        " per method"
    )
    if counts == {1}:
        return describe_spread(what, False)
    return (
        f"{what}. Lines and large markers: means over seeds; bands and bars: one sample standard"
        " deviation each way."
    )


def error_bars(
    rows: Sequence[Mapping], ax: "Axes | None" = None, measure: str = "top1_error"
) -> "Axes":
    """One point per method, its mean over seeds with a bar of one standard deviation, and a small
    marker per seed.

    Args:
        rows: evaluation objects.
        ax: where to draw; None makes a figure.
        measure: one of `AXIS_LABELS`.
    Raises:
        ValueError: if there are no rows, the measure is unknown or missing in a row, or the rows of
            a method are not seeds of one setting.
    """
    groups, ax = by_method(rows, pick("measure", measure, AXIS_LABELS)), get_axes(ax)
    for place, (method, group) in enumerate(groups.items()):
        colour, marker, _ = style(method)
        values = [row[measure] for row in group]
        spread = stdev(values) if len(values) > 1 else None
        look = {"color": colour, "marker": marker, "linestyle": "none"}
        draw_dots(ax, place + 0.15, values, alpha=0.5, markersize=4, **look)
        name = title(method)
        ax.errorbar(place, mean(values), spread, markersize=8, capsize=5, label=name, **look)
    ax.set_xticks(range(len(groups)), [title(method) for method in groups])
    ax.set(
        title="Lower is better; small markers are single seeds",
        xlabel="method",
        ylabel=AXIS_LABELS[measure],
        xlim=(-0.5, len(groups) - 0.5),
    )
    ax.margins(y=0.15)
    return add_grid(ax)


def training_curves(
    rows_by_run: Mapping[tuple[str, int], Sequence[Mapping]],
    ax: "Axes | None" = None,
    measure: str = "val_error_percent",
) -> "Axes":
    """A quantity over the epochs, one line per run, the runs of a method in its colour.

    Args:
        rows_by_run: {(method, seed): rows of metrics.jsonl}; epochs without this quantity are left
            out.
        ax: where to draw; None makes a figure.
        measure: one of `CURVES`.
    Raises:
        ValueError: if there are no runs or a run has no such value, or the measure is unknown.
    """
    pick("measure", measure, CURVES)
    if not rows_by_run:
        raise ValueError("there are no runs to draw, got an empty mapping")
    named, ax = set(), get_axes(ax)
    for (method, seed), rows in rows_by_run.items():
        points = [(row["epoch"], row[measure]) for row in rows if row.get(measure) is not None]
        if not points:
            raise ValueError(
                f"the run of {method}, seed {seed}, has no value of {measure} in {len(rows)} epochs"
            )
        look = look_of(method)
        if method in named:
            look["label"] = f"_{method}, seed {seed}"
        each = max(1, len(points) // 10)
        ax.plot(*zip(*points), markersize=4, linewidth=1.3, markevery=each, alpha=0.85, **look)
        named.add(method)
    ax.set(title="How each run went, one line per seed", xlabel="epoch", ylabel=CURVES[measure])
    ax.locator_params("x", integer=True)
    return add_legend(ax)


def beta_densities(alphas: Sequence[float], ax: "Axes | None" = None) -> "Axes":
    """The law of the mixing ratio, Beta(α, α), for several α: from light (dark blue) to strong
    mixing.

    Source: Kang, Kang & Kim, AAAI 2024, Figure 8.

    Args:
        alphas: each > 0.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if there is no α or one is not a number > 0.
    """
    from matplotlib import colormaps

    if not alphas or not all(0 < alpha < math.inf for alpha in alphas):
        raise ValueError(f"alphas must be numbers greater than 0, at least one, got {list(alphas)}")
    # the ends, where α < 1 is infinite, are left out
    ax, lams = get_axes(ax), [(step + 0.5) / 400 for step in range(400)]
    for place, alpha in enumerate(alphas):
        # its yellow end is lost on white
        shade, line = 0.7 * place / max(1, len(alphas) - 1), ("-", "--", "-.", ":")[place % 4]
        look = {"color": colormaps["cividis"](shade), "linestyle": line, "linewidth": 2}
        heights = [beta_density(lam, alpha) for lam in lams]
        ax.plot(lams, heights, label=f"α = {alpha:g}", **look)
    top = max(2.0, *(beta_density(0.5, alpha) for alpha in alphas))
    ax.set(
        title="The larger α, the closer the mix is to half and half",
        ylabel="density (per unit of λ)",
        xlabel="λ, share of the source image (0 to 1)",
        xlim=(0, 1),
        ylim=(0, 1.1 * top),
    )
    return add_legend(ax)


def save(rows: Sequence[Mapping], path: Path, draw: Callable = feature_drop_curves) -> None:
    """Draws evaluation objects into a PNG, with the caption that says what was measured.

    Args:
        rows: evaluation objects.
        path: where to write.
        draw: `feature_drop_curves` or `error_bars`.
    """

    def on(figure: "Figure") -> None:
        draw(rows, figure.subplots())

    save_figure(path, on, (6.4, 4.2), fill(caption(rows), 85))


def _draw_drop(ax: "Axes", method: str, which: str, curves: Sequence[Sequence]) -> None:
    """Mean and band over the seeds' `curves` of [fraction, accuracy]."""
    (line, strength), (colour, marker, _) = DROPPED[which], style(method)
    removed = [100 * fraction for fraction, _ in curves[0]]
    if any([100 * fraction for fraction, _ in curve] != removed for curve in curves):
        raise ValueError(f"the seeds of {method} were measured at different fractions of features")
    heights = list(zip(*([accuracy for _, accuracy in curve] for curve in curves), strict=True))
    named = {"label": title(method)} if which == "strongest" else {}
    look = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4.5, **named}
    draw_means(ax, removed, heights, alpha=strength, **look)


def beta_density(lam: float, alpha: float) -> float:
    """Density of Beta(alpha, alpha) at 0 < lam < 1."""
    scale = math.lgamma(2 * alpha) - 2 * math.lgamma(alpha)
    return math.exp(scale + (alpha - 1) * (math.log(lam) + math.log(1 - lam)))
