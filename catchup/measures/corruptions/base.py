"""What the corruptions share: the check of their arguments, chance from a generator, whole levels
of eight bits.
"""

import numpy as np
import torch
from torch import Tensor

from ...data.colour import LUMA
from ...utils.choices import pick
from ...utils.tensors import check_unit_range, form_of
from .constants import CONSTANTS

# pixels; below, the shrunken image of `pixelate` and the border of `glass_blur` leave nothing
SMALLEST = 8
NEARLY = 2e-4  # of a level: float32 arithmetic on whole levels comes out just below them


def constant_of(name: str, images: Tensor, severity: int, generator: torch.Generator | None):
    """The constants of this corruption and severity, after making sure that it can be applied.

    Args:
        name: one of `CONSTANTS`.
        images: (B, C, H, W) float32 in [0, 1], C = 1 or 3, H and W >= 8.
        severity: 1 to 5.
        generator: on the CPU, so that a seed means the same on every device.
    Raises:
        ValueError: if one of them is not so.
    """
    pick("corruption", name, CONSTANTS)
    if isinstance(severity, bool) or severity not in range(1, 6):
        raise ValueError(f"severity must be 1, 2, 3, 4 or 5, got {severity!r}")
    check_images(name, images)
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise ValueError(f"{name} takes a torch.Generator on the CPU, got {generator!r}")
    return CONSTANTS[name][severity - 1]


def check_images(name: str, images: Tensor) -> None:
    """Raise unless the images are (B, C, H, W) float32 in [0, 1], of one or three channels and no
    side below eight.
    """
    if images.ndim != 4 or images.dtype != torch.float32 or len(images) == 0:
        raise ValueError(
            "images must be float32 (B, C, H, W) in [0, 1], at least one, got"
            f" {form_of(images)}; catchup.data.augment.to_float makes them from stored pixels"
        )
    channels, height, width = images.shape[1:]
    if channels not in (1, 3) or min(height, width) < SMALLEST:
        raise ValueError(
            f"{name} is defined for images of 1 or 3 channels and sides of at least {SMALLEST}"
            f" pixels, got {channels} channels, {height} x {width}"
        )
    check_unit_range(images)


def normal(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal float32 numbers, drawn on the CPU."""
    return torch.randn(shape, generator=generator).to(device)


def uniform(
    shape: tuple[int, ...],
    generator: torch.Generator,
    device: torch.device,
    low: float = -1.0,
    high: float = 1.0,
) -> Tensor:
    """Uniform float32 numbers in [low, high), drawn on the CPU."""
    return (low + (high - low) * torch.rand(shape, generator=generator)).to(device)


def floor_levels(images: Tensor) -> Tensor:
    """Whole levels, float32, of images in [0, 1]: what lies between two goes to the lower, as
    NumPy's uint8 does it.
    """
    return (255 * images + NEARLY).floor_()


def round_levels(levels: Tensor) -> Tensor:
    """Levels (0 to 255) as whole ones, halves up, as Pillow does it."""
    return (levels + (0.5 + NEARLY)).floor_()


def quantise(images: Tensor) -> Tensor:
    """Images as the published arrays hold them: uint8, cut off to the level below and not rounded.

    Source: make_cifar_c.py, which ends in `numpy.uint8(255 * image)`. Differs: a value within a
    five-thousandth of a level below a whole one counts as reached, so that arithmetic in float32
    loses no level where nothing was changed.

    Args:
        images: floating, in [0, 1].
    Returns:
        uint8, same shape.
    """
    return floor_levels(images).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """(B, 1, H, W): the brightness of colour images as televisions weigh it; grey ones as they
    are.
    """
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(LUMA, device=images.device)
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


def colour_like(colour: tuple[float, ...], images: Tensor) -> Tensor:
    """(C, 1, 1): a colour for images of C channels; its brightness, where they are grey."""
    values = colour if images.shape[1] == 3 else (float(np.dot(colour, LUMA)),)
    return torch.tensor(values, device=images.device)[:, None, None]
