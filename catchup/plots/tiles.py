"""Many small pictures as one: a mosaic is a single image, so that a wall of maps is drawn in
milliseconds.
"""

import math

import numpy as np
from torch import Tensor

from ..utils.choices import pick

SCALES = {"own": "each on its own scale", "common": "all on one scale"}


def brightness(maps: np.ndarray, scale: str = "own") -> np.ndarray:
    """Maps as amounts to draw.

    Args:
        maps: (n, h, w) float; of signed maps the magnitude counts, as it does in their norm.
        scale: "own" divides each map by its own largest value, so that its shape shows and its
            strength does not; "common" divides all by the largest of all.
    Returns:
        (n, h, w) float32 in [0, 1]; maps of zeros stay zeros.
    Raises:
        ValueError: if `scale` is unknown.
    """
    size = np.abs(np.asarray(maps, dtype=np.float32))
    own = pick("scale", scale, SCALES) == "own"
    largest = size.max(axis=(1, 2) if own else None, keepdims=True)
    return size / np.maximum(largest, np.finfo(np.float32).tiny)


def tint(amounts: np.ndarray) -> np.ndarray:
    """Amounts in [0, 1], any shape, as cividis colours: the shape with 3 uint8 channels behind
    it.
    """
    from matplotlib import colormaps

    return colormaps["cividis"](amounts, bytes=True)[..., :3]


def mosaic(tiles: np.ndarray, columns: int, gap: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Tiles side by side on white, row by row.

    Args:
        tiles: (n, h, w, 3) uint8.
        columns: ≥ 1.
        gap: white pixels below and to the right of each tile.
    Returns:
        (rows · (h + gap), columns · (w + gap), 3) uint8; tile k starts at `corner(k, …)`.
    """
    n, h, w, _ = tiles.shape
    rows = math.ceil(n / columns)
    sheet = np.full((rows * columns, h + gap[0], w + gap[1], 3), 255, dtype=np.uint8)
    sheet[:n, :h, :w] = tiles
    sheet = sheet.reshape(rows, columns, h + gap[0], w + gap[1], 3).swapaxes(1, 2)
    return np.ascontiguousarray(sheet.reshape(rows * (h + gap[0]), columns * (w + gap[1]), 3))


def columns_for(count: int) -> int:
    """How many of `count` tiles stand in a row: four of few, eight of many."""
    return min(4, count) if count <= 16 else 8


def corner(
    k: int, size: tuple[int, int], columns: int, gap: tuple[int, int] = (1, 1)
) -> tuple[float, float]:
    """(x, y) of the upper left corner of tile k in `imshow`'s coordinates."""
    return k % columns * (size[1] + gap[1]) - 0.5, k // columns * (size[0] + gap[0]) - 0.5


def resize(tiles: np.ndarray, side: int) -> np.ndarray:
    """(n, h, w, …) as (n, side, side, …), each value repeated or left out (nearest)."""
    down, right = (np.arange(side) * length // side for length in tiles.shape[1:3])
    return tiles[:, down][:, :, right]


def short(value: float) -> str:
    """A norm in few letters: 0.0123, 1.23, 123, 1234, 1.2e+06."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}" if value < 1e5 else f"{value:.1e}"


def spaced_ranks(n: int, show: int) -> list[int]:
    """At most `show` of n ranks, evenly spaced, first and last among them."""
    if show < 1:
        raise ValueError(f"show must be at least 1, got {show}")
    return sorted({round(place) for place in np.linspace(0, n - 1, min(n, show))})


def fade(tile: np.ndarray) -> np.ndarray:
    """What is left of a tile, uint8, that is not used."""
    return (0.3 * tile + 0.7 * 255).astype(np.uint8)


def describe_wall(shown: int, count: int, scale: str) -> str:
    """Which filters a wall shows, and how bright its tiles are."""
    which = f"{shown} of {count} filters, evenly spaced in rank"
    if shown == count:
        which = f"all {count} filters"
    return f"{which}; {SCALES[scale]}"


def picture(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of an image (3, H, W) or (1, H, W): uint8, or floating in [0, 1].

    Raises:
        ValueError: if the shape is another, or floating values leave [0, 1] (normalised images do).
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image must be (3, H, W) or (1, H, W), got {tuple(image.shape)}")
    values = image.detach().cpu()
    if values.is_floating_point():
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"a floating image must lie in [0, 1], got {values.min():.3g} to"
                f" {values.max():.3g}: undo the normalisation, or use `viewable`"
            )
        values = (255 * values).round().byte()
    return values.expand(3, -1, -1).permute(1, 2, 0).numpy()
