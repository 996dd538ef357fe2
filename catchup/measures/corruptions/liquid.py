"""Spatter: drops of water with lit rims, or mud.

Source: Hendrycks & Dietterich, ICLR 2019; numbers and formulas of make_cifar_c.py, which builds the
rims out of four functions of OpenCV. They are written here for a whole batch, from OpenCV's
documented definitions: Canny's edges, the chamfer distance of Borgefors (1986), the evened
histogram, and small filters mirrored at the outermost pixels.
"""

from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .base import colour_like, constant_of, floor_levels, normal
from .filters import correlate, smooth

WATER, MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)
LOW, HIGH = 50, 150  # Canny's thresholds
FARTHEST = 20  # pixels; distances end there
CHAMFER = {  # length of a step and where it leads, down and right; whole 65536ths, as OpenCV counts
    1.0: ((0, 1), (0, -1), (1, 0), (-1, 0)),
    round(1.4 * 2**16) / 2**16: ((1, 1), (1, -1), (-1, 1), (-1, -1)),
    round(2.1969 * 2**16) / 2**16: (
        *((1, 2), (1, -2), (-1, 2), (-1, -2)),
        *((2, 1), (2, -1), (-2, 1), (-2, -1)),
    ),
}
RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])  # lit from the lower right
MEAN = np.ones((3, 3))  # over 9


def spatter(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Smoothed noise above a threshold is liquid: pale water with lit rims (severity 1 to 3), mud
    (4 and 5).

    Where no pixel is above the threshold, as happens on small images, nothing is changed; the
    authors' code divides by zero there and makes a black image.
    """
    mean, deviation, *rest = constant_of("spatter", images, severity, generator)
    drawn = mean + deviation * normal((len(images), 1, *images.shape[2:]), generator, images.device)
    return apply_spatter(images, drawn, tuple(rest))


def apply_spatter(images: Tensor, drawn: Tensor, constants: tuple[float, ...]) -> Tensor:
    """What `spatter` does once chance has decided.

    Args:
        images: (B, C, H, W) float32 in [0, 1].
        drawn: (B, 1, H, W) float32, any values.
        constants: sigma and threshold of the liquid; opacity of water or sigma of mud; 1 for mud.
    """
    sigma, threshold, strength, mud = constants
    liquid = smooth(drawn, sigma)
    if mud:
        cover = smooth((liquid > threshold).to(images.dtype), strength)
        cover = torch.where(cover < 0.8, 0.0, cover)
        return (images * (1 - cover) + colour_like(MUD, images) * cover).clamp_(0, 1)
    levels = floor_levels(torch.where(liquid < threshold, 0.0, liquid)) % 256
    lit = levels * rims(levels)
    # both are whole numbers: 1 or more, or all are 0
    lit = lit / lit.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    return (images + strength * lit * colour_like(WATER, images)).clamp_(0, 1)


def rims(levels: Tensor) -> Tensor:
    """(B, 1, H, W) whole numbers in [0, 255]: a relief of the distance to the edges of the drops.

    Args:
        levels: (B, 1, H, W) float32, whole numbers in [0, 255].
    """
    # sums of 16 binary places: exact in float32
    distance = correlate(chamfer(canny(levels)), MEAN) / 9
    raised = equalise(distance.floor().long().flatten(1)).view_as(levels)
    relief = correlate(raised.to(levels.dtype), RELIEF).clamp_(0, 255)
    return (correlate(relief, MEAN) / 9).round()


def canny(levels: Tensor) -> Tensor:
    """Edges of eight-bit images: where the gradient is largest across the edge and large, or joined
    to such a place.

    Source: Canny, PAMI 1986, as OpenCV does it: Sobel's derivatives, |dx| + |dy| for the size of
    the gradient, its direction in four sectors, thresholds 50 and 150.

    Args:
        levels: (B, 1, H, W) float32, whole numbers in [0, 255].
    Returns:
        Bool, (B, 1, H, W).
    """
    right, down = _sobel(levels)
    size = right.abs() + down.abs()
    around = F.pad(size, (1,) * 4)
    kept = (size > LOW) & _crest(right, down, size, around)
    edges, strong = kept & (size > HIGH), None
    # weak places join strong ones, ring by ring
    while strong is None or not torch.equal(edges, strong):
        strong = edges
        edges = kept & (F.max_pool2d(strong.to(levels.dtype), 3, 1, 1) > 0)
    return edges


def _sobel(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives to the right and down, the outermost pixels repeated."""
    padded = F.pad(levels, (1,) * 4, mode="replicate")
    across, along = padded[..., 2:] - padded[..., :-2], padded[..., 2:, :] - padded[..., :-2, :]
    return (
        across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :],
        along[..., :-2] + 2 * along[..., 1:-1] + along[..., 2:],
    )


