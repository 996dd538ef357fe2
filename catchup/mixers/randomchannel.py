"""RandomChannelMix: as Catch-up Mix, but chance and not influence decides which channels an image
keeps.

Kang, Kang & Kim, AAAI 2024, appendix, Table 9: the control that asks whether the *choice* of
channels matters. The paper mixes no input here and says no more than "randomly mixes the activation
map"; taken from it are λ per batch and K = ⌊λC⌋ channels. In that table Catch-up Mix has no input
mix either: to compare the choice of channels alone, take `CatchUpMix(layers=(1, …))` without 0.
Every image gets its own random set, as in Catch-up Mix every pair has its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .base import BetaMixer
from .catchup import mix_channels
from .draw import Draw, Mixed
from .feature import FeatureMixer
from .parts.channels import spread


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomChannelMix(FeatureMixer, BetaMixer):
    """K = ⌊λC⌋ channels drawn at random stay with each image, its partner supplies the others.

    Differs from the release: there is none.

    Args:
        alpha: λ ~ Beta(alpha, alpha) per batch, > 0.
        layers: blocks to draw from, uniformly, each ≥ 1. None: all of them; never the input.
        blocks: qualified names of the blocks; None finds them (`catchup.find_blocks`).
        prob, criterion, seed: as for every mixer.
    """

    title: ClassVar[str] = "RandomChannelMix"
    about: ClassVar[str] = (
        "one block: keeps random channels, the control of Catch-up Mix (ibid., Table 9)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 in (self.layers or ()):
            raise ValueError(
                "channels are mixed at blocks 1, 2, …, not at the input 0, got layers"
                f" {self.layers}"
            )

    def layer_set(self, n_blocks: int) -> Sequence[int]:
        """The blocks, without the input."""
        return super().layer_set(n_blocks) if self.layers else range(1, n_blocks + 1)

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Maps (B, C, …) with exactly ⌊λC⌋ own channels in every image; which ones follows from
        `draw.seed`.
        """
        batch, channels = maps.shape[:2]
        ranks = (
            np.random.default_rng(draw.seed)
            .random((batch, channels))
            .argsort(axis=1)
            .argsort(axis=1)
        )
        keep = torch.from_numpy(ranks < int(draw.lam * channels)).to(maps.device, non_blocking=True)
        partner = draw.partner.to(maps.device, non_blocking=True)
        return Mixed(mix_channels(maps, partner, keep), draw.lam, spread(keep, maps))
