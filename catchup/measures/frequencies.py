"""The error under a small wave of every frequency: a Fourier heat map.

Source: Yin, Lopes, Shlens, Cubuk & Gilmer, NeurIPS 2019, "A Fourier Perspective on Model Robustness
in Computer Vision", section 3: X + r v U for the real basis matrix U of each frequency, of l2 norm
1, with a sign r drawn for every image and channel.

Where it misleads: all waves have one norm, natural images do not; a model that errs at high
frequencies need not meet them. Only cosines are tried, so at each frequency one phase.
"""

from math import pi

import torch
from torch import Tensor

from ..data import Images
from ..data.augment import to_float
from ..models.inference import PixelModel, predict_batches, top_k_error
from ..utils.choices import check_whole
from ..utils.progress import bar


def frequency_errors(
    model: PixelModel,
    images: Images,
    *,
    norm: float = 4.0,
    side: int = 31,
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = False,
) -> dict:
    """The top-1 error under each wave.

    Args:
        model: from images in [0, 1] to logits, on the device of `images`.
        images: the images to disturb, clipped to [0, 1] afterwards.
        norm: v, the l2 norm of the wave in each channel, > 0; 4 in the source, for 32 × 32 pixels.
        side: of the square of frequencies around zero, odd; no more than the images have.
        seed: of the signs, the same for every model.
        batch_size: images at once; changes memory and time, not the result.
        progress: a bar on standard error.
    Returns:
        {"norm": v, "errors": side rows of side percentages, zero frequency in the middle}; the map
        is symmetric to it.
    Raises:
        ValueError: for a norm that is not > 0, or a side that is even or too large.
    """
    check_waves(images.shape[1:], norm, side)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(images), images.shape[0], 1, 1)
    signs = 2.0 * torch.randint(0, 2, shape, generator=generator) - 1
    signs = signs.to(images.pixels.device)
    reach, errors = side // 2, torch.zeros(side, side)
    half = [
        (u, v)
        for u in range(-reach, reach + 1)
        for v in range(-reach, reach + 1)
        if (u, v) >= (0, 0)
    ]
    for u, v in bar(half, "frequencies", "wave", progress, leave=False):
        added = norm * wave(*images.shape[1:], u, v).to(images.pixels.device)
        error = _error_with(model, images, added, signs, batch_size)
        errors[reach + u, reach + v] = errors[reach - u, reach - v] = error
    return {"norm": norm, "errors": errors.tolist()}


def wave(height: int, width: int, u: int, v: int) -> Tensor:
    """(H, W) float32: cos 2π(u y / H + v x / W), of l2 norm 1; no other frequency is in it."""
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width) / width
    values = (2 * pi * (u * rows + v * columns)).cos()
    return values / values.norm()


def check_waves(size: tuple[int, ...], norm: float, side: int) -> None:
    """ValueError unless images of that size have so many frequencies, and the norm is > 0."""
    check_whole(side=side)
    if not norm > 0 or side % 2 == 0 or side > min(size):
        raise ValueError(
            "a wave needs a norm of more than 0, and side must be odd and at most"
            f" {min(size)} for images of {size[0]}×{size[1]}; got norm={norm}, side={side}"
        )


def _error_with(
    model: PixelModel, images: Images, added: Tensor, signs: Tensor, batch_size: int
) -> float:
    parts = zip(images.pixels.split(batch_size), signs.split(batch_size))
    disturbed = ((to_float(pixels) + sign * added).clamp(0, 1) for pixels, sign in parts)
    return top_k_error(predict_batches(model, disturbed), images.labels)
