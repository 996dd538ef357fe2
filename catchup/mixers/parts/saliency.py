"""Where an image matters to its own label: saliency maps that methods mix by."""

from collections import Counter
from functools import lru_cache, reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.colour import LUMA
from ...hooks.blocks import unwrap
from ...hooks.layers import evaluating
from ..checks import check_logits
from ..target import Criterion, Target


def clean_loss(logits: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
    """The loss of clean images, 0-dim: under "bce_softmax" cross-entropy, as in the releases."""
    return Target((labels,), (1.0,)).loss(logits, "ce" if criterion == "bce_softmax" else criterion)


def gradient_saliency(
    model: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion = "ce"
) -> Tensor:
    """|∂ loss / ∂ pixel|, the l2 norm over the colours: one extra forward and backward pass.

    The pass is made in evaluation mode, so that no running statistic moves, and on the bare model,
    so that DDP does not count it; only the images' gradient is computed, no parameter gets one.

    Args:
        model: from images (B, C, H, W) to logits (B, N), in any mode, wrapped or not.
        images: (B, C, H, W) floating. labels: (B,) int64 or (B, N) floating.
        criterion: as for every mixer; "bce_softmax" trains the mixed images, the saliency is then
            cross-entropy's (`clean_loss`).
    Returns:
        (B, H, W) float32, ≥ 0, detached. In units of the summed loss per unit of the input.
    """
    with evaluating(model), torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        logits = unwrap(model)(inputs)
        check_logits(logits, labels)
        loss = clean_loss(logits, labels, criterion)
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
        rows, columns = (_smoothing(side, images.device) for side in grey.shape[1:])
        for _ in range(2):
            grey = (rows @ grey @ columns.T + 0.5).floor()
        lead, either = torch.zeros_like(grey), torch.zeros_like(grey)
        for times, rows, columns, count in _surrounds(*grey.shape[1:], images.device):
            # over the mean of the others, towards zero
            stands_out = (count * grey).sub_(rows @ grey @ columns.T)
            stands_out = stands_out.div_((count - 1).clamp_min(1)).trunc_()
            lead.add_(stands_out, alpha=times)
            either.add_(stands_out.abs_(), alpha=times)
        brighter, darker = (either + lead) / 2, (either - lead) / 2
        return (_to_one(brighter) + _to_one(darker)).nan_to_num_(0, 0, 0)


def _brightness(images: Tensor) -> Tensor:
    """(B, H, W): luma of three channels, the mean of any other number."""
    colours = LUMA if images.shape[1] == 3 else [1 / images.shape[1]] * images.shape[1]
    return reduce(torch.add, (weight * images[:, k] for k, weight in enumerate(colours)))


def _grey_levels(images: Tensor) -> Tensor:
    """Brightness (B, H, W), each image's stretched to whole numbers 0 … 255; 0 for a constant
    one.
    """
    grey = _brightness(images.float())
    low, high = grey.amin(dim=(1, 2), keepdim=True), grey.amax(dim=(1, 2), keepdim=True)
    return torch.where(high == low, 0, ((grey - low) * (255 / (high - low)) + 0.5).floor())


@lru_cache(maxsize=32)
def _smoothing(side: int, device: torch.device) -> Tensor:
    """(side, side): what [1, 2, 1] / 4 makes of a row of pixels, mirrored at its ends; each row
    sums to 1.
    """
    one = torch.eye(side, device=device)
    near = [(torch.arange(side, device=device) + step).abs() for step in (-1, 1)]
    before, after = (
        one[torch.minimum(place, 2 * (side - 1) - place).clamp_min(0)] for place in near
    )
    return (before + 2 * one + after) / 4


@lru_cache(maxsize=16)
def _surrounds(
    height: int, width: int, device: torch.device
) -> list[tuple[int, Tensor, Tensor, Tensor]]:
    """How often each surround counts, which rows (H, H) and columns (W, W) lie in that of each
    pixel, 0 or 1, and how many pixels it has, (H, W).
    """
    # in a small image the widest surrounds are all the whole of it
    reaches = Counter(min(half, max(height, width)) for half in SURROUNDS)
    found = []
    for reach, times in sorted(reaches.items()):
        rows, columns = (_surround(side, reach, device) for side in (height, width))
        found.append((times, rows, columns, rows.sum(dim=1)[:, None] * columns.sum(dim=1)))
    return found


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
    GuidedMixup's release takes the amplitude itself and shrinks to 128. The scale decides what
    stands out. Amplitudes below the rounding of the largest count as that rounding, so the map
    depends on no unit of the images, and an image of one colour comes out flat.

    Args:
        images: (B, C, H, W) floating; three channels are weighed to luma, others averaged.
            Per-channel normalisation leaves its mark on these weights only.
        side: longer sides are shrunk to this many pixels, bilinear.
    Returns:
        (B, min(H, side), min(W, side)), at least float32 (also under autocast), ≥ 0, detached; all
        zero for an image of zeros.
    Raises:
        ValueError: if `images` are not (B, C, H, W) floating.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images must be (B, C, H, W) floating, got {tuple(images.shape)} {images.dtype}"
        )
    inputs = images.detach().to(torch.promote_types(images.dtype, torch.float32))
    with torch.autocast(images.device.type, enabled=False):
        grey = _brightness(inputs)
        size = tuple(min(length, side) for length in images.shape[2:])
        if size != images.shape[2:]:
            grey = F.interpolate(grey[:, None], size=size, mode="bilinear", antialias=True)[:, 0]
        return _residual_amplitude(grey)


