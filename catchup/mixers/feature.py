"""Methods that mix feature maps: which blocks of the model, and which of them a step may draw."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..hooks.blocks import remembered_blocks, submodule
from .base import Mixer


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMixer(Mixer):
    """A mixer that draws one layer per step: the input (0) or the output of a block (1, 2, …).

    Args:
        layers: layer set to draw from, uniformly; None takes the input and all blocks.
        blocks: qualified names of the blocks; None finds them (`catchup.find_blocks`).
    """

    layers: tuple[int, ...] | None = None
    blocks: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(isinstance(layer, int) for layer in self.layers or ()):
            raise ValueError(f"layers must be integers, got {tuple(self.layers or ())}")
        for name, value in (("layers", self.layers), ("blocks", self.blocks)):
            if value is not None and (len(value) == 0 or len(set(value)) < len(value)):
                raise ValueError(
                    f"{name} must name at least one and none twice, got {tuple(value)}"
                )

    def block_names(self, model: nn.Module) -> tuple[str, ...]:
        """The given or found names, in order; block k is layer k. None is looked for if only the
        input is drawn.
        """
        if self.layers == (0,) and self.blocks is None:
            return ()
        if self.blocks is None:
            return remembered_blocks(model)
        for name in self.blocks:
            submodule(model, name)  # a wrong name is refused here, with the nearest right one
        return tuple(self.blocks)

    def layer_set(self, n_blocks: int) -> Sequence[int]:
        """The layers to draw from; ValueError if one does not exist in a model of `n_blocks`
        blocks.
        """
        if self.layers is None:
            return range(n_blocks + 1)
        for layer in self.layers:
            if layer not in range(n_blocks + 1):
                raise ValueError(
                    f"unknown layer {layer!r}: this model has 0 (the input) and 1 … {n_blocks}"
                    " (blocks)"
                )
        return self.layers
