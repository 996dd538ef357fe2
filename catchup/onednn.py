"""A way around an error of oneDNN, with which PyTorch computes convolutions on x86 CPUs.

In bfloat16 (AVX-512) the weights of a padded convolution with a horizontal stride get a gradient out of memory that
nobody wrote, where its output is one pixel wide: numbers of any size, and no error (oneDNN 3.13 in PyTorch 2.15; in
float32 it is right). Networks come there on small images: ResNet-18 with a stem stride of 2 on images of 8×8. The other
error, of narrow strided 1×1 convolutions in channels_last, is avoided by `catchup.models.memory_format`.
"""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class LoneColumnsInFloat32(TorchFunctionMode):
    """A context in which this thread computes those convolutions in float32 on a CPU, autocast or not.

    Models are left alone; what is computed on other devices, or by other convolutions, is as without it.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not torch.conv2d or not _at_risk(*args, **kwargs):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            maps, weight, *others = args
            return function(maps.float(), weight.float(), *others, **kwargs)


def _at_risk(input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1) -> bool:
    """Is it a convolution on a CPU, padded and strided in its width, whose output is one pixel wide?"""
    step, pad, gap = (value if isinstance(value, (int, str)) else value[-1] for value in (stride, padding, dilation))
    if step == 1 or isinstance(pad, str) or pad == 0 or input.device.type != "cpu":
        return False
    return (input.shape[-1] + 2 * pad - gap * (weight.shape[-1] - 1) - 1) // step == 0
