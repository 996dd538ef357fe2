"""Catch-up Mix: every image keeps the channels in which it lags behind its partner; the partner
supplies the others.

Kang, Kang & Kim, "Catch-up Mix: Catch-up Class for Struggling Filters in CNN", AAAI 2024 (arXiv
2401.13193). Section 2.2, Eqs. 4–7, and Algorithm 1 (appendix A.1). The functions are the equations;
the class draws and remembers.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..utils.choices import pick
from .base import BetaMixer, Mixer
from .baseline import Baseline
from .cutmix import CutMix
from .draw import Draw, Mixed
from .feature import FeatureMixer
from .mixup import InputMixup
from .parts.channels import norm_on_cpu, select_channels, spread

INPUT_MIXERS = {"cutmix": CutMix, "mixup": InputMixup, "none": Baseline}
INPUT_ALPHA = {"cutmix": 1.0, "mixup": 0.2}  # Table 8's "official hyper-parameters"


def filter_influence(maps: Tensor) -> Tensor:
    """FI: the l2 norm of each activation map (Eq. 4).

    Args:
        maps: activation maps (B, C, H, W), any floating dtype.
    Returns:
        (B, C), ≥ 0, at least float32 (also under autocast, where squares of half floats would
        overflow), detached.
    Raises:
        ValueError: if `maps` are not (B, C, …) floating.
    """
    if not isinstance(maps, Tensor) or maps.ndim < 3 or not maps.is_floating_point():
        got = (
            f"{tuple(maps.shape)} {maps.dtype}" if isinstance(maps, Tensor) else type(maps).__name__
        )
        raise ValueError(f"maps must be (B, C, H, W) floating, got {got}")
    positions = tuple(range(2, maps.ndim))
    norm = norm_on_cpu if maps.device.type == "cpu" else torch.linalg.vector_norm
    return norm(maps.detach(), dim=positions, dtype=torch.promote_types(maps.dtype, torch.float32))


def relative_filter_influence(fi_source: Tensor, fi_target: Tensor) -> Tensor:
    """RFI = FI_source − FI_target, each first divided by its sum over the channels (Eq. 5).

    Args:
        fi_source, fi_target: filter influences of the two images of each pair, (B, C), ≥ 0.
    Returns:
        (B, C) in [−1, 1]; > 0 where the source relies on the filter more than its partner does.
        Rows sum to 0. An image whose maps are all zero has influence 0 everywhere.
    Raises:
        ValueError: if the shapes differ or are not (B, C).
    """
    if fi_source.shape != fi_target.shape or fi_source.ndim != 2:
        raise ValueError(
            f"influences need one shape (B, C), got {tuple(fi_source.shape)},"
            f" {tuple(fi_target.shape)}"
        )
    return _sum_to_one(fi_source) - _sum_to_one(fi_target)


def keep_mask(rfi: Tensor, lam: float) -> Tensor:
    """M: the K = ⌊λC⌋ filters with the lowest RFI, which stay with the source (text above Eq. 6).

    Args:
        rfi: relative filter influence (B, C).
        lam: λ in [0, 1].
    Returns:
        bool (B, C), exactly ⌊λC⌋ True in every row. Ties go to the lower channel, on every device.
    Raises:
        ValueError: if `rfi` is not (B, C) or `lam` leaves [0, 1].
    """
    if rfi.ndim != 2:
        raise ValueError(f"rfi must be (B, C), got {tuple(rfi.shape)}")
    if not 0 <= lam <= 1:
        raise ValueError(f"lam must lie in [0, 1], got {lam}")
    k = int(lam * rfi.shape[1])
    lowest = rfi.argsort(dim=1, stable=True)[:, :k]
    return torch.zeros_like(rfi, dtype=torch.bool).scatter_(1, lowest, True)


def mix_channels(maps: Tensor, partner: Tensor, keep: Tensor) -> Tensor:
    """Kept channels of each image, its partner's elsewhere: M ⊙ f_s + (1 − M) ⊙ f_t (Eq. 6).

    Needs memory for one more feature map, forward as well as backward. The gradient of a mixed
    channel reaches the one image it was taken from.

    Args:
        maps: (B, C, …), any dtype; the memory format is kept.
        partner: (B,) int64, a permutation, on the maps' device.
        keep: bool (B, C).
    Returns:
        A new tensor like `maps`; differentiable (twice) in `maps`.
    Raises:
        ValueError: if the shapes do not fit or `partner` is no permutation (looked at on the CPU
            only: elsewhere it would cost a synchronisation, and a `Draw` has made sure already).
    """
    if (
        not isinstance(partner, Tensor)
        or partner.dtype != torch.int64
        or partner.device != maps.device
    ):
        got = (
            f"{partner.dtype} on {partner.device}"
            if isinstance(partner, Tensor)
            else type(partner).__name__
        )
        raise ValueError(
            f"partner must be an int64 tensor on the maps' device {maps.device}, got {got}"
        )
    if keep.shape != maps.shape[:2] or keep.dtype != torch.bool or partner.shape != maps.shape[:1]:
        raise ValueError(
            f"for maps {tuple(maps.shape)} partner must be (B,) and keep bool (B, C), got "
            f"{tuple(partner.shape)} and {keep.dtype} {tuple(keep.shape)}"
        )
    if partner.device.type == "cpu" and not torch.equal(
        partner.sort().values, torch.arange(len(partner))
    ):
        raise ValueError(f"partner must be a permutation of 0 … B-1, got {partner.tolist()}")
    # torch.where(keep, maps, maps[partner]), with one map more in memory instead of two
    return select_channels(maps, partner, spread(keep, maps))


@dataclass(frozen=True, kw_only=True, eq=False)
class CatchUpMix(FeatureMixer, BetaMixer):
    """Catch-up Mix as an objective: one layer per step, CutMix where the input is drawn, no extra
    pass.

    Differs from the release: there is none by its authors. The one public operator, AllTheMiXLA's,
    mixes maps bit for bit as this does (tests/mixers/test_catchup_oracle.py).

    Args:
        alpha: λ ~ Beta(alpha, alpha) per batch, > 0. The paper's best: 1.0 on CIFAR-100 (its Table
            10; the text says 0.5), 10 on Tiny-ImageNet, CUB, Cars and Aircraft.
        layers: layer set to draw from, uniformly: 0 is the input, k the k-th block. None: all of
            them (the paper's).
        blocks: qualified names of the blocks; None finds them (`catchup.find_blocks`).
        input_mix: what layer 0 does: "cutmix" (the paper's), "mixup", or "none", a plain step.
        input_alpha: α of that input mix; None takes Table 8's: CutMix 1.0, InputMixup 0.2.
        label_rule: "lam" weights the labels with λ (the paper's rule); "kept" with ⌊λC⌋/C, the
            share of channels really kept, which is smaller by 0.5/C on average (0.0078 for C = 64)
            and by
            less than 1/C always.
        prob, criterion, seed: as for every mixer.
    """

    input_mix: Literal["cutmix", "mixup", "none"] = "cutmix"
    input_alpha: float | None = None
    label_rule: Literal["lam", "kept"] = "lam"

    title: ClassVar[str] = "Catch-up Mix"
    about: ClassVar[str] = (
        "input or one block: keeps each image's lagging channels (Kang, Kang & Kim, AAAI 2024)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("input mix", self.input_mix, INPUT_MIXERS)
        pick("label rule", self.label_rule, ("lam", "kept"))
        _ = self._input_mixer  # made now, so that a bad α fails here

    def draw_lam(self, layer: int, rng: np.random.Generator) -> float:
        """λ ~ Beta(α, α), with the input mix's own α at layer 0."""
        return self._input_mixer.draw_lam(0, rng) if layer == 0 else super().draw_lam(layer, rng)

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Eqs. 4–6 on the output of a block, (B, C, …); the input mix on the images of layer 0."""
        if draw.layer == 0:
            return self._input_mixer.mix(maps, draw)
        partner = draw.partner.to(maps.device, non_blocking=True)
        influence = filter_influence(maps)
        keep = keep_mask(relative_filter_influence(influence, influence[partner]), draw.lam)
        own_weight = (
            draw.lam if self.label_rule == "lam" else int(draw.lam * maps.shape[1]) / maps.shape[1]
        )
        return Mixed(mix_channels(maps, partner, keep), own_weight, spread(keep, maps))

    @cached_property
    def _input_mixer(self) -> Mixer:
        """What mixes the images of layer 0. It draws nothing: its seed is not looked at."""
        if self.input_mix == "none":
            return Baseline(seed=0)
        alpha = INPUT_ALPHA[self.input_mix] if self.input_alpha is None else self.input_alpha
        return INPUT_MIXERS[self.input_mix](alpha=alpha, seed=0)


def _sum_to_one(fi: Tensor) -> Tensor:
    """Rows divided by their sums; a row of zeros stays zeros."""
    return fi / fi.sum(dim=1, keepdim=True).clamp_min(torch.finfo(fi.dtype).tiny)
