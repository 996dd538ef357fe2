"""Figures of filters: what is drawn is what the rows say, units stand on every axis, and threads
need no pyplot.
"""

import copy
import sys
import threading

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from catchup import plots
from catchup.plots import tiles

matplotlib.use("Agg")


@pytest.fixture
def rows():
    """Rows of `recording`, two blocks of eight filters, three epochs: the norm of filter f at epoch
    e is (f + 1) e.
    """
    return [
        {
            "epoch": e,
            "block": block,
            "filter": f,
            "norm": (f + 1.0) * e,
            "map_gradient": 0.1 * (8 - f) / e,
            "weight_gradient": float("nan"),
            "batches": 2,
            "images": 64 + e,
            "background_share": f / 7,
        }
        for block in ("stem", "layer1")
        for e in (1, 2, 3)
        for f in range(8)
    ]


@pytest.fixture
def lessons():
    return [
        {
            "epoch": e,
            "block": "layer1",
            "filter": f,
            "kept": 10 * f,
            "replaced": 100 - 10 * f,
            "steps": 5,
            "lead_kept": -0.08 + f / 100,
            "lead_replaced": f / 50,
            "gradient_kept": 0.3 + f / 10,
            "gradient_replaced": 0.2,
            "gradient_plain": 0.1 + f / 100,
        }
        for e in (1, 2)
        for f in range(8)
    ]


@pytest.fixture
def histograms():
    """Counts that tell row from column and epoch from epoch."""
    edges = {"norm_edges": [0.01, 0.1, 1, 10, 100], "gradient_edges": [1e-4, 1e-3, 1e-2, 1e-1]}
    return [
        {
            "epoch": e,
            "block": "layer1",
            "counts": [[0, 0, 0], [e, 2, 0], [0, 0, 30], [0, 4, 0]],
            **edges,
            "images": 1234,
            "zero_norm": 5,
            "zero_gradient": 6,
            "pairs": 47 + e,
        }
        for e in (1, 2, 3, 4)
    ]


@pytest.fixture
def bias():
    """Two seeds of one method at two dials, one of another; accuracies are worked out by hand
    below.
    """
    found = [
        ("baseline", 0.5, 0, 60.0),
        ("baseline", 0.5, 1, 70.0),
        ("baseline", 1.0, 0, 10.0),
        ("baseline", 1.0, 1, 20.0),
        ("catchup", 0.5, 0, 80.0),
    ]
    return [
        {
            "method": method,
            "rho": rho,
            "seed": seed,
            "epochs": 20,
            "train_accuracy": 95.0 + seed,
            "kept_accuracy": 99.0,
            "broken_accuracy": value,
            "reversed_accuracy": value / 2,
        }
        for method, rho, seed, value in found
    ]


@pytest.fixture
def selective():
    return [
        {
            "block": "layer1",
            "epoch": e,
            "filter": f,
            "norm": 1.0 + f * e,
            "growth": 2.0,
            "shape_share": 0.5,
            "background_share": f / 10,
        }
        for e in (1, 2)
        for f in range(10)
    ]


def a_step(channels=12, k=5):
    rng = torch.Generator().manual_seed(0)
    source, partner = torch.rand(2, channels, 4, 4, generator=rng)
    rfi = torch.randn(channels, generator=rng)
    return source, partner, rfi.argsort().argsort() < k, rfi


def drawn(ax):
    """The lines with data, as (x, y) lists."""
    return [
        (list(line.get_xdata()), list(line.get_ydata()))
        for line in ax.lines
        if len(line.get_xdata())
    ]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def all_figures(rows, lessons, histograms, bias, selective):
    """{name: (function of axes, how many)}."""
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    return {
        "norm_gradient": (lambda axes: plots.norm_gradient(histograms, axes=axes), 3),
        "activation_wall": (
            lambda axes: plots.activation_wall(
                image, image[0], image.repeat(4, 1, 1), torch.arange(12.0), axes=axes
            ),
            3,
        ),
        "mixed_maps": (
            lambda axes: plots.mixed_maps(*a_step(), ax=None if axes is None else axes[0]),
            1,
        ),
        "lessons": (lambda axes: plots.lessons(lessons, axes=axes), 2),
        "norms_over_epochs": (
            lambda axes: plots.norms_over_epochs(
                rows, "stem", None, None if axes is None else axes[0]
            ),
            1,
        ),
        "norms_coloured": (
            lambda axes: plots.norms_over_epochs(
                rows, "stem", "background_share", None if axes is None else axes[0]
            ),
            1,
        ),
        "bias_dial": (lambda axes: plots.bias_dial(bias, ax=None if axes is None else axes[0]), 1),
        "cues_over_budgets": (lambda axes: plots.cues_over_budgets(bias, axes=axes), 2),
        "selectivity": (lambda axes: plots.selectivity(selective, axes=axes), 2),
    }


