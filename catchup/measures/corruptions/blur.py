"""The five blurs.

Source: Hendrycks & Dietterich, ICLR 2019; numbers and formulas of make_cifar_c.py. Each takes (B,
C, H, W) float32 images in [0, 1], a severity from 1 to 5 and a CPU generator, and returns such
images, see `catchup.measures.corruptions`.
"""

from collections import Counter
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .base import constant_of, round_levels, uniform
from .filters import as_rows, blur_along, correlate, separable, smooth, zoom_matrix


def gaussian_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Gaussian smoothing, to four standard deviations, the outermost pixels repeated; no chance."""
    sigma = constant_of("gaussian_blur", images, severity, generator)
    return smooth(images, sigma).clamp_(0, 1)


def defocus_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """The mean over a disk with softened edge, mirrored at the outermost pixels; no chance."""
    radius, softness = constant_of("defocus_blur", images, severity, generator)
    return correlate(images, disk(radius, softness)).clamp_(0, 1)


@lru_cache
def disk(radius: float, softness: float) -> np.ndarray:
    """(k, k) float64, sum 1: pixels whose centres lie within `radius`, smoothed by a Gaussian cut
    to 3 x 3 pixels.

    Args:
        radius: pixels, at most 8; below 1 it is one pixel.
        softness: standard deviation, > 0, pixels.
    """
    reach = int(radius)
    axis = np.arange(-reach, reach + 1)
    inside = (axis**2 + axis[:, None] ** 2 <= radius**2).astype(float)
    edge = np.exp(-(np.array([-1, 0, 1]) ** 2) / (2 * softness**2))
    edge /= edge.sum()
    large = np.pad(inside / inside.sum(), 2)
    inner = len(large) - 2
    rows = sum(weight * large[k : k + inner] for k, weight in enumerate(edge))
    return sum(weight * rows[:, k : k + inner] for k, weight in enumerate(edge))


def glass_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Smoothed, cut to whole levels, every pixel replaced by one of its neighbours, and smoothed
    again.

    The authors' code means to swap neighbours, but exchanges two views of one array: the pixel is
    overwritten and its neighbour stays as it was. The published arrays are made so, and so are
    these. As the neighbour lies above, to the left, or is the pixel itself, and pixels are visited
    from the last to the first, every copy reads what the round
    began with: a round is one gather, whatever its order. The first two rows and columns are never
        replaced.
    """
    sigma, _, rounds = constant_of("glass_blur", images, severity, generator)
    # the kernel's ends move values by millionths: in float64
    levels = smooth(round_levels(255 * images).double(), sigma)
    blurred = (levels + 1e-9).floor_().to(images.dtype) / 255
    height, width = images.shape[2:]
    for _ in range(rounds):
        # up, left
        steps = torch.randint(0, 2, (2, len(images), height - 2, width - 2), generator=generator)
        blurred = swap_pixels(blurred, *steps.to(images.device))
    return smooth(blurred, sigma).clamp_(0, 1)


def swap_pixels(images: Tensor, up: Tensor, left: Tensor) -> Tensor:
    """Each pixel (h, w), h and w >= 2, replaced by the one at (h − up, w − left).

    Args:
        images: (B, C, H, W).
        up, left: (B, H − 2, W − 2) int64, 0 or 1.
    """
    batch, _, height, width = images.shape
    index = torch.arange(batch * height * width, device=images.device).view(batch, height, width)
    index[:, 2:, 2:] -= up * width + left
    fetched = as_rows(images).index_select(0, index.view(-1))
    return fetched.view(batch, height, width, -1).permute(0, 3, 1, 2).contiguous()


def motion_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """The camera moves in a direction between −45° and 45°, one for each image; rounded to eight
    bits.
    """
    radius, sigma = constant_of("motion_blur", images, severity, generator)
    angles = uniform((len(images),), generator, images.device, -45, 45)
    return round_levels(255 * blur_along(images, radius, sigma, angles)).clamp_(0, 255) / 255


def zoom_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """The mean of the image and of itself enlarged by 1, 1.01, 1.02, …; no chance."""
    end = constant_of("zoom_blur", images, severity, generator)
    factors = np.arange(1, end, 0.01)  # this call, floating-point ends and all, is the definition
    total = images.clone()
    for matrices, times in _count_zooms(factors, *images.shape[2:]).items():
        rows, columns = map(zoom_matrix, images.shape[2:], matrices)
        total += separable(images, times * rows, columns)
    return (total / (len(factors) + 1)).clamp_(0, 1)


def _count_zooms(factors: np.ndarray, height: int, width: int) -> Counter:
    """How often each pair of zooms (of the rows, of the columns) occurs: the small factors round to
    the same one.
    """
    kept: dict[tuple, float] = {}

    def first(side: int, factor: float) -> float:
        return kept.setdefault((side, zoom_matrix(side, factor).tobytes()), factor)

    return Counter((first(height, factor), first(width, factor)) for factor in factors.tolist())
