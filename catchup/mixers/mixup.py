"""InputMixup: a weighted sum of two images and of their labels.

Zhang, Cissé, Dauphin & Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018 (Eq. 1 of
the Catch-up paper).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import BetaMixer
from .draw import Draw, Mixed
from .parts.partners import of_partners


@dataclass(frozen=True, kw_only=True, eq=False)
class InputMixup(BetaMixer):
    """λ x_i + (1 − λ) x_j, one λ per batch.

    Args:
        alpha: λ ~ Beta(alpha, alpha), > 0; 1.0 is usual on CIFAR, 0.2 on ImageNet.
        prob, criterion, seed: as for every mixer.
    """

    title: ClassVar[str] = "InputMixup"
    about: ClassVar[str] = "input: weighted sum of two images (Zhang et al., ICLR 2018)"

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Blended images, (B, C, H, W)."""
        partner = draw.partner.to(maps.device, non_blocking=True)
        return Mixed(of_partners(maps, partner).lerp_(maps, draw.lam), draw.lam)
