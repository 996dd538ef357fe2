"""The four noises: every value of every pixel for itself.

Source: Hendrycks & Dietterich, ICLR 2019; numbers and formulas of make_cifar_c.py. Each takes (B,
C, H, W) float32 images in [0, 1], a severity from 1 to 5 and a CPU generator, and returns such
images, see `catchup.measures.corruptions`.
"""

import torch
from torch import Tensor

from .base import constant_of, normal


def gaussian_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A normal deviate is added to every value, which is then clipped: poor light."""
    scale = constant_of("gaussian_noise", images, severity, generator)
    return (images + scale * normal(images.shape, generator, images.device)).clamp_(0, 1)


def shot_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Every value is a count of photons, Poisson distributed about what it should be, clipped."""
    photons = constant_of("shot_noise", images, severity, generator)
    return (
        torch.poisson(images.cpu() * photons, generator=generator).to(images.device) / photons
    ).clamp_(0, 1)


def impulse_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A share of the values, each channel for itself, becomes 0 or 1, either equally often: salt
    and pepper.
    """
    amount = constant_of("impulse_noise", images, severity, generator)
    chance = torch.rand(images.shape, generator=generator).to(images.device)
    return images.masked_fill(chance < amount, 1.0).masked_fill_(chance < amount / 2, 0.0)


def speckle_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Normal noise whose deviation is a share of the value itself, clipped."""
    scale = constant_of("speckle_noise", images, severity, generator)
    return (images * (1 + scale * normal(images.shape, generator, images.device))).clamp_(0, 1)
