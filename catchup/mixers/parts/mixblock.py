"""The Mix Block of AutoMix: from the feature maps of two images and λ to a mask that says whose
each pixel is.

Liu et al., "AutoMix: Unveiling the Power of Mixup for Stronger Classifiers", ECCV 2022 (arXiv
2103.13027), section 4.1, Eqs. 4–6. The functions are the equations; the module holds the two linear
maps.

There are two forms of Eq. 5. The paper prints s_i = σ(P ⊗ W_Z z_{i,λ}): rows of P, which run over
the partner's positions, weigh values of the own image's, so that the mask depends on the order in
which the partner's positions are counted. Its authors released s_i = 1 − σ(P ⊗ W_Z z_{j,1−λ}),
where the partner's positions weigh the partner's values, and with it the mask loss of the whole
batch's mean and first weights ~ N(0, 0.01).

What the paper leaves open, and how it is settled here:

- The normalisation C(·) in Eq. 4 is √d, d the width of W_P z: the scaled dot product (Vaswani et
al., NeurIPS 2017).
- The softmax in Eq. 4 runs over the positions of the partner, so that every row of P sums to one.
  The partner's 1 − λ, one number for all its positions, then cancels in P: it adds the same to
  every score of a row. λ acts through the own image's embedding and through the values.
- W_P keeps the number of channels. Table 7 prints 11.27 M weights for ResNet-18 and 11.38, 11.39,
  11.44 and 11.64 M with AutoMix at stages 1 to 4 on Tiny-ImageNet: that is C² for a stage of C
  channels, beside one more linear classifier (512 × 200 + 200), which neither the text nor the
  paper's Algorithm 1 mentions and which is left out here. The release's configurations set a
  reduction of 2; one shared W_P of C/2 channels would have half the printed weights.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 1e15  # of a feature: its dot products stay far inside float32


def embed_lam(maps: Tensor, lam: float) -> Tensor:
    """z_λ = concat(z, λ): one more channel, λ everywhere.

    Args:
        maps: feature maps z (B, C, h, w), floating. lam: in [0, 1].
    Returns:
        (B, C + 1, h, w), dtype of the maps.
    """
    return torch.cat([maps, maps.new_full((len(maps), 1, *maps.shape[2:]), lam)], dim=1)


def similarity(own: Tensor, other: Tensor) -> Tensor:
    """P: how much each position of one image resembles each position of the other (Eq. 4).

    Args:
        own, other: W_P z_{i,λ} and W_P z_{j,1−λ}, (B, d, h, w), one shape.
    Returns:
        (B, h·w, h·w), ≥ 0: row p belongs to position p of `own` and sums to 1 over the positions of
        `other`.
    Raises:
        ValueError: if the shapes differ or are not (B, d, h, w).
    """
    if own.shape != other.shape or own.ndim != 4:
        raise ValueError(
            f"the pair needs one shape (B, d, h, w), got {tuple(own.shape)} and"
            f" {tuple(other.shape)}"
        )
    scores = own.flatten(2).transpose(1, 2) @ other.flatten(2)
    return (scores / math.sqrt(own.shape[1])).softmax(dim=2)


def attend(p: Tensor, values: Tensor) -> Tensor:
    """σ(P ⊗ values), Eq. 5 before its upsampling.

    Args:
        p: from `similarity`, (B, h·w, h·w).
        values: W_Z z_{i,λ} as printed, −W_Z z_{j,1−λ} as released: 1 − σ(x) is σ(−x). (B, 1, h, w).
    Returns:
        (B, 1, h, w) in (0, 1).
    """
    return (p @ values.flatten(1)[:, :, None]).sigmoid().reshape(values.shape)


def upsample(mask: Tensor, size: Sequence[int]) -> Tensor:
    """U: the mask (B, 1, h, w) at `size` (H, W), nearest position (below Eq. 5)."""
    return F.interpolate(mask, size=size, mode="nearest")


def mask_loss(mask: Tensor, lam: float, margin: float = 0.1, *, per_image: bool = False) -> Tensor:
    """max(|λ − mean s_i| − ε, 0) (Eq. 6 without its weight γ).

    Args:
        mask: s_i (B, 1, H, W) in [0, 1]. lam: λ in [0, 1]. margin: ε ≥ 0; 0.1 is best in the
            paper's Table 5.
        per_image: of every image's mask, then the mean over the batch (the paper); else of the mean
            over all masks (the release).
    Returns:
        0-dim, ≥ 0, at least float32; 0, without gradient, where the mean lies within ε of λ.
    """
    mask = mask.to(torch.promote_types(mask.dtype, torch.float32))
    means = mask.flatten(1).mean(dim=1) if per_image else mask.mean()
    return ((lam - means).abs() - margin).clamp_min(0).mean()


class MixBlock(nn.Module):
    """λ-embedded cross-attention over the feature maps of a pair (Eqs. 4 and 5).

    Computed in float32 with autocast off: dot products of half floats overflow.

    Args:
        channels: C of the feature maps, ≥ 1.
        reduction: W_P maps C + 1 channels to C / reduction (whole, ≥ 1).
        released: Eq. 5 and the first weights as its authors released them, not as printed.
        lam_channel: whether λ is one more channel of what W_P and W_Z see.
    Raises:
        ValueError: if the numbers are no such.
    """

    def __init__(
        self, channels: int, reduction: int = 1, *, released: bool = True, lam_channel: bool = True
    ) -> None:
        super().__init__()
        if channels < 1 or reduction < 1 or channels < reduction:
            raise ValueError(
                f"channels must be ≥ 1 and reduction in 1 … channels, got {channels} and"
                f" {reduction}"
            )
        self.released, self.lam_channel = released, lam_channel
        inputs = channels + lam_channel
        # W_P, shared by both images
        self.similar = nn.Conv2d(inputs, channels // reduction, 1)
        self.value = nn.Conv2d(inputs, 1, 1)  # W_Z
        for name, parameter in self.named_parameters() if released else ():
            nn.init.normal_(parameter, std=0.01 if name.endswith("weight") else 0.0)

    def forward(self, own: Tensor, other: Tensor, lam: float) -> Tensor:
        """s_i before upsampling: the probability that a position of the mixed image is the own
        image's.

        A pair with a feature that is no number, infinite or above 1e15 in size, and a pair whose
        mask comes out as no
        number, gets λ everywhere: for it AutoMix is InputMixup, and the block learns nothing from
            it.

        Args:
            own, other: feature maps z_i and z_j (B, C, h, w), one shape, any floating dtype.
            lam: λ, the share of the own image, in [0, 1].
        Returns:
            (B, 1, h, w) float32 in [0, 1].
        """
        with torch.autocast(own.device.type, enabled=False):
            own, other = own.float(), other.float()
            usable = _usable(own) & _usable(other)
            # 0 · nan in the backward pass would spread
            own, other = (own.where(usable, 0), other.where(usable, 0))
            if self.lam_channel:
                own, other = embed_lam(own, lam), embed_lam(other, 1 - lam)
            values = -self.value(other) if self.released else self.value(own)
            mask = attend(similarity(self.similar(own), self.similar(other)), values)
            usable &= mask.detach().isfinite().flatten(1).all(dim=1)[:, None, None, None]
            return mask.where(usable, lam)


def seeded_block(channels: int, reduction: int, seed: int, **form: bool) -> MixBlock:
    """A `MixBlock` on the CPU, its weights drawn from the seed; the global generators are left
    alone.

    Args:
        channels, reduction, form: as for `MixBlock`. seed: in [0, 2⁶⁴).
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would move the GPUs' generators, too
        torch.default_generator.manual_seed(seed)
        return MixBlock(channels, reduction, **form)


def _usable(maps: Tensor) -> Tensor:
    """(B, 1, 1, 1) bool: every feature of the image is a number of reasonable size."""
    return maps.abs().amax(dim=(1, 2, 3), keepdim=True) < LARGEST
