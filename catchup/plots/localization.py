"""Figures of weakly supervised localisation: where a model looks, and how well the boxes fit at
each threshold.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .style import COLOURS, INK, STRONG, add_legend, draw_box, get_axes, get_panels, strip_axes
from .tiles import picture, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..data import Boxes
    from ..measures.localization import Locations

OVERLAY = 0.55  # opacity of the map on the image
# line style and name
BASELINES = {"centre": (":", "box in the middle, best size"), "full": ("--", "whole image")}
DELTAS = tuple(zip((COLOURS[3], COLOURS[4], COLOURS[1]), ("o", "s", "^")))  # colour and marker


def plot_localization(images: Tensor, found: "Locations", boxes: "Boxes", axes=None) -> np.ndarray:
    """Tiles: each image under its class map, the true boxes (white, solid) and the one found
    (orange, dashed).

    Source: the form of the localisation figure of Zhou et al., CVPR 2016; cividis, each map between
        its extremes.

    Args:
        images: (n, 1 or 3, H, W) uint8, or floating in [0, 1].
        found: `located` of them.
        boxes: theirs.
        axes: n Axes to draw in; None makes a figure of one row.
    Returns:
        (n,) Axes. The title of each says the IoU of the box with the best true one, and whether the
        class is right.
    Raises:
        ValueError: if images, maps and Axes are not equally many, or an image is not as said.
    """
    if len(images) != len(found.maps) or len(images) == 0:
        raise ValueError(
            f"images and maps must be equally many, at least one, got {len(images)} and "
            f"{len(found.maps)}"
        )
    head = "White: the true box; dashed: the box of the map's largest region"
    axes = get_panels(axes, len(images), head, (2.3, 2.9))
    for place, ax in enumerate(axes):
        ax.imshow(overlay(images[place], found.maps[place]).round().astype(np.uint8))
        draw_boxes(ax, boxes, place, found.edges[place])
        right = "class right" if found.correct[place] else "class wrong"
        ax.set_title(f"IoU {found.iou[place]:.2f}, {right}", fontsize=9)
        strip_axes(ax)
    return axes


def overlay(image: Tensor, amounts: np.ndarray) -> np.ndarray:
    """(H, W, 3) floating, 0 … 255: an image under its map (H, W), in [0, 1]."""
    return (1 - OVERLAY) * picture(image) + OVERLAY * tint(amounts)


def draw_boxes(ax: "Axes", boxes: "Boxes", image: int, found: np.ndarray) -> None:
    """The true boxes of an image, and the one `found` for it, (4,), unless it is all zeros."""
    for edges in boxes.edges[boxes.image == image].tolist():
        draw_box(ax, edges, "white", "-")
    if found.any():
        draw_box(ax, found, STRONG, (0, (3, 1)))


def plot_box_accuracy(result: Mapping, ax: "Axes | None" = None) -> "Axes":
    """Share of the images whose box is right, over the threshold, for each IoU; the two blind boxes
    as level lines.

    Source: the curves whose highest points Choe et al. (CVPR 2020, extended version) average as
        MaxBoxAccV2.

    Args:
        result: of `localization`.
        ax: where to draw; None makes a figure.
    Raises:
        ValueError: if `result` has no box accuracies.
    """
    if "box_accuracy" not in result:
        raise ValueError(
            f"these are not the results of localization: they hold {', '.join(map(str, result))}"
        )
    ax, curves = get_axes(ax), dict(result["box_accuracy"])
    thresholds = curves.pop("thresholds")
    for place, (delta, curve) in enumerate(curves.items()):
        colour, marker = DELTAS[place % len(DELTAS)]
        best = {"marker": marker, "markersize": 7, "markevery": [int(np.argmax(curve))]}
        ax.plot(thresholds, curve, color=colour, label=f"class map, IoU ≥ {delta}", **best)
        for name, (line, _) in BASELINES.items():
            level = result["baselines"][name]["maxboxacc_v2_per_delta"][delta]
            ax.axhline(level, color=colour, linestyle=line, linewidth=1.2, alpha=0.8)
    for line, label in BASELINES.values():
        ax.plot([], [], color=INK, linestyle=line, linewidth=1.2, label=label)
    ax.set(
        title="A map locates what its line gains on the level lines",
        ylabel="images with a right box (%)",
        xlabel="threshold (share of the map's maximum); marker: the best one",
        xlim=(0, 1),
        ylim=(0, 103),
    )
    return add_legend(ax)


def localization_caption(result: Mapping) -> str:
    """The sentence under the figures: how many images, and the numbers beside those of the blind
    boxes.
    """
    centre, full = (result["baselines"][name] for name in ("centre", "full"))
    left_out = (
        f"; {result['n_without_box']} without a box are left out" if result["n_without_box"] else ""
    )
    return (
        f"{result['n_images']} test images with a box{left_out}. GT-known Loc"
        f" {result['gt_known_loc']:.1f} % (box in the middle {centre['gt_known_loc']:.1f}, whole"
        f" image {full['gt_known_loc']:.1f}), MaxBoxAccV2 {result['maxboxacc_v2']:.1f} %"
        f" ({centre['maxboxacc_v2']:.1f}, {full['maxboxacc_v2']:.1f})."
    )
