"""Snow, frost, fog and bright light.

Source: Hendrycks & Dietterich, ICLR 2019; numbers and formulas of make_cifar_c.py. Each takes (B,
C, H, W) float32 images in [0, 1], a severity from 1 to 5 and a CPU generator, and returns such
images, see `catchup.measures.corruptions`.
Where it misleads: the frost of the published arrays comes from photographs that this package has
not; see `frost`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import constant_of, floor_levels, grey, normal, round_levels, uniform
from .filters import blur_along, separable, zoom_matrix
from .ice import frost_texture


def snow(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Flakes that fall in one direction per image, once as drawn and once turned by 180°, over a
    whitened image.
    """
    constants = constant_of("snow", images, severity, generator)
    shape = (len(images), 1, *images.shape[2:])
    flakes = constants[0] + constants[1] * normal(shape, generator, images.device)
    angles = uniform((len(images),), generator, images.device, -135, -45)
    return apply_snow(images, flakes, angles, constants[2:])


def apply_snow(
    images: Tensor, flakes: Tensor, angles: Tensor, constants: tuple[float, ...]
) -> Tensor:
    """What `snow` does once chance has decided.

    Args:
        images: (B, C, H, W) float32 in [0, 1].
        flakes: (B, 1, H, W) float32, any values.
        angles: (B,) float32, degrees.
        constants: zoom and threshold of the flakes, radius and sigma of their motion, share of the
            image kept.
    """
    zoom, threshold, radius, sigma, kept = constants
    layer = separable(flakes, *(zoom_matrix(side, zoom) for side in flakes.shape[2:]))
    layer = floor_levels(torch.where(layer < threshold, 0.0, layer).clamp_(0, 1))
    layer = round_levels(blur_along(layer, radius, sigma, angles)) / 255
    whitened = kept * images + (1 - kept) * torch.maximum(images, 1.5 * grey(images) + 0.5)
    return (whitened + layer + layer.flip(2, 3)).clamp_(0, 1)


def frost(
    images: Tensor,
    severity: int,
    generator: torch.Generator,
    textures: Sequence[Tensor] | None = None,
) -> Tensor:
    """A frosted pane before the image: a weighted sum of both.

    Differs: make_cifar_c.py cuts the pane at random out of five photographs, shrunk to a fifth,
    that belong to others. By default the pane is synthetic (`frost_texture`) with their measured
    brightness, contrast, tint and fineness; the weights are the original ones. With `textures` the
    cut is the original's.

    Args:
        images, severity, generator: as for every corruption.
        textures: photographs, each (3, h, w) floating in [0, 1] or uint8, larger than the images in
            both directions, already shrunk; one is drawn for every image, and where it is cut.
    Raises:
        ValueError: if a texture is not so.
    """
    weight, opacity = constant_of("frost", images, severity, generator)
    if textures is None:
        pane = frost_texture(tuple(images.shape), generator).to(images.device)
    else:
        pane = _cut_textures(textures, images, generator)
    return (weight * images + opacity * pane).clamp_(0, 1)


def _cut_textures(textures: Sequence[Tensor], images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, C, H, W): a random cut out of a random texture for each image."""
    height, width = images.shape[2:]
    for number, texture in enumerate(textures):
        fits = texture.ndim == 3 and texture.shape[0] == 3
        if not fits or texture.shape[1] <= height or texture.shape[2] <= width:
            raise ValueError(
                f"a frost texture must be (3, h, w) and larger than the images of {height} x"
                f" {width}, got {tuple(texture.shape)} for texture {number}"
            )
    if len(textures) == 0:
        raise ValueError(
            "textures must hold at least one photograph of frost; leave it out for the"
            " synthetic one"
        )
    cuts, chance = [], torch.rand(len(images), 3, generator=generator).tolist()
    for which, down, right in chance:
        texture = textures[int(which * len(textures))]
        top, left = int(down * (texture.shape[1] - height)), int(right * (texture.shape[2] - width))
        cut = texture[:, top : top + height, left : left + width].to(images.device)
        cuts.append(cut / 255 if cut.dtype == torch.uint8 else cut.float())
    pane = torch.stack(cuts)
    return pane if images.shape[1] == 3 else grey(pane)


def fog(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A cloud of many scales is added, and the image scaled so that its brightest value stays where
    it was.
    """
    strength, decay = constant_of("fog", images, severity, generator)
    height, width = images.shape[2:]
    side = 1 << (max(height, width) - 1).bit_length()  # a power of two
    cloud = plasma(uniform((len(images), side * side - 1), generator, images.device), side, decay)
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    foggy = images + strength * cloud[:, None, :height, :width]
    return (foggy * brightest / (brightest + strength)).clamp_(0, 1)


def plasma(noise: Tensor, side: int, decay: float) -> Tensor:
    """Clouds by the diamond-square rule on a torus: ever finer points are the mean of four
    neighbours plus ever less chance.

    Differs from the textbook as the authors' code does: the chance added at a level of wobble v is
    v² times the noise, and v, 100 at first, is divided by `decay` from one level to the next.

    Args:
        noise: (B, side² − 1) floating in [−1, 1]; coarse levels first, in each the centres of the
            squares, then the upper edges, then the left ones, row by row.
        side: a power of two, >= 2.
        decay: > 1.
    Returns:
        (B, side, side), in each cloud from 0 to 1.
    """
    cloud, used = torch.zeros(len(noise), side, side, dtype=noise.dtype, device=noise.device), 0
    step, wobble = side, 100.0

    def wobbled(total: Tensor) -> Tensor:
        nonlocal used
        chance = noise[:, used : used + total[0].numel()].view_as(total)
        used += total[0].numel()
        return total / 4 + wobble**2 * chance

    while step >= 2:
        half = step // 2
        corner = cloud[:, ::step, ::step]
        pairs = corner + corner.roll(-1, 1)
        centre = wobbled(pairs + pairs.roll(-1, 2))
        cloud[:, half::step, half::step] = centre
        across = centre + centre.roll(1, 1) + corner + corner.roll(-1, 2)
        cloud[:, ::step, half::step] = wobbled(across)
        along = centre + centre.roll(1, 2) + corner + corner.roll(-1, 1)
        cloud[:, half::step, ::step] = wobbled(along)
        step, wobble = half, wobble / decay
    cloud -= cloud.amin(dim=(1, 2), keepdim=True)
    return cloud / cloud.amax(dim=(1, 2), keepdim=True)


def brightness(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """The value of HSV (the largest channel) is raised, hue and saturation stay: all channels times
    one factor.

    A black pixel has neither and becomes grey.
    """
    added = constant_of("brightness", images, severity, generator)
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + added).clamp_(max=1)
    scaled = images * (brighter / value.clamp_min(1e-12))
    return torch.where(value > 0, scaled, brighter).clamp_(0, 1)
