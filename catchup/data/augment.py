"""Random crop after padding and random horizontal flip, a whole batch at once and on the batch's own device.

The augmentation of the CIFAR protocols: pad every side, cut a window of the old size at a random place, mirror half of
the images. All the chance is in `draw_crops`; `crops` is arithmetic. Also the way from stored to network values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..choices import pick

PAD_MODES = ("zero", "reflect")


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image.

    Args:
        pad: pixels added on each side before a window of the old size is cut out, >= 0; 0 leaves the place alone.
        pad_mode: what the border holds: "zero" (black), or "reflect" (the image mirrored, its edge not repeated).
        flip: whether each image is mirrored left to right with probability 1/2.
    Raises:
        ValueError: if `pad` is no integer >= 0, `pad_mode` is unknown or `flip` is no bool.
    """

    pad: int = 0
    pad_mode: str = "zero"
    flip: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.pad, bool) or not isinstance(self.pad, int) or self.pad < 0:
            raise ValueError(f"pad must be an integer of at least 0 pixels, got {self.pad!r}")
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip must be True or False, got {self.flip!r}")
        pick("pad_mode", self.pad_mode, PAD_MODES)


class CropDraw(NamedTuple):
    """The chance of one batch, on the CPU."""

    top: Tensor  # (B,) int64 in [0, 2 pad], first row of the window in the padded image
    left: Tensor  # (B,) int64 in [0, 2 pad], first column
    flipped: Tensor  # (B,) bool, True where the window is mirrored left to right


def draw_crops(batch: int, augmentation: Augmentation, generator: torch.Generator) -> CropDraw:
    """Where each of `batch` images is cut and whether it is mirrored; both uniform, from a CPU `generator`.

    Raises:
        ValueError: if the generator is not on the CPU.
    """
    if generator.device.type != "cpu":
        raise ValueError(f"the generator must be on the CPU, so that a seed means the same everywhere, "
                         f"got one on {generator.device}")
    top, left = torch.randint(0, 2 * augmentation.pad + 1, (2, batch), generator=generator)
    flipped = torch.rand(batch, generator=generator) < (0.5 if augmentation.flip else 0.0)
    return CropDraw(top, left, flipped)


def crops(pixels: Tensor, augmentation: Augmentation, draw: CropDraw) -> Tensor:
    """The windows that `draw` names, cut out of the padded images; deterministic, and without waiting for the device.

    Args:
        pixels: (B, C, H, W) uint8.
        draw: as `draw_crops` returns it for B images.
    Returns:
        (B, C, H, W) uint8 on the device of `pixels`; `pixels` itself is left alone.
    Raises:
        ValueError: if `pixels` has another shape or dtype, `draw` is for another number of images, or the reflected
            border would be as wide as the image.
    """
    _check_pixels(pixels)
    if len(draw.top) != len(pixels):
        raise ValueError(f"the draw is for {len(draw.top)} images, got {len(pixels)}")
    height, width = pixels.shape[2:]
    top, left, flipped = (part.to(pixels.device, non_blocking=True) for part in draw)
    if augmentation.pad:
        windows = _padded(pixels, augmentation).unfold(2, height, 1).unfold(3, width, 1)  # (B, C, top, left, H, W) view
        pixels = windows[torch.arange(len(pixels), device=pixels.device), :, top, left]
    return torch.where(flipped[:, None, None, None], pixels.flip(3), pixels) if augmentation.flip else pixels


def crop_and_flip(pixels: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """A batch as training sees it: padded, cut at random places, half of it mirrored.

    Args:
        pixels: (B, C, H, W) uint8, on any device.
        generator: the only source of chance, on the CPU.
    Returns:
        (B, C, H, W) uint8 on the device of `pixels`.
    Raises:
        ValueError: as `draw_crops` and `crops`.
    """
    _check_pixels(pixels)
    return crops(pixels, augmentation, draw_crops(len(pixels), augmentation, generator))


def to_float(pixels: Tensor) -> Tensor:
    """Stored values as float32 in [0, 1]: divided by 255, same shape and device.

    Raises:
        ValueError: if `pixels` is not uint8.
    """
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8, got {pixels.dtype}")
    return pixels.to(torch.float32) / 255


def normalise(images01: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(images01 - mean) / std, channel by channel; differentiable.

    Args:
        images01: (B, C, H, W) floating, values in [0, 1].
        mean, std: C numbers each, on the same scale; std > 0.
    Returns:
        (B, C, H, W), same dtype and device.
    Raises:
        ValueError: if the images are no floating (B, C, H, W), mean or std is not C numbers, or a std is not > 0.
    """
    if images01.ndim != 4 or not images01.is_floating_point():
        raise ValueError(f"images01 must be floating (B, C, H, W), got {images01.dtype} {tuple(images01.shape)}")
    channels = images01.shape[1]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean and std need a number for each of {channels} channels, not {len(mean)} and {len(std)}")
    if not all(value > 0 for value in std):
        raise ValueError(f"every std must be greater than 0, got {tuple(std)}")
    table = torch.tensor([list(mean), list(std)], dtype=images01.dtype).to(images01.device, non_blocking=True)
    return (images01 - table[0, :, None, None]) / table[1, :, None, None]


def _check_pixels(pixels: Tensor) -> None:
    """Raise unless `pixels` is (B, C, H, W) uint8."""
    if pixels.ndim != 4 or pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8 (B, C, H, W), got {pixels.dtype} {tuple(pixels.shape)}")


def _padded(pixels: Tensor, augmentation: Augmentation) -> Tensor:
    """(B, C, H + 2 pad, W + 2 pad); by index where mirrored, since F.pad reflects no uint8."""
    pad, (height, width) = augmentation.pad, pixels.shape[2:]
    if augmentation.pad_mode == "zero":
        return F.pad(pixels, (pad, pad, pad, pad))
    if pad >= min(height, width):
        raise ValueError(f"reflect padding must be smaller than the image, got pad {pad} for {height} x {width}")
    rows, columns = (_mirrored(side, pad, pixels.device) for side in (height, width))
    return pixels.index_select(2, rows).index_select(3, columns)


def _mirrored(side: int, pad: int, device: torch.device) -> Tensor:
    """(side + 2 pad,) int64: pad … 1 0 1 … side-1 side-2 …, the index each padded place shows."""
    index = torch.arange(-pad, side + pad, device=device).abs()
    return (side - 1) - (side - 1 - index).abs()
