"""RecursiveMix: the batch of the step before, as it was mixed then, is made small and pasted into
this step's batch.

Yang, Li, Zhao, Song & Yang, "RecursiveMix: Mixed Learning with History", NeurIPS 2022 (arXiv
2203.06844). What is pasted brings its own mixed labels with it, weighted by the area; and what the
network said of it at the time is what it should say of that region now (the consistency loss).
"""

import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hooks.blocks import last_maps, submodule, unwrap
from ..hooks.classifier import find_classifier
from ..hooks.layers import edited, map_channels
from ..utils.choices import pick
from .base import Mixer
from .cutmix import cut_box
from .draw import Draw, Mixed, Step
from .resizemix import INTERPOLATIONS
from .target import Target


def align_weights(start: float, stop: float, cells: int) -> np.ndarray:
    """How much each cell of a line counts in the mean over a stretch of it, as RoIAlign takes it.

    He, Gkioxari, Dollár & Girshick, "Mask R-CNN", ICCV 2017, section 3: points are spread evenly
    over the stretch, one per cell begun, and each is interpolated between the middles of the two
    cells around it.

    Args:
        start, stop: ends of the stretch in cells, 0 ≤ start < stop ≤ cells; cell i reaches from i
            to i + 1.
        cells: on the line, ≥ 1.
    Returns:
        (cells,) float64, ≥ 0, sum 1.
    """
    points = math.ceil(stop - start - 1e-9)  # a stretch of whole cells may come out a little longer
    places = start - 0.5 + (np.arange(points) + 0.5) * (stop - start) / points
    places = places.clip(0, cells - 1)
    distance = np.abs(places[:, None] - np.arange(cells))
    return (1 - distance).clip(0).mean(axis=0)


def region_mean(maps: Tensor, box: tuple[int, int, int, int], height: int, width: int) -> Tensor:
    """The mean of the maps over one box of the image: RoIAlign to a single cell
    (`torchvision.ops.roi_align`).

    One box serves the whole batch, so the mean is a weighted sum over rows and columns: the same
    numbers on every device and in every repetition.

    Args:
        maps: (B, C, h, w), floating.
        box: (top, bottom, left, right) in pixels of the image, not empty.
        height, width: of the image, in pixels.
    Returns:
        (B, C), at least float32; differentiable in `maps`.
    Raises:
        ValueError: if the maps are not (B, C, h, w).
    """
    if maps.ndim != 4:
        raise ValueError(
            f"a region is cut from maps (B, C, H, W), got {tuple(maps.shape)}; name another block"
        )
    rows, columns = maps.shape[-2:]
    dtype = torch.promote_types(maps.dtype, torch.float32)
    down = align_weights(box[0] * rows / height, box[1] * rows / height, rows)
    across = align_weights(box[2] * columns / width, box[3] * columns / width, columns)
    weights = torch.from_numpy(np.outer(down, across)).to(dtype).to(maps.device, non_blocking=True)
    return (maps.to(dtype) * weights).sum(dim=(2, 3))


