"""The maps of a model's blocks on a batch of images, each asked for once and in one form."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hooks.blocks import find_blocks
from ..hooks.layers import captured, evaluating
from ..mixers.catchup import filter_influence

OF_NO_USE = "the model's weights are of no use, train it again"


def choose_blocks(model: nn.Module, blocks: Sequence[str] | str | None) -> tuple[str, ...]:
    """The names of the blocks asked for: one, several, or None for all that `find_blocks` finds."""
    if isinstance(blocks, str):
        return (blocks,)
    return tuple(find_blocks(model) if blocks is None else blocks)


@torch.no_grad()
def block_maps(
    model: nn.Module, images: Tensor, blocks: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """{block: its maps, (B, C, h, w)} and what the model answers, in evaluation mode; modes are
    restored and no hook stays.

    Raises:
        ValueError: if a block does not run exactly once, or returns no maps, or not finite ones.
    """
    with evaluating(model), captured(model, *blocks) as calls:
        answer = model(images)
    for name, maps in calls.items():
        if len(maps) != 1 or maps[0].ndim != 4 or len(maps[0]) != len(images):
            raise ValueError(
                f"block {name!r} must run exactly once and return maps ({len(images)}, C, H, W),"
                f" got {[tuple(call.shape) for call in maps]}; name another block"
            )
        if not maps[0].isfinite().all():
            raise ValueError(f"block {name!r} returns NaN or infinity: {OF_NO_USE}")
    return {name: maps[0] for name, maps in calls.items()}, answer


def influences(
    model: nn.Module, batches: Iterator[Tensor] | Sequence[Tensor], blocks: Sequence[str]
) -> dict[str, Tensor]:
    """{block: filter influences (N, C) of the images of all batches, on the CPU}; errors as for
    `block_maps`.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in blocks}
    for batch in batches:
        for name, maps in block_maps(model, batch, blocks)[0].items():
            parts[name].append(filter_influence(maps).cpu())
    return {name: torch.cat(own) for name, own in parts.items()}


def as_bytes(maps: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """|maps| (N, C, h, w), averaged down to `side` at the most, each relative to its own largest
    value: uint8, and these values, (N, C) float32.
    """
    sizes = [min(side, length) for length in maps.shape[2:]]
    amounts = F.adaptive_avg_pool2d(maps.float().abs(), sizes)
    peaks = amounts.amax(dim=(2, 3))
    levels = 255 * amounts / peaks.clamp_min(torch.finfo(peaks.dtype).tiny)[..., None, None]
    return levels.round().byte(), peaks
