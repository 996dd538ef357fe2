"""The baseline: no mixing, the plain cross-entropy step every method is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Mixer
from .draw import Draw, Mixed


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline(Mixer):
    """Plain training. It answers like any mixer and returns the images as they are."""

    prob: float = 0.0

    title: ClassVar[str] = "baseline"
    about: ClassVar[str] = "nowhere: plain training"

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """The maps themselves, all of their own label."""
        return Mixed(maps, 1.0)
