"""ResizeMix: the whole partner image, made small, is pasted somewhere into each image; labels
weighted by the area.

Qin, Fang, Zhang, Liu, Wang & Wang, "ResizeMix: Mixing Data with Preserved Object Information and
True Labels", 2020 (arXiv 2012.11101). As in its release the size is drawn once per batch and the
place for each image.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.choices import pick
from .base import Mixer
from .draw import Draw, Mixed
from .parts.boxes import outside

INTERPOLATIONS = ("nearest", "bilinear")


def small_size(height: int, width: int, lam: float) -> tuple[int, int]:
    """Height and width in pixels of the small image: τ = √(1 − λ) times the large one's, rounded
    down.

    At least one pixel for λ < 1, where the release would fail; (0, 0) for λ = 1.
    """
    if lam == 1:
        return 0, 0
    # 1 − (1 − τ²) may come out a little too small: a whole number must not fall below itself
    tau = math.sqrt(1 - lam)
    return max(int(tau * height + 1e-6), 1), max(int(tau * width + 1e-6), 1)


def random_corners(
    batch: int, free: tuple[int, int], small: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Top left corners, (batch, 2) int64: centres uniform over the image's pixels, boxes then moved
    inside.

    Boxes at the border are thus more frequent than others, as in the release.

    Args:
        batch: number of images.
        free: rows and columns a corner can move, image side − small side, each ≥ 0.
        small: height and width of the box.
        rng: where the places come from.
    """
    centres = rng.integers(np.add(free, small), size=(batch, 2))
    return (centres - np.array(small) // 2).clip(0, free)


def paste(maps: Tensor, small: Tensor, corners: Tensor) -> Tensor:
    """A copy of the images with a small one pasted into each.

    Args:
        maps: (B, C, H, W). small: (B, C, h, w), same dtype and device, h ≤ H, w ≤ W.
        corners: (B, 2) int64 on that device, top left corner of the box in each image, inside it.
    Returns:
        (B, C, H, W) like `maps`, memory format too; differentiable in `maps` and `small`.
    """
    height, width = small.shape[-2:]
    rows, columns = (
        corner[:, None] + torch.arange(side, device=maps.device)
        for corner, side in zip(corners.unbind(dim=1), (height, width))
    )
    image = torch.arange(len(maps), device=maps.device)
    mixed = maps.clone()
    mixed[image[:, None, None], :, rows[:, :, None], columns[:, None, :]] = small.permute(
        0, 2, 3, 1
    )
    return mixed


@dataclass(frozen=True, kw_only=True, eq=False)
class ResizeMix(Mixer):
    """One size per batch, one place per image; the partner's label weighs as much as its small
    image covers.

    Differs from the release: images are resized to a size in whole pixels, there by the factor τ
    (`scale_factor`), whose nearest pixels are others in 14 % of the places; a small image has at
    least one pixel.

    Args:
        scope: τ ~ U(scope), the side of the pasted image as a share of the image's, 0 < low ≤ high
            ≤ 1; (0.1, 0.8) in its paper. The draw stores λ = 1 − τ².
        interpolation: "nearest" (its release's) or "bilinear", without antialiasing.
        prob: 1.0 in its paper: always applied.
        criterion, seed: as for every mixer.
    """

    scope: tuple[float, float] = (0.1, 0.8)
    interpolation: Literal["nearest", "bilinear"] = "nearest"

    planar: ClassVar[bool] = True
    title: ClassVar[str] = "ResizeMix"
    about: ClassVar[str] = "input: the whole partner, made small, pasted in (Qin et al., 2020)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.scope) != 2 or not 0 < self.scope[0] <= self.scope[1] <= 1:
            raise ValueError(
                f"scope must be two shares of the side, 0 < low ≤ high ≤ 1, got {self.scope}"
            )
        pick("interpolation", self.interpolation, INTERPOLATIONS)

    def draw_lam(self, layer: int, rng: np.random.Generator) -> float:
        """λ = 1 − τ², τ ~ U(scope)."""
        return 1 - float(rng.uniform(*self.scope)) ** 2

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W), each with its partner pasted in at a place of `draw.seed`; `keep` is
        (B, 1, H, W).
        """
        batch, height, width = len(maps), *maps.shape[-2:]
        side = small_size(height, width, draw.lam)
        free = (height - side[0], width - side[1])
        corners = torch.from_numpy(
            random_corners(batch, free, side, np.random.default_rng(draw.seed))
        )
        corners = corners.to(maps.device, non_blocking=True)
        top, left = corners.unbind(dim=1)
        own_weight = 1 - side[0] * side[1] / (height * width)
        keep = outside((top, top + side[0], left, left + side[1]), height, width)
        if own_weight == 1:
            return Mixed(maps.clone(), own_weight, keep)
        small = F.interpolate(maps, size=side, mode=self.interpolation)
        return Mixed(
            paste(maps, small[draw.partner.to(maps.device, non_blocking=True)], corners),
            own_weight,
            keep,
        )