@pytest.mark.slow
def test_every_figure_uses_the_given_axes_in_any_thread_and_leaves_its_rows_alone(
    rows, lessons, histograms, bias, selective
):
    given = (rows, lessons, histograms, bias, selective)
    before, failures = copy.deepcopy(given), []

    def work(draw, count):
        try:
            figure = Figure()
            axes = list(np.atleast_1d(figure.subplots(1, count)))
            made = list(np.atleast_1d(draw(axes)))
            figure.canvas.draw()
            assert made == axes and not pyplot.get_fignums()
        except BaseException as error:  # a thread's own would be lost
            failures.append(error)

    for draw, count in all_figures(*given).values():
        thread = threading.Thread(target=work, args=(draw, count))
        thread.start()
        thread.join()
    assert not failures and repr(given) == repr(before)


@pytest.mark.slow
def test_every_figure_has_a_title_units_and_no_text_cut_off(
    rows, lessons, histograms, bias, selective
):
    for name, (draw, count) in all_figures(rows, lessons, histograms, bias, selective).items():
        axes = np.atleast_1d(draw(None))
        figure = axes[0].figure
        figure.canvas.draw()
        assert len(axes) == count and all(ax.get_title() for ax in axes), name
        if name != "activation_wall":
            assert all(ax.get_xlabel() for ax in axes) and (
                axes[0].get_ylabel() or name == "mixed_maps"
            ), name
        ends = [tick for ax in axes for tick in ax.get_yticklabels() if name == "mixed_maps"]
        texts = [
            text for ax in axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts)
        ]
        texts = [text for text in texts if text.get_text()]
        for part in [
            *texts,
            *ends,
            *figure.texts,
            *(ax.get_legend() for ax in axes if ax.get_legend()),
        ]:
            box = part.get_window_extent()
            inside = (
                box.x0 >= -1
                and box.x1 <= figure.bbox.x1 + 1
                and box.y0 >= -1
                and box.y1 <= figure.bbox.y1 + 1
            )
            assert inside, f"{name}: {part}"


@pytest.mark.slow
def test_joint_histograms_show_the_counts_their_margins_and_one_scale(histograms):
    axes = plots.norm_gradient(histograms, epochs=[4, 1])
    assert [ax.get_title() for ax in axes] == ["epoch 4", "epoch 1"]
    meshes = [ax.collections[0] for ax in axes]
    for mesh, e in zip(meshes, (4, 1)):
        cells = np.asarray(mesh.get_array().filled(0)).reshape(3, 4)  # gradient × norm
        assert cells.tolist() == [[0, e, 0, 0], [0, 2, 0, 4], [0, 0, 30, 0]]
        assert mesh.get_array().mask.sum() == 8, "empty bins stay white"
        assert mesh.get_cmap().name == "cividis" and (mesh.norm.vmin, mesh.norm.vmax) == (1, 30)
    assert axes[0].get_xlim() == axes[1].get_xlim() == pytest.approx((-1, 2)), (
        "empty decades are cut away"
    )
    assert axes[0].get_ylim() == pytest.approx((-4, -1))
    top, side = axes[0].child_axes
    assert max(y for _, y in top.collections[0].get_paths()[0].vertices) == 30
    assert max(x for x, _ in side.collections[0].get_paths()[0].vertices) == 30
    assert "activation units" in axes[0].get_xlabel() and "nats" in axes[0].get_ylabel()
    labels = [text.get_text() for text in axes[0].get_xticklabels()]
    assert "$10^{0}$" in labels
    words = plots.norm_gradient_caption(histograms, [4])
    assert "epoch 4: 1,234 images, 40 pairs shown, 5 of norm 0, 6 of gradient 0" in words
    assert [ax.get_title() for ax in plots.norm_gradient(histograms)] == [
        "epoch 1",
        "epoch 3",
        "epoch 4",
    ]


