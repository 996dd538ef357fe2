"""AlignMixup: the maps of two images are laid over each other, position by position, before they
are mixed.

Venkataramanan, Kijak, Amsaleg & Avrithis, "AlignMixup: Improving Representations by Interpolating
Aligned Features", CVPR 2022, section 3. Without its autoencoder. An assignment R, found by the
Sinkhorn-Knopp algorithm, says which of the partner's positions stand for each position of the
image; the mixed maps keep the places of one of the two.

What to know of it: where only average pooling and a linear layer follow the aligned block (ResNet,
PreActResNet without a last BatchNorm), a converged R changes nothing, because every position is
used exactly once and pooling forgets the
order: the pooled features are those of the plain weighted sum. There the alignment acts through
what is not converged. Where a BatchNorm and ReLU or an attention follow, it acts
by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.choices import pick
from .checks import check_positive
from .draw import Draw, Mixed
from .feature import FeatureMixer
from .mixup import InputMixup

FEATURES = ("raw", "unit")
POSITIONS = ("either", "own", "partner")
LARGEST = 1e30  # of a cost in units of ε: what the iterations add up then stays finite in float32


def position_cost(kept: Tensor, moved: Tensor, features: str = "raw") -> Tensor:
    """M: squared Euclidean distance between the feature vectors at every two positions, ‖a_i −
    a'_j‖² (section 3).

    Computed directly, not from inner products, which lose the small distances in TF32; nothing of
    size r² C is held.

    Args:
        kept, moved: maps (B, C, …) of the two images of each pair, one shape, any floating dtype.
        features: "raw" as they are (the paper's), "unit" each vector divided by its l2 norm, so
            that costs lie in [0, 4]; a vector of zeros stays so.
    Returns:
        (B, r, r) with r positions, at least float32, ≥ 0, detached; infinite where float32
        overflows.
    Raises:
        ValueError: if the shapes differ or `features` is unknown.
    """
    pick("features", features, FEATURES)
    if kept.shape != moved.shape or kept.ndim < 3:
        raise ValueError(
            f"both maps need one shape (B, C, H, W), got {tuple(kept.shape)} and"
            f" {tuple(moved.shape)}"
        )
    rows, columns = (_wide(maps.detach()).flatten(2).mT for maps in (kept, moved))
    if features == "unit":
        rows, columns = F.normalize(rows, dim=2), F.normalize(columns, dim=2)
    return torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist").square()


def assignment(cost: Tensor, epsilon: float = 0.1, iterations: int = 100) -> Tensor:
    """R: the entropic transport plan between uniform positions, times r (section 3), by
    Sinkhorn-Knopp.

    Each iteration scales the columns of e^(−M/ε) to sum 1, then the rows, as logarithms. There is
    no early stop, which would make the device wait in every iteration. Rows are last: they sum to 1
    whether or not R has converged, so that an aligned feature is always a weighted mean of
    features. What is not converged shows in the columns, which do not sum to 1: costs far above ε
    need many iterations, and before that R is close to each position's nearest match, whoever else
    has it too. Costs far below ε converge at once, to the uniform plan.

    Args:
        cost: M, (B, r, r), float32 or float64, ≥ 0. M/ε above 1e30, infinity too, counts as 1e30.
        epsilon: ε > 0, in units of the cost. iterations: ≥ 1.
    Returns:
        Like `cost`, ≥ 0, rows sum to 1; NaN only in a pair whose costs hold a NaN.
    """
    logs = -(cost / epsilon).clamp_max(LARGEST)
    for _ in range(iterations):
        logs = logs.log_softmax(dim=1).log_softmax(dim=2)
    return logs.exp()


def align(moved: Tensor, plan: Tensor) -> Tensor:
    """Ã = A' Rᵀ: at each position the mean of the moved image's features, weighted by its row of R.

    Args:
        moved: maps (B, C, …) with r positions, any floating dtype. plan: R, (B, r, r).
    Returns:
        Contiguous, of the moved maps' shape, at least float32, also under autocast; differentiable
        in both.
    """
    with torch.autocast(moved.device.type, enabled=False):
        return (_wide(moved).flatten(2) @ plan.mT).reshape(moved.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignMixup(FeatureMixer, InputMixup):
    """InputMixup, or the weighted sum of the last block's maps after one has been aligned to the
    other.

    No gradient flows through the assignment. An image that is its own partner stays as it is: its
    assignment is the identity, the plan without entropy.

    Differs from the release: the iterations are not stopped early, so that the plans are equal only
    where both have converged.

    Args:
        alpha: λ ~ Beta(alpha, alpha) per batch, > 0; 2.0 in its paper.
        layers: layer set to draw from, uniformly: InputMixup at 0, alignment at any block. None:
            the input and the last block, as in the release. An assignment has (HW)² numbers per
            pair: early blocks cost memory and time.
        blocks: qualified names of the blocks; None finds them (`catchup.find_blocks`).
        positions: whose places the mixed maps keep: "own", "partner", or "either" by a coin for the
            batch (the release's). The coin does not change what is learnt: (partner, λ) seen from
            the partner is (its inverse, 1 − λ) with own places, and equally likely.
        features: what distances are taken of: "raw" (the paper's) or "unit" vectors, see
            `position_cost`.
        epsilon: ε of the entropy, > 0, in units of the squared distance; 0.1 in its release, for
            raw features. For unit vectors, whose distances are at most 4, a smaller one keeps the
            assignment sharp.
        iterations: of Sinkhorn-Knopp, ≥ 1; its release makes at most 100, and stops once the duals
            change by < 0.1.
        prob, criterion, seed: as for every mixer.
    """

    alpha: float = 2.0
    positions: Literal["either", "own", "partner"] = "either"
    features: Literal["raw", "unit"] = "raw"
    epsilon: float = 0.1
    iterations: int = 100

    title: ClassVar[str] = "AlignMixup"
    about: ClassVar[str] = (
        "input or last block: weighted sum of aligned maps (Venkataramanan et al., CVPR 2022)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("positions", self.positions, POSITIONS)
        pick("features", self.features, FEATURES)
        check_positive("epsilon", self.epsilon)
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")

    def layer_set(self, n_blocks: int) -> Sequence[int]:
        """The given layers, or the input and the last block."""
        return super().layer_set(n_blocks) if self.layers else (0, n_blocks)

    def keeps_own(self, seed: int) -> bool:
        """Whether the mixed maps keep each image's own places; the coin of `draw.seed` where either
        may be.
        """
        if self.positions == "either":
            return bool(np.random.default_rng(seed).random() < 0.5)
        return self.positions == "own"

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Blended images (B, C, H, W) at layer 0, blended maps of which one is aligned elsewhere; λ
        is the share.
        """
        if draw.layer == 0:
            return super().mix(maps, draw)
        partner = draw.partner.to(maps.device, non_blocking=True)
        own = self.keeps_own(draw.seed)
        kept, moved = (maps, maps[partner]) if own else (maps[partner], maps)
        plan = self._own_partner_apart(
            assignment(position_cost(kept, moved, self.features), self.epsilon, self.iterations),
            partner,
        )
        weight = 1 - draw.lam if own else draw.lam  # of the image that is moved
        return Mixed(torch.lerp(_wide(kept), align(moved, plan), weight).to(maps.dtype), draw.lam)

    @staticmethod
    def _own_partner_apart(plan: Tensor, partner: Tensor) -> Tensor:
        """The identity instead of the plan of those that are their own partners."""
        alone = partner == torch.arange(len(partner), device=partner.device)
        return torch.where(
            alone[:, None, None],
            torch.eye(plan.shape[1], device=plan.device, dtype=plan.dtype),
            plan,
        )


def _wide(maps: Tensor) -> Tensor:
    """The maps in at least float32."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))
