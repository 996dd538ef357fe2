"""One threshold, one box: what the choice of a threshold does to a class map, and to all images at
once.

Where it misleads: the best threshold of an image is known only once its true box is, and the best
one of all images is chosen on the images that it is judged by; see `catchup.measures.localization`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...data import Boxes, Images
from ...measures.cam import class_maps
from ...measures.localization import (
    THRESHOLDS,
    ScoreMap,
    best_iou,
    find_regions,
    largest_boxes,
    locate,
)
from ...models.inference import PixelModel
from ...utils.choices import check_index
from ..localization import draw_boxes, overlay
from ..panels import canvas, frame, picture, place
from ..style import FAINT, INK, STRONG, WEAK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIMMED = 0.4  # brightness of what lies below the threshold


@dataclass(frozen=True, eq=False)
class Sweep:
    """The largest region's box of n maps at each of T thresholds.

    Args:
        pixels: (n, C, H, W) uint8.
        boxes: the true ones.
        thresholds: T, ascending.
        maps: (n, H, W) float32 in [0, 1].
        correct: (n,) bool, whether the class was recognised.
        edges: (n, T, 4) float32, as `Boxes.edges`; zeros where nothing is above the threshold.
        iou: (n, T) float64 in [0, 1], with the best true box.
    """

    pixels: Tensor
    boxes: Boxes
    thresholds: tuple[float, ...]
    maps: np.ndarray
    correct: np.ndarray
    edges: np.ndarray
    iou: np.ndarray

    def place_of(self, threshold: float) -> int:
        """The position of the threshold nearest to this one."""
        return int(np.abs(np.asarray(self.thresholds) - threshold).argmin())


def sweep_thresholds(
    model: PixelModel,
    images: Images,
    boxes: Boxes,
    thresholds: Sequence[float] = THRESHOLDS,
    cam: ScoreMap = class_maps,
) -> Sweep:
    """Maps and boxes of a few images at every threshold, from one forward pass.

    Args:
        model, images, boxes, cam: as for `catchup.measures.localization.locate`.
        thresholds: each in [0, 1), ascending.
    Raises:
        ValueError, FloatingPointError: as `locate`; if there is no threshold.
    """
    if not len(thresholds):
        raise ValueError("a sweep needs at least one threshold, got none")
    first, n = locate(model, images, boxes, threshold=thresholds[0], cam=cam), len(images)
    regions = (find_regions(first.maps, threshold) for threshold in thresholds)
    edges = np.stack([largest_boxes(part, n) for part in regions], axis=1)
    own, boxes = np.arange(n), boxes.to("cpu")
    iou = np.stack([best_iou(part, own, boxes, n) for part in edges.swapaxes(0, 1)], axis=1)
    pixels, maps, correct = images.pixels.cpu(), first.maps, first.correct
    return Sweep(pixels, boxes, tuple(thresholds), maps, correct, edges, iou)


def threshold_card(store: Sweep, image: int, threshold: float, iou: float = 0.5) -> "Figure":
    """One image under its class map with the box at a threshold; its IoU, and the share of right
    boxes, at all of them.

    Args:
        store: from `sweep_thresholds`.
        image: its number in the store.
        threshold: in [0, 1); the nearest of the store's is shown.
        iou: from which overlap on a box is right, in (0, 1].
    Raises:
        ValueError: if there is no such image, or a number leaves its range.
    """
    check_index("image", image, len(store.maps))
    if not 0 <= threshold < 1 or not 0 < iou <= 1:
        raise ValueError(
            f"threshold must lie in [0, 1) and iou in (0, 1], got {threshold} and {iou}"
        )
    chosen, figure = store.place_of(threshold), canvas(960, 320)
    level, own = store.thresholds[chosen], store.iou[image, chosen]
    _draw_image(figure, store, image, chosen)
    ax = place(figure, (355, 55, 245, 205), f"This image: IoU {own:.2f}")
    ax.axhline(iou, color=INK, linestyle="--", linewidth=1)
    _draw_curve(ax, store.thresholds, store.iou[image], chosen, (0, 1), "IoU with the true box")
    share = 100 * (store.iou >= iou).mean(axis=0)
    head = f"All {len(store.maps)} images: {share[chosen]:.0f} % right"
    ax = place(figure, (690, 55, 245, 205), head)
    _draw_curve(ax, store.thresholds, share, chosen, (0, 100), f"boxes with IoU ≥ {iou:g} (%)")
    verdict = "recognised" if store.correct[image] else "not recognised"
    figure.text(0.01, 0.94, f"threshold {level:.2f}; the class was {verdict}", size=12)
    return figure


def _draw_image(figure: "Figure", store: Sweep, image: int, chosen: int) -> None:
    """The image under its map, what is not above the threshold dimmed, with the true box and the
    one found.
    """
    seen = store.maps[image]
    shown = overlay(store.pixels[image], seen)
    shown = np.where((seen > store.thresholds[chosen])[:, :, None], shown, DIMMED * shown)
    words = "white: the true box; dashed: found"
    ax = picture(figure, (20, 20, 250, 250), shown.round().astype(np.uint8), words)
    draw_boxes(ax, store.boxes, image, store.edges[image, chosen])


def _draw_curve(
    ax: "Axes",
    thresholds: Sequence[float],
    heights: np.ndarray,
    chosen: int,
    ylim: tuple[float, float],
    ylabel: str,
) -> None:
    """A curve over the thresholds, the chosen one marked."""
    ax.plot([thresholds[chosen]] * 2, ylim, color=FAINT, linewidth=1.5)
    ax.plot(thresholds, heights, color=WEAK, linewidth=1.8)
    ax.plot(thresholds[chosen], heights[chosen], "o", color=STRONG, markersize=7)
    frame(ax, (0, 1), (ylim[0], 1.03 * ylim[1]), "threshold (share of the map's maximum)", ylabel)
