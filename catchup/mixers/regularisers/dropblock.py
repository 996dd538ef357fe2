"""DropBlock: squares of every feature map are set to zero, and the rest made larger by as much.

Ghiasi, Lin & Le, "DropBlock: A regularization method for convolutional networks", NeurIPS 2018,
Algorithm 1 and Eq. 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...hooks.blocks import remembered_blocks, submodule
from .acting import act_behind
from .base import Regulariser


def gamma(keep: float, block: tuple[int, int], size: tuple[int, int]) -> float:
    """γ, the probability that a block starts at a place where it fits (Eq. 1).

    Chosen so that a share 1 − keep of the map would be dropped if no blocks overlapped; fewer are,
    since they do.

    Args:
        keep: keep_prob in [0, 1]. block: its height and width, ≥ 1. size: the map's height and
            width, ≥ the block's.
    Returns:
        In [0, 1 − keep].
    """
    places = (size[0] - block[0] + 1) * (size[1] - block[1] + 1)
    return (1 - keep) * size[0] * size[1] / (block[0] * block[1] * places)


def grow_blocks(corners: Tensor, block: tuple[int, int]) -> Tensor:
    """The union of the blocks whose upper left corners are marked; blocks of even sizes too.

    Args:
        corners: bool (…, h, w), the places where a block fits. block: its height and width.
    Returns:
        bool (…, h + block height − 1, w + block width − 1).
    """
    height, width = corners.shape[-2:]
    wide = F.pad(corners, (0, block[1] - 1))
    for shift in range(1, block[1]):
        wide[..., shift : shift + width] |= corners
    tall = F.pad(wide, (0, 0, 0, block[0] - 1))
    for shift in range(1, block[0]):
        tall[..., shift : shift + height, :] |= wide
    return tall


def drop_blocks(maps: Tensor, dropped: Tensor) -> Tensor:
    """A × M × count(M) / count_ones(M), the last two lines of Algorithm 1, counted over the whole
    batch.

    Args:
        maps: (B, C, H, W) floating. dropped: bool, same shape, True where M is 0.
    Returns:
        A new tensor like `maps`; all zero if everything is dropped, also where maps are infinite.
        Differentiable in `maps`.
    """
    kept = dropped.numel() - dropped.sum()
    scale = dropped.numel() / kept.clamp_min(1)  # 0-dim float32: it does not widen half floats
    # else channels_last maps would lose their format
    mask = torch.empty_like(maps, dtype=torch.bool).copy_(dropped)
    return torch.where(mask, 0, maps) * scale


@dataclass(frozen=True, kw_only=True)
class DropBlock(Regulariser):
    """Every channel of every image has blocks of its own (Algorithm 1; better than shared ones,
    says the paper).

    It acts behind whole stages, so that it works on any CNN; the paper puts it behind every
    convolution and shortcut of the last two groups of a ResNet-50. There keep falls linearly from 1
    over the run, here it is constant. Where a method mixes the same stage, it mixes what DropBlock
    left.

    Differs from the release (the one that CutMix's comparison used): there an image's channels
    share one mask, here each has its own.

    Args:
        keep: the share of values to keep, in (0, 1]; 0.9 in its paper and in CutMix's comparison.
        block: side of a block, ≥ 1; 4 in CutMix's comparison on CIFAR (7 on ImageNet in its own
            paper). On a map with a shorter side it is as long as that.
        blocks: qualified names of the modules to act behind; None takes the last two of
            `catchup.find_blocks`.
    """

    keep: float = 0.9
    block: int = 4
    blocks: str | tuple[str, ...] | None = None

    title: ClassVar[str] = "DropBlock"
    about: ClassVar[str] = (
        "last two stages: squares of the maps set to zero (Ghiasi, Lin & Le, NeurIPS 2018)"
    )

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], got {self.keep}")
        if isinstance(self.block, bool) or not isinstance(self.block, int) or self.block < 1:
            raise ValueError(f"block must be a whole number of at least 1, got {self.block!r}")

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if no blocks are found, or there is none of a given name."""
        for name in self.block_names(model):
            submodule(model, name)

    def block_names(self, model: nn.Module) -> tuple[str, ...]:
        """The names given, or those of the last two blocks."""
        if self.blocks is None:
            return remembered_blocks(model)[-2:]
        return (self.blocks,) if isinstance(self.blocks, str) else tuple(self.blocks)

    def dropped(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Which values go: bool (B, C, H, W) on the generator's device; ValueError for another
        number of dimensions.
        """
        if len(shape) != 4:
            raise ValueError(f"dropblock needs maps (B, C, H, W), got {tuple(shape)}")
        size = (shape[2], shape[3])
        block = (min(self.block, size[0]), min(self.block, size[1]))
        places = (*shape[:2], size[0] - block[0] + 1, size[1] - block[1] + 1)
        corners = torch.rand(places, generator=generator, device=generator.device) < gamma(
            self.keep, block, size
        )
        return grow_blocks(corners, block)

    @contextmanager
    def around(self, model: nn.Module, seed: int) -> Iterator[None]:
        """Inside the block the stages' outputs lose their blocks."""

        def act(_index: int, maps: Tensor, generator: torch.Generator) -> Tensor:
            return drop_blocks(maps, self.dropped(maps.shape, generator))

        with act_behind(
            model, self.block_names(model) if self.keep < 1 else (), act, seed, "dropblock"
        ):
            yield
