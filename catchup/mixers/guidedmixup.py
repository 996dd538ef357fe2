"""GuidedMixup: pairs whose salient regions lie apart, mixed pixel by pixel in the ratio of their
saliency.

Kang & Kim, "GuidedMixup: An Efficient Mixup Strategy Guided by Saliency Maps", AAAI 2023 (arXiv
2306.16612), with the release (3neutronstar/GuidedMixup) for what the paper leaves open. Nothing in
it is drawn but whether to mix and, where pairs are random, with whom: λ is not used.

Differs from the release:
- an image without saliency counts as equally salient everywhere; the release divides by 0;
- only sides longer than 128 pixels are shrunk to 128, and smoothed for it; the release shrinks both
  sides as soon as the height is longer;
- amplitudes have a floor relative to the largest, where the release adds 1e-10 to their squares;
- the saliency pass of "ap" is made in evaluation mode, in the release in training mode;
- the default criterion is "ce"; the release for CIFAR trains with "bce_softmax".
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..utils.choices import pick
from .base import Mixer
from .draw import Draw, Mixed
from .parts.partners import of_partners
from .parts.saliency import blur, gradient_saliency, spectral_residual, sum_to_one


def greedy_cycle(distance: np.ndarray) -> np.ndarray:
    """Everyone's partner, all in one cycle: from image to image, each time the farthest not yet
    visited.

    Source: the paper's greedy pairing. The cycle starts at one of the two images that lie farthest
    apart, and the last image gets the first as its partner. One step after the other, B of them,
    each a maximum over a row of the matrix.

    Args:
        distance: (B, B) finite, symmetric; the diagonal is not looked at. Not changed.
    Returns:
        (B,) int64, a permutation of one cycle: for B ≥ 2 nobody is their own partner. Ties go to
        the lower index.
    """
    far = distance.copy()
    np.fill_diagonal(far, -np.inf)
    partner = np.empty(len(far), dtype=np.int64)
    first = now = min(divmod(int(far.argmax()), len(far)))
    for _ in range(len(far) - 1):
        far[:, now] = -np.inf
        partner[now] = far[now].argmax()
        now = partner[now]
    partner[now] = first
    return partner


def greedy_partners(saliency: Tensor) -> Tensor:
    """Pairs whose saliency maps are far apart in the l2 norm, by `greedy_cycle`. Waits for the
    device once.

    Args:
        saliency: (B, H, W) float32 or float64, finite.
    Returns:
        (B,) int64 on the CPU, a permutation of one cycle.
    """
    flat = saliency.flatten(1)
    with torch.autocast(flat.device.type, enabled=False):
        return torch.from_numpy(greedy_cycle(torch.cdist(flat, flat).cpu().numpy()))


def saliency_mask(own: Tensor, other: Tensor) -> Tensor:
    """Each image's share of each pixel: s_a / (s_a + s_b).

    Args:
        own, other: saliency of the image and of its partner, (B, H, W) floating, ≥ 0, each
            normalised (`sum_to_one`).
    Returns:
        (B, H, W) in [0, 1]; 1/2 where both are 0.
    """
    total = own + other
    return torch.where(total > 0, own / total, 0.5)


@dataclass(frozen=True, kw_only=True, eq=False)
class GuidedMixup(Mixer):
    """GuidedMixup-SR and -AP: pixels mixed in the ratio of the images' saliency, blurred 7×7 with σ
    3, sum one. As in the release the spectral residual is blurred twice, before images of more than
    128 pixels are enlarged to their size and after.

    The label weight of an image is the mean of its mask. Pairs are looked up with the saliency, so
    `draw.partner` counts only where `pairing="random"`; `draw.lam` never does. Saliency is taken of
    the images as they are given, normalised per channel. An image without saliency counts as
    equally salient everywhere.

    Args:
        saliency: "sr", the spectral residual of the image (`spectral_residual`), or "ap", the
            gradient of the loss in its pixels (`gradient_saliency`, in evaluation mode): one more
            forward and backward pass.
        pairing: "greedy", in one cycle the farthest by the l2 distance of the maps (the paper's),
            or "random".
        prob: 0.5 in the release's commands for "sr"; for "ap" it is 0.8 there.
        criterion, seed: as for every mixer.
    """

    saliency: Literal["sr", "ap"] = "sr"
    pairing: Literal["greedy", "random"] = "greedy"
    prob: float = 0.5

    planar: ClassVar[bool] = True
    title: ClassVar[str] = "GuidedMixup"
    about: ClassVar[str] = (
        "input: pixels by the ratio of saliency, pairs far apart (Kang & Kim, AAAI 2023)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("saliency", self.saliency, ("sr", "ap"))
        pick("pairing", self.pairing, ("greedy", "random"))
        if self.saliency == "ap":
            # the class's (1, 1) is the spectral residual's
            object.__setattr__(self, "passes", (2, 2))

    def plan(self, model: nn.Module, images: Tensor, labels: Tensor, draw: Draw) -> Draw:
        """The draw with `extra["saliency"]`, (B, H, W), sums 1, and the partners that go with
        it.
        """
        if self.saliency == "sr":
            maps = blur(spectral_residual(images), (images.shape[2], images.shape[3]))
        else:
            maps = blur(gradient_saliency(model, images, labels, self.criterion))
        maps = sum_to_one(maps)
        partner = greedy_partners(maps) if self.pairing == "greedy" else draw.partner
        return replace(draw, partner=partner, extra={"saliency": maps})

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W), every pixel in the ratio of the pair's saliency there."""
        if "saliency" not in draw.extra:
            raise ValueError("the draw has no saliency to mix by: complete it with plan() first")
        partner, saliency = draw.partner.to(maps.device, non_blocking=True), draw.extra["saliency"]
        mask = saliency_mask(saliency, saliency[partner])
        mixed = torch.lerp(of_partners(maps, partner), maps, mask[:, None].to(maps.dtype))
        return Mixed(mixed, mask.mean(dim=(1, 2)))
