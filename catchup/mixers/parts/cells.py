"""Images taken apart into a grid of cells and put together again."""

import math

from torch import Tensor


def split_cells(images: Tensor, side: int) -> Tensor:
    """Images as their cells in reading order.

    Args:
        images: (B, C, H, W). side: cells along a side, divides H and W.
    Returns:
        (B, side², C, H / side, W / side).
    """
    grid = images.unflatten(3, (side, -1)).unflatten(2, (side, -1))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def join_cells(cells: Tensor) -> Tensor:
    """The inverse of `split_cells`: (B, C, H, W) of (B, side², C, h, w)."""
    grid = cells.unflatten(1, (math.isqrt(cells.shape[1]), -1))
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
