"""The one way in which images are brought to a square, and where boxes drawn on them land.

The shorter side becomes `image_size` pixels, the longer one in proportion, rounded; then the centre
square is kept. The pixels are made in `decode.py`; this is the geometry of it, which boxes need
too.
"""

from typing import NamedTuple

import numpy as np
import torch

from ..boxes import Boxes


class Placement(NamedTuple):
    """How an image becomes a square: resized to width x height pixels, the square cut out at left,
    top.
    """

    width: int
    height: int
    left: int
    top: int


def placement(width: int, height: int, image_size: int) -> Placement:
    """How an image of width x height pixels (>= 1 each) becomes a square of `image_size` pixels (>=
    1).
    """
    scale = image_size / min(width, height)
    wide, high = (max(image_size, round(side * scale)) for side in (width, height))
    return Placement(wide, high, (wide - image_size) // 2, (high - image_size) // 2)


def place_boxes(edges: np.ndarray, sizes: np.ndarray, image_size: int) -> Boxes:
    """Boxes of images after the resizing: moved, scaled, and clipped to the square.

    A box of which nothing lies in the square is left out, so that its image has none.

    Args:
        edges: (N, 4) floating, one box for each of N images: left, top, right, bottom in pixels of
            the image as it is stored, right and bottom exclusive; left < right and top < bottom.
        sizes: (N, 2) integers >= 1, width and height of the stored images, in pixels.
        image_size: pixels, >= 1.
    Returns:
        `Boxes` of images of image_size x image_size.
    """
    if not len(edges):
        return Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (image_size, image_size))
    plans = np.array(
        [placement(width, height, image_size) for width, height in np.asarray(sizes).tolist()],
        dtype=np.float64,
    )
    scale = plans[:, :2] / sizes
    moved = edges * np.tile(scale, 2) - np.tile(plans[:, 2:], 2)
    clipped = torch.from_numpy(moved.clip(0, image_size).astype(np.float32))
    kept = (clipped[:, :2] < clipped[:, 2:]).all(1)
    return Boxes(clipped[kept], kept.nonzero()[:, 0], (image_size, image_size))
