"""Label smoothing: every label gives a little of its weight to all classes.

Szegedy, Vanhoucke, Ioffe, Shlens & Wojna, "Rethinking the Inception Architecture for Computer
Vision", CVPR 2016, Section 7.
"""

from dataclasses import dataclass
from typing import ClassVar

from ..target import Target
from .base import Regulariser


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Regulariser):
    """q'(k) = (1 − ε) q(k) + ε / N, on each side of a mixed label; row sums stay what they were.

    The smoothed labels are also those that the training accuracy is measured with.

    Differs from the release: in nothing.

    Args:
        epsilon: ε in [0, 1]; 0.1 in the paper.
    """

    epsilon: float = 0.1

    title: ClassVar[str] = "label smoothing"
    about: ClassVar[str] = "labels: a share goes to all classes alike (Szegedy et al., CVPR 2016)"

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon must lie in [0, 1], got {self.epsilon}")

    def target(self, target: Target, num_classes: int) -> Target:
        """The smoothed labels; at ε = 0 the target itself."""
        return target.smooth(self.epsilon, num_classes) if self.epsilon else target
