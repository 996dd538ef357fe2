"""SnapMix: a box of each image gives way to a resized box of its partner's; labels are weighted by
what the boxes mean.

Huang, Wang & Tao, "SnapMix: Semantically Proportional Mixing for Augmenting Fine-grained Data",
AAAI 2021 (arXiv 2012.04846), with their release (Shaoli-Huang/SnapMix) where the paper leaves
something open. How much of a label lies in a box is read off the class activation map (CAM; Zhou et
al., CVPR 2016) of the image's own label: the share its box loses and the share the partner's box
brings need not add up to one.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hooks.blocks import remembered_blocks, submodule
from ..hooks.class_maps import class_activation_map, pooled_maps
from ..hooks.classifier import find_classifier
from ..hooks.layers import evaluating
from ..utils.choices import pick
from .base import BetaMixer
from .checks import check_logits
from .cutmix import cut_box
from .draw import Draw, Mixed
from .target import Target

Box = tuple[int, int, int, int]  # top, bottom, left, right in pixels, bottom and right exclusive


def semantic_percent_map(cam: Tensor, height: int, width: int) -> Tensor:
    """SPM: the CAM enlarged to the image (bilinear), its lowest value subtracted, divided by its
    sum.

    The paper divides the CAM by its sum; its release first subtracts the minimum, so that no share
    is negative.

    Args:
        cam: (B, h, w) floating. height, width: of the image, in pixels.
    Returns:
        (B, height, width) ≥ 0, sums 1. Uniform where the CAM is constant (all zero, one pixel) or
        not finite.
    """
    # before, too: else rounding of a constant looks like shares
    cam = cam - cam.amin(dim=(1, 2), keepdim=True)
    spread = F.interpolate(
        cam[:, None], size=(height, width), mode="bilinear", align_corners=False
    )[:, 0]
    spread = spread - spread.amin(dim=(1, 2), keepdim=True)
    total = spread.sum(dim=(1, 2), keepdim=True)
    says = total.isfinite() & (total > torch.finfo(cam.dtype).tiny)
    return torch.where(says, spread / total, 1 / (height * width))


def box_mass(spm: Tensor, box: Box) -> Tensor:
    """The share of each image's label that lies in the box: the sum of its SPM there; ρ_b, and 1 −
    ρ_a.

    Args:
        spm: (B, H, W), sums 1. box: (top, bottom, left, right) in pixels.
    Returns:
        (B,) in [0, 1].
    """
    top, bottom, left, right = box
    # sums in float may pass 1 by a rounding
    return spm[:, top:bottom, left:right].sum(dim=(1, 2)).clamp(0, 1)


def paste_resized(maps: Tensor, partner: Tensor, own: Box, theirs: Box) -> Tensor:
    """Each image with the box `own` covered by its partner's box `theirs`, resized to fit.

    Bilinear, the corners of the two boxes on each other (`align_corners`), as in the release.

    Args:
        maps: images (B, C, H, W) floating. partner: (B,) int64 on their device.
        own, theirs: boxes (top, bottom, left, right) of at least one pixel.
    Returns:
        A new tensor like `maps`, dtype and memory format kept; differentiable in `maps`.
    """
    top, bottom, left, right = theirs
    patch = maps[..., top:bottom, left:right][partner]
    top, bottom, left, right = own
    patch = F.interpolate(
        patch.to(torch.promote_types(maps.dtype, torch.float32)),
        size=(bottom - top, right - left),
        mode="bilinear",
        align_corners=True,
    )
    mixed = maps.clone()
    mixed[..., top:bottom, left:right] = patch.to(maps.dtype)
    return mixed


@dataclass(frozen=True, kw_only=True, eq=False)
class SnapMix(BetaMixer):
    """SnapMix: two boxes per batch, each with a λ of its own; label weights by class activation
    maps.

    One extra forward pass without gradient. The release makes it in the mode of training, which
    moves the running statistics of BatchNorm a second time and drops out; here evaluation mode is
    the default.

    Differs from the release: the mode of that pass (`cam_mode`). The defaults are those of its
    command from scratch; `SnapMix.published("cub200")` has those with ImageNet's weights.

    Args:
        alpha: both λ ~ Beta(alpha, alpha), > 0; a box covers 1 − λ of the image, before it is
            clipped. The release: 1 by default, its command from scratch too, and 5 in its commands
            with ImageNet weights.
        prob: 0.5 in the release's command from scratch, 1 with ImageNet weights.
        classifier: qualified name of the linear layer that makes the logits; None finds it
            (`find_classifier`).
        block: qualified name of the module whose maps are averaged for it; None finds it
            (`pooled_maps`).
        cam_mode: "eval" looks up the maps in evaluation mode, "train" in the mode the model is in
            (the release).
        same_label: "doubled" gives both labels of a pair of one class the sum of the two weights,
            so that the pair counts twice (the release, not in the paper; its authors call such
            pairs less noisy); "plain" does not. Where criterion="bce_softmax", which knows no
            weight above 1, the weights of such a pair sum to 1 at most.
        criterion, seed: as for every mixer.
    """

    alpha: float = 1.0
    prob: float = 0.5
    classifier: str | None = None
    block: str | None = None
    cam_mode: Literal["eval", "train"] = "eval"
    same_label: Literal["doubled", "plain"] = "doubled"

    planar: ClassVar[bool] = True
    title: ClassVar[str] = "SnapMix"
    about: ClassVar[str] = (
        "input: a resized box of the partner, labels by class activation (Huang et al., AAAI 2021)"
    )
    passes: ClassVar[tuple[int, int]] = (2, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("mode of the CAM pass", self.cam_mode, ("eval", "train"))
        pick("rule for pairs of one label", self.same_label, ("doubled", "plain"))

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if there is no classifier, no such module, or the classifier reads no
        averaged maps.
        """
        super().check(model)
        name, head = find_classifier(model, self.classifier)
        if self.block is not None:
            submodule(model, self.block)
            return
        remembered_blocks(model)
        siblings = [
            part
            for part in submodule(model, name.rpartition(".")[0]).children()
            if isinstance(part, nn.Linear)
        ]
        before = siblings[: siblings.index(head)]
        if before and before[-1].out_features == head.in_features:
            raise ValueError(
                f"the classifier {name!r} reads another linear layer (as in VGG), but SnapMix's"
                " class activation maps need one that reads averaged maps: use a model that ends"
                " so (ResNet, DenseNet), or name the module whose maps it reads, block="
            )

    def plan(self, model: nn.Module, images: Tensor, labels: Tensor, draw: Draw) -> Draw:
        """The draw with `extra["spm"]`, (B, H, W) float32: where in each image its label lies."""
        name, head = find_classifier(model, self.classifier)
        with evaluating(model) if self.cam_mode == "eval" else nullcontext():
            maps, logits = pooled_maps(model, images, head.in_features, self.block)
        check_logits(logits, labels)
        if len(head.weight) != logits.shape[1]:
            raise ValueError(
                f"linear layer {name!r} has {len(head.weight)} outputs, the model's logits "
                f"{logits.shape[1]}: name the layer that makes them, classifier="
            )
        cam = class_activation_map(maps, head.weight, labels)
        return replace(draw, extra={"spm": semantic_percent_map(cam, *images.shape[-2:])})

    def boxes(self, draw: Draw, height: int, width: int) -> tuple[Box, Box]:
        """The box of the image that is covered, from `draw.lam`, and the partner's that covers it,
        from `draw.seed`.
        """
        rng = np.random.default_rng(draw.seed)
        own, theirs = tuple(rng.random(2)), tuple(rng.random(2))
        return cut_box(height, width, draw.lam, own), cut_box(
            height, width, rng.beta(self.alpha, self.alpha), theirs
        )

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W) with boxes of their partners; unchanged, share 1, if either box has
        no pixel.
        """
        if "spm" not in draw.extra:
            raise ValueError(
                "the draw has no semantic map to weigh the boxes by: complete it with plan() first"
            )
        own, theirs = self.boxes(draw, *maps.shape[-2:])
        keep = torch.ones(1, 1, *maps.shape[-2:], dtype=torch.bool, device=maps.device)
        if not (_area(own) and _area(theirs)):
            return Mixed(maps.clone(), 1.0, keep, 0.0)
        keep[..., own[0] : own[1], own[2] : own[3]] = False
        partner, spm = draw.partner.to(maps.device, non_blocking=True), draw.extra["spm"]
        own_weight, partner_weight = 1 - box_mass(spm, own), box_mass(spm, theirs)[partner]
        return Mixed(paste_resized(maps, partner, own, theirs), own_weight, keep, partner_weight)

    def target(self, labels: Tensor, draw: Draw, mixed: Mixed) -> Target:
        """ρ_a of the own label and ρ_b of the partner's, and what `same_label` makes of pairs of
        one label.
        """
        target = super().target(labels, draw, mixed)
        (own, theirs), (own_weight, partner_weight) = target.labels, target.weights
        # nothing was mixed
        if not (isinstance(own_weight, Tensor) and isinstance(partner_weight, Tensor)):
            return target
        same = (own == theirs) if own.ndim == 1 else (own == theirs).all(dim=1)
        if self.criterion == "bce_softmax":
            rest = torch.where(same, partner_weight.minimum(1 - own_weight), partner_weight)
            return Target((own, theirs), (own_weight, rest))
        if self.same_label == "plain":
            return target
        both = own_weight + partner_weight
        return Target(
            (own, theirs),
            (torch.where(same, both, own_weight), torch.where(same, both, partner_weight)),
        )


def _area(box: Box) -> int:
    """Pixels of a box."""
    return (box[1] - box[0]) * (box[3] - box[2])
