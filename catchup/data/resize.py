"""Random resized crops of a whole batch: a box of random size and shape in each image, brought to
one size.

Source: the box is drawn as Szegedy et al. describe it ("Going deeper with convolutions", CVPR 2015,
section 6) in torchvision's form (ten tries, then the centre). Its resampling is antialiased, as
PIL's: the filter grows with the box. Resampling is linear and separable, so each image is two
matrix products with weights that are made for the whole batch.

Where it misleads: the protocols cut their boxes out of the original photograph. Here the stored
image is what `load` keeps, and an ImageNet photograph has been cut to its centre square by then.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..utils.choices import pick

# how far each filter reaches, in pixels of the result
INTERPOLATIONS = {"bilinear": 1.0, "bicubic": 2.0}
TRIES = 10  # boxes drawn for each image until one fits


@dataclass(frozen=True)
class ResizedCrop:
    """What may be cut out of an image before it is brought to the network's size.

    Args:
        scale: bounds of the box's share of the image's area, 0 < low <= high <= 1; drawn uniformly.
        ratio: bounds of width / height of the box, 0 < low <= high; uniform on a logarithmic scale.
        interpolation: "bilinear" or "bicubic", both antialiased.
    Raises:
        ValueError: if the bounds are not so or the interpolation is unknown.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(
                "the scale of a resized crop is two shares of the area, 0 < low <= high <= 1, "
                f"got {self.scale}"
            )
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ValueError(
                f"the ratio of a resized crop is two numbers, 0 < low <= high, got {self.ratio}"
            )
        pick("interpolation", self.interpolation, INTERPOLATIONS)


class BoxDraw(NamedTuple):
    """A box in each image of a batch, on the CPU; all (B,) int64, in pixels, inside the image."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_boxes(
    batch: int, size: tuple[int, int], crop: ResizedCrop, generator: torch.Generator
) -> BoxDraw:
    """A box for each of `batch` images of `size` (H, W), from a CPU `generator`.

    Ten times area and shape are drawn, and the first box that fits is placed uniformly; where none
    fits it is the largest box in the centre whose shape is within `crop.ratio`.
    """
    high, wide = size
    share, shape, top, left = torch.rand(4, batch, TRIES, dtype=torch.float64, generator=generator)
    area = high * wide * (crop.scale[0] + share * (crop.scale[1] - crop.scale[0]))
    low = math.log(crop.ratio[0])
    ratio = (low + shape * (math.log(crop.ratio[1]) - low)).exp()
    height, width = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
    fits = (height > 0) & (height <= high) & (width > 0) & (width <= wide)
    first = (~fits).long().cumprod(1).sum(1)  # TRIES where none fits
    top = (top * (high - height + 1)).floor().long()
    left = (left * (wide - width + 1)).floor().long()
    drawn = torch.stack([top, left, height, width])
    taken = drawn.gather(2, first.clamp(max=TRIES - 1).expand(4, -1)[..., None])[..., 0]
    centre = torch.tensor(_centre_box(size, crop.ratio))
    return BoxDraw(*torch.where(first < TRIES, taken, centre[:, None]))


def crop_and_resize(
    pixels: Tensor, draw: BoxDraw, size: tuple[int, int], interpolation: str = "bilinear"
) -> Tensor:
    """The boxes of `draw`, cut out and brought to `size`; deterministic.

    Args:
        pixels: (B, C, H, W) uint8.
        draw: boxes of B images, inside them.
        size: height and width of the result, >= 1.
        interpolation: "bilinear" or "bicubic" (Keys, a = -0.5), antialiased; what lies outside the
            box counts nothing.
    Returns:
        (B, C, *size) uint8 on the device of `pixels`, within 2 of PIL's. A box of `size` is
        returned as it is.
    Raises:
        ValueError: if the interpolation is unknown.
    """
    reach = INTERPOLATIONS[pick("interpolation", interpolation, INTERPOLATIONS)]
    top, left, height, width = (part.to(pixels.device, non_blocking=True) for part in draw)
    rows = _weights(top, height, pixels.shape[2], size[0], reach)
    columns = _weights(left, width, pixels.shape[3], size[1], reach)
    # PIL too rounds between the two axes
    across = _round_to_bytes(pixels.float() @ columns[:, None].transpose(2, 3))
    return _round_to_bytes(rows[:, None] @ across).to(torch.uint8)


def _round_to_bytes(values: Tensor) -> Tensor:
    """Rounded, and within what a byte holds: bicubic weights are negative in places."""
    return values.round_().clamp_(0, 255)


def _weights(start: Tensor, length: Tensor, side: int, wanted: int, reach: float) -> Tensor:
    """(B, wanted, side): what each of `side` pixels gives to each of the `wanted` ones; sums to
    1.
    """
    start, length = start[:, None, None].float(), length[:, None, None].float()
    scale = length / wanted
    form = {"device": start.device, "dtype": torch.float32}
    index, place = (torch.arange(n, **form) for n in (wanted, side))
    centre = start + scale * (index[None, :, None] + 0.5)
    distance = ((place + 0.5 - centre) / scale.clamp(min=1)).abs()
    inside = (place >= start) & (place < start + length)
    weights = (_triangle(distance) if reach == 1 else _keys(distance)) * inside
    return weights / weights.sum(2, keepdim=True)


def _triangle(distance: Tensor) -> Tensor:
    """The filter of bilinear resampling."""
    return (1 - distance).clamp(min=0)


def _keys(distance: Tensor, a: float = -0.5) -> Tensor:
    """The filter of bicubic resampling (Keys, 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance < 1, near, far.where(distance < 2, torch.zeros_like(far)))


def _centre_box(size: tuple[int, int], ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the largest box in the centre whose width / height lies in
    `ratio`.
    """
    high, wide = size
    height = min(high, round(wide / ratio[0]))
    width = min(wide, round(high * ratio[1]))
    return (high - height) // 2, (wide - width) // 2, height, width
