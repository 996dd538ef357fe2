"""Boxes that differ from image to image: where they lie, and which pixels are left outside them."""

import math

import torch
from torch import Tensor

# top, bottom, left, right: each (B,) int64, bottom and right exclusive
Boxes = tuple[Tensor, Tensor, Tensor, Tensor]


def boxes_around(centre: Tensor, height: int, width: int, lam: float) -> Boxes:
    """CutMix's box, sides √(1 − λ) of the image's and clipped at its border, around a centre of its
    own for each image.

    Args:
        centre: (B, 2) int64, row and column in pixels.
        height, width: of the images, in pixels.
        lam: λ in [0, 1].
    Returns:
        (top, bottom, left, right), each (B,) int64 on the centres' device; empty for λ = 1.
    """
    half = 0.5 * math.sqrt(1 - lam)
    half_h, half_w, (row, column) = int(half * height), int(half * width), centre.unbind(dim=1)
    return (
        (row - half_h).clamp_min(0),
        (row + half_h).clamp_max(height),
        (column - half_w).clamp_min(0),
        (column + half_w).clamp_max(width),
    )


def outside(boxes: Boxes, height: int, width: int) -> Tensor:
    """Bool (B, 1, height, width), True where a pixel lies outside its image's box."""
    top, bottom, left, right = (edge[:, None] for edge in boxes)
    rows, columns = (torch.arange(size, device=top.device) for size in (height, width))
    inside_rows, inside_columns = (
        (rows >= top) & (rows < bottom),
        (columns >= left) & (columns < right),
    )
    return ~(inside_rows[:, None, :, None] & inside_columns[:, None, None, :])
