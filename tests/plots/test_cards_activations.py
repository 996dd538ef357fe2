"""Cards: what was stored is what the model answers, what is drawn is what was stored, in any
thread, and quickly.
"""

import copy
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib import colormaps, pyplot
from PIL import Image
from torch import nn

import catchup.plots.cards
from catchup import count_hooks, filter_influence, find_blocks
from catchup.inspection import observe
from catchup.plots.cards import activation_card, filter_card, live_card, playground_card
from catchup.plots.cards.playground import near_plain
from catchup.widgets.controls import as_png
from conftest import TinyNet

BRIGHTEST = np.array(colormaps["cividis"](1.0, bytes=True)[:3])


@pytest.fixture
def images():
    return torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def models(tiny):
    """Three epochs, each with weights of its own."""
    found = {}
    for epoch in (5, 0, 2):
        torch.manual_seed(epoch)
        found[epoch] = TinyNet()
    return found


@pytest.fixture
def rows():
    return [
        {
            "epoch": e,
            "block": "layer1",
            "filter": f,
            "norm": (f + 1.0) * e,
            "map_gradient": 0.1 * f / e,
        }
        for e in (1, 2, 5)
        for f in range(6)
    ]


@pytest.fixture
def lessons():
    return [
        {"epoch": e, "block": "layer1", "filter": f, "kept": f * e, "replaced": 6 * e - f * e}
        for e in (1, 2)
        for f in range(6)
    ]


@pytest.fixture
def store(models, images, rows, lessons):
    return observe(models, images, rows=rows, lessons=lessons, classes="abcde")


@pytest.fixture
def histogram():
    return {
        "epoch": 3,
        "block": "layer1",
        "counts": [[0, 0], [1, 4], [2, 0], [0, 0]],
        "zero_norm": 7,
        "norm_edges": [0.1, 1, 10, 100, 1000],
        "gradient_edges": [0.1, 1, 10],
    }


def words(figure):
    """Everything written on the figure."""
    texts = [text.get_text() for ax in figure.axes for text in (ax.title, *ax.texts)]
    return " | ".join([*texts, *(text.get_text() for text in figure.texts)])


def maps_of(model, images, block):
    seen = []
    with (
        model.eval()
        .get_submodule(block)
        .register_forward_hook(lambda _m, _a, out: seen.append(out.detach()))
    ):
        logits = model(images)
    return seen[0], logits.detach()


def test_the_store_holds_what_the_blocks_answer(store, models, images):
    assert store.epochs == (0, 2, 5) and store.blocks == tuple(find_blocks(models[0]))
    for epoch, block in ((0, "stem"), (2, "layer1"), (5, "layer2")):
        maps, logits = maps_of(models[epoch], images, block)
        seen = store.at(epoch, block)
        assert torch.equal(seen.norms, filter_influence(maps)), "of the maps at full size"
        small = F.adaptive_avg_pool2d(maps.abs(), 32) if maps.shape[-1] > 32 else maps.abs()
        again = seen.maps.float() / 255 * seen.peaks[..., None, None]
        assert seen.maps.dtype == torch.uint8 and max(seen.maps.shape[2:]) <= 32
        assert ((again - small).abs() <= seen.peaks[..., None, None] / 255 * 0.51).all()
        torch.testing.assert_close(store.scores[epoch], logits.softmax(dim=1))
    assert store.bytes == sum(part.nbytes for seen in store.seen.values() for part in seen) < 2**20
    assert (
        store.filters("layer1") == 6
        and store.pixels.shape == (4, 3, 40, 40)
        and store.pixels.dtype == torch.uint8
    )


def test_the_courses_are_those_of_the_rows_or_of_the_store_itself(store, models, images):
    epochs, values = store.courses["layer1", "norm"]
    assert epochs.tolist() == [1, 2, 5] and values[2].tolist() == [5.0 * (f + 1) for f in range(6)]
    epochs, kept = store.courses["layer1", "kept"]
    assert epochs.tolist() == [1, 2] and kept[1] == pytest.approx([100 * f / 6 for f in range(6)])
    epochs, values = store.courses["stem", "norm"]
    expected = filter_influence(maps_of(models[2], images, "stem")[0]).mean(dim=0)
    assert epochs.tolist() == [0, 2, 5] and values[1] == pytest.approx(expected.numpy())
    assert ("stem", "gradient") not in store.courses and ("stem", "kept") not in store.courses


