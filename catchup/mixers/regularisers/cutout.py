"""Cutout: a square of every training image is blanked out.

DeVries & Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", arXiv
1708.04552 (2017).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Regulariser
from .seeds import generator


def holes(height: int, width: int, centres: Tensor, size: int) -> Tensor:
    """Where the squares lie: `size` pixels a side around their centres, cut off at the border.

    Args:
        height, width: of the images, in pixels.
        centres: (B, 2) integers, row and column. The square of an even size reaches one pixel
            further up and left.
        size: in pixels, ≥ 1; may exceed the image.
    Returns:
        bool (B, 1, height, width), True inside.
    """
    first = centres - size // 2
    rows, columns = (
        torch.arange(side, device=centres.device) - low[:, None]
        for side, low in ((height, first[:, 0]), (width, first[:, 1]))
    )
    inside = (rows >= 0) & (rows < size), (columns >= 0) & (columns < size)
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


@dataclass(frozen=True, kw_only=True)
class Cutout(Regulariser):
    """One square per image, its centre uniform over all pixels, so that part of it may fall outside
    (the paper's form).

    The square is filled with 0, which in normalised images is the mean colour of the data set.
    Mixing methods see the images with their squares, own and partner's alike, and the labels are
    not reweighted.

    Args:
        size: side of the square in pixels, ≥ 1; the paper's: 8 on CIFAR-100, 16 on CIFAR-10, 20 on
            SVHN.
        prob: probability that an image gets a square, in [0, 1]; 1 in the paper.
    """

    size: int = 8
    prob: float = 1.0

    title: ClassVar[str] = "Cutout"
    about: ClassVar[str] = (
        "images: a square of each set to the mean colour (DeVries & Taylor, 2017)"
    )

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size must be a whole number of at least 1 pixel, got {self.size!r}")
        if not 0 <= self.prob <= 1:
            raise ValueError(f"prob must lie in [0, 1], got {self.prob}")

    def images(self, images: Tensor, seed: int) -> Tensor:
        """Images (B, C, H, W) with their squares; ValueError for another shape."""
        if self.prob == 0:
            return images
        if images.ndim != 4:
            raise ValueError(f"cutout needs images (B, C, H, W), got {tuple(images.shape)}")
        batch, _, height, width = images.shape
        dice = torch.rand(batch, 3, generator=generator(seed, "cutout"), dtype=torch.float64)
        centres = (dice[:, :2] * torch.tensor([height, width])).long()
        # no square: one far outside
        away = torch.where(dice[:, 2] < self.prob, 0, height + width + self.size)
        centres = (centres + away[:, None]).to(images.device, non_blocking=True)
        # masked_fill would lose channels_last
        return torch.where(holes(height, width, centres, self.size), 0, images)
