"""SaliencyMix: CutMix whose box is centred where the partner's image stands out most, not at
random.

Uddin, Monira, Shin, Chung & Bae, "SaliencyMix: A Saliency Guided Data Augmentation Strategy for
Better Regularization", ICLR 2021 (arXiv 2006.01791). The saliency is the paper's choice,
`fine_grained_saliency`: no pass through the model.

Differs from the release:
- it looks for the peak in one image per batch and cuts the same box from all; the paper describes
  it for a pair, so that each source has its own (`per_image=False` does what the release does);
- it hands OpenCV the normalised float image, which OpenCV addresses as bytes; here the image is
  brought to 256 grey levels first.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .base import BetaMixer
from .draw import Draw, Mixed
from .parts.boxes import boxes_around, outside
from .parts.saliency import fine_grained_saliency


def peaks(saliency: Tensor, otherwise: tuple[int, int]) -> Tensor:
    """Where each map is highest.

    Args:
        saliency: (B, H, W).
        otherwise: row and column for maps that single out no pixel: constant ones.
    Returns:
        (B, 2) int64, row and column; the first in reading order where several are equal.
    """
    height, width = saliency.shape[1:]
    flat = saliency.flatten(1)
    highest = torch.where(
        flat.amax(dim=1) > flat.amin(dim=1), flat.argmax(dim=1), otherwise[0] * width + otherwise[1]
    )
    return torch.stack([highest // width, highest % width], dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class SaliencyMix(BetaMixer):
    """One λ per batch; each image takes from its partner the box around the partner's most salient
    pixel, in place.

    The label weight is the area really kept, which clipping makes ≥ λ. An image without salient
    pixels (constant, or with values that are not finite) lends a box at a random place, as in
    CutMix.

    Args:
        alpha: λ ~ Beta(alpha, alpha), > 0; 1 in its paper, where it is called β.
        per_image: every partner has a box of its own, as the paper describes it. False: the first
            pair's box serves the whole batch, as in its release.
        prob: 0.5 in its paper on CIFAR, 1.0 on ImageNet.
        criterion, seed: as for every mixer.
    """

    prob: float = 0.5
    per_image: bool = True

    planar: ClassVar[bool] = True
    title: ClassVar[str] = "SaliencyMix"
    about: ClassVar[str] = (
        "input: the partner's most salient rectangle pasted in (Uddin et al., ICLR 2021)"
    )

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W) with their partners' boxes; share (B,), `keep` (B, 1, H, W), of one
        box (1, 1, H, W).
        """
        height, width = maps.shape[-2:]
        other = maps[draw.partner.to(maps.device, non_blocking=True)]
        row, column = np.random.default_rng(draw.seed).random(2)
        saliency = fine_grained_saliency(other if self.per_image else other[:1])
        centre = peaks(saliency, (int(row * height), int(column * width)))
        keep = outside(boxes_around(centre, height, width, draw.lam), height, width)
        own_weight = keep.float().mean(dim=(1, 2, 3)).expand(len(maps))
        return Mixed(torch.where(keep, maps, other), own_weight, keep)