def test_tiles_stand_by_their_norm_at_the_last_epoch(store):
    means = store.at(5, "layer2").norms.mean(dim=0).tolist()
    assert store.order("layer2") == sorted(range(8), key=lambda c: -means[c])


def test_models_and_images_stay_as_they_were_and_snapshots_work_too(models, images):
    for model in models.values():
        model.train()
    weights, before = (
        {e: copy.deepcopy(model.state_dict()) for e, model in models.items()},
        images.clone(),
    )

    class Snapshots:
        """As `catchup.Snapshots` answers."""

        epochs = (0, 2, 5)

        def model(self, epoch):
            return models[epoch]

    mapped, kept = observe(models, images), observe(Snapshots(), images)
    assert all(
        torch.equal(a, b) for key in mapped.seen for a, b in zip(mapped.seen[key], kept.seen[key])
    )
    assert all(
        model.training and count_hooks(model) == 0 for model in models.values()
    ) and torch.equal(images, before)
    assert all(
        torch.equal(value, weights[e][name])
        for e, model in models.items()
        for name, value in model.state_dict().items()
    )


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"snapshots": {}}, "at least one model"),
        ({"snapshots": {"a": nn.Identity()}}, "must be {epoch: model}, got 'a'"),
        ({"snapshots": {0: "model"}}, "got 0: str"),
        ({"images": torch.rand(0, 3, 8, 8)}, r"\(0, 3, 8, 8\)"),
        ({"blocks": ["layr1"]}, "Did you mean 'layer1'"),
        ({"blocks": ["fc"]}, "must run exactly once and return maps"),
        ({"pixels": torch.rand(3, 3, 8, 8)}, r"pixels must be \(4"),
        ({"classes": "ab"}, "5 classes apart, got 2"),
        ({"max_mib": 0}, "more than max_mib=0"),
        (
            {"rows": [{"epoch": 1, "block": "layer1", "filter": 0, "norm": 1, "map_gradient": 1}]},
            "has 6 filters, but",
        ),
    ],
)
def test_observing_refuses_bad_input(models, images, change, sentence):
    given = {"snapshots": models, "images": images, **change}
    with pytest.raises(ValueError, match=sentence):
        observe(**given)
    assert all(count_hooks(model) == 0 for model in models.values())


