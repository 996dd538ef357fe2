"""CutMix: a rectangle of each image is replaced by its partner's, labels weighted by the area.

Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
ICCV 2019.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .base import BetaMixer
from .draw import Draw, Mixed


def cut_box(
    height: int, width: int, lam: float, centre: tuple[float, float]
) -> tuple[int, int, int, int]:
    """The rectangle to replace: sides √(1 − λ) of the image's, clipped at its border.

    Args:
        height, width: of the image, in pixels.
        lam: λ in [0, 1].
        centre: (y, x) of the box as shares of height and width, each in [0, 1).
    Returns:
        (top, bottom, left, right) in pixels, bottom and right exclusive.
    """
    half = 0.5 * math.sqrt(1 - lam)
    y, x, half_h, half_w = (
        int(centre[0] * height),
        int(centre[1] * width),
        int(half * height),
        int(half * width),
    )
    return max(y - half_h, 0), min(y + half_h, height), max(x - half_w, 0), min(x + half_w, width)


@dataclass(frozen=True, kw_only=True, eq=False)
class CutMix(BetaMixer):
    """One λ and one box per batch; the label weight is the area really kept (clipping makes it ≥
    λ).

    Differs from the release: every step mixes by default (prob), where it mixes half of them on
    CIFAR; `CutMix.published("cifar100")` has its setting.

    Args:
        alpha: λ ~ Beta(alpha, alpha), > 0; 1.0 in its paper.
        prob: 1.0 in its paper on ImageNet, 0.5 on CIFAR (its released commands).
        criterion, seed: as for every mixer.
    """

    title: ClassVar[str] = "CutMix"
    about: ClassVar[str] = "input: a rectangle of the partner pasted in (Yun et al., ICCV 2019)"

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W) with the box of `draw.seed` taken from the partner."""
        partner = draw.partner.to(maps.device, non_blocking=True)
        height, width = maps.shape[-2:]
        centre = tuple(np.random.default_rng(draw.seed).random(2))
        top, bottom, left, right = cut_box(height, width, draw.lam, centre)
        mixed = maps.clone()
        mixed[..., top:bottom, left:right] = maps[..., top:bottom, left:right][partner]
        keep = torch.ones(1, 1, height, width, dtype=torch.bool, device=maps.device)
        keep[..., top:bottom, left:right] = False
        return Mixed(mixed, 1 - (bottom - top) * (right - left) / (height * width), keep)