def test_joint_histograms_without_pairs_or_epochs_are_refused(histograms):
    with pytest.raises(ValueError, match="no rows of epoch 9; epochs: 1, 2, 3, 4"):
        plots.norm_gradient(histograms, [9])
    with pytest.raises(ValueError, match="at least one epoch"):
        plots.norm_gradient(histograms, [])
    with pytest.raises(ValueError, match="needs 2 Axes, got 1"):
        plots.norm_gradient(histograms, [1, 2], axes=[Figure().subplots()])
    for row in histograms:
        row["counts"] = np.zeros((4, 3), int).tolist()
    with pytest.raises(ValueError, match="hold no pair"):
        plots.norm_gradient(histograms)


def test_without_seaborn_the_message_names_the_extra(histograms, monkeypatch):
    monkeypatch.setitem(sys.modules, "seaborn", None)
    with pytest.raises(
        ImportError, match=r"seaborn: from a clone, pip install -e '.\[notebooks\]'"
    ):
        plots.norm_gradient(histograms)


@pytest.mark.parametrize("scale", ["own", "common"])
def test_the_wall_stands_by_norm_with_each_norm_under_its_tile(scale):
    maps = torch.rand(6, 3, 3, generator=torch.Generator().manual_seed(0))
    maps *= torch.tensor([1.0, 9, 3, 0, 5, 7])[:, None, None]
    norms = maps.flatten(1).norm(dim=1)
    _, _, wall = plots.activation_wall(
        torch.rand(3, 6, 6), torch.rand(6, 6), maps, norms, columns=3, scale=scale
    )
    order = norms.argsort(descending=True).tolist()
    assert [text.get_text() for text in wall.texts] == [f"{norms[c]:.3g}" for c in order]
    sheet, gap = wall.images[0].get_array(), (1, 1)
    largest = maps.amax(dim=(1, 2)) if scale == "own" else maps.max().expand(6)
    for k, c in enumerate(order):
        left, top = (int(value + 0.5) for value in tiles.corner(k, (3, 3), 3, gap))
        amounts = (maps[c] / largest[c].clamp_min(1e-9)).numpy()
        expected = matplotlib.colormaps["cividis"](amounts, bytes=True)[..., :3]
        assert np.array_equal(sheet[top : top + 3, left : left + 3], expected)
        assert left <= wall.texts[k].get_position()[0] <= left + 3
    assert "all 6 filters" in wall.get_title()
    assert {"own": "own scale", "common": "one scale"}[scale] in wall.get_title()


def test_a_long_wall_shows_both_ends_and_says_so():
    maps = torch.rand(100, 2, 2)
    _, _, wall = plots.activation_wall(
        torch.rand(1, 4, 4), torch.rand(4, 4), maps, torch.arange(100.0), show=10
    )
    shown = [float(text.get_text()) for text in wall.texts]
    assert (
        len(shown) == 10
        and shown[0] == 99
        and shown[-1] == 0
        and shown == sorted(shown, reverse=True)
    )
    assert "10 of 100 filters" in wall.get_title()


def test_saliency_of_one_hot_pixel_cannot_darken_the_rest():
    saliency = torch.linspace(0, 1, 400).reshape(20, 20)
    saliency[0, 0] = 1e6
    _, middle, _ = plots.activation_wall(
        torch.zeros(3, 20, 20), saliency, torch.rand(2, 2, 2), torch.ones(2)
    )
    overlay = middle.images[0].get_array().astype(int).sum(axis=2)
    assert overlay[-1, -1] > 2 * overlay[1, 0]


