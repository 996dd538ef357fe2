"""Weakly supervised object localisation: how well the place of a class score fits the box around
the object.

Sources: the class activation map (CAM) and the box of its largest region above a share of its
maximum, Zhou et al., CVPR 2016; GT-known Loc and Top-1 Loc with threshold 0.2, Kang, Kang & Kim,
AAAI 2024, appendix A.3 and Table 7; MaxBoxAccV2, Choe et al., "Evaluating Weakly Supervised Object
Localization Methods Right", CVPR 2020, in its extended version and its release
(clovaai/wsolevaluation): over all boxes of a map, the best threshold, the mean of three IoU.

Where it misleads: on pictures with the object large and in the middle, a box that looks at no pixel
does well, so both such boxes are measured with every model; read a result as what it adds to them.
At a fixed threshold a change of the map's contrast looks like a change of the place. MaxBoxAccV2
removes this, but takes its threshold from the boxes it is measured on (the source: from held-out
ones), which flatters every map a little, and the centre box likewise. Top-1 Loc mixes accuracy in.
And boxes of coarse maps are coarse: compare only models whose last maps have one size.

Differs from the release (of MaxBoxAccV2): there a box is one pixel larger to the right and below,
and the contours of holes make boxes too; on the same maps 60.7 there, 59.8 here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..data import Boxes, Images
from ..data.augment import to_float
from ..data.boxes import iou_of
from ..models.inference import PixelModel
from ..utils.progress import bar
from .cam import class_maps, enlarge_maps

ScoreMap = Callable[[PixelModel, Tensor, Tensor], tuple[Tensor, Tensor]]  # as `class_maps`
THRESHOLDS = tuple(step / 100 for step in range(100))
# 8 neighbours, as in the source's release (OpenCV's contours)
CONNECTED = np.ones((3, 3), dtype=int)


@dataclass(frozen=True, eq=False)
class Locations:
    """Where the objects of n images were looked for.

    Args:
        maps: (n, H, W) float32 in [0, 1], the class maps enlarged to the images.
        edges: (n, 4) float32, the box of each map's largest region, as `Boxes.edges`; zeros where
            there is none.
        iou: (n,) float64 in [0, 1], with the best of the true boxes.
        correct: (n,) bool, whether the class was recognised.
    """

    maps: np.ndarray
    edges: np.ndarray
    iou: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True, eq=False)
class Regions:
    """Connected regions of a set of maps, in reading order.

    Args:
        edges: (R, 4) float32, their tight boxes, as `Boxes.edges`.
        image: (R,) int64, the map that each lies in, ascending.
        pixels: (R,) int64, how many each has.
    """

    edges: np.ndarray
    image: np.ndarray
    pixels: np.ndarray


def measure_localization(
    model: PixelModel,
    images: Images,
    boxes: Boxes,
    *,
    threshold: float = 0.2,
    iou: float = 0.5,
    deltas: Sequence[float] = (0.3, 0.5, 0.7),
    thresholds: Sequence[float] = THRESHOLDS,
    cam: ScoreMap = class_maps,
    batch_size: int = 100,
    progress: bool = False,
) -> dict:
    """How well maps of the true class locate the objects, beside two boxes that look at no pixel.

    An image with several boxes counts with the best one; one without any is left out. A map without
    a pixel above the threshold (a constant one) has no box and counts as wrong.

    Source: see the top of this file. Differs from MaxBoxAccV2's release: thresholds in steps of
    0.01, not 0.001, of maps that are not rounded to 8 bits; regions by their pixels, where it takes
    contours, holes included.

    Args:
        model: on the device of `images`; for the default `cam` one that ends in global average
            pooling and a linear layer. Evaluation mode during the measurement, then as it was.
        images, boxes: the images and the boxes around their objects; at least one image has a box.
        threshold: for GT-known and Top-1 Loc: share of the map's maximum above which a pixel
            belongs to the object, in [0, 1).
        iou: for GT-known and Top-1 Loc: a box is right from this intersection over union on, in (0,
            1].
        deltas: the IoUs of MaxBoxAccV2, each in (0, 1].
        thresholds: those it chooses from, each in [0, 1), ascending.
        cam: maps (B, h, w) and scores (B, N) of a model, images in [0, 1] and the classes to map.
        batch_size: images per forward pass, >= 1; changes memory and time, not the result.
        progress: a bar on standard error.
    Returns:
        gt_known_loc: percent of the images in which the box of the true class's largest region is
        right;
        top1_loc: percent in which it is and the class is recognised too (then it is also the
        predicted class's box);
        top1_accuracy: of these images, in percent;
        maxboxacc_v2: the mean over `deltas` of maxboxacc_v2_per_delta, {"0.3": percent at the best
        threshold, …}, where any region's box may be the right one; best_threshold, {"0.3": …},
        the lowest of those equally good;
        box_accuracy: {"thresholds": […], "0.3": [percent at each], …};
        baselines: {"centre": …, "full": …} with the same fields as far as they have a meaning.
        "full" is the whole image. "centre" is a map that falls off evenly from the middle to
        the border, put through the same: at a threshold t its box lies in the middle and has
        1 - t of the image's sides (0.8 of them for GT-known and Top-1 Loc by default;
        best_side, {"0.3": …}, for MaxBoxAccV2). The source takes a Gaussian in the middle for
        it, whose boxes are the same squares, one for each threshold;
        n_images, n_without_box: how many were measured and left out; threshold, iou: as given.
    Raises:
        ValueError: if an argument is out of its range, the boxes do not fit the images or there are
            none, or the model has no such maps. FloatingPointError: if the model answers with NaN
            or infinity.
    """
    _check(images, boxes, threshold, iou, deltas, thresholds, batch_size)
    n_images, boxes = len(images), boxes.to("cpu")
    with_box = boxes.image.unique()
    images, boxes = images.take(with_box), boxes.take(with_box)
    batches = torch.arange(len(images)).split(batch_size)
    parts = []
    for indices in bar(batches, "localization", "batch", progress, leave=False):
        true = boxes.take(indices)
        here = locate(model, images.take(indices), true, threshold=threshold, cam=cam)
        parts.append((here.iou, here.correct, iou_by_threshold(here.maps, true, thresholds)))
    overlaps, correct, swept = (np.concatenate(part) for part in zip(*parts))
    right = overlaps >= iou
    return {
        "gt_known_loc": _percent(right),
        "top1_loc": _percent(right & correct),
        "top1_accuracy": _percent(correct),
        **_max_box_accuracy(swept, deltas, best_threshold=thresholds),
        "box_accuracy": {"thresholds": list(thresholds), **_accuracies(swept, deltas)},
        "baselines": _baselines(boxes, correct, threshold, iou, deltas, thresholds),
        "n_images": len(images),
        "n_without_box": n_images - len(images),
        "threshold": threshold,
        "iou": iou,
    }


def locate(
    model: PixelModel,
    images: Images,
    boxes: Boxes,
    *,
    threshold: float = 0.2,
    cam: ScoreMap = class_maps,
) -> Locations:
    """Maps, boxes and overlaps of a few images, in one forward pass: what `measure_localization`
    measures, to look at.

    Args:
        model, threshold, cam: as for `measure_localization`.
        images, boxes: those to look at: `images.take(indices)`, `boxes.take(indices)`. Without a
            box the IoU is 0.
    Raises:
        ValueError, FloatingPointError: as `measure_localization`.
    """
    _check_boxes(images, boxes)
    _check_range("threshold", [threshold], lambda value: 0 <= value < 1, "[0, 1)")
    maps, scores = cam(model, to_float(images.pixels), images.labels)
    correct = (scores.argmax(dim=1) == images.labels).cpu().numpy()
    stretched = enlarge_maps(maps, *boxes.size).float().cpu().numpy()
    count = len(images)
    edges = largest_boxes(find_regions(stretched, threshold), count)
    iou = best_iou(edges, np.arange(count), boxes.to("cpu"), count)
    return Locations(stretched, edges, iou, correct)


def find_regions(maps: np.ndarray, threshold: float) -> Regions:
    """The connected regions of each map above a threshold; pixels are neighbours by a side or a
    corner.

    Args:
        maps: (n, H, W) floating.
        threshold: strictly above it a pixel belongs to a region.
    """
    from scipy import ndimage

    n, height, width = maps.shape
    # the empty row parts the maps, the empty column the runs
    sheet = np.zeros((n, height + 1, width + 1), dtype=bool)
    sheet[:, :height, :width] = maps > threshold
    sheet = sheet.reshape(-1, width + 1)
    labels, count = ndimage.label(sheet, structure=CONNECTED)
    # of the runs in each row
    starts, ends = np.flatnonzero(np.diff(sheet.ravel(), prepend=False)).reshape(-1, 2).T
    _, first, region = np.unique(labels.ravel()[starts], return_index=True, return_inverse=True)
    order = np.empty(count, dtype=np.int64)
    order[first.argsort()] = np.arange(count)  # reading order, whatever the labels' own
    return _enclose(starts, ends, order[region], (n, height, width))


def largest_boxes(regions: Regions, n: int) -> np.ndarray:
    """(n, 4) float32: for each of n maps the box of its region with most pixels; zeros where it has
    none.

    Of equally large regions the first in reading order counts.
    """
    edges = np.zeros((n, 4), dtype=np.float32)
    # the largest, and of these the first, comes last
    order = np.lexsort((-np.arange(len(regions.pixels)), regions.pixels))
    edges[regions.image[order]] = regions.edges[order]
    return edges


def best_iou(edges: np.ndarray, image: np.ndarray, boxes: Boxes, n: int) -> np.ndarray:
    """(n,) float64: for each of n images the best IoU of any of its predicted boxes with any of its
    true ones, or 0.

    Source: Choe et al., extended version, MaxBoxAccV2.

    Args:
        edges: (R, 4), the predicted boxes.
        image: (R,) int64, the image of each.
        boxes: the true ones, on the CPU.
    """
    counts = np.bincount(boxes.image.numpy(), minlength=n)
    # of the true boxes of each image; pairs of each prediction
    first, each = (np.cumsum(counts) - counts, counts[image])
    predicted = np.repeat(np.arange(len(image)), each)
    true = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each) + first[image[predicted]]
    best = np.zeros(n)
    overlap = iou_of(torch.from_numpy(edges[predicted]), boxes.edges[torch.from_numpy(true)])
    np.maximum.at(best, image[predicted], overlap.numpy())
    return best


def iou_by_threshold(maps: np.ndarray, boxes: Boxes, thresholds: Sequence[float]) -> np.ndarray:
    """(n, T) float64: for each map and threshold the best IoU of any region's box with any true
    box.

    Args:
        maps: (n, H, W) in [0, 1].
        boxes: the true ones of these n images, on the CPU.
        thresholds: T of them.
    """
    regions = (find_regions(maps, threshold) for threshold in thresholds)
    ious = [best_iou(part.edges, part.image, boxes, len(maps)) for part in regions]
    return np.stack(ious, axis=1)


def _enclose(
    starts: np.ndarray, ends: np.ndarray, region: np.ndarray, shape: tuple[int, int, int]
) -> Regions:
    """Regions, given as runs of pixels in a sheet of maps with one empty row below and one empty
    column beside each.
    """
    _, height, width = shape
    count = int(region.max(initial=-1)) + 1
    row, left = np.divmod(starts, width + 1)
    image, top = np.divmod(row, height + 1)
    edges = np.tile(np.array([width, height, 0, 0], dtype=np.float32), (count, 1))
    for column, extreme, values in (
        (0, np.minimum, left),
        (1, np.minimum, top),
        (2, np.maximum, left + ends - starts),
        (3, np.maximum, top + 1),
    ):
        extreme.at(edges[:, column], region, values.astype(np.float32))
    lies_in = np.empty(count, dtype=np.int64)
    lies_in[region] = image
    return Regions(
        edges, lies_in, np.bincount(region, weights=ends - starts, minlength=count).astype(np.int64)
    )


def _baselines(
    boxes: Boxes,
    correct: np.ndarray,
    threshold: float,
    iou: float,
    deltas: Sequence[float],
    thresholds: Sequence[float],
) -> dict:
    """What the box in the middle and the whole image reach; neither looks at a pixel."""
    sides = [1 - threshold for threshold in thresholds]
    centred = np.stack([_fixed_iou(centre_box(side, boxes.size), boxes) for side in sides], axis=1)
    whole = _fixed_iou(centre_box(1.0, boxes.size), boxes)
    middle = _fixed_iou(centre_box(1 - threshold, boxes.size), boxes)
    rows = {
        "centre": (middle, _max_box_accuracy(centred, deltas, best_side=sides)),
        "full": (whole, _max_box_accuracy(whole[:, None], deltas)),
    }
    return {
        name: {
            "gt_known_loc": _percent(overlap >= iou),
            "top1_loc": _percent((overlap >= iou) & correct),
            **v2,
        }
        for name, (overlap, v2) in rows.items()
    }


def centre_box(side: float, size: tuple[int, int]) -> np.ndarray:
    """(4,) float32, as `Boxes.edges`: the box in the middle of an image of `size` (H, W) with
    `side` of its sides.
    """
    margin, (height, width) = (1 - side) / 2, size
    far = 1 - margin
    return np.array([margin * width, margin * height, far * width, far * height], np.float32)


def _fixed_iou(edges: np.ndarray, boxes: Boxes) -> np.ndarray:
    """(n,): the best IoU of one box with the true boxes of each image; every image has one."""
    n = int(boxes.image[-1]) + 1
    return best_iou(np.tile(edges, (n, 1)), np.arange(n), boxes, n)


def _max_box_accuracy(
    swept: np.ndarray, deltas: Sequence[float], **choice: Sequence[float]
) -> dict:
    """MaxBoxAccV2 of IoUs (n, T), and which of the T values named in `choice` was best for each
    δ.
    """
    curves = _accuracies(swept, deltas)
    per_delta = {delta: max(curve) for delta, curve in curves.items()}
    best = {
        name: {delta: values[curve.index(max(curve))] for delta, curve in curves.items()}
        for name, values in choice.items()
    }
    return {
        "maxboxacc_v2": sum(per_delta.values()) / len(per_delta),
        "maxboxacc_v2_per_delta": per_delta,
        **best,
    }


def _accuracies(swept: np.ndarray, deltas: Sequence[float]) -> dict[str, list[float]]:
    """{δ: [percent of the rows of IoUs (n, T) that reach it, for each column]}."""
    return {f"{delta:g}": [_percent(column >= delta) for column in swept.T] for delta in deltas}


def _percent(right: np.ndarray) -> float:
    return 100 * int(right.sum()) / len(right)


def _check(
    images: Images,
    boxes: Boxes,
    threshold: float,
    iou: float,
    deltas: Sequence[float],
    thresholds: Sequence[float],
    batch_size: int,
) -> None:
    """Raise ValueError for the first argument of `measure_localization` that does not fit."""
    _check_boxes(images, boxes)
    if len(boxes) == 0:
        raise ValueError(
            "localisation needs images with boxes around their objects, got none in any image"
        )
    _check_range("iou", [iou], lambda value: 0 < value <= 1, "(0, 1]")
    _check_range("deltas", deltas, lambda value: 0 < value <= 1, "(0, 1]")
    _check_range("threshold", [threshold], lambda value: 0 <= value < 1, "[0, 1)")
    _check_range("thresholds", thresholds, lambda value: 0 <= value < 1, "[0, 1)")
    if any(low >= high for low, high in pairwise(thresholds)):
        raise ValueError(f"thresholds must ascend, got {list(thresholds)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")


def _check_boxes(images: Images, boxes: Boxes) -> None:
    size = images.shape[1:]
    if boxes.size != size or len(boxes) and int(boxes.image[-1]) >= len(images):
        raise ValueError(
            f"the boxes are not those of the images: they are for {boxes.size} (H, W) and image "
            f"{int(boxes.image.max()) if len(boxes) else 0}, the {len(images)} images are {size}"
        )


def _check_range(
    name: str, values: Sequence[float], fits: Callable[[float], bool], wanted: str
) -> None:
    if not len(values) or not all(map(fits, values)):
        raise ValueError(
            f"{name} must lie in {wanted}, got {', '.join(map(str, values)) or 'none'}"
        )
