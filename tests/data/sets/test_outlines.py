"""Where a shape is: against geometry, and against what the rendered images themselves show."""

from dataclasses import replace

import pytest
import torch

from catchup.data import Boxes
from catchup.data.sets.outlines import boxes_of, coverage
from catchup.data.sets.shapes import SHAPES, draw_scenes, images_of, render

# of the size, from the middle to each side
REACH = {"disc": 0.85, "square": 2**-0.5, "plus": 0.95, "ring": 0.92}


def placed(name, size=8.0, angle=0.0, place=(15.0, 18.0)):
    scene = draw_scenes(1, 0).with_shape(SHAPES.index(name))
    return replace(
        scene, size=torch.tensor([size]), angle=torch.tensor([angle]), place=torch.tensor([place])
    )


@pytest.mark.parametrize("name", REACH)
@pytest.mark.parametrize("size", [6.0, 10.0])
def test_the_box_of_an_upright_shape_is_what_geometry_says(name, size):
    reach = REACH[name] * size
    expected = [15 - reach, 18 - reach, 15 + reach, 18 + reach]
    assert boxes_of(placed(name, size)).edges[0].tolist() == pytest.approx(expected, abs=0.75)


def test_a_bar_that_is_turned_by_a_right_angle_has_the_other_box():
    lying, standing = (boxes_of(placed("bar", angle=turn)).edges[0] for turn in (0.0, torch.pi / 2))
    assert lying.tolist() == pytest.approx([15 - 7.6, 18 - 2.4, 15 + 7.6, 18 + 2.4], abs=0.75)
    assert standing.tolist() == pytest.approx([15 - 2.4, 18 - 7.6, 15 + 2.4, 18 + 7.6], abs=0.75)


def test_coverage_is_what_a_white_and_a_black_shape_differ_by():
    scenes = draw_scenes(64, 3)
    black, white = (
        render(replace(scenes, luma=torch.full((64,), luma))).float() for luma in (0.0, 1.0)
    )
    share = coverage(scenes)
    assert (
        share.shape == (64, 32, 32)
        and share.dtype == torch.float32
        and 0 <= share.min() < share.max() <= 1
    )
    assert ((white - black) / 255 - share[:, None]).abs().max() <= 1.01 / 255, (
        "each picture is rounded to 1/255"
    )
    assert (share.sum(dim=(1, 2)) > 0.2 * scenes.size**2).all(), "no shape is missing"


def test_boxes_are_tight_and_one_for_each_image_whatever_its_colours():
    scenes = draw_scenes(200, 1)
    boxes, inside = boxes_of(scenes), coverage(scenes) >= 0.5
    assert isinstance(boxes, Boxes) and boxes.size == images_of(scenes).pixels.shape[2:]
    assert torch.equal(boxes.image, torch.arange(200))
    for mask, edges in zip(inside, boxes.edges.int().tolist()):
        rows, columns = mask.nonzero().T.tolist()
        assert edges == [min(columns), min(rows), max(columns) + 1, max(rows) + 1]
    other = replace(scenes.with_texture(3), hue=1 - scenes.hue, luma=scenes.luma.flip(0))
    assert torch.equal(boxes_of(other).edges, boxes.edges)
    assert torch.equal(boxes_of(scenes[50:60]).edges, boxes.edges[50:60])
