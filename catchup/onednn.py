"""A way around an error of oneDNN, with which PyTorch computes convolutions on x86 CPUs.

In bfloat16 (AVX-512) the weights of a padded convolution with a stride get a gradient out of memory that nobody wrote,
where its output is a single pixel: numbers of any size, and no error (oneDNN 3.13 in PyTorch 2.15; in float32 it is
right). Networks come there on small images: ResNet-18 with a stem stride of 2 on images of 8×8. The other error, of
narrow strided 1×1 convolutions in channels_last, is avoided by `catchup.models.memory_format`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def lone_pixels_in_float32(model: nn.Module) -> Iterator[None]:
    """Inside the block padded, strided convolutions with one pixel of output compute in float32, autocast or not.

    Args:
        model: any; its `nn.Conv2d` modules get hooks for the length of the block.
    """
    casts: list[torch.autocast] = []

    def before(module: nn.Conv2d, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        maps = args[0]
        alone = maps.device.type == "cpu" and _output_size(module, maps.shape[2:]) == (1, 1)
        casts.append(torch.autocast("cpu", enabled=torch.is_autocast_enabled("cpu") and not alone))
        casts[-1].__enter__()
        return (maps.float(),) if alone and module.weight.dtype == torch.float32 else None

    def after(_module: nn.Conv2d, _args, _output) -> None:
        casts.pop().__exit__(None, None, None)

    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and module.padding not in ((0, 0), "valid"):
                stack.enter_context(module.register_forward_pre_hook(before))
                stack.enter_context(module.register_forward_hook(after, always_call=True))
        yield


def _output_size(module: nn.Conv2d, size: torch.Size) -> tuple[int, ...]:
    """Height and width of what the convolution returns for maps of `size`."""
    return tuple((side + 2 * pad - gap * (kernel - 1) - 1) // step + 1 for side, pad, gap, kernel, step in
                 zip(size, module.padding, module.dilation, module.kernel_size, module.stride))
