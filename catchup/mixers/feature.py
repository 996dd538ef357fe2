"""Methods that mix feature maps: which blocks of the model, and which of them a step may draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..hooks.blocks import remembered_blocks, submodule, trailing_features
from ..hooks.layers import evaluating, hooked
from ..hooks.passes import side_passes
from .base import Mixer
from .checks import check_maps


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


def check_blocks_run(mixer: Mixer, model: nn.Module, images: Tensor) -> None:
    """Runs `model` once, to see that every block the method may draw can be mixed: a block that
    never runs would otherwise stop the run at the step that draws it.

    In evaluation mode and without gradients; model and random generators are left as they were.

    Args:
        mixer: the method; nothing is run for one that draws no block.
        model: the bare model.
        images: (B, C, …) normalised, on the model's device.
    Raises:
        ValueError: for a block that does not run exactly once, or returns no maps, by its name.
        RuntimeError: as `catchup.hooks.layers.hooked`. A forward pass that fails otherwise is left
            to the first step.
    """
    names = mixer.block_names(model)
    drawn = [names[layer - 1] for layer in mixer.layer_set(len(names)) if layer]
    if not drawn:
        return

    def look(block: str, maps: Tensor) -> None:
        check_maps(maps, images, block, trailing_features(submodule(model, block)))

    with (
        side_passes(),
        evaluating(model),
        torch.no_grad(),
        torch.random.fork_rng(),
        hooked(model, drawn, look, changes=False) as runs,
    ):
        try:
            model(images)
        except (RuntimeError, MemoryError):
            return
    for block in drawn:
        if runs[block] != 1:
            times = f"runs {runs[block]} times" if runs[block] else "does not run"
            once = [name for name in drawn if runs[name] == 1]
            raise ValueError(
                f"block {block!r} {times} in a forward pass of {type(model).__name__}; it has to"
                " run exactly once to be mixed: name the blocks to mix behind (of those drawn,"
                f" {', '.join(once) or 'none'} can be)"
            )
