"""The maps that a classifier reads, and the evidence for a class in them (CAM), of one forward
pass.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import remembered_blocks, submodule, unwrap


def pooled_maps(
    model: nn.Module, images: Tensor, channels: int, block: str | None = None
) -> tuple[Tensor, Tensor]:
    """The maps whose averages the classifier reads, and the logits, of one forward pass without
    gradient.

    They are the last maps (B, `channels`, h, w) that a block of the model, or a module outside its
    blocks, returns: a final BatchNorm or 1×1 convolution is included (PreActResNet, DenseNet,
    MobileNetV2). Maps of one pixel count only if there are no larger ones, for they are averages
    already. What a model does with the averages before it classifies them (ConvNeXt normalises) is
    left out.

    Args:
        model: a CNN in any mode, wrapped or not; it runs in the mode it is in, on the bare model.
        images: (B, C, H, W) floating. channels: inputs of the classifier.
        block: qualified name of the module that returns the maps; None looks for it as said.
    Returns:
        Maps (B, channels, h, w) and logits (B, N), of any floating dtype, without gradient.
    Raises:
        ValueError: if there is no module `block`, or nothing returns such maps.
    """
    inner = unwrap(model)
    last_maps: list[Tensor] = []

    def keep(_module: nn.Module, _args: tuple, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] == channels:
            if not last_maps or output.shape[-2:].numel() > 1:
                # no copy: a ReLU in place that follows belongs to what is averaged
                last_maps[:] = [output]

    with ExitStack() as stack, torch.no_grad():
        for part in [submodule(model, block)] if block else _outside_blocks(model):
            stack.enter_context(part.register_forward_hook(keep))
        logits = inner(images)
    if not last_maps:
        raise ValueError(
            f"{f'module {block!r}' if block else 'no module'} of {type(inner).__name__} returns"
            f" maps (B, {channels}, h, w), as many channels as the classifier has inputs; class"
            " activation maps need a classifier that reads averaged maps, or block= and"
            " classifier= by name"
        )
    return last_maps[0], logits


def class_activation_map(maps: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """CAM: the maps summed with the classifier's weights of the label (Zhou et al., CVPR 2016, Eq.
    2).

    Args:
        maps: (B, D, h, w) floating, what the classifier gets the averages of. weight: (N, D), the
            classifier's.
        labels: (B,) int64 in [0, N), or (B, N) floating class shares, which mix the rows of the
            weight.
    Returns:
        (B, h, w), at least float32 (also under autocast), any sign. The classifier's bias is left
        out: a constant.
    """
    dtype = torch.promote_types(maps.dtype, torch.float32)
    with torch.autocast(maps.device.type, enabled=False):
        weight = weight.detach().to(dtype)
        rows = labels.to(dtype) @ weight if labels.is_floating_point() else weight[labels]
        return torch.einsum("bd,bdhw->bhw", rows, maps.to(dtype))


def _outside_blocks(model: nn.Module) -> Sequence[nn.Module]:
    """The blocks and all that lies outside them: the code inside may be compiled, and hooks would
    have it rebuilt.
    """
    inside = tuple(f"{name}." for name in remembered_blocks(model))
    return [part for name, part in unwrap(model).named_modules() if not name.startswith(inside)]
