"""What happens to an image in a computer: contrast, elastic warping, coarse pixels, JPEG,
saturation.

Source: Hendrycks & Dietterich, ICLR 2019; numbers and formulas of make_cifar_c.py. Each takes (B,
C, H, W) float32 images in [0, 1], a severity from 1 to 5 and a CPU generator, and returns such
images, see `catchup.measures.corruptions`.
"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .base import constant_of, round_levels, uniform
from .filters import box_matrix, separable, smooth


def contrast(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Every channel of every image is drawn towards its mean; no chance."""
    kept = constant_of("contrast", images, severity, generator)
    return torch.lerp(images.mean(dim=(2, 3), keepdim=True), images, kept).clamp_(0, 1)


def saturate(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """The saturation of HSV times a factor plus a summand, clipped; hue and value stay; no chance.

    A grey pixel has hue 0, so what is added to its saturation makes it red. Images of one channel
    have no colour to change and come back as they are.
    """
    factor, summand = constant_of("saturate", images, severity, generator)
    if images.shape[1] == 1:
        return images.clone()
    value = images.amax(dim=1, keepdim=True)
    span = value - images.amin(dim=1, keepdim=True)
    saturation = span / value.clamp_min(1e-12)
    changed = (factor * saturation + summand).clamp_(0, 1)
    ratio = changed / saturation.clamp_min(1e-12)
    red = torch.cat([value, *2 * [value * (1 - changed)]], dim=1)
    return torch.where(span > 0, value - (value - images) * ratio, red).clamp_(0, 1)


def pixelate(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Shrunk and enlarged again by Pillow's BOX filter, rounded to eight bits after each axis; no
    chance.
    """
    share = constant_of("pixelate", images, severity, generator)
    levels, (height, width) = round_levels(255 * images), images.shape[2:]
    few_rows, few_columns = int(height * share), int(width * share)
    levels = round_levels(separable(levels, None, box_matrix(width, few_columns)))
    levels = round_levels(separable(levels, box_matrix(height, few_rows), None))
    large = separable(levels, box_matrix(few_rows, height), box_matrix(few_columns, width))
    return round_levels(large).clamp_(0, 255) / 255


def jpeg_compression(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Through Pillow's JPEG and back, image by image on the CPU, colours at half resolution; no
    chance.

    Pillow is what the authors used; torchvision's coder gives the same bytes, but is on its way
    out.
    """
    quality = constant_of("jpeg_compression", images, severity, generator)
    levels = round_levels(255 * images).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    levels = levels.squeeze(-1) if levels.shape[-1] == 1 else levels
    coded = torch.from_numpy(np.stack([_through_jpeg(image, quality) for image in levels]))
    result = coded.view(len(images), *images.shape[2:], -1).permute(0, 3, 1, 2).contiguous()
    return result.to(images.device) / 255


def _through_jpeg(levels: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) or (H, W) uint8, coded and decoded."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file, formats=("JPEG",)))


def elastic_transform(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A random affine map that moves three points of the image, then a random smooth displacement
    of every pixel.

    The lengths are shares of the shorter side, as in the authors' code.
    """
    amplitude, sigma, reach = constant_of("elastic_transform", images, severity, generator)
    side, batch, device = min(images.shape[2:]), len(images), images.device
    corners = side * reach * uniform((batch, 3, 2), generator, device)
    fields = uniform((batch, 2, *images.shape[2:]), generator, device)
    fields = side * amplitude * smooth(fields, side * sigma, border="reflect", truncate=3)
    return displace(affine(images, corners), fields).clamp_(0, 1)


def affine(images: Tensor, moves: Tensor) -> Tensor:
    """The affine map that moves three points: right below the middle, right above it, left above
    it.

    Args:
        images: (B, C, H, W) float32.
        moves: (B, 3, 2) float32, by how many pixels right and down each point moves.
    Returns:
        Like `images`; bilinear, mirrored at the outermost pixels.
    """
    height, width = images.shape[2:]
    x, y, away = width // 2, height // 2, min(height, width) // 3
    corners = [[x + away, y + away, 1], [x + away, y - away, 1], [x - away, y - away, 1]]
    points = torch.tensor(corners, dtype=torch.float64)
    moved = points[:, :2] + moves.double().cpu()
    targets = torch.cat([moved, torch.ones(len(moves), 3, 1, dtype=torch.float64)], -1)
    # (B, 3, 2): target to source
    back = torch.linalg.solve(targets, points[None, :, :2]).float().to(images.device)
    down, right = _places(images)
    source = right[..., None] * back[:, None, None, 0] + down[..., None] * back[:, None, None, 1]
    source = source + back[:, None, None, 2]
    return _sample(images, source[..., 0], source[..., 1], edge_pixels=True)


def displace(images: Tensor, fields: Tensor) -> Tensor:
    """Each pixel read at another place, bilinearly, mirrored at the image's edge.

    Args:
        images: (B, C, H, W) float32.
        fields: (B, 2, H, W) float32, by how many pixels to the right and down it is read.
    """
    down, right = _places(images)
    return _sample(images, right + fields[:, 0], down + fields[:, 1], edge_pixels=False)


def _places(images: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel, (H, W) each."""
    form = {"dtype": images.dtype, "device": images.device}
    sides = (torch.arange(side, **form) for side in images.shape[2:])
    return torch.meshgrid(*sides, indexing="ij")


def _sample(images: Tensor, right: Tensor, down: Tensor, edge_pixels: bool) -> Tensor:
    """Images read at places (B, H, W), in pixels, mirrored at the centres of the outermost pixels
    or at the edge.
    """
    height, width = images.shape[2:]
    if edge_pixels:
        grid = torch.stack([2 * right / (width - 1) - 1, 2 * down / (height - 1) - 1], dim=-1)
    else:
        grid = torch.stack([(2 * right + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1)
    return F.grid_sample(images, grid, "bilinear", "reflection", align_corners=edge_pixels)
