"""How often each channel of many images has each of its 256 values; mean and standard deviation
follow from that.

Counted in integers, so that they are the same however the images come: at once, or piece by piece
in any order.
"""

import torch
from torch import Tensor


def value_counts(pixels: Tensor) -> Tensor:
    """(C, 256) int64 of (N, C, H, W) uint8: the pixels of each value, 1 024 images at a time."""
    counts = torch.zeros(pixels.shape[1], 256, dtype=torch.int64, device=pixels.device)
    for part in pixels.split(1024):
        for row, channel in zip(counts, part.unbind(1)):
            row += channel.flatten().bincount(minlength=256)
    return counts


def statistics_of(counts: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, of values in [0, 1], from (C, 256) int64
    `value_counts`.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for row in counts.double():
        mean = (row * values).sum() / row.sum()
        means.append(float(mean))
        stds.append(float(((row * (values - mean) ** 2).sum() / row.sum()).sqrt()))
    return tuple(means), tuple(stds)


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel of (N, C, H, W) uint8, of values in [0, 1], over
    all pixels.
    """
    return statistics_of(value_counts(pixels))


RED, GREEN, BLUE, HALF, BITS = 19595, 38470, 7471, 1 << 15, 16  # shares of 2¹⁶


def luma(red, green, blue):
    """The grey of a colour: arrays or tensors of one shape, 32-bit integers in 0 … 255; returned
    likewise.
    """
    return (RED * red + GREEN * green + BLUE * blue + HALF) >> BITS


def check_channels(held: int, wanted: int) -> None:
    """ValueError unless images of `held` channels can be brought to `wanted`."""
    if held != wanted and {held, wanted} != {1, 3}:
        raise ValueError(
            f"images of {held} channels cannot be brought to {wanted!r}: only grey (1) to colour"
            " (3) and back"
        )