@pytest.mark.parametrize(
    "channels, k, show", [(12, 5, 16), (64, 20, 16), (6, 0, 16), (6, 6, 16), (3, 1, 1)]
)
def test_mixed_maps_take_one_map_of_each_column_and_cross_out_the_other(channels, k, show):
    source, partner, kept, rfi = a_step(channels, k)
    ax = plots.mixed_maps(source, partner, kept, rfi, show=show)
    order = rfi.argsort().tolist()
    shown = [int(tick.get_text().split("\n")[0]) for tick in ax.get_xticklabels()]
    places = [order.index(c) for c in shown]
    assert places == sorted(places) and len(shown) == min(show, channels)
    sheet, middles = ax.images[0].get_array(), ax.get_xticks()
    for c, middle in zip(shown, middles):
        left = int(middle - 1.5)
        pair = torch.stack([source[c], partner[c]])
        full = matplotlib.colormaps["cividis"]((pair / pair.max()).numpy(), bytes=True)[..., :3]
        rows = [sheet[row * 5 : row * 5 + 4, left : left + 4] for row in range(3)]
        used = 0 if kept[c] else 1
        assert np.array_equal(rows[used], full[used]) and np.array_equal(rows[2], full[used])
        assert (rows[1 - used] >= full[1 - used]).all() and rows[1 - used].min() >= 0.7 * 255 - 1, (
            "dimmed"
        )
        crosses = [
            line for line in ax.collections[0].get_segments() if left - 1 <= line[0][0] < left + 1
        ]
        heights = {float(y) for line in crosses for _, y in line}
        assert len(crosses) == 2 and heights == {5 * (1 - used) - 0.5, 5 * (1 - used) + 3.5}
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["source", "partner", "mixed"]
    words = [text.get_text() for text in ax.texts]
    assert (f"kept: K = {k} of {channels}" in words) == (k > 0 and len(shown) > 0)


def test_mixed_maps_of_a_random_choice_still_put_the_kept_ones_first():
    source, partner, _, rfi = a_step()
    kept = torch.arange(12) % 2 == 0
    ax = plots.mixed_maps(source, partner, kept, rfi)
    shown = [int(tick.get_text().split("\n")[0]) for tick in ax.get_xticklabels()]
    assert shown == [
        *sorted(range(0, 12, 2), key=lambda c: rfi[c]),
        *sorted(range(1, 12, 2), key=lambda c: rfi[c]),
    ]


def test_mixed_maps_refuse_what_does_not_fit():
    source, partner, kept, rfi = a_step()
    for bad in (
        (source[:3], partner, kept, rfi),
        (source, partner, kept[:3], rfi),
        (source[0], partner[0], kept, rfi),
    ):
        with pytest.raises(ValueError, match="for maps"):
            plots.mixed_maps(*bad)
    with pytest.raises(ValueError, match="show must be at least 1, got 0"):
        plots.mixed_maps(source, partner, kept, rfi, show=0)


def test_lessons_show_shares_and_gradients(lessons):
    left, right = plots.lessons(lessons)
    kept, replaced, _ = left.lines
    assert list(kept.get_ydata()) == pytest.approx([-0.08 + f / 100 for f in range(8)])
    assert list(replaced.get_ydata()) == pytest.approx([f / 50 for f in range(8)])
    points = [part.get_offsets().tolist() for part in right.collections]
    assert np.allclose(points[0], [[0.1 + f / 100, 0.3 + f / 10] for f in range(8)])
    assert np.allclose(points[1], [[0.1 + f / 100, 0.2] for f in range(8)])
    ((xs, ys),) = drawn(right)
    assert xs == ys, "the line of equal gradients"
    assert (
        "RFI" in left.get_ylabel() and "nats" in right.get_xlabel() and "nats" in right.get_ylabel()
    )
    words = plots.lessons_caption(lessons, epoch=1)
    assert words.startswith(
        "8 filters of layer1 in epoch 1; 800 (image, filter) pairs from 5 steps that"
    )


