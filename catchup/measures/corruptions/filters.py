"""Linear maps of whole batches: smoothing, zooming and shrinking as one matrix per axis, motion as
a walk of copies.

Every filter that treats rows and columns apart is two small matrices, built in float64 from its
definition and applied by two products; at 32 pixels that is faster than a convolution, and exact at
the borders.
"""

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FAINT = 1e-6  # weights below are left out


def separable(images: Tensor, rows: np.ndarray | None, columns: np.ndarray | None) -> Tensor:
    """Each channel X as rows · X · columnsᵀ.

    Args:
        images: (B, C, H, W) floating.
        rows: (h, H).
        columns: (w, W). None leaves that axis as it is.
    Returns:
        (B, C, h, w), of the dtype and on the device of `images`.
    """
    if columns is not None:
        images = images @ torch.as_tensor(columns.T, dtype=images.dtype, device=images.device)
    if rows is not None:
        images = torch.as_tensor(rows, dtype=images.dtype, device=images.device) @ images
    return images


def smooth(
    images: Tensor, sigma: float, *, border: str = "nearest", truncate: float = 4.0
) -> Tensor:
    """Gaussian smoothing of each channel.

    Args:
        images: (B, C, H, W) floating.
        sigma: standard deviation in pixels, >= 0; 0 changes nothing.
        border: what lies outside. "nearest" repeats the outermost pixel, "reflect" mirrors at the
            image's edge.
        truncate: where the kernel ends, in standard deviations.
    Returns:
        Like `images`.
    """
    sides = images.shape[2:]
    return separable(images, *(gaussian_matrix(side, sigma, border, truncate) for side in sides))


def correlate(images: Tensor, kernel: np.ndarray) -> Tensor:
    """The weighted sum over a small neighbourhood (a correlation), mirrored at the outermost
    pixels.

    Shifted copies are added up: for one kernel of a few pixels that is several times as fast as
        `conv2d` on a CPU.

    Args:
        images: (B, C, H, W) floating.
        kernel: (k, k), k odd, its middle the pixel itself.
    Returns:
        Like `images`.
    """
    height, width = images.shape[2:]
    padded, total = F.pad(images, (len(kernel) // 2,) * 4, mode="reflect"), torch.zeros_like(images)
    for (y, x), weight in np.ndenumerate(kernel):
        if abs(weight) > FAINT:
            total.add_(padded[..., y : y + height, x : x + width], alpha=float(weight))
    return total


@lru_cache(maxsize=64)
def gaussian_matrix(
    side: int, sigma: float, border: str = "nearest", truncate: float = 4.0
) -> np.ndarray:
    """(side, side) float64: the Gaussian filter of SciPy along one axis, borders folded in; every
    row sums to 1.
    """
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if radius else np.ones(1)
    places = np.arange(side)[:, None] + offsets
    if border == "reflect":
        places = places % (2 * side)
        places = np.minimum(places, 2 * side - 1 - places)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], places.clip(0, side - 1)), weights / weights.sum())
    return matrix


@lru_cache(maxsize=256)
def zoom_matrix(side: int, factor: float) -> np.ndarray:
    """(side, side) float64: the middle of an axis enlarged to its whole length, linearly
    interpolated.

    Source: `clipped_zoom` of make_cifar_c.py. A middle of ceil(side / factor) pixels becomes
    round(factor times that) by linear interpolation from its first to its last pixel (SciPy's
    `zoom`, order 1), of which the middle is kept.
    """
    short = math.ceil(side / factor)
    long = round(short * factor)
    first, trimmed = (side - short) // 2, (long - side) // 2
    places = (np.arange(side) + trimmed) * (short - 1) / (long - 1)
    below = np.floor(places).astype(int).clip(0, short - 2)
    matrix, index = np.zeros((side, side)), np.arange(side)
    matrix[index, first + below] = 1 - (places - below)
    matrix[index, first + below + 1] = places - below
    return matrix


@lru_cache(maxsize=64)
def box_matrix(side: int, new_side: int) -> np.ndarray:
    """(new_side, side) float64: Pillow's BOX filter along one axis: the mean of the pixels whose
    centres a new pixel covers, or the one pixel it lies in where it is the smaller one.
    """
    scale = side / new_side
    width = max(scale, 1.0)
    centres = (np.arange(new_side) + 0.5) * scale
    apart = (np.arange(side) + 0.5 - centres[:, None]) / width
    covered = ((apart > -0.5) & (apart <= 0.5)).astype(float)
    return covered / covered.sum(axis=1, keepdims=True)


def blur_along(images: Tensor, radius: int, sigma: float, angles: Tensor) -> Tensor:
    """Motion blur: each pixel the weighted mean of those that lie ahead of it in one direction, the
    nearest the most.

    Source: ImageMagick's motion blur, which make_cifar_c.py calls. Weights are exp(-i² / 2σ²), i =
    0 … 2·radius; the i-th pixel is i steps ahead, its place rounded to whole pixels; outside, the
    outermost pixel is repeated. Differs: weights below a millionth are left out.

    Args:
        images: (B, C, H, W) floating.
        radius: pixels, >= 0.
        sigma: > 0.
        angles: (B,) float, degrees: 0 looks right, 90 down.
    Returns:
        Like `images`, not rounded.
    """
    (height, width), steps = images.shape[2:], 2 * radius + 1
    weights = np.exp(-(np.arange(steps) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).tolist()
    ahead = _steps_ahead(angles.double().cpu(), steps, width + 2 * steps).to(images.device)
    padded = F.pad(images, (steps,) * 4, mode="replicate")
    starts = torch.arange(height * width, device=images.device)
    # of the image in the padded one
    starts = (starts // width + steps) * (width + 2 * steps) + starts % width + steps
    number = torch.arange(len(images), device=images.device)[:, None]
    starts = starts + number * padded[0, 0].numel()
    blurred: Tensor | float = 0.0
    pixels = as_rows(padded)
    for step, weight in enumerate(weights):
        if weight > FAINT:
            places = (starts + ahead[:, step, None]).view(-1)
            blurred = blurred + weight * pixels.index_select(0, places)
    return blurred.view(len(images), height, width, -1).permute(0, 3, 1, 2).contiguous()


def as_rows(images: Tensor) -> Tensor:
    """(B · H · W, C): one row per pixel, which makes fetching whole pixels several times as
    fast.
    """
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _steps_ahead(angles: Tensor, steps: int, stride: int) -> Tensor:
    """(B, steps) int64: how much further on in memory the pixel lies that is so many steps
    ahead.
    """
    walked = torch.arange(steps, dtype=torch.float64)
    right, down = (
        torch.ceil(walked * towards(torch.deg2rad(angles))[:, None] - 0.5).long()
        for towards in (torch.cos, torch.sin)
    )
    return down * stride + right
