"""AutoMix: a small network learns the mask by which two images are mixed, while the classifier
trains on what it mixes.

Liu, Li, Wu, Chen, Wu, Guo & Li, "AutoMix: Unveiling the Power of Mixup for Stronger Classifiers",
ECCV 2022 (arXiv 2103.13027): Eqs. 4–8 and 12, section 5.1, Algorithm 1 (appendix A.3). The Mix
Block is in `mixblock.py`.

One step, as in Algorithm 1: the momentum encoder k looks at the clean images (no gradient); from
its maps of one block the Mix Block makes two masks, each with a λ and partners of its own. One
mixes the images on which the encoder q is trained, beside the clean ones; it is detached. The other
mixes images for k, and only the Mix Block learns from k's answer. So q gets ℓ_CE(clean) +
ℓ_MCE(mixed), the block ℓ_MCE(mixed, through k) + L_mask, and k follows q.

Where the paper contradicts itself or is silent:

- Eq. 7 multiplies x_j by the mask, the text below Eq. 5 and Eq. 6 say that s_i is the share of x_i.
  Here it is x_i's, as its label weight λ: x_mix = s_i ⊙ x_i + s_j ⊙ x_j with s_j = 1 − s_i.
- Eq. 12 says nothing of batch norm. k is in the mode that q is in, module by module, hence
  normalises by its batches during training, as the momentum encoders that it is taken from (MoCo,
  BYOL) do: running statistics of q, which sees two kinds of batches and other weights, would not
  fit it. Buffers follow q like weights; k's own passes move them too.
- ε = 0.1 of Eq. 6 is not the release's `lam_margin` of 0.08, below which q is given InputMixup.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..hooks.blocks import remembered_blocks, submodule, unwrap
from ..hooks.layers import captured, map_channels
from ..utils.choices import pick
from .base import BetaMixer
from .checks import check_batch, check_positive
from .draw import Draw, Mixed, Step
from .parts.mixblock import mask_loss, seeded_block, upsample
from .parts.momentum import cosine, follow, frozen_copy, same_modes
from .target import Target

STAGE = 3  # the paper's l: it counts the stages and skips the stem


def blend(images: Tensor, partner: Tensor, mask: Tensor) -> Tensor:
    """s ⊙ x_i + (1 − s) ⊙ x_j: Eq. 7, the mask being the share of the own image.

    Args:
        images: (B, C, H, W) floating. partner: (B,) int64 on their device.
        mask: s (B, 1, H, W) in [0, 1], any floating dtype.
    Returns:
        A new tensor like `images`; differentiable in images and mask.
    """
    return torch.lerp(images[partner], images, mask.to(images.dtype))


@dataclass(frozen=True, kw_only=True, eq=False)
class AutoMix(BetaMixer):
    """AutoMix as an objective: four forward and three backward passes a step, and parameters of its
    own.

    `begin_run(model, num_classes)` makes the Mix Block and the momentum encoder; what it returns
    goes into the optimiser, beside the model's parameters. Both schedules (momentum, mask loss)
    move with `begin_epoch`, once an epoch; without it they stay at their first values. The momentum
    encoder follows at the start of every `loss` on a model in training mode, thus where gradients
    are accumulated several times per step of the optimiser.

    Regularisers act in the trained model, not in the momentum encoder; label changes apply to all
    three label losses. The momentum encoder computes in the precision of the run.

    The Mix Block is by default the one that its authors released: its mask does not depend on the
    order in which the partner's positions are counted, as the printed one's does (`block_form`, see
    `parts/mixblock.py`), and the released program is what the published numbers belong to.

    Differs from the release: one classifier for clean and mixed images, where the release trains
    two; the momentum moves once an epoch, there once a step; the defaults are the paper's where the
    two contradict each other (λ as a channel, reduction, lam_margin, mask_decay, block_min_lr), and
    `AutoMix.published("cifar100")` has the release's. Here the momentum encoder's buffers
    follow the model's, as its weights do.

    Args:
        alpha: λ ~ Beta(alpha, alpha) per batch, > 0; 2 is the paper's for AutoMix (Fig. 7b).
        block: qualified name of the block whose maps the Mix Block sees; None takes the third stage
            behind the stem, the paper's l = 3 (Fig. 7a), which counts no stem; without stages (VGG)
            it is the fourth convolution.
        block_form: "released" takes s_i = 1 − σ(P ⊗ W_Z z_{j,1−λ}), the mask loss of the batch's
            mean and first weights ~ N(0, 0.01), "printed" Eqs. 5 and 6, per image, and PyTorch's
            first weights.
        lam_channel: whether λ is one more channel of the feature maps (the paper, and the release
            on ImageNet and CUB); False as the release has it on CIFAR and Tiny-ImageNet.
        reduction: the Mix Block compares positions in C / reduction channels; 1 agrees with the
            paper's Table 7, the release has 2.
        mask_weight: γ of the mask loss at the start, ≥ 0; 0.1 in the paper.
        mask_decay: whether γ falls linearly to 0 over the run (the paper), or stays (the release).
        mask_margin: ε of the mask loss, ≥ 0; 0.1 in the paper.
        lam_margin: where λ or 1 − λ is at most this, in [0, 0.5], the classifier is given
            InputMixup; 0 follows the paper (the mask is λ at λ = 0 and 1 alone, where there is
            nothing to mix), the release has 0.08.
        ema_start, ema_end: momentum m of the encoder k at the start and the end of the run, in [0,
            1], along half a cosine; the paper starts from 0.999 or 0.996 and ends at 1, OpenMixup
            at 0.999999.
        block_lr, block_min_lr: learning rate of the Mix Block and the floor of its cosine schedule;
            OpenMixup's.
        prob, criterion, seed: as for every mixer; the criterion is that of all three label losses.
    """

    alpha: float = 2.0
    block: str | None = None
    block_form: Literal["released", "printed"] = "released"
    lam_channel: bool = True
    reduction: int = 1
    mask_weight: float = 0.1
    mask_decay: bool = True
    mask_margin: float = 0.1
    lam_margin: float = 0.0
    ema_start: float = 0.999
    ema_end: float = 0.999999
    block_lr: float = 0.1
    block_min_lr: float = 1e-3

    planar: ClassVar[bool] = True
    title: ClassVar[str] = "AutoMix"
    about: ClassVar[str] = (
        "input: by a mask that a second, small network learns (Liu et al., ECCV 2022)"
    )
    passes: ClassVar[tuple[int, int]] = (4, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("form of the Mix Block", self.block_form, ("released", "printed"))
        check_positive("block_lr", self.block_lr)
        if (
            isinstance(self.reduction, bool)
            or not isinstance(self.reduction, int)
            or self.reduction < 1
        ):
            raise ValueError(f"reduction must be an integer of at least 1, got {self.reduction!r}")
        for name, most in (
            ("mask_weight", math.inf),
            ("mask_margin", math.inf),
            ("lam_margin", 0.5),
            ("ema_start", 1),
            ("ema_end", 1),
            ("block_min_lr", self.block_lr),
        ):
            value = getattr(self, name)
            if not (0 <= value <= most and math.isfinite(value)):
                bound = "finite and at least 0" if most == math.inf else f"in [0, {most}]"
                raise ValueError(f"{name} must be {bound}, got {value}")

    # -- a run -------------------------------------------------------------------------------------

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if the model has no such block, or none where the default looks for
        it.
        """
        super().check(model)
        self._block_of(unwrap(model))

    def begin_run(self, model: nn.Module, num_classes: int) -> list[dict]:
        """Copies the model for k and makes the Mix Block, on the model's device, drawn from the
        mixer's own seed.

        Returns:
            One optimiser group: the Mix Block's `params` with `lr` and `min_lr`.
        Raises:
            ValueError: if the model has no such block, or the block returns no (B, C, h, w) maps.
        """
        super().begin_run(model, num_classes)
        bare = unwrap(model)
        average, device = frozen_copy(bare), next(bare.parameters()).device
        channels = map_channels(average, self._block_of(bare))
        entropy = self.rng.bit_generator.seed_seq.entropy  # type: ignore[attr-defined]
        seed = np.random.default_rng([entropy, 3]).integers(2**63)
        mix_block = seeded_block(
            channels,
            self.reduction,
            int(seed),
            released=self.block_form == "released",
            lam_channel=self.lam_channel,
        ).to(device)
        self.modules.update(momentum=average, mix_block=mix_block)
        return [
            {
                "params": list(mix_block.parameters()),
                "lr": self.block_lr,
                "min_lr": self.block_min_lr,
            }
        ]

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Moves both schedules to the share `epoch / epochs` of the run."""
        self.state["progress"] = epoch / epochs

    @property
    def momentum(self) -> float:
        """r(m) of Eq. 12, at this point of the run."""
        return cosine(self.ema_start, self.ema_end, self.state.get("progress", 0.0))

    @property
    def gamma(self) -> float:
        """γ of Eq. 6, at this point of the run."""
        gone = self.state.get("progress", 0.0) if self.mask_decay else 0.0
        return self.mask_weight * (1 - gone)

    # -- a step ------------------------------------------------------------------------------------

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, draw: Draw | None = None
    ) -> Tensor:
        """Eq. 8, as for every mixer; in training mode the momentum encoder first takes its step
        after the model.

        Raises:
            ValueError: before `begin_run`, and as for every mixer.
        """
        average = self._made("momentum")
        check_batch(images, labels)
        if unwrap(model).training:
            follow(average, unwrap(model), self.momentum)
        return super().loss(model, images, labels, draw=draw)

    def plan(self, model: nn.Module, images: Tensor, labels: Tensor, draw: Draw) -> Draw:
        """The draw with `extra["mask"]`, s_i (B, 1, H, W) float32, detached, by which `mix` mixes.

        `extra["maps"]`, what k saw, is there until the step's losses are formed.
        """
        average, bare = self._made("momentum"), unwrap(model)
        same_modes(average, bare)
        block = self._block_of(bare)
        with captured(average, block) as seen, torch.no_grad(), self._precision(images):
            average(images)
        if len(seen[block]) != 1:
            raise RuntimeError(
                f"block {block!r} ran {len(seen[block])} times in one forward pass of the momentum "
                "encoder; it has to run exactly once. Name another block"
            )
        maps, size = seen[block][0], images.shape[2:]
        if min(draw.lam, 1 - draw.lam) <= self.lam_margin:
            mask = torch.full((len(images), 1, *size), draw.lam, device=images.device)
        else:
            with torch.no_grad():
                mask = self._mask(maps, draw, size)
        return replace(draw, extra={"mask": mask, "maps": maps})

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W) blended by `draw.extra["mask"]`; the label weight is λ."""
        if "mask" not in draw.extra:
            raise ValueError(
                "AutoMix mixes by a mask, got a draw without one: complete it by plan(model,"
                " images, labels, draw)"
            )
        partner = draw.partner.to(maps.device, non_blocking=True)
        return Mixed(blend(maps, partner, draw.extra["mask"].detach()), draw.lam)

    def block_draw(self, draw: Draw) -> Draw:
        """λ and partners of the images that k sees: Algorithm 1's lam_k and idx_k, which follow
        from `draw.seed`.
        """
        rng = np.random.default_rng([draw.seed, 2])
        return replace(
            draw,
            lam=self.draw_lam(0, rng),
            extra={},
            partner=torch.from_numpy(rng.permutation(len(draw.partner))),
        )

    def auxiliary_loss(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        step: Step,
        mixed: Mixed,
        logits: Tensor,
    ) -> Tensor | None:
        """ℓ_CE of q on the clean images, ℓ_MCE of k on the block's mixed images, L_mask; None in a
        plain step.
        """
        if step.draw.layer is None:
            return None
        maps = step.draw.extra.pop("maps")  # a step is remembered, its feature maps need not be
        clean = self._label_loss(Target((labels,), (1.0,)), unwrap(model)(images))
        return clean + self._block_loss(maps, images, labels, self.block_draw(step.draw))

    def _block_loss(self, maps: Tensor, images: Tensor, labels: Tensor, draw: Draw) -> Tensor:
        """What the Mix Block learns from: ℓ_MCE through k, and L_mask."""
        mask = self._mask(maps, draw, images.shape[2:])
        mixed = blend(images, draw.partner.to(images.device, non_blocking=True), mask)
        with self._precision(images):
            logits = self.modules["momentum"](mixed)
        # as those of the prepared model
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        target = Target.pair(labels, draw.partner.to(labels.device, non_blocking=True), draw.lam)
        off = mask_loss(mask, draw.lam, self.mask_margin, per_image=self.block_form == "printed")
        return self._label_loss(target, logits) + self.gamma * off

    def _precision(self, images: Tensor) -> AbstractContextManager:
        """The momentum encoder's passes are made as the model's own: under the run's autocast, or
        where there is none under the caller's.
        """
        dtype = self.memory.autocast
        return nullcontext() if dtype is None else torch.autocast(images.device.type, dtype)

    def _mask(self, maps: Tensor, draw: Draw, size: Sequence[int]) -> Tensor:
        """s_i at the images' size, (B, 1, H, W) float32."""
        partner = draw.partner.to(maps.device, non_blocking=True)
        return upsample(self._made("mix_block")(maps, maps[partner], draw.lam), size)

    def _label_loss(self, target: Target, logits: Tensor) -> Tensor:
        """The criterion of labels as the regularisers change them."""
        for regulariser in self.memory.regularisers:
            target = regulariser.target(target, logits.shape[1])
        return target.loss(logits, self.criterion)

    def _made(self, name: str) -> nn.Module:
        """A module of the run; ValueError if there is none yet."""
        if name not in self.modules:
            raise ValueError(
                "AutoMix has networks of its own, and no run has begun: call "
                "groups = mixer.begin_run(model, num_classes) and give the groups to the optimiser"
            )
        return self.modules[name]

    def _block_of(self, model: nn.Module) -> str:
        """Name of the block whose maps the Mix Block sees."""
        if self.block is not None:
            submodule(model, self.block)  # a wrong name is refused here, with the nearest right one
            return self.block
        blocks = remembered_blocks(model)
        if len(blocks) <= STAGE:
            raise ValueError(
                f"AutoMix looks at the third stage behind the stem, {type(model).__name__} has only"
                f" the blocks {', '.join(blocks)}: name one, AutoMix(block={blocks[-1]!r})"
            )
        return blocks[STAGE]
