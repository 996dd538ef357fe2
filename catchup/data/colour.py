"""Changes of colour for a whole batch: brightness, contrast and saturation in random order, and
AlexNet's PCA noise.

Sources: Krizhevsky, Sutskever & Hinton, NeurIPS 2012, section 4.1 (the noise along the principal
components of ImageNet's colours); the jitter as torchvision's ColorJitter without hue. Both belong
to CutMix's ImageNet protocol.

Where it misleads: colours are clipped to [0, 1] after every change, as torchvision does, and at the
end rounded to 1/255; releases that jitter floating images (CutMix's among them) clip nothing.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
GREY = (0.2989, 0.587, 0.114)  # the same in torchvision, which the jitter follows to its last digit
# ImageNet's colours in [0, 1]: square roots of the covariance's eigenvalues, and its eigenvectors,
# one a column.
PCA_STD = (0.2175, 0.0188, 0.0045)
PCA_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class ColourDraw(NamedTuple):
    """The chance of one batch, on the CPU."""

    # (B, 3) float32 in [1 - jitter, 1 + jitter]: of brightness, contrast and saturation
    factors: Tensor
    # (B, 3) int64, a permutation of 0, 1, 2 a row: which of the three comes first, second, third
    order: Tensor
    light: Tensor  # (B, 3) float32, normal with mean 0: how far along each principal component


def draw_colours(
    batch: int, jitter: float, pca_noise: float, generator: torch.Generator
) -> ColourDraw:
    """How the colours of `batch` images change, from a CPU `generator`.

    Args:
        jitter: in [0, 1]; factors are uniform in [1 - jitter, 1 + jitter], the order of the three
            is uniform too.
        pca_noise: >= 0, standard deviation of the noise in units of each component's own.
    """
    factors = 1 + jitter * (2 * torch.rand(batch, 3, generator=generator) - 1)
    order = torch.rand(batch, 3, generator=generator).argsort(1)
    return ColourDraw(factors, order, pca_noise * torch.randn(batch, 3, generator=generator))


def change_colours(pixels: Tensor, draw: ColourDraw) -> Tensor:
    """The images with their colours changed; deterministic.

    Args:
        pixels: (B, 3, H, W) uint8.
        draw: for B images.
    Returns:
        (B, 3, H, W) uint8, on the device of `pixels`, rounded. Factors of 1 without light change
        nothing.
    Raises:
        ValueError: if the images do not have three channels.
    """
    if pixels.shape[1] != 3:
        raise ValueError(
            f"colours can be changed in images of 3 channels, got {pixels.shape[1]}; "
            "set jitter and pca_noise to 0"
        )
    factors, order, light = (part.to(pixels.device, non_blocking=True) for part in draw)
    images = add_pca_noise(jitter_colours(pixels.float() / 255, factors, order), light)
    return (images * 255).round_().to(torch.uint8)


def jitter_colours(images01: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast and saturation multiplied by the factors, one after the other.

    Each is a step from a reference through the image: from black, from the image's mean grey, from
    its grey version.

    Args:
        images01: (B, 3, H, W) floating, in [0, 1].
        factors: (B, 3), >= 0.
        order: (B, 3) int64, as in `ColourDraw`.
    Returns:
        (B, 3, H, W), clipped to [0, 1] after each of the three.
    """
    weights = images01.new_tensor(GREY)[:, None, None]
    for which in order.T[:, :, None, None, None]:
        grey = (images01 * weights).sum(1, keepdim=True)
        mean = grey.mean((2, 3), keepdim=True)
        reference = torch.where(
            which == 0, torch.zeros_like(grey), torch.where(which == 1, mean, grey)
        )
        factor = factors.gather(1, which[:, :, 0, 0])[:, :, None, None]
        images01 = (factor * images01 + (1 - factor) * reference).clamp(0, 1)
    return images01


def add_pca_noise(images01: Tensor, light: Tensor) -> Tensor:
    """One colour added to every pixel of an image: the sum of ImageNet's principal components, each
    times its light.

    Args:
        images01: (B, 3, H, W) floating, in [0, 1].
        light: (B, 3).
    Returns:
        (B, 3, H, W), clipped to [0, 1].
    """
    axes = images01.new_tensor(PCA_AXES) * images01.new_tensor(PCA_STD)
    return (images01 + (light.to(images01.dtype) @ axes.T)[:, :, None, None]).clamp(0, 1)
