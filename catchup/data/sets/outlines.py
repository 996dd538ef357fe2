"""Where the shape of a generated scene is: how much of each pixel it covers, and the box around
it.
"""

import torch
from torch import Tensor

from ..boxes import Boxes
from .shapes import SHAPE_DRAWINGS, SIDE, Scene, draw_each

HALF = 0.5  # a pixel belongs to the shape from this share of it on


def coverage(scenes: Scene) -> Tensor:
    """(N, 32, 32) float32 in [0, 1]: the share of each pixel that the shape covers, as `render`
    draws it.
    """
    return draw_each(SHAPE_DRAWINGS, scenes.shape, scenes)


def boxes_of(scenes: Scene) -> Boxes:
    """The tight box around the pixels that the shape covers by half or more, one for each scene.

    A ring's box holds its hole, a crescent's what it bends around: as a person would draw it.

    Args:
        scenes: N of them, on the CPU.
    Returns:
        N boxes in whole pixels, box i that of image i of `images_of(scenes)`.
    """
    inside = coverage(scenes) >= HALF
    (left, right), (top, bottom) = _ends(inside.any(dim=1)), _ends(inside.any(dim=2))
    edges = torch.stack([left, top, right, bottom], dim=1).float()
    return Boxes(edges, torch.arange(len(scenes)), (SIDE, SIDE))


def _ends(line: Tensor) -> tuple[Tensor, Tensor]:
    """(N,), (N,): first place, and one behind the last, where a row of (N, L) bool holds."""
    return line.int().argmax(dim=1), line.shape[1] - line.flip(1).int().argmax(dim=1)