@dataclass(frozen=True, kw_only=True, eq=False)
class RecursiveMix(Mixer):
    """One box per batch, drawn as CutMix's; the whole image of the step before, made small, fills
    it.

    An epoch's first step has no history and is a plain one, as is a step whose box is smaller than
    a pixel. The history is what the last batch looked like when the model saw it, its labels before
    any regulariser changed them, and its logits: one batch in memory. Image i gets image partner[i]
    of the history, counted round where that was smaller. A batch with values that are no numbers is
    not remembered, with a warning: the next step mixes nothing.

    Differs from the release: images are paired with the history by the step's permutation, not by
    their places in the batch.

    Args:
        alpha: the box covers a share ~ U(0, alpha) of the image before it is clipped, 0 < alpha ≤
            1; 0.5 in its paper.
        omega: ω ≥ 0, weight of the consistency loss; 0.1 in its paper on CIFAR, 0.5 on ImageNet. 0
            leaves it out.
        interpolation: "nearest" (its release's default) or "bilinear", corners on corners
            (`align_corners`, as there), without antialiasing.
        share_head: what names the class of the region: a linear layer of its own, trained with the
            run (False, as in its release), or the model's classifier.
        block: qualified name of the block whose maps the region is cut from; None takes the last
            that `catchup.find_blocks` finds, or where a norm and an activation follow it (WRN,
            PyramidNet) what these return, as in the release.
        classifier: with `share_head`, qualified name of the classifier; None looks for it.
        prob: 1.0 in its paper: always applied.
        criterion, seed: as for every mixer. The consistency loss is a cross-entropy whatever the
            criterion.
    """

    alpha: float = 0.5
    omega: float = 0.1
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    share_head: bool = False
    block: str | None = None
    classifier: str | None = None

    planar: ClassVar[bool] = True
    title: ClassVar[str] = "RecursiveMix"
    about: ClassVar[str] = (
        "input: the mixed batch of the step before pasted in, small (Yang et al., NeurIPS 2022)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must lie in (0, 1], got {self.alpha}")
        if not 0 <= self.omega < math.inf:
            raise ValueError(f"omega must be a number ≥ 0, got {self.omega}")
        pick("interpolation", self.interpolation, INTERPOLATIONS)

    @cached_property
    def _regions(self) -> list[Tensor]:
        """Of the step under way, from the forward pass to the loss."""
        return []

    # -- the life of a run -------------------------------------------------------------------------

    def check(self, model: nn.Module) -> None:
        """Also ValueError if the block is missing, or there is no classifier that takes as many
        features as it has.
        """
        super().check(model)
        if self.omega > 0:
            channels = map_channels(unwrap(model), self._block(model))
            if self.share_head:
                self._fits(model, self._head(model), channels)

    def begin_run(self, model: nn.Module, num_classes: int) -> list[dict]:
        """Forgets the history and makes the linear layer that the consistency loss trains; its
        optimiser group.
        """
        super().begin_run(model, num_classes)
        self.modules.clear()
        if self.omega == 0 or self.share_head:
            return []
        head = nn.utils.skip_init(
            nn.Linear, map_channels(unwrap(model), self._block(model)), num_classes
        )
        seed = torch.initial_seed() if self.seed is None else self.seed
        generator, bound = torch.Generator().manual_seed(seed % 2**63), head.in_features**-0.5
        for parameter in head.parameters():  # PyTorch's own law, but of the mixer's seed
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        self.modules["fc_roi"] = head.to(next(model.parameters()).device)
        return [{"params": list(head.parameters())}]

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Forgets the history: an epoch starts without (as in the release)."""
        self.state.clear()

    # -- a step ------------------------------------------------------------------------------------

    def draw_lam(self, layer: int, rng: np.random.Generator) -> float:
        """λ = 1 − the area of the box, which is ~ U(0, α)."""
        return 1 - self.alpha * float(rng.random())

    def plan(self, model: nn.Module, images: Tensor, labels: Tensor, draw: Draw) -> Draw:
        """The draw with the history of each image: `images`, `labels` (B, N), `logits` (B, N); none
        in a first step.
        """
        if not self.state:
            return replace(draw, extra={})
        index = draw.partner.to(images.device, non_blocking=True) % len(self.state["images"])
        return replace(
            draw, extra={name: value.to(images.device)[index] for name, value in self.state.items()}
        )

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W) with the history of `draw.extra` in the box of `draw.seed`; `keep` is
        (1, 1, H, W).
        """
        mixed, keep = (
            maps.clone(),
            torch.ones(1, 1, *maps.shape[-2:], dtype=torch.bool, device=maps.device),
        )
        box = _box(maps, draw)
        if box is None:
            return Mixed(mixed, 1.0, keep)
        top, bottom, left, right = box
        size = (bottom - top, right - left)
        corners = True if self.interpolation == "bilinear" else None
        small = F.interpolate(
            draw.extra["images"].to(maps.dtype),
            size,
            mode=self.interpolation,
            align_corners=corners,
        )
        mixed[..., top:bottom, left:right] = small
        keep[..., top:bottom, left:right] = False
        return Mixed(mixed, 1 - size[0] * size[1] / (maps.shape[-2] * maps.shape[-1]), keep)

    def target(self, labels: Tensor, draw: Draw, mixed: Mixed) -> Target:
        """Own labels, and the mixed ones of the history, weighted by their areas."""
        if mixed.own_weight == 1:
            return Target((labels,), (1.0,))
        return Target((labels, draw.extra["labels"]), (mixed.own_weight, 1 - mixed.own_weight))

    def auxiliary_loss(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        step: Step,
        mixed: Mixed,
        logits: Tensor,
    ) -> Tensor | None:
        """ω (1 − λ) × the cross-entropy between what is said of the region and what was said of the
        whole image.

        Equal to the KL divergence up to the entropy of the history, which has no gradient. Then the
        step becomes the history.
        """
        term = None
        if self._regions:
            region, head = self._regions.pop(), self._head(model)
            self._fits(model, head, region.shape[1])
            # an answer that was no number asks nothing
            said = step.draw.extra["logits"].softmax(dim=1).nan_to_num(0)
            answer = head(region.to(head.weight.dtype))
            term = (
                self.omega * (1 - mixed.own_weight) * Target((said,), (1.0,)).cross_entropy(answer)
            )
        self._remember(mixed, self.target(labels, step.draw, mixed), logits)
        return term

    def _remember(self, mixed: Mixed, target: Target, logits: Tensor) -> None:
        """The step becomes the history, unless it would spoil the next one."""
        self.state.clear()
        if not mixed.maps.isfinite().all():
            warnings.warn(
                f"RecursiveMix: a batch of {len(logits)} images has values that are no numbers; it"
                " is not remembered, and the next step mixes nothing",
                stacklevel=2,
            )
            return
        self.state.update(
            images=mixed.maps.detach().clone(),
            labels=target.soft(logits.shape[1]).detach(),
            logits=logits.detach().float(),
        )

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, draw: Draw | None = None
    ) -> Tensor:
        """As for every mixer; also ValueError if the linear layer of its own has not been made by
        `begin_run`.
        """
        if self.omega > 0:
            self._head(model)
        return super().loss(model, images, labels, draw=draw)

    def _forward(
        self, model: nn.Module, images: Tensor, draw: Draw, block: str | None
    ) -> tuple[Tensor, Mixed]:
        """The forward pass, during which the region is read off the block's maps."""
        self._regions.clear()
        box = None if draw.layer is None or self.omega == 0 else _box(images, draw)
        if box is None:
            return super()._forward(model, images, draw, block)
        name = self._block(model)

        def look(maps: Tensor) -> Tensor:
            self._regions.append(region_mean(maps, box, *images.shape[-2:]))
            return maps

        with edited(model, name, look):
            return super()._forward(model, images, draw, block)

    def _block(self, model: nn.Module) -> str:
        """Name of the block that the region is cut from; ValueError if there is none."""
        if self.block is None:
            return last_maps(model)
        submodule(model, self.block)
        return self.block

    def _head(self, model: nn.Module) -> nn.Linear:
        """The linear layer that names the class of the region."""
        if self.share_head:
            return find_classifier(model, self.classifier)[1]
        head = self.modules.get("fc_roi")
        if not isinstance(head, nn.Linear):
            raise ValueError(
                "RecursiveMix has a linear layer of its own: call begin_run(model, num_classes)"
                " first and give its groups to the optimiser, or take share_head=True or omega=0"
            )
        return head

    def _fits(self, model: nn.Module, head: nn.Linear, channels: int) -> None:
        """Raises ValueError unless the layer takes as many features as the block has maps."""
        if head.in_features != channels:
            raise ValueError(
                f"block {self._block(model)!r} returns {channels} maps, the linear layer takes "
                f"{head.in_features} features; name another block, or take share_head=False"
            )


def _box(images: Tensor, draw: Draw) -> tuple[int, int, int, int] | None:
    """(top, bottom, left, right) of what is pasted into images (B, C, H, W); None where nothing
    is.
    """
    if not draw.extra:
        return None
    y, x = np.random.default_rng(draw.seed).random(2)
    top, bottom, left, right = cut_box(images.shape[-2], images.shape[-1], draw.lam, (y, x))
    return (top, bottom, left, right) if top < bottom and left < right else None
