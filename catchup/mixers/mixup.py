"""InputMixup: a weighted sum of two images and of their labels.

Zhang, Cissé, Dauphin & Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018 (Eq. 1 of the Catch-up paper).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from .base import Mixer
from .checks import check_positive
from .draw import Draw, Mixed


@dataclass(frozen=True, kw_only=True, eq=False)
class InputMixup(Mixer):
    """λ x_i + (1 − λ) x_j, one λ per batch.

    Args:
        alpha: λ ~ Beta(alpha, alpha), > 0; 1.0 is usual on CIFAR, 0.2 on ImageNet.
        prob, criterion, seed: as for every mixer.
    """

    alpha: float = 1.0

    title: ClassVar[str] = "InputMixup"
    about: ClassVar[str] = "input: weighted sum of two images (Zhang et al., ICLR 2018)"

    def __post_init__(self):
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def draw_lam(self, layer: int, rng: np.random.Generator) -> float:
        """λ ~ Beta(α, α)."""
        return float(rng.beta(self.alpha, self.alpha))

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Blended images, (B, C, H, W)."""
        partner = draw.partner.to(maps.device, non_blocking=True)
        return Mixed(maps[partner].lerp_(maps, draw.lam), draw.lam)