def test_lessons_without_unmixed_or_mixed_steps(lessons):
    for row in lessons:
        row["gradient_plain"] = float("nan")
    assert "without mixing here" in plots.lessons(lessons)[1].texts[0].get_text()
    for row in lessons:
        row["kept"] *= row["epoch"] == 1
        row["replaced"] *= row["epoch"] == 1
    assert plots.lessons_caption(lessons).startswith("8 filters of layer1 in epoch 1"), (
        "the last one that was mixed"
    )
    assert plots.lessons(lessons)[0].figure.get_suptitle() == "layer1, epoch 1"
    with pytest.raises(ValueError, match="was not mixed in epoch 2"):
        plots.lessons(lessons, epoch=2)
    for row in lessons:
        row["kept"] = row["replaced"] = 0
    with pytest.raises(ValueError, match="was not mixed in any epoch"):
        plots.lessons(lessons)


def test_the_caption_of_a_history_counts_filters_epochs_and_batches(rows):
    words = plots.history_caption(rows, "layer1")
    assert (
        "8 filters of layer1, 3 epochs" in words
        and "65 to 67 images from 2 sampled batches" in words
    )


def test_norms_tell_the_strongest_and_weakest_quarter_apart(rows):
    ax = plots.norms_over_epochs(rows, "stem")
    assert legend(ax) == ["between", "weakest 2 in the end", "strongest 2 in the end"]
    looks = {}
    for line in ax.lines:
        looks.setdefault((line.get_color(), line.get_linestyle()), set()).add(line.get_ydata()[-1])
    assert sorted(map(sorted, looks.values())) == [[3, 6], [9, 12, 15, 18], [21, 24]]
    coloured = plots.norms_over_epochs(rows, "stem", "background_share").collections[0]
    assert coloured.get_array().tolist() == pytest.approx([f / 7 for f in range(8)])
    assert [segment[-1][1] for segment in coloured.get_segments()] == [
        3.0 * (f + 1) for f in range(8)
    ]
    brightest = coloured.get_cmap()(1.0)[:3]
    assert np.dot(brightest, (0.2126, 0.7152, 0.0722)) < 0.75, "no yellow on white"


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda rows: plots.norms_over_epochs(rows, None),
            "block must be one of stem, layer1, got None",
        ),
        (lambda rows: plots.norms_over_epochs(rows, "layer"), "Did you mean 'layer1'"),
        (lambda rows: plots.norms_over_epochs([], None), "no rows"),
        (
            lambda rows: plots.norms_over_epochs(rows + rows, "stem"),
            "two rows of epoch 1, filter 0",
        ),
        (lambda rows: plots.norms_over_epochs(rows, "stem", "grwth"), "have no 'grwth'"),
        (lambda rows: plots.norms_over_epochs([], "stem"), "no rows"),
        (lambda rows: plots.history_caption(rows, "layer2"), "unknown block"),
        (lambda rows: plots.reliance_over_epochs([]), "no rows"),
        (lambda rows: plots.reliance_over_epochs(rows, "ginni"), "Did you mean 'gini'"),
    ],
)
def test_unknown_names_are_refused_and_no_figure_is_left(rows, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(rows)
    assert not pyplot.get_fignums()


def test_reliance_averages_seeds_per_method_or_draws_a_line_per_block():
    rows = [
        {
            "epoch": e,
            "block": block,
            "top10_share": 0.1 * e,
            "gini": 0.5,
            "effective_filters": 10.0 + e,
        }
        for block in ("stem", "layer1")
        for e in (0, 1)
    ]
    ax = plots.reliance_over_epochs(rows, "top10_share")
    assert legend(ax) == ["stem", "layer1"] and drawn(ax)[0] == ([0, 1], [0.0, pytest.approx(10)])
    assert "(%)" in ax.get_ylabel()
    compared = [
        {**row, "method": "catchup", "seed": seed, "gini": 0.4 + 0.2 * seed}
        for row in rows
        for seed in (0, 1)
    ]
    with pytest.raises(ValueError, match="block must be one of"):
        plots.reliance_over_epochs(compared, "gini")
    ax = plots.reliance_over_epochs(compared, "gini", "stem")
    assert legend(ax) == ["Catch-up Mix"] and drawn(ax)[0][1] == pytest.approx([0.5, 0.5])
    heights = [y for x, y in ax.collections[0].get_paths()[0].vertices if x == 1]
    assert (min(heights), max(heights)) == pytest.approx((0.5 - 0.02**0.5, 0.5 + 0.02**0.5))


def test_bias_dial_shows_means_bands_seeds_and_chance(bias):
    ax = plots.bias_dial(bias)
    lines = drawn(ax)
    assert lines[0] == ([0.5, 0.5, 1.0, 1.0], [60, 70, 10, 20]) and lines[1] == (
        [0.5, 1.0],
        [65, 15],
    )
    heights = [y for x, y in ax.collections[0].get_paths()[0].vertices if x == 1]
    assert (min(heights), max(heights)) == pytest.approx((15 - 50**0.5, 15 + 50**0.5))
    assert lines[-1][1] == [12.5, 12.5] and legend(ax) == [
        "baseline",
        "Catch-up Mix",
        "chance (12.5 %)",
    ]
    assert drawn(plots.bias_dial(bias, "reversed"))[1][1] == [32.5, 7.5]
    said = plots.bias_caption(bias)
    assert "5 runs of 20 epochs, 1 to 2 seeds per method and ρ. Lines: means" in said
    assert ax.get_title().startswith("20 epochs. Test images")
    assert "no spread" in plots.bias_caption(bias[:1])
    assert {(line.get_color(), line.get_marker()) for line in ax.lines[:2]} == {
        plots.style("baseline")[:2]
    }


def test_bias_dial_refuses_what_cannot_be_averaged(bias):
    with pytest.raises(ValueError, match="Did you mean 'broken'"):
        plots.bias_dial(bias, "brokn")
    with pytest.raises(ValueError, match="no rows"):
        plots.bias_dial([])
    with pytest.raises(ValueError, match="two rows of baseline, ρ = 0.5, seed 0"):
        plots.bias_dial([*bias, bias[0]])
    longer = {**bias[0], "epochs": 60}
    with pytest.raises(ValueError, match=r"several budgets, got \[20, 60\] epochs"):
        plots.bias_dial([*bias, longer])
    with pytest.raises(ValueError, match="Did you mean 'broken'"):
        plots.cues_over_budgets(bias, "brokn")
    with pytest.raises(ValueError, match="two rows of baseline, ρ = 0.5, seed 0"):
        plots.cues_over_budgets([*bias, longer, longer])
    assert not pyplot.get_fignums()


def test_over_budgets_a_panel_for_each_share_with_what_was_learnt_and_what_is_left(bias, tmp_path):
    longer = [
        {**row, "epochs": 60, "broken_accuracy": row["broken_accuracy"] + 4, "train_accuracy": 99.0}
        for row in bias
    ]
    left, right = plots.cues_over_budgets([*longer, *bias])
    assert (left.get_title(), right.get_title()) == ("ρ = 0.5", "ρ = 1")
    lines = {(line.get_linestyle(), line.get_label()): line for line in left.lines}
    solid = lines["-", "baseline"]
    assert solid.get_xdata().tolist() == [20, 60] and solid.get_ydata().tolist() == [65, 69]
    dashed = [line for line in left.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata().tolist() for line in dashed] == [[95.5, 99], [95, 99]]
    assert left.get_xscale() == "log"
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["20", "60"]
    assert legend(right)[-2:] == ["background drawn at random", "training images"]
    assert "Catch-up Mix" in legend(right)  # which that panel does not have
    said = plots.cues_caption([*bias, *longer])
    assert said.startswith("10 runs of 20, 60 epochs, each with a schedule that ends there; 1 to 2")
    plots.save_cues([*bias, *longer], tmp_path / "cues.png", "reversed")
    assert (tmp_path / "cues.png").stat().st_size > 5000


def test_selectivity_tells_the_two_kinds_apart_and_gives_their_means(selective):
    axes = plots.selectivity(selective)
    assert [ax.get_title() for ax in axes] == ["layer1, epoch 1", "layer1, epoch 2"]
    shape_led, background_led = axes[1].collections[1], axes[1].collections[0]
    assert background_led.get_offsets().tolist() == [[10.0 * f, 1 + 2.0 * f] for f in range(6, 10)]
    assert len(shape_led.get_offsets()) == 6 and legend(axes[0]) == [
        "background > shape",
        "shape ≥ background",
    ]
    assert [line.get_ydata()[0] for line in axes[1].lines] == [16.0, 6.0]
    assert plots.selectivity(selective, "growth")[0].get_ylabel().startswith("growth")
    assert "10 filters of layer1 at epoch 1" in plots.selectivity_caption(selective)
    with pytest.raises(ValueError, match="Did you mean 'growth'"):
        plots.selectivity(selective, "grow")
    without = {key: value for key, value in selective[0].items() if key != "growth"}
    with pytest.raises(ValueError, match="have no 'growth'"):
        plots.selectivity([{**row, "growth": 1} for row in selective[1:]] + [without], "growth")


def quarters(scale):
    return [
        {
            "epoch": e,
            "block": "layer4",
            "filters": 4,
            "weak_map_gradient": scale / e,
            "strong_map_gradient": 2 * scale / e,
        }
        for e in (1, 2, 3)
    ]


def test_weak_and_strong_have_a_panel_per_method_on_one_scale():
    runs = {
        ("baseline", 0): quarters(1.0),
        ("baseline", 1): quarters(0.1),
        ("catchup", 0): quarters(5.0),
    }
    axes = plots.weak_and_strong(runs)
    assert [ax.get_title() for ax in axes] == ["baseline", "Catch-up Mix"] and axes[
        0
    ].get_ylim() == axes[1].get_ylim()
    assert [list(line.get_ydata()) for line in axes[0].lines] == [
        [row[f"{side}_map_gradient"] for row in quarters(scale)]
        for side in ("weak", "strong")
        for scale in (1.0, 0.1)
    ]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [
        "weakest 4",
        "strongest 4",
    ]
    for bad in ({}, {("baseline", 0): [*quarters(1), {**quarters(1)[0], "block": "stem"}]}):
        with pytest.raises(ValueError, match="must be of one block"):
            plots.weak_and_strong(bad)


def test_shares_over_epochs_are_means_over_the_runs_per_block():
    rows = [
        {
            "epoch": e,
            "block": block,
            "seed": seed,
            "background_share": None if e == 0 else 0.1 * e + 0.02 * seed,
            "shape_share": 0.3,
        }
        for seed in (0, 1)
        for block in ("stem", "layer1")
        for e in (0, 1, 2)
    ]
    axes = plots.shares_over_epochs(rows)
    assert [ax.get_title() for ax in axes] == ["stem", "layer1"]
    ground, shape = axes[1].lines
    assert list(ground.get_xdata()) == [1, 2] and list(ground.get_ydata()) == pytest.approx(
        [11, 21]
    )
    assert list(shape.get_ydata()) == pytest.approx([30] * 3)
    assert all(ax.get_ylim()[0] == 0 and ax.get_ylim()[1] >= 30 for ax in axes)
    rows[-1]["shape_share"] = 0.9  # in the last panel alone
    assert all(ax.get_ylim()[1] >= 60 for ax in plots.shares_over_epochs(rows))
    with pytest.raises(ValueError, match="no rows"):
        plots.shares_over_epochs([])


def test_a_mosaic_puts_every_tile_at_its_corner():
    found = np.arange(7, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(3, 2).repeat(3, 3)
    sheet = tiles.mosaic(found, 3, (1, 2))
    assert sheet.shape == (9, 15, 3)
    for k in range(7):
        left, top = (int(value + 0.5) for value in tiles.corner(k, (2, 3), 3, (1, 2)))
        assert (sheet[top : top + 2, left : left + 3] == k).all() and (
            sheet[top + 2, left] == 255
        ).all()
    assert (sheet[6:, 5:] == 255).all(), "places without a tile are white"


def test_pictures_are_checked():
    assert tiles.picture(torch.tensor([[[0.0, 1.0]]])).tolist() == [[[0] * 3, [255] * 3]]
    with pytest.raises(ValueError, match="undo the normalisation"):
        tiles.picture(torch.randn(3, 4, 4))
    with pytest.raises(ValueError, match=r"\(2, 4, 4\)"):
        tiles.picture(torch.rand(2, 4, 4))
    assert [tiles.short(value) for value in (0.01234, 1.234, 123.4, 1234.5, 1.2e6)] == [
        "0.0123",
        "1.23",
        "123",
        "1234",
        "1.2e+06",
    ]
