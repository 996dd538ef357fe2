"""The wall of activation maps: one image, where its score is sensitive, and every filter's answer,
strongest first.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import tiles
from .style import get_panels, strip_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor


def activation_wall(
    image: "Tensor",
    saliency: "Tensor",
    maps: "Tensor",
    norms: "Tensor",
    *,
    columns: int | None = None,
    show: int = 48,
    scale: str = "own",
    axes: "Iterable[Axes] | None" = None,
) -> np.ndarray:
    """An image, where its class score is sensitive, and the wall of its activation maps, strongest
    first.

    Source: the form of Kang, Kang & Kim, AAAI 2024, Figure 1a.

    Args:
        image: (3, H, W) or (1, H, W), uint8 or floating in [0, 1].
        saliency: (H, W) ≥ 0, from `catchup.inspection.attribution`.
        maps: (C, h, w) floating; drawn by magnitude.
        norms: (C,), printed under each map.
        columns: tiles in a row, ≥ 1; None: `tiles.columns_for`.
        show: at most this many, evenly spaced along the order.
        scale: "own": each map by its own largest value; "common": all by the largest of all.
        axes: three Axes; None makes a figure.
    Returns:
        (3,) Axes: image, saliency, wall.
    Raises:
        ValueError: if the shapes do not fit or `scale` is unknown.
    """
    pixels = tiles.picture(image)
    if saliency.shape != image.shape[1:] or maps.ndim != 3 or norms.shape != maps.shape[:1]:
        raise ValueError(
            "for an image (3, H, W) saliency must be (H, W), and norms (C,) for maps (C, h, w);"
            f" got {tuple(image.shape)}, {tuple(saliency.shape)}, {tuple(norms.shape)},"
            f" {tuple(maps.shape)}"
        )
    left, middle, wall = axes = _wall_panels() if axes is None else get_panels(axes, 3, "")
    left.imshow(pixels)
    middle.imshow(_overlay(pixels, saliency.detach().cpu().numpy()))
    left.set_title("image", fontsize=10)
    middle.set_title("saliency (bright: sensitive)", fontsize=10)
    for ax in axes:
        strip_axes(ax)
    amounts = tiles.brightness(maps.detach().float().cpu().numpy(), scale)
    order = (-norms).argsort(stable=True).tolist()
    shown = [order[rank] for rank in tiles.spaced_ranks(len(order), show)]
    _draw_wall(wall, amounts[shown], norms[shown].tolist(), columns)
    words = tiles.describe_wall(len(shown), len(order), scale)
    wall.set_title(f"|activation|, strongest filter first, its norm below\n{words}", fontsize=10)
    return axes


def _draw_wall(
    ax: "Axes", amounts: np.ndarray, norms: Sequence[float], columns: int | None
) -> None:
    """One mosaic of maps (n, h, w) in [0, 1], the norm of each under its tile."""
    columns, size = columns or tiles.columns_for(len(amounts)), amounts.shape[1:]
    gap = max(1, round(0.3 * size[0])), max(1, round(0.12 * size[1]))
    ax.imshow(tiles.mosaic(tiles.tint(amounts), columns, gap), interpolation="nearest")
    for k, norm in enumerate(norms):
        x, y = tiles.corner(k, size, columns, gap)
        middle = x + size[1] / 2, y + size[0] + 0.45 * gap[0]
        ax.text(*middle, tiles.short(norm), fontsize=7.5, ha="center", va="center")


def _wall_panels() -> np.ndarray:
    """Image above saliency, the wall beside them."""
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(9.6, 6.6), layout="constrained")
    figure.suptitle("Do a few filters answer strongly, and many hardly at all?")
    made = figure.subplot_mosaic("ACCC;BCCC")
    return np.array([made["A"], made["B"], made["C"]])


def _overlay(pixels: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """The image in grey under its saliency, whose largest hundredth is cut off so that one pixel
    cannot darken all.
    """
    top = max(np.quantile(saliency, 0.99), np.finfo(np.float32).tiny)
    amount = np.clip(saliency / top, 0, 1)
    grey = pixels.mean(axis=2, keepdims=True).repeat(3, axis=2)
    return (0.35 * grey + 0.65 * tiles.tint(amount)).astype(np.uint8)