def _residual_amplitude(grey: Tensor) -> Tensor:
    """|F⁻¹[exp(R + iP)]| of grey images (B, h, w), in float32 or float64."""
    spectrum, limits = torch.fft.fft2(grey), torch.finfo(grey.dtype)
    amplitude = spectrum.abs()
    floor = (limits.eps * amplitude.amax(dim=(1, 2), keepdim=True)).clamp_min(limits.tiny)
    log = amplitude.maximum(floor).log_()
    rows, columns = (_average(side, grey.dtype, grey.device) for side in grey.shape[1:])
    # exp(R + iP) = spectrum / amplitude · exp(L − average)
    return torch.fft.ifft2(spectrum.mul_((rows @ log @ columns.T).neg_().exp_())).abs()


@lru_cache(maxsize=32)
def _average(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(side, side): the mean of each place of a line and its two neighbours, border values
    repeated.
    """
    line = F.pad(torch.eye(side, dtype=dtype)[None], (1, 1), mode="replicate")
    return F.avg_pool1d(line, 3, stride=1)[0].T.contiguous().to(device)


def blur(maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Saliency maps under GuidedMixup's Gaussian, 7×7 pixels with σ 3, its border mirrored (its
    values repeated where a side is < 4).

    Args:
        maps: (B, h, w) float32 or float64.
        size: H and W to which the blurred maps are enlarged, bilinear, and there blurred once more;
            None blurs once.
    Returns:
        (B, H, W), a new tensor; non-negative maps stay so. Not under autocast, even inside it.
    """
    aims = size or (None, None)
    rows, columns = (
        _blur_axis(side, aim, maps.dtype, maps.device) for side, aim in zip(maps.shape[1:], aims)
    )
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps @ columns.T


@lru_cache(maxsize=32)
def _blur_axis(side: int, aim: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What `blur` makes of a line of `side` pixels: (side, side), or (aim, side) where it is
    enlarged and blurred again.
    """
    half = 3
    weights = (-0.5 * (torch.arange(-half, half + 1, dtype=torch.float64) / 3) ** 2).exp()
    line = torch.eye(side, dtype=torch.float64)[None]
    mode = "reflect" if side > half else "replicate"
    near = F.pad(line, (half, half), mode=mode)[0].unfold(1, 2 * half + 1, 1)  # (from, to, 7)
    once = (near @ (weights / weights.sum())).T
    if aim is not None:
        large = F.interpolate(once.T[None], size=aim, mode="linear")[0].T
        once = _blur_axis(aim, None, torch.float64, torch.device("cpu")) @ large
    return once.to(device, dtype)


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
