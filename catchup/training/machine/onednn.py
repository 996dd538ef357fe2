"""Ways around two errors of oneDNN, with which PyTorch computes convolutions on x86 CPUs.

In bfloat16 (AVX-512) the weights of a padded convolution with a horizontal stride get a gradient
out of memory that nobody wrote, where its output is one pixel wide: numbers of any size, and no
error (oneDNN 3.13 in PyTorch 2.15; in float32 it is right). Networks come there on small images:
ResNet-18 with a stem stride of 2 on images of 8×8. `lone_columns_in_float32` avoids it. The other
error, of narrow strided 1×1 convolutions in channels_last, `memory_format` avoids.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.overrides import TorchFunctionMode


def lone_columns_in_float32(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Inside the block such a convolution is computed in float32, autocast or not; all else as
    without it.

    Modules and classes stay as they are: torch's calls of this thread are looked at. Blocks may be
    nested.

    Args:
        device: where the model is; on another than a CPU nothing is done.
        precision: of the run; in "fp32" nothing is done.
    """
    return _LoneColumns() if device.type == "cpu" and precision != "fp32" else nullcontext()


class _LoneColumns(TorchFunctionMode):
    """Calls of conv2d at risk, in float32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not conv2d or not _at_risk(*args, **kwargs):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(
                *map(_in_float32, args), **{key: _in_float32(kwargs[key]) for key in kwargs}
            )


def _in_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


def _at_risk(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Is a convolution strided and padded in its width, and its output one pixel wide?"""
    if isinstance(padding, str):
        return False
    step, pad, spread = (_last(value) for value in (stride, padding, dilation))
    if step == 1 or pad == 0:
        return False
    return (maps.shape[-1] + 2 * pad - spread * (weight.shape[-1] - 1) - 1) // step == 0


def _last(value: Any) -> int:
    """Of a number for both sides, or one for each, that of the width."""
    return value if isinstance(value, int) else value[-1]


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
