"""What happens to training images: crops, flips and colours, a whole batch at once and on the
batch's own device.

The CIFAR protocols pad every side, cut a window of the old size at a random place and mirror half
of the images; others cut a smaller window, or resize a random box (`resize.py`), and change colours
(`colour.py`). All the chance is in the functions called `draw_…`, the rest is arithmetic. Also the
way from stored to network values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.choices import check_whole, pick
from ..utils.tensors import check_on_cpu, form_of
from .colour import change_colours, draw_colours
from .resize import ResizedCrop, crop_and_resize, draw_boxes

PAD_MODES = ("zero", "reflect")


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image.

    Args:
        pad: pixels added on each side before a window of the old size is cut out, >= 0; 0 leaves
            the place alone.
        pad_mode: what the border holds: "zero" (black), or "reflect" (the image mirrored, its edge
            not repeated).
        flip: whether each image is mirrored left to right with probability 1/2.
        window: side of the square that is cut out, >= 1 and at most the image's sides; None keeps
            the image's size.
        resized: cut a random box and bring it to that size, instead of a window at a random place;
            then `pad` is 0.
        jitter: brightness, contrast and saturation change by up to this share, in [0, 1]; 0 leaves
            them alone.
        pca_noise: standard deviation of the noise along ImageNet's colour components, >= 0; 0 adds
            none.
    Raises:
        ValueError: if a number is not so, `pad_mode` is unknown, `flip` is no bool, or `pad` goes
            with `crop_and_resize`.
    """

    pad: int = 0
    pad_mode: str = "zero"
    flip: bool = False
    window: int | None = None
    resized: ResizedCrop | None = None
    jitter: float = 0.0
    pca_noise: float = 0.0

    def __post_init__(self) -> None:
        check_whole(0, pad=self.pad)
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip must be True or False, got {self.flip!r}")
        pick("pad_mode", self.pad_mode, PAD_MODES)
        if self.window is not None:
            check_whole(window=self.window)
        if self.resized and self.pad:
            raise ValueError(
                "a resized crop is cut out of the image itself: pad must be 0 with it, got"
                f" {self.pad}"
            )
        if not 0 <= self.jitter <= 1 or not 0 <= self.pca_noise < math.inf:
            raise ValueError(
                f"jitter must lie in [0, 1] and pca_noise be >= 0, got {self.jitter} and"
                f" {self.pca_noise}"
            )

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what is cut out of images of `size` (H, W).

        Raises:
            ValueError: if the window does not fit into them.
        """
        if self.window is None:
            return tuple(size)
        if self.window > min(size):
            raise ValueError(
                f"a window of {self.window} pixels does not fit into images of {size[0]} x"
                f" {size[1]}; give a smaller window, or a larger image_size"
            )
        return self.window, self.window


class CropDraw(NamedTuple):
    """The chance of one batch, on the CPU."""

    # (B,) int64, first row of the window in the padded image: in [0, 2 pad] where it is of the old
    # size
    top: Tensor
    left: Tensor  # (B,) int64, first column
    flipped: Tensor  # (B,) bool, True where the window is mirrored left to right


def draw_crops(
    batch: int,
    augmentation: Augmentation,
    generator: torch.Generator,
    size: tuple[int, int] | None = None,
) -> CropDraw:
    """Where each of `batch` images is cut and whether it is mirrored; both uniform, from a CPU
    `generator`.

    Args:
        size: height and width of the images; needed where the augmentation has a window.
    Raises:
        ValueError: if the generator is not on the CPU, or a window has no size to be cut from or
            does not fit.
    """
    check_on_cpu(generator)
    most = 2 * augmentation.pad
    if augmentation.window is None:
        top, left = torch.randint(0, most + 1, (2, batch), generator=generator)
    elif size is None:
        raise ValueError(
            f"a window of {augmentation.window} pixels needs the size of the images it is cut from"
        )
    else:
        rooms = [side - inner + most for side, inner in zip(size, augmentation.size_of(size))]
        top, left = (torch.randint(0, room + 1, (batch,), generator=generator) for room in rooms)
    flipped = torch.rand(batch, generator=generator) < (0.5 if augmentation.flip else 0.0)
    return CropDraw(top, left, flipped)


def crops(pixels: Tensor, augmentation: Augmentation, draw: CropDraw) -> Tensor:
    """The windows that `draw` names, cut out of the padded images; deterministic, and without
    waiting for the device.

    Args:
        pixels: (B, C, H, W) uint8.
        draw: as `draw_crops` returns it for B images.
    Returns:
        (B, C, H, W) uint8, or (B, C, window, window), on the device of `pixels`; `pixels` itself is
        left alone.
    Raises:
        ValueError: if `pixels` has another shape or dtype, `draw` is for another number of images,
            or the reflected border would be as wide as the image.
    """
    _check_pixels(pixels)
    if len(draw.top) != len(pixels):
        raise ValueError(f"the draw is for {len(draw.top)} images, got {len(pixels)}")
    height, width = augmentation.size_of(pixels.shape[2:])
    top, left, flipped = (part.to(pixels.device, non_blocking=True) for part in draw)
    if augmentation.pad or (height, width) != pixels.shape[2:]:
        # (B, C, top, left, H, W) view
        windows = _pad(pixels, augmentation).unfold(2, height, 1).unfold(3, width, 1)
        pixels = windows[torch.arange(len(pixels), device=pixels.device), :, top, left]
    return _mirror_where(flipped, pixels) if augmentation.flip else pixels


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
    draw = draw_crops(len(pixels), augmentation, generator, tuple(pixels.shape[2:]))
    return crops(pixels, augmentation, draw)


def augment_batch(pixels: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """A batch as training sees it: cut or resized, mirrored, its colours changed.

    Args:
        pixels: (B, C, H, W) uint8, on any device.
        generator: the only source of chance, on the CPU. What is switched off draws nothing.
    Returns:
        (B, C, *augmentation.size_of((H, W))) uint8 on the device of `pixels`.
    Raises:
        ValueError: as `draw_crops` and `crops`; if colours are to change in images without three
            channels.
    """
    cut = crop_and_flip if augmentation.resized is None else _resize_and_flip
    pixels = cut(pixels, augmentation, generator)
    jitter, noise = augmentation.jitter, augmentation.pca_noise
    if jitter or noise:
        pixels = change_colours(pixels, draw_colours(len(pixels), jitter, noise, generator))
    return pixels


def centre_crops(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of the images, (…, *size): what evaluation sees where training cuts windows of
    `size`.

    Args:
        pixels: (…, H, W).
        size: at most (H, W); an odd pixel too many is left out below and to the right.
    """
    top, left = ((side - inner) // 2 for side, inner in zip(pixels.shape[-2:], size))
    return pixels[..., top : top + size[0], left : left + size[1]].contiguous()


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
        ValueError: if the images are no floating (B, C, H, W), mean or std is not C numbers, or a
            std is not > 0.
    """
    if images01.ndim != 4 or not images01.is_floating_point():
        raise ValueError(f"images01 must be floating (B, C, H, W), got {form_of(images01)}")
    channels = images01.shape[1]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"mean and std need a number for each of {channels} channels, not {len(mean)} and"
            f" {len(std)}"
        )
    if not all(value > 0 for value in std):
        raise ValueError(f"every std must be greater than 0, got {tuple(std)}")
    table = torch.tensor([list(mean), list(std)], dtype=images01.dtype)
    table = table.to(images01.device, non_blocking=True)
    return (images01 - table[0, :, None, None]) / table[1, :, None, None]


def _resize_and_flip(
    pixels: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """A random box of each image brought to the size, half of them mirrored."""
    _check_pixels(pixels)
    check_on_cpu(generator)
    size = tuple(pixels.shape[2:])
    crop = augmentation.resized
    boxes = draw_boxes(len(pixels), size, crop, generator)
    pixels = crop_and_resize(pixels, boxes, augmentation.size_of(size), crop.interpolation)
    if not augmentation.flip:
        return pixels
    flipped = torch.rand(len(pixels), generator=generator) < 0.5
    return _mirror_where(flipped.to(pixels.device, non_blocking=True), pixels)


def _mirror_where(flipped: Tensor, pixels: Tensor) -> Tensor:
    """The images, those of `flipped` (B,) bool mirrored left to right."""
    return torch.where(flipped[:, None, None, None], pixels.flip(3), pixels)


def _check_pixels(pixels: Tensor) -> None:
    """Raise unless `pixels` is (B, C, H, W) uint8."""
    if pixels.ndim != 4 or pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8 (B, C, H, W), got {form_of(pixels)}")


def _pad(pixels: Tensor, augmentation: Augmentation) -> Tensor:
    """(B, C, H + 2 pad, W + 2 pad); by index where mirrored, since F.pad reflects no uint8."""
    pad, (height, width) = augmentation.pad, pixels.shape[2:]
    if augmentation.pad_mode == "zero":
        return F.pad(pixels, (pad, pad, pad, pad))
    if pad >= min(height, width):
        raise ValueError(
            f"reflect padding must be smaller than the image, got pad {pad} for {height} x {width}"
        )
    rows, columns = (_reflected_index(side, pad, pixels.device) for side in (height, width))
    return pixels.index_select(2, rows).index_select(3, columns)


def _reflected_index(side: int, pad: int, device: torch.device) -> Tensor:
    """(side + 2 pad,) int64: pad … 1 0 1 … side-1 side-2 …, the index each padded place shows."""
    index = torch.arange(-pad, side + pad, device=device).abs()
    return (side - 1) - (side - 1 - index).abs()
