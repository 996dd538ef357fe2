"""Figures: what they show is what the rows say, every label has its unit, a method looks the same
everywhere.
"""

import copy

import matplotlib
import pytest
from matplotlib import colors, pyplot

from catchup import plots
from catchup.mixers import MIXERS
from catchup.plots import (
    beta_densities,
    caption,
    error_bars,
    feature_drop_curves,
    style,
    title,
    training_curves,
)

matplotlib.use("Agg")


def row(method, seed, error, strongest, weakest):
    return {
        "method": method,
        "seed": seed,
        "data": "digits",
        "model": "resnet18",
        "epochs": 2,
        "n_test": 500,
        "top1_error": error,
        "fgsm_error": None,
        "feature_drop": {"strongest": strongest, "weakest": weakest},
    }


@pytest.fixture
def rows():
    """Two seeds of one method, one of another; means and deviations are worked out by hand
    below.
    """
    return [
        row("catchup", 0, 4.0, [[0, 96], [0.5, 40]], [[0, 96], [0.5, 90]]),
        row("catchup", 1, 8.0, [[0, 92], [0.5, 60]], [[0, 92], [0.5, 90]]),
        row("baseline", 0, 10.0, [[0, 90], [0.5, 10]], [[0, 90], [0.5, 80]]),
    ]


@pytest.fixture
def runs():
    return {
        ("baseline", 0): [
            {"epoch": 1, "val_error_percent": 50.0},
            {"epoch": 2, "val_error_percent": 30.0},
        ],
        ("catchup", 0): [
            {"epoch": 1, "val_error_percent": None},
            {"epoch": 2, "val_error_percent": 20.0},
        ],
        ("catchup", 1): [
            {"epoch": 1, "val_error_percent": 60.0},
            {"epoch": 2, "val_error_percent": 25.0},
        ],
    }


def drawn(ax):
    """The lines with data, as (x, y) lists."""
    return [
        (list(line.get_xdata()), list(line.get_ydata()))
        for line in ax.lines
        if len(line.get_xdata())
    ]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_feature_drop_shows_means_and_bands_worked_out_by_hand(rows):
    ax = feature_drop_curves(rows)
    assert drawn(ax) == [
        ([0, 50], [94, 50]),
        ([0, 50], [94, 90]),
        ([0, 50], [90, 10]),
        ([0, 50], [90, 80]),
    ]
    assert len(ax.collections) == 2  # bands: only where there is more than one seed
    band = ax.collections[0].get_paths()[0].vertices
    heights = sorted({round(float(y), 6) for x, y in band if x == 50})
    assert heights == pytest.approx([50 - 200**0.5, 50 + 200**0.5])  # sample deviation of 40 and 60


def test_strongest_is_solid_and_weakest_dashed_and_lighter(rows):
    strongest, weakest = feature_drop_curves(rows).lines[:2]
    assert (strongest.get_linestyle(), weakest.get_linestyle()) == ("-", "--")
    assert strongest.get_alpha() > weakest.get_alpha()
    assert strongest.get_color() == weakest.get_color()


def test_feature_drop_names_axes_units_methods_and_says_what_to_see(rows):
    ax = feature_drop_curves(rows)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("features removed (%)", "top-1 accuracy (%)")
    assert legend(ax) == ["Catch-up Mix", "baseline", "strongest first", "weakest first"]
    assert "leans on few features" in ax.get_title()


def test_caption_gives_images_seeds_and_what_the_band_is(rows):
    assert (
        caption(rows)
        == "500 test images of digits, 1 or 2 seeds per method. Lines and large markers: means"
        " over "
        "seeds; bands and bars: one sample standard deviation each way."
    )
    assert (
        caption(rows[:1]) == "500 test images of digits, 1 seed per method: no spread can be shown."
    )


def test_error_bars_show_the_mean_the_deviation_and_every_seed(rows):
    ax = error_bars(rows)
    assert drawn(ax)[0] == ([0.15, 0.15], [4.0, 8.0])
    means = {container.get_label(): container for container in ax.containers}
    line, _, (bar,) = means["Catch-up Mix"]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0], [6.0])
    assert bar.get_segments()[0][:, 1] == pytest.approx([6 - 8**0.5, 6 + 8**0.5])
    assert list(means["baseline"][0].get_ydata()) == [10.0] and not means["baseline"].has_yerr
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["Catch-up Mix", "baseline"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "method",
        "top-1 error (%)",
    ) and "Lower is better" in ax.get_title()


def test_training_curves_draw_one_line_per_run_and_name_a_method_once(runs):
    ax = training_curves(runs)
    assert drawn(ax) == [([1, 2], [50, 30]), ([2], [20]), ([1, 2], [60, 25])]
    assert legend(ax) == ["baseline", "Catch-up Mix"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "epoch",
        "validation error (%)",
    ) and ax.get_title()