def _crest(right: Tensor, down: Tensor, size: Tensor, around: Tensor) -> Tensor:
    """Where the gradient is larger than on the one side and not smaller than on the other
    (diagonally: larger).
    """
    height, width = size.shape[2:]

    def beside(y: int, x: int) -> Tensor:
        return around[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width]

    flat, steep = right.abs().int(), down.abs().int()
    level = steep * 2**15 < flat * 13573  # 13573 / 2^15 is OpenCV's tangent of 22.5 degrees
    upright = steep * 2**15 > flat * (13573 + 2**16)
    falling = (right < 0) == (down < 0)
    across = (size > beside(0, -1)) & (size >= beside(0, 1))
    along = (size > beside(-1, 0)) & (size >= beside(1, 0))
    rising = (size > beside(-1, -1)) & (size > beside(1, 1))
    other = (size > beside(-1, 1)) & (size > beside(1, -1))
    return torch.where(
        level, across, torch.where(upright, along, torch.where(falling, rising, other))
    )


def chamfer(edges: Tensor) -> Tensor:
    """Distance of every pixel to the nearest edge by steps of 1, 1.4 and 2.1969 (knight's moves),
    at most 20.

    Source: Borgefors, CVGIP 1986, and OpenCV's distanceTransform with DIST_L2 and a mask of 5.

    Args:
        edges: bool (B, 1, H, W).
    Returns:
        float32, (B, 1, H, W).
    """
    distance = torch.where(edges, 0.0, float(FARTHEST))
    changing = torch.arange(len(edges), device=edges.device)
    while len(changing):
        before = distance[changing]
        after = _nearer(before)
        distance[changing] = after
        changing = changing[(after < before).flatten(1).any(dim=1)]
    return distance


def _nearer(distance: Tensor) -> Tensor:
    """The least of each pixel's distance and those of its sixteen neighbours with the step between;
    a new tensor.
    """
    height, width = distance.shape[2:]
    padded = F.pad(distance, (2,) * 4, value=float(FARTHEST))
    inner = padded[..., 2 : 2 + height, 2 : 2 + width]
    for length, places in CHAMFER.items():
        corners = [(2 + down, 2 + right) for down, right in places]
        beside = [padded[..., y : y + height, x : x + width] for y, x in corners]
        torch.minimum(inner, reduce(torch.minimum, beside) + length, out=inner)
    return inner


def equalise(values: Tensor) -> Tensor:
    """Each row with its histogram evened, the smallest value becoming 0; a row of one value stays
    as it is.

    Source: OpenCV's equalizeHist.

    Args:
        values: (B, n) int64 in [0, 255].
    Returns:
        (B, n) int64 in [0, 255].
    """
    counts = F.one_hot(values, int(values.max()) + 1).sum(dim=1)
    smallest = counts.gather(1, values.amin(dim=1, keepdim=True))
    rest = (values.shape[1] - smallest).float()
    above = (counts.cumsum(dim=1) - smallest).clamp_min(0).float()
    table = (above * (255 / rest.clamp_min(1))).round().clamp_(0, 255).long()
    return torch.where(rest > 0, table.gather(1, values), values)
