"""Where an image matters to its own label: saliency maps that methods mix by."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.colour import LUMA
from ...hooks.blocks import unwrap
from ...hooks.layers import evaluating
from ..checks import check_logits
from ..target import Criterion, Target


def gradient_saliency(
    model: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion = "ce"
) -> Tensor:
    """|∂ loss / ∂ pixel|, the l2 norm over the colours: one extra forward and backward pass.

    The pass is made in evaluation mode, so that no running statistic moves, and on the bare model,
    so that DDP does not count it; only the images' gradient is computed, no parameter gets one.

    Args:
        model: from images (B, C, H, W) to logits (B, N), in any mode, wrapped or not.
        images: (B, C, H, W) floating. labels: (B,) int64 or (B, N) floating.
        criterion: as for every mixer.
    Returns:
        (B, H, W) float32, ≥ 0, detached. In units of the summed loss per unit of the input.
    """
    with evaluating(model), torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        logits = unwrap(model)(inputs)
        check_logits(logits, labels)
        loss = Target((labels,), (1.0,)).loss(logits, criterion)
        # summed: a mean would underflow in half floats
        (gradient,) = torch.autograd.grad(loss * len(images), inputs)
    return torch.linalg.vector_norm(gradient.float(), dim=1)


SURROUNDS = (12, 24, 48, 28, 56, 112)  # half the sides of the six surrounds, in pixels: OpenCV's


def fine_grained_saliency(images: Tensor) -> Tensor:
    """How far each pixel's brightness stands out from the mean around it, summed over surrounds of
    six sizes.

    Montabone & Soto, "Human detection using a mobile platform and novel features derived from a
    visual saliency mechanism", Image and Vision Computing 28 (2010), with the sizes and roundings
    of OpenCV's StaticSaliencyFineGrained. What is brighter than its surround and what is darker is
    summed apart, and each of the two maps divided by its own highest value: both what leads most
    and what lags most reach at least 1. Differs from
    OpenCV: brightness is first stretched to 0 … 255, so that it hardly matters how the images were
        normalised.

    Args:
        images: (B, C, H, W) floating, in any units; three channels are red, green and blue, others
            count alike.
    Returns:
        (B, H, W) float32 in [0, 2], detached; whole numbers until the last division, hence the same
        on every device. All 0 for a constant image and for one with a value that is not finite.
    """
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        grey = _grey_levels(images)
        size, device = grey.shape[1:], images.device
        for _ in range(2):
            grey = (_blur(size[0], device) @ grey @ _blur(size[1], device).T + 0.5).floor()
        brighter, darker = torch.zeros_like(grey), torch.zeros_like(grey)
        reaches = [min(half, max(size)) for half in SURROUNDS]
        # in a small image the widest surrounds are all the whole of it
        for reach in sorted(set(reaches)):
            rows, columns = (_surround(side, reach, device) for side in size)
            count = rows.sum(dim=1)[:, None] * columns.sum(dim=1)
            # over the mean of the others
            lead = (count * grey - rows @ grey @ columns.T) / (count - 1).clamp_min(1)
            brighter = brighter + reaches.count(reach) * lead.clamp_min(0).floor()
            darker = darker + reaches.count(reach) * (-lead).clamp_min(0).floor()
        return (_to_one(brighter) + _to_one(darker)).nan_to_num_(0, 0, 0)


def _grey_levels(images: Tensor) -> Tensor:
    """Brightness (B, H, W), each image's stretched to whole numbers 0 … 255; 0 for a constant
    one.
    """
    colours = LUMA if images.shape[1] == 3 else [1 / images.shape[1]] * images.shape[1]
    weighted = (weight * images[:, channel].float() for channel, weight in enumerate(colours))
    grey = reduce(torch.add, weighted)
    low, high = grey.amin(dim=(1, 2), keepdim=True), grey.amax(dim=(1, 2), keepdim=True)
    return torch.where(high == low, 0, ((grey - low) * (255 / (high - low)) + 0.5).floor())


def _blur(side: int, device: torch.device) -> Tensor:
    """(side, side): what [1, 2, 1] / 4 makes of a row of pixels, mirrored at its ends; each row
    sums to 1.
    """
    one = torch.eye(side, device=device)
    near = [(torch.arange(side, device=device) + step).abs() for step in (-1, 1)]
    before, after = (
        one[torch.minimum(place, 2 * (side - 1) - place).clamp_min(0)] for place in near
    )
    return (before + 2 * one + after) / 4


def _surround(side: int, reach: int, device: torch.device) -> Tensor:
    """(side, side) of 0 and 1: which pixels lie in the surround of each, from reach − 1 before it
    to reach behind.
    """
    place = torch.arange(side, device=device)
    step = place - place[:, None]
    return ((step > -reach) & (step <= reach)).float()


def _to_one(maps: Tensor) -> Tensor:
    """(B, H, W) divided by its highest value; a map of zeros stays zeros."""
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(1)


def spectral_residual(images: Tensor, side: int = 128) -> Tensor:
    """What stands out from the log spectrum's own average: |F⁻¹[exp(R + iP)]|, one Fourier
    transform there and back.

    Source: Hou & Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007: P the phase,
    L the log amplitude of the grey image's spectrum, R = L minus its 3×3 average (border values
    repeated, as in their code). They square the result, shrink images to a width of 64 and blur;
    GuidedMixup's release takes the amplitude itself, shrinks to 128 and blurs (`blur`). The
    scale decides what stands out. Amplitudes below the rounding of the largest count as that
    rounding, so the map depends on no unit of the images, and an image of one colour comes out
    flat.

    Args:
        images: (B, C, H, W) floating; three channels are weighed to luma, others averaged.
            Per-channel normalisation leaves its mark on these weights only.
        side: longer sides are shrunk to this many pixels, and the map enlarged again, bilinear.
    Returns:
        (B, H, W), at least float32 (also under autocast), ≥ 0, detached; all zero for an image of
        zeros.
    Raises:
        ValueError: if `images` are not (B, C, H, W) floating.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images must be (B, C, H, W) floating, got {tuple(images.shape)} {images.dtype}"
        )
    inputs = images.detach().to(torch.promote_types(images.dtype, torch.float32))
    weights = (
        inputs.new_tensor(LUMA)
        if images.shape[1] == 3
        else inputs.new_ones(images.shape[1]) / images.shape[1]
    )
    with torch.autocast(images.device.type, enabled=False):
        grey = (inputs * weights[:, None, None]).sum(dim=1, keepdim=True)
        size = tuple(min(length, side) for length in images.shape[2:])
        if size != images.shape[2:]:
            grey = F.interpolate(grey, size=size, mode="bilinear", antialias=True)
        found = _residual_amplitude(grey)
        if size != images.shape[2:]:
            found = F.interpolate(found, size=images.shape[2:], mode="bilinear")
    return found[:, 0]


