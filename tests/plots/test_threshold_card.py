"""The threshold card: boxes and overlaps against the functions that look at one threshold, and what
the card shows.
"""

import numpy as np
import pytest
import torch

from catchup.data import Boxes
from catchup.data.sets.outlines import boxes_of
from catchup.data.sets.shapes import draw_scenes, images_of
from catchup.measures.localization import locate
from catchup.models.inference import PixelModel
from catchup.plots.cards.threshold import sweep_thresholds, threshold_card
from catchup.plots.style import STRONG
from conftest import TinyNet

LEVELS = (0.0, 0.2, 0.5, 0.9)


@pytest.fixture(scope="module")
def scene():
    torch.manual_seed(0)
    scenes = draw_scenes(6, 0)
    return (
        PixelModel(TinyNet(classes=8), (0.4,) * 3, (0.3,) * 3),
        images_of(scenes),
        boxes_of(scenes),
    )


@pytest.fixture(scope="module")
def store(scene):
    return sweep_thresholds(*scene, LEVELS)


def boxes_drawn(ax):
    """{colour: [(left, top, right, bottom)]} of the rectangles, without their dark rims."""
    found = {}
    for patch in ax.patches:
        if patch.get_linewidth() < 3:
            left, top = patch.get_x() + 0.5, patch.get_y() + 0.5
            found.setdefault(tuple(patch.get_edgecolor()), []).append(
                (left, top, left + patch.get_width(), top + patch.get_height())
            )
    return found


def test_every_threshold_is_what_locating_with_it_finds(scene, store):
    for place, threshold in enumerate(LEVELS):
        found = locate(*scene, threshold=threshold)
        assert np.array_equal(store.edges[:, place], found.edges)
        assert np.allclose(store.iou[:, place], found.iou, atol=0)
    assert np.array_equal(store.maps, found.maps) and np.array_equal(store.correct, found.correct)
    assert len({tuple(edges) for edges in store.edges[0].tolist()}) > 1, (
        "the threshold moves the box"
    )


@pytest.mark.slow
def test_images_with_several_boxes_or_none_count_as_when_located(scene):
    model, images, _ = scene
    edges = torch.tensor([[0, 0, 8, 8], [10, 12, 30, 31], [4, 4, 20, 28]], dtype=torch.float32)
    several = Boxes(edges, torch.tensor([1, 1, 4]), (32, 32))
    found = sweep_thresholds(model, images, several, (0.1, 0.4))
    for place, threshold in enumerate((0.1, 0.4)):
        assert np.allclose(
            found.iou[:, place], locate(model, images, several, threshold=threshold).iou, atol=0
        )
    assert (
        not found.iou[0].any()
        and len(boxes_drawn(threshold_card(found, 1, 0.1).axes[0])[(1.0, 1.0, 1.0, 1.0)]) == 2
    )


def test_the_card_shows_the_boxes_the_overlap_and_the_share_of_right_ones(store):
    from matplotlib.colors import to_rgba

    figure = threshold_card(store, 3, 0.52, iou=0.1)
    image, own, everyone = figure.axes
    drawn = boxes_drawn(image)
    assert drawn[to_rgba(STRONG)] == [pytest.approx(store.edges[3, 2])]
    assert drawn[to_rgba("white")] == [pytest.approx(store.boxes.edges[3])]
    assert own.get_title() == f"This image: IoU {store.iou[3, 2]:.2f}"
    share = 100 * np.mean([iou >= 0.1 for iou in store.iou[:, 2]])
    assert everyone.get_title() == f"All 6 images: {share:.0f} % right"
    curves = [line.get_ydata() for line in everyone.lines if len(line.get_xdata()) == len(LEVELS)]
    assert curves and curves[0].tolist() == [
        100 * np.mean(store.iou[:, k] >= 0.1) for k in range(4)
    ]
    assert [text.get_text() for text in figure.texts if "threshold 0" in text.get_text()] == [
        f"threshold 0.50; the class was {'recognised' if store.correct[3] else 'not recognised'}"
    ]


def test_what_lies_below_the_threshold_is_dimmed(store):
    bright, dim = (
        threshold_card(store, 0, threshold).axes[0].images[0].get_array()
        for threshold in (0.0, 0.9)
    )
    below = store.maps[0] <= 0.9
    assert (dim[below] <= bright[below]).all() and dim[below].mean() < 0.6 * bright[below].mean()
    assert np.array_equal(dim[~below], bright[~below])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((6, 0.2), "image must be a number from 0 to 5, got 6"),
        ((True, 0.2), "got True"),
        ((0, 1.0), r"threshold must lie in \[0, 1\)"),
        ((0, 0.2, 0.0), r"iou in \(0, 1\], got 0.2 and 0.0"),
    ],
)
def test_bad_input_is_named(store, given, says):
    with pytest.raises(ValueError, match=says):
        threshold_card(store, *given)


def test_a_sweep_needs_thresholds(scene):
    with pytest.raises(ValueError, match="at least one threshold, got none"):
        sweep_thresholds(*scene, ())
