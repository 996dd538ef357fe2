"""The maps of each image's partner, the memory format kept: `maps[partner]`, several times faster
on a CPU.
"""

from typing import Any

import torch
from torch import Tensor


def of_partners(maps: Tensor, partner: Tensor) -> Tensor:
    """`maps[partner]`, image by image as one run of memory, where plain indexing goes element by
    element.

    Args:
        maps: (B, …), any dtype, contiguous or in channels_last.
        partner: (B,) int64, a permutation of 0 … B-1, on the same device.
    Returns:
        A new tensor like `maps`, and no view, since a layer that works in place may follow;
        differentiable (twice) in `maps`.
    """
    return _OfPartners.apply(maps, partner) if maps.requires_grad else _take(maps, partner)


class _OfPartners(torch.autograd.Function):
    """With a backward pass of the same kind: each image gets the gradient of the one that borrowed
    its maps.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, partner: Tensor) -> Tensor:
        ctx.save_for_backward(partner)
        return _take(maps, partner)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (partner,) = ctx.saved_tensors
        return of_partners(grad, partner.argsort()), None


def _take(maps: Tensor, partner: Tensor) -> Tensor:
    if (
        maps.ndim != 4
        or maps.is_contiguous()
        or not maps.is_contiguous(memory_format=torch.channels_last)
    ):
        return maps.index_select(0, partner)
    taken = torch.empty_like(maps)
    torch.index_select(_rows(maps), 0, partner, out=_rows(taken))
    return taken


def _rows(maps: Tensor) -> Tensor:
    """Maps in channels_last seen as (B, H · W · C)."""
    return maps.permute(0, 2, 3, 1).view(len(maps), -1)
