"""AugMix's nine operations on 8-bit images, a whole batch at once, each image with its own
operation and strength.

Hendrycks, Mu, Cubuk, Zoph, Gilmer & Lakshminarayanan, "AugMix: A Simple Data Processing Method to
Improve Robustness and Uncertainty", ICLR 2020, Section 3: those of AutoAugment's operations that
are not among the corruptions of ImageNet-C, with the strengths of the released code. Pixel values
stay whole numbers between two operations, as in Pillow, whose definitions these are.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
AFFINE = tuple(
    OPERATIONS.index(name)
    for name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
)


def amounts(kinds: np.ndarray, levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """What each operation is done with, at these levels of strength.

    Args:
        kinds: integers, any shape, index into `OPERATIONS`.
        levels: floats in [−10, 10], same shape; the sign is the direction of the five affine
            operations.
        height, width: of the images, in pixels.
    Returns:
        float64, same shape: bits kept (posterize, 4 … 0), the value from which on pixels are
        inverted (solarize, 256 … 0), degrees anticlockwise (rotate, whole, ±30), the slope (shear,
        ±0.3), pixels by which the window moves right or down (translate, whole, ± a third of the
        side); 0 for operations without any.
    """
    strength = np.abs(levels) / 10
    signed = levels / 10
    found = {
        "posterize": 4 - np.trunc(strength * 4),
        "solarize": 256 - np.trunc(strength * 256),
        "rotate": np.trunc(signed * 30),
        "shear_x": signed * 0.3,
        "shear_y": signed * 0.3,
        "translate_x": np.trunc(signed * width / 3),
        "translate_y": np.trunc(signed * height / 3),
    }
    return np.select([kinds == OPERATIONS.index(name) for name in found], list(found.values()), 0.0)


def apply_operations(pixels: Tensor, kinds: np.ndarray, amount: np.ndarray) -> Tensor:
    """Each image after its operation.

    Args:
        pixels: (B, C, H, W) uint8.
        kinds: (B,) index into `OPERATIONS`, −1 where nothing is done. amount: (B,), see `amounts`.
    Returns:
        A new (B, C, H, W) uint8 on the same device.
    """
    result = pixels.clone()
    for names, operation in _GROUPS:
        chosen = np.flatnonzero(np.isin(kinds, [OPERATIONS.index(name) for name in names]))
        if len(chosen):
            places = torch.from_numpy(chosen).to(pixels.device, non_blocking=True)
            result[places] = operation(pixels[places], kinds[chosen], amount[chosen])
    return result


def autocontrast(pixels: Tensor) -> Tensor:
    """Each channel stretched so that its values reach from 0 to 255; one of a single value is left
    alone. uint8.
    """
    low, high = (
        extreme.int()
        for extreme in (
            pixels.amin(dim=(2, 3), keepdim=True),
            pixels.amax(dim=(2, 3), keepdim=True),
        )
    )
    stretched = torch.div(
        (pixels.int() - low) * 255, (high - low).clamp_min(1), rounding_mode="floor"
    )
    return torch.where(high > low, stretched.to(torch.uint8), pixels)


def equalize(pixels: Tensor) -> Tensor:
    """Each channel's histogram made as even as its values allow (Pillow's rule); uint8 (B, C, H,
    W).
    """
    values = pixels.flatten(0, 1).flatten(1).long()  # (B C, H W)
    counts = torch.zeros(len(values), 256, dtype=torch.long, device=pixels.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    brightest = counts.gather(1, values.amax(dim=1, keepdim=True))
    step = torch.div(values.shape[1] - brightest, 255, rounding_mode="floor")
    below = counts.cumsum(dim=1) - counts
    table = torch.div(
        below + torch.div(step, 2, rounding_mode="floor"), step.clamp_min(1), rounding_mode="floor"
    )
    even = torch.where(step > 0, table.clamp_max(255).gather(1, values), values)
    return even.to(torch.uint8).view_as(pixels)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Only the upper `bits` (B,) of each value, 0 … 8; uint8."""
    mask = (256 - 2 ** (8 - bits)).to(torch.int32)[:, None, None, None]
    return (pixels.int() & mask).to(torch.uint8)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Values of at least `threshold` (B,), 0 … 256, inverted; uint8."""
    return torch.where(pixels.int() < threshold[:, None, None, None], pixels, 255 - pixels)


def warp(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Each image looked at through an affine map, bilinearly, black outside; values rounded.

    At the border a pixel is blended with the black outside (as torchvision does it with tensors);
    Pillow does not.

    Args:
        pixels: (B, C, H, W) uint8.
        matrices: (B, 2, 3) float32; from the place (x, y) of a pixel of the result, its centre at
            halves, to the place in the image where its value is read.
    Returns:
        uint8, same shape.
    """
    height, width = pixels.shape[2:]
    y, x = (torch.arange(side, device=pixels.device) + 0.5 for side in (height, width))
    # no matrix product: autocast would round the places
    places = [
        line[:, 0, None, None] * x + line[:, 1, None, None] * y[:, None] + line[:, 2, None, None]
        for line in matrices.unbind(1)
    ]
    grid = torch.stack(
        [2 * place / side - 1 for place, side in zip(places, (width, height))], dim=-1
    )
    warped = F.grid_sample(
        pixels.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return warped.round().clamp(0, 255).to(torch.uint8)


def matrices(kinds: np.ndarray, amount: np.ndarray, height: int, width: int) -> np.ndarray:
    """The maps of the affine operations for `warp`, (B, 2, 3) float64.

    Rotation is about the centre, shear leaves the upper left corner where it is.

    Args:
        kinds: (B,) index into `OPERATIONS`, all affine. amount: (B,), see `amounts`.
    """

    def only(name: str) -> np.ndarray:
        return np.where(kinds == OPERATIONS.index(name), amount, 0.0)

    angle = np.deg2rad(only("rotate"))
    cosine, sine, cx, cy = np.cos(angle), np.sin(angle), width / 2, height / 2
    across, down = only("translate_x"), only("translate_y")
    return np.stack(
        [
            np.stack(
                [cosine, only("shear_x") - sine, cx - cosine * cx + sine * cy + across], axis=1
            ),
            np.stack([only("shear_y") + sine, cosine, cy - sine * cx - cosine * cy + down], axis=1),
        ],
        axis=1,
    )


def _number(pixels: Tensor, amount: np.ndarray) -> Tensor:
    return torch.from_numpy(amount.astype(np.int32)).to(pixels.device, non_blocking=True)


def _warp(pixels: Tensor, kinds: np.ndarray, amount: np.ndarray) -> Tensor:
    maps = torch.from_numpy(matrices(kinds, amount, *pixels.shape[2:])).float()
    return warp(pixels, maps.to(pixels.device, non_blocking=True))


_GROUPS = (
    (("autocontrast",), lambda pixels, kinds, amount: autocontrast(pixels)),
    (("equalize",), lambda pixels, kinds, amount: equalize(pixels)),
    (("posterize",), lambda pixels, kinds, amount: posterize(pixels, _number(pixels, amount))),
    (("solarize",), lambda pixels, kinds, amount: solarize(pixels, _number(pixels, amount))),
    (tuple(OPERATIONS[kind] for kind in AFFINE), _warp),
)
