"""A way around an error of oneDNN, with which PyTorch computes convolutions on x86 CPUs.

In bfloat16 (AVX-512) the weights of a padded convolution with a horizontal stride get a gradient
out of memory that nobody wrote, where its output is one pixel wide: numbers of any size, and no
error (oneDNN 3.13 in PyTorch 2.15; in float32 it is right). Networks come there on small images:
ResNet-18 with a stem stride of 2 on images of 8×8. The other error, of narrow strided 1×1
convolutions in channels_last, is avoided by `catchup.training.machine.onednn.memory_format`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from .process_wide import shared

_usual = nn.Conv2d._conv_forward


def lone_columns_in_float32() -> AbstractContextManager[None]:
    """Inside the block every `nn.Conv2d` computes such a convolution in float32 on a CPU, autocast
    or not.

    All else is computed as without it, and no module is touched: the class is, for the time of the
    block. Blocks may be nested, in several threads too.
    """
    return _in_float32()


def _careful(module: nn.Conv2d, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`nn.Conv2d._conv_forward`, in float32 where it has to be."""
    if maps.device.type != "cpu" or not _at_risk(module, maps.shape[-1]):
        return _usual(module, maps, weight, bias)
    with torch.autocast("cpu", enabled=False):
        return _usual(module, maps.float(), weight.float(), bias if bias is None else bias.float())


def _at_risk(module: nn.Conv2d, width: int) -> bool:
    """Is the convolution strided and padded in its width, and its output one pixel wide, for maps
    of this width?
    """
    step, pad = module.stride[1], module.padding
    if step == 1 or isinstance(pad, str) or pad[1] == 0:
        return False
    return (width + 2 * pad[1] - module.dilation[1] * (module.kernel_size[1] - 1) - 1) // step == 0


def _patch(forward: Callable) -> None:
    nn.Conv2d._conv_forward = forward


_in_float32 = shared(lambda: _patch(_careful), lambda: _patch(_usual))


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """channels_last, which is faster on CPU and GPU, unless it is not safe.

    On x86 CPUs oneDNN writes outside its memory in the backward pass of a strided 1×1 convolution
    with fewer input channels than one vector holds (8 with AVX2, 16 with AVX-512) in channels_last
    (oneDNN issue 6035): a crash, a hang or wrong weights. Such models, narrow ResNets among them,
    stay in the ordinary format there.
    """
    at_risk = any(
        isinstance(module, nn.Conv2d)
        and set(module.kernel_size) == {1}
        and max(module.stride) > 1
        and module.in_channels < 16
        for module in model.modules()
    )
    return torch.contiguous_format if at_risk and device.type == "cpu" else torch.channels_last
