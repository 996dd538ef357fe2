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
    rows = _rows(maps)
    if torch.is_grad_enabled() and maps.requires_grad:
        batch, channels, height, width = maps.shape
        return rows.index_select(0, partner).view(batch, height, width, channels).permute(0, 3, 1, 2)
    taken = torch.empty_like(maps)  # and no view, since a layer that works in place may follow
    torch.index_select(rows, 0, partner, out=_rows(taken))
    return taken


def _rows(maps: Tensor) -> Tensor:
    """Maps in channels_last seen as (B, H · W · C)."""
    return maps.permute(0, 2, 3, 1).view(len(maps), -1)