def _residual_amplitude(grey: Tensor) -> Tensor:
    """|F⁻¹[exp(R + iP)]| of grey images (B, 1, h, w), in float32 or float64."""
    spectrum, limits = torch.fft.fft2(grey), torch.finfo(grey.dtype)
    amplitude = spectrum.abs()
    floor = (limits.eps * amplitude.amax(dim=(2, 3), keepdim=True)).clamp_min(limits.tiny)
    log = amplitude.maximum(floor).log()
    average = F.avg_pool2d(F.pad(log, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    # exp(R + iP) = spectrum / amplitude · exp(L − average)
    return torch.fft.ifft2(spectrum * (-average).exp()).abs()


def blur(maps: Tensor, size: int = 7, sigma: float = 3.0) -> Tensor:
    """Saliency maps under a Gaussian, their border mirrored (its values repeated where a side is ≤
    size // 2).

    Args:
        maps: (B, H, W) float32 or float64.
        size: pixels of the kernel's side, odd. sigma: of the Gaussian, in pixels, > 0.
    Returns:
        (B, H, W), a new tensor; non-negative maps stay so. Not under autocast, even inside it.
    """
    half = size // 2
    steps = torch.arange(-half, half + 1, dtype=maps.dtype, device=maps.device)
    kernel = (-0.5 * (steps / sigma) ** 2).exp()
    kernel = kernel / kernel.sum()
    mode = "reflect" if min(maps.shape[1:]) > half else "replicate"
    with torch.autocast(maps.device.type, enabled=False):
        padded = F.pad(maps[:, None], (half, half, half, half), mode=mode)
        return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None, :])[
            :, 0
        ]


def sum_to_one(maps: Tensor) -> Tensor:
    """Saliency maps divided by their sums, so that those of two images can be compared.

    Args:
        maps: (B, H, W) floating, ≥ 0.
    Returns:
        (B, H, W) ≥ 0, sums 1; uniform, 1 / (H·W), where a map is all zero or its sum is not finite.
    """
    total = maps.sum(dim=(1, 2), keepdim=True)
    says = total.isfinite() & (total > torch.finfo(maps.dtype).tiny)
    return torch.where(says, maps / total, 1 / maps[0].numel())