@pytest.mark.slow
def test_a_filter_card_shows_its_maps_its_course_and_its_rank(store):
    figure = filter_card(store, "layer1", 2, "own")
    sheet, *courses = figure.axes
    place = store.order("layer1").index(2) + 1
    rank = {1: "strongest", 2: "2nd", 3: "3rd"}.get(place, f"{place}th")
    assert f"layer1, filter 2: {rank}" in words(figure) and "of 6 by norm" in words(figure)
    norm, gradient, kept = ([line.get_ydata().tolist() for line in ax.lines][1] for ax in courses)
    assert norm == [3.0, 6.0, 15.0] and gradient == pytest.approx([0.2, 0.1, 0.04])
    assert kept == pytest.approx([100 / 3] * 2)
    assert [ax.get_title() for ax in courses] == [
        "norm of the map (activation units)",
        "gradient (nats per activation unit)",
        "pairs that kept its map (%)",
    ]
    picture = sheet.images[0].get_array()
    assert picture.shape == (4 * 35, 4 * 35, 3), "four images; and maps at epochs 0, 2, 5"
    assert np.array_equal(
        picture[:32, :32],
        store.pixels[0]
        .permute(1, 2, 0)
        .numpy()[np.arange(32) * 40 // 32][:, np.arange(32) * 40 // 32],
    )
    brightest = store.at(2, "layer1").maps[1, 2].numpy() == 255
    assert np.array_equal((picture[70:102, 35:67] == BRIGHTEST).all(axis=2), brightest)


def test_a_filter_without_recording_says_what_is_missing(store):
    text = words(filter_card(store, "stem", 0))
    assert "rows=" in text and "lessons=" in text and "common" not in text


@pytest.mark.slow
def test_an_activation_card_shows_the_answer_and_keeps_its_tiles_in_place(store):
    figure = activation_card(store, "layer2", 2, 1)
    best = int(store.scores[2][1].argmax())
    assert f"{'abcde'[best]} ({100 * store.scores[2][1, best]:.0f} %)" in words(figure)
    assert "layer2, epoch 2 of 5" in words(
        figure
    ) and f"all {store.filters('layer2')} filters" in words(figure)
    norms = store.at(5, "layer2").norms[1].numpy()[store.order("layer2")]
    assert np.array_equal(figure.axes[1].lines[0].get_ydata(), norms)
    for epoch in store.epochs:
        sheet = activation_card(store, "layer2", epoch, 1).axes[2].images[0].get_array()
        side = sheet.shape[1] // 4 - 10  # four in a row, room for the norm below
        for k, c in enumerate(store.order("layer2")):
            top, left, peak = (
                k // 4 * (side + 16),
                k % 4 * (side + 10),
                store.at(epoch, "layer2").maps[1, c],
            )
            tile = sheet[top : top + side, left : left + side]
            there = np.arange(side) * peak.shape[0] // side
            assert np.array_equal(
                (tile == BRIGHTEST).all(axis=2), (peak.numpy() == 255)[there][:, there]
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda store: filter_card(store, "layr1", 0), "Did you mean 'layer1'"),
        (
            lambda store: filter_card(store, "layer1", 6),
            "filter must be a number from 0 to 5 in layer1, got 6",
        ),
        (lambda store: filter_card(store, "layer1", True), "got True"),
        (lambda store: filter_card(store, "layer1", 0, "log"), "unknown scale 'log'"),
        (lambda store: activation_card(store, "layer9", 0, 0), "unknown block"),
        (lambda store: activation_card(store, "layer1", 3, 0), "no epoch 3; epochs: 0, 2, 5"),
        (
            lambda store: activation_card(store, "layer1", 2, 4),
            "image must be a number from 0 to 3, got 4",
        ),
        (lambda store: activation_card(store, "layer1", 2, 0, show=0), "at least 1, got 0"),
        (lambda store: playground_card(0, 0.5), "got 0 and 0.5"),
        (lambda store: playground_card(1, 1.5), "got 1 and 1.5"),
        (lambda store: playground_card(float("nan"), 0.5), "got nan"),
        (lambda store: playground_card(1, 0.5, 0), "got 0"),
        (
            lambda store: playground_card(1, 0.5, 8, torch.rand(3, 4, 4), torch.rand(3, 5, 5)),
            "need one size",
        ),
        (lambda store: live_card([{"val_error_percent": 1.0}], []), "needs its epoch"),
        (lambda store: live_card([], [], {"counts": [[1]]}), "unknown field of the histogram"),
    ],
)
def test_unknown_choices_are_refused(store, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(store)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.05, 0.2, 1, 10, 200])
def test_the_share_of_nearly_plain_steps_is_that_of_scipy(alpha):
    from scipy.stats import beta

    law = beta(alpha, alpha)
    assert near_plain(alpha) == pytest.approx(law.cdf(0.1) + law.sf(0.9), abs=1e-12)
    assert f"{100 * near_plain(alpha):.1f} % of the steps" in words(playground_card(alpha, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("lam, channels", [(0, 64), (0.37, 64), (0.99, 7), (1, 300)])
def test_the_playground_shows_the_cut_the_labels_and_the_box(lam, channels):
    source, partner = torch.zeros(3, 64, 64), torch.ones(3, 64, 64)
    figure = playground_card(1.0, lam, channels, source, partner)
    density, shares, cut = figure.axes
    kept = int(lam * channels)
    assert f"= {kept} lagging filters kept (dark), {channels - kept} replaced" in shares.get_title()
    assert [patch.get_width() for patch in shares.patches] == pytest.approx(
        [kept / channels, 1 - kept / channels, lam, 1 - lam]
    )
    assert list(density.lines[1].get_xdata()) == [lam, lam]
    share = (cut.images[0].get_array() == 255).mean()
    assert f"({100 * share:.0f} % of the area; source label {1 - share:.2f})" in cut.get_title()
    assert abs(share - (1 - lam)) < 0.1
    ys, xs = np.nonzero((cut.images[0].get_array() == 255).all(axis=2))
    if len(ys):
        box = cut.patches[0].get_bbox()
        assert (box.x0, box.y0, box.x1, box.y1) == (
            xs.min() - 0.5,
            ys.min() - 0.5,
            xs.max() + 0.5,
            ys.max() + 0.5,
        )


def test_a_live_card_says_why_there_are_no_errors_yet():
    unmeasured = {"epoch": 1, "val_error_percent": None, "clean_train_error_percent": None}
    for rows, words in (
        ([], "waiting for the first epoch"),
        ([unmeasured], "no epoch was validated yet"),
    ):
        assert words in [text.get_text() for text in live_card(rows, [1.0]).axes[1].texts]


def test_a_live_card_shows_what_there_is_so_far(histogram):
    rows = [
        {"epoch": 1, "val_error_percent": 50.0, "clean_train_error_percent": 40.0},
        {"epoch": 2, "val_error_percent": None, "clean_train_error_percent": 30.0},
    ]
    loss, error, norms = live_card(rows, [2.0, 1.0, float("nan"), 0.5], histogram).axes
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert np.allclose(loss.lines[0].get_ydata(), [2, 1, np.nan, 0.5], equal_nan=True)
    assert "(1 not finite)" in loss.get_title() and loss.get_ylabel() == "training loss (nats)"
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in error.lines]
    assert (
        lines == [([1], [50.0]), ([1, 2], [40.0, 30.0])] and error.get_ylabel() == "top-1 error (%)"
    )
    counts, edges, _ = norms.patches[0].get_data()
    assert counts.tolist() == [0, 5, 2, 0] and edges.tolist() == pytest.approx([-1, 0, 1, 2, 3])
    assert (
        norms.get_xlim() == pytest.approx((0, 2))
        and "layer1, epoch 3\n(7 more are 0)" in norms.get_title()
    )


@pytest.mark.slow
def test_a_live_card_before_anything_happened_and_after_very_much():
    assert all(
        wait in words(live_card([], []))
        for wait in ("first step", "first epoch", "nothing recorded")
    )
    assert "no finite loss" in words(live_card([], [float("nan")]))
    losses = np.arange(100_000.0)
    (line, *_), *_ = (ax.lines for ax in live_card([], losses).axes)
    assert len(line.get_xdata()) <= 400 and line.get_ydata()[0] == pytest.approx(
        losses[:250].mean()
    )
    assert line.get_ydata().mean() == pytest.approx(losses.mean())


def cards(store, histogram):
    rows = [
        {"epoch": e, "val_error_percent": 90.0 / e, "clean_train_error_percent": 80.0 / e}
        for e in range(1, 9)
    ]
    return [
        lambda: filter_card(store, "layer1", 4),
        lambda: activation_card(store, "layer2", 2, 3),
        lambda: playground_card(1.0, 0.3),
        lambda: live_card(rows, np.linspace(2, 1, 50), histogram),
    ]


@pytest.mark.slow
def test_cards_are_the_same_in_four_threads_and_touch_no_pyplot(store, histogram):
    draw = cards(store, histogram)
    alone = [as_png(one()) for one in draw]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: as_png(one()), draw * 2))
    for a, b in zip(alone * 2, together):
        assert np.array_equal(
            np.asarray(Image.open(io.BytesIO(a))), np.asarray(Image.open(io.BytesIO(b)))
        )
    assert not pyplot.get_fignums()


@pytest.mark.slow
def test_cards_have_few_artists_and_no_text_is_cut_off_or_covered(store, histogram):
    """Time itself is no test on a shared machine: what costs it is."""
    for draw in cards(store, histogram):
        figure = draw()
        as_png(figure)
        assert len(figure.axes) <= 4 and all(not ax.axison for ax in figure.axes), "ticks cost most"
        texts = [
            text for ax in figure.axes for text in (ax.title, *ax.texts) if text.get_text()
        ] + figure.texts
        assert len(texts) <= 45
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        for k, box in enumerate(boxes):
            assert (
                box.x0 >= 0
                and box.x1 <= figure.bbox.x1
                and box.y0 >= 0
                and box.y1 <= figure.bbox.y1
            ), texts[k]
            assert not any(box.overlaps(other) for other in boxes[:k]), (
                f"{texts[k]} covers another text"
            )


def test_the_names_of_the_room_exist():
    assert all(getattr(catchup.plots.cards, name).__doc__ for name in catchup.plots.cards.__all__)