def test_beta_densities_are_those_of_scipy():
    from scipy.stats import beta

    ax = beta_densities([0.1, 1, 10])
    assert legend(ax) == ["α = 0.1", "α = 1", "α = 10"]
    assert (
        "λ" in ax.get_xlabel()
        and "density" in ax.get_ylabel()
        and "half and half" in ax.get_title()
    )
    for alpha, (lams, heights) in zip([0.1, 1, 10], drawn(ax), strict=True):
        assert heights == pytest.approx(beta.pdf(lams, alpha, alpha), rel=1e-9)
        assert 0 < min(lams) < 0.01 and 0.99 < max(lams) < 1
    assert ax.get_ylim()[1] > 3.5239  # the peak of α = 10
    shades = [colors.to_rgb(line.get_color()) for line in ax.lines]
    luminance = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in shades]
    assert luminance == sorted(luminance) and luminance[-1] < 0.65, (
        "dark to light, and no yellow on white"
    )


def test_a_method_has_one_colour_and_one_marker_in_every_figure(rows, runs):
    for method in ("baseline", "catchup"):
        mine = [
            line
            for ax in (feature_drop_curves(rows), error_bars(rows), training_curves(runs))
            for line in ax.lines
            if line.get_label() == title(method)
        ]
        mine += [
            container[0]
            for container in error_bars(rows).containers
            if container.get_label() == title(method)
        ]
        assert len(mine) == 3
        assert {(line.get_color(), line.get_marker()) for line in mine} == {style(method)[:2]}


def test_every_method_has_a_style_of_its_own_and_unknown_ones_the_neutral_one():
    styles = [*map(style, MIXERS), plots.NEUTRAL]
    assert len(set(styles)) == len(styles)
    # without the yellow
    okabe_ito = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"}
    assert set(plots.COLOURS) <= okabe_ito and not {"#009E73", "#D55E00"} <= set(plots.COLOURS)
    assert title("catchup") == "Catch-up Mix"
    assert style("of-tomorrow") == plots.NEUTRAL and title("of-tomorrow") == "of-tomorrow"


def test_a_method_with_settings_keeps_its_colour_and_gets_another_marker():
    labels = ["catchup", "catchup:alpha=10", "catchup:alpha=2"]
    assert (
        len({style(label)[0] for label in labels}) == 1
        and len({style(label)[1] for label in labels}) == 3
    )
    assert title("catchup:alpha=10") == "Catch-up Mix (alpha=10)"


def test_a_given_axes_is_used_and_the_rows_stay_as_they_are(rows, runs):
    cases = (
        (feature_drop_curves, rows),
        (error_bars, rows),
        (training_curves, runs),
        (beta_densities, [1, 2]),
    )
    for draw, given in cases:
        before, (figure, ax) = copy.deepcopy(given), pyplot.subplots()
        assert draw(given, ax) is ax and figure.axes == [ax]
        assert given == before


@pytest.mark.parametrize(
    "draw, empty",
    [
        (feature_drop_curves, []),
        (error_bars, []),
        (caption, []),
        (training_curves, {}),
        (beta_densities, []),
    ],
)
def test_nothing_to_draw_is_refused(draw, empty):
    with pytest.raises(ValueError, match="no r|at least one"):
        draw(empty)
    assert not pyplot.get_fignums(), "no empty figure is left behind"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"data": "cifar10"}, "differ in data .digits or cifar10"),
        ({"epochs": 1}, "differ in epochs"),
        ({"method_settings": {"alpha": 9}}, "differ in method_settings"),
        ({"seed": 0}, "two rows of one seed"),
        ({"feature_drop": None, "top1_error": None}, "catchup, seed 1, has no"),
    ],
)
def test_rows_that_cannot_be_averaged_are_refused(rows, change, sentence):
    rows[1].update(change)
    for draw in (feature_drop_curves, error_bars):
        with pytest.raises(ValueError, match=sentence):
            draw(rows)
    if "top1_error" not in change:
        with pytest.raises(ValueError, match=sentence):
            caption(rows)


def test_other_bad_input_is_refused(rows, runs):
    with pytest.raises(ValueError, match="Did you mean 'top1_error'"):
        error_bars(rows, measure="top1")
    with pytest.raises(ValueError, match="no fgsm_error: evaluate it first"):
        error_bars(rows, measure="fgsm_error")
    with pytest.raises(ValueError, match="unknown measure"):
        training_curves(runs, measure="loss")
    with pytest.raises(ValueError, match="catchup, seed 0, has no value"):
        training_curves({("catchup", 0): runs["catchup", 0][:1]})
    rows[1]["feature_drop"]["strongest"][1][0] = 0.4
    with pytest.raises(ValueError, match="different fractions"):
        feature_drop_curves(rows)
    for alphas in ([0.0], [-1], [float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="greater than 0"):
            beta_densities(alphas)


@pytest.mark.parametrize("draw", [feature_drop_curves, error_bars])
def test_no_text_is_cut_off_and_the_legend_covers_no_data(rows, draw):
    ax = draw(rows)
    ax.figure.canvas.draw()
    window = ax.figure.bbox
    ticks = [
        tick
        for tick in ax.get_xticklabels()
        if ax.get_xlim()[0] <= tick.get_position()[0] <= ax.get_xlim()[1]
    ]
    texts = [ax.title, ax.xaxis.label, ax.yaxis.label, *ticks]
    for part in [*texts, *([ax.get_legend()] if ax.get_legend() else [])]:
        box = part.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= window.x1 + 1 and box.y0 >= -1 and box.y1 <= window.y1 + 1
    assert all(text.get_fontsize() >= 9 for text in texts)
    if ax.get_legend():
        assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())
