"""The maps of each image's partner, the memory format kept: `maps[partner]`, several times faster on a CPU."""

import torch
from torch import Tensor


def of_partners(maps: Tensor, partner: Tensor) -> Tensor:
    """`maps[partner]`, image by image as one run of memory, where plain indexing goes element by element.

    Args:
        maps: (B, …), any dtype, contiguous or in channels_last.
        partner: (B,) int64 in [0, B), on the same device.
    Returns:
        A new tensor like `maps`; differentiable (twice) in `maps`.
    """
    if maps.ndim != 4 or maps.is_contiguous() or not maps.is_contiguous(memory_format=torch.channels_last):
        return maps.index_select(0, partner)
    innermost = maps.permute(0, 2, 3, 1)  # contiguous, the channels last
    taken = innermost.reshape(len(maps), -1).index_select(0, partner)
    return taken.view(innermost.shape).permute(0, 3, 1, 2)
