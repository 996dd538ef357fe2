"""A synthetic frosted pane, for the photographs of frost that this package may not ship.

Its statistics are those of 400 random cuts of 32 x 32 pixels from each of the five photographs of
make_cifar_c.py,
shrunk as there: mean colour, spread of the mean brightness between cuts, contrast within a cut, and
how the power falls with frequency. Needles lie along three axes 60° apart, as ice grows.
Where it misleads: real frost has edges and bare patches, a field of random phases has neither.
Errors under this frost compare models with each other, not with those of the published arrays.
"""

import math

import torch
from torch import Tensor

from ...data.colour import LUMA

COLOUR = (0.565, 0.648, 0.694)  # mean red, green, blue
BETWEEN = 0.151  # standard deviation of the mean brightness of a cut
# standard deviation of the brightness in a cut: tenth and ninetieth percentile
CONTRAST = (0.052, 0.124)
SLOPE = -0.94  # of log power against log frequency
NEEDLES = 6  # how narrowly the needles keep to their axes: the power of the cosine


def frost_texture(shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
    """Frosted panes.

    Args:
        shape: B, C, H, W; C is 1 or 3.
        generator: on the CPU.
    Returns:
        (B, C, H, W) float32 in [0, 1], on the CPU.
    """
    batch, channels, height, width = shape
    field = _needles(
        torch.randn(batch, height, width, generator=generator),
        math.pi / 3 * torch.rand(batch, generator=generator),
    )
    low, high = CONTRAST
    contrast = low + (high - low) * torch.rand(batch, 1, 1, generator=generator)
    level = BETWEEN * torch.randn(batch, 1, 1, generator=generator)
    colour = torch.tensor(COLOUR)[:, None, None]
    if channels == 1:
        colour = (colour * torch.tensor(LUMA)[:, None, None]).sum(dim=0, keepdim=True)
    return (colour + (level + contrast * field)[:, None]).clamp_(0, 1)


def _needles(noise: Tensor, turns: Tensor) -> Tensor:
    """White noise (B, H, W) filtered to the spectrum of frost, of mean 0 and deviation 1; turns:
    (B,) radians.
    """
    height, width = noise.shape[1:]
    down = torch.fft.fftfreq(height)[:, None]
    right = torch.fft.rfftfreq(width)
    frequency = torch.hypot(down, right.expand(height, -1))
    direction = torch.atan2(down.expand(-1, len(right)), right.expand(height, -1))
    lobes = sum(
        torch.cos(direction - turns[:, None, None] - k * math.pi / 3).abs() ** NEEDLES
        for k in range(3)
    )
    gain = frequency.clamp_min(1e-6) ** (SLOPE / 2) * lobes
    gain[:, 0, 0] = 0
    field = torch.fft.irfft2(torch.fft.rfft2(noise) * gain, s=(height, width))
    return field / field.std(dim=(1, 2), keepdim=True, correction=0)
