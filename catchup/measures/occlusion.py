"""Accuracy against the share of the image that is covered, at random and where the model looks
first.

Source: Naseer et al., NeurIPS 2021, "Intriguing Properties of Vision Transformers", section 3.1
(random and salient patch drop). Differs: a patch is salient by this model's own gradient, |∂ loss /
∂ x · (x − mean)| summed over it, not by another network's attention; a covered patch takes the mean
of the data, not black, which is no missing information but a dark patch.

Where it misleads: a covered image is an image that no training showed, least of all plain training;
CutMix-like methods have seen hard edges. A random cover says little of what a model relies on, a
salient one is chosen by the model that is measured, so that its patches differ from model to model.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import Images
from ..data.augment import to_float
from ..models.inference import PixelModel, predict_batches, top_k_error
from ..utils.progress import bar
from .robustness import loss_gradient

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ORDERS = ("random", "salient")


def occlusion_curve(
    model: PixelModel,
    images: Images,
    *,
    patches: int = 8,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    batch_size: int = 250,
    progress: bool = False,
) -> dict[str, list[list[float]]]:
    """Top-1 accuracy with ever more patches covered.

    Args:
        model: from images in [0, 1] to logits, on the device of `images`.
        images: the images to classify; their sides are multiples of `patches`.
        patches: of the grid, a side, >= 2.
        shares: of the patches to cover, each in [0, 1]; round(share · patches²) of them are.
        seed: of the random orders; every image has its own, the same for every model.
        batch_size: images at once; changes memory and time, not the result.
        progress: a bar on standard error.
    Returns:
        {"random": [[share, top-1 accuracy in percent], …], "salient": [[…], …]}.
    Raises:
        ValueError: for sides that are no multiples, or shares that leave [0, 1].
    """
    check_patches(images.shape[1:], patches)
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"shares must lie in [0, 1], got {tuple(shares)}")
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(len(images), patches**2, generator=generator).to(images.pixels.device)
    wrong = {(order, share): 0.0 for order in ORDERS for share in shares}
    places = torch.arange(len(images)).split(batch_size)
    for part in bar(places, "occlusion", "batch", progress, leave=False):
        kept = images.take(part)
        pixels = to_float(kept.pixels)
        salient = patch_saliency(model, pixels, kept.labels, patches)
        for order, scores in (("random", chance[part]), ("salient", salient)):
            logits = _answers(model, pixels, scores, shares)
            for share, answer in zip(shares, logits):
                wrong[order, share] += len(part) * top_k_error(answer, kept.labels)
    return {
        order: [[share, 100 - wrong[order, share] / len(images)] for share in shares]
        for order in ORDERS
    }


def patch_saliency(model: PixelModel, images: Tensor, labels: Tensor, patches: int) -> Tensor:
    """|∂ loss / ∂ x · (x − mean)| summed over each patch: by how much, to first order, the loss
    changes if its pixels are covered.

    Args:
        model: as above. images: (B, C, H, W) floating, in [0, 1]. labels: (B,). patches: a side.
    Returns:
        (B, patches²), in reading order.
    """
    gradient = loss_gradient(model, images, labels)
    moved = (gradient * (images - _mean_of(model, images))).abs().sum(dim=1, keepdim=True)
    height, width = images.shape[2] // patches, images.shape[3] // patches
    return F.avg_pool2d(moved, (height, width)).flatten(1) * (height * width)


def cover(images: Tensor, scores: Tensor, share: float, value: Tensor) -> Tensor:
    """The images with the patches of the highest scores covered.

    Args:
        images: (B, C, H, W). scores: (B, patches²), in reading order; ties go to the lower index.
        share: of the patches to cover: round(share · patches²) of each image. value: broadcasts to
            the images.
    Returns:
        A new tensor.
    """
    side = round(scores.shape[1] ** 0.5)
    order = scores.argsort(dim=1, descending=True, stable=True)
    hidden = torch.zeros_like(scores, dtype=torch.bool)
    hidden.scatter_(1, order[:, : round(share * scores.shape[1])], True)
    mask = hidden.view(-1, 1, side, side)
    mask = mask.repeat_interleave(images.shape[2] // side, 2)
    mask = mask.repeat_interleave(images.shape[3] // side, 3)
    return torch.where(mask, value, images)


def check_patches(size: Sequence[int], patches: int) -> None:
    """ValueError unless an image of that size can be cut into that grid."""
    if patches < 2 or any(side % patches for side in size):
        raise ValueError(
            f"images of {size[0]}×{size[1]} cannot be cut into {patches}×{patches} patches: patches"
            " must be at least 2 and divide both sides"
        )


def _answers(
    model: PixelModel, pixels: Tensor, scores: Tensor, shares: Sequence[float]
) -> Iterator[Tensor]:
    value = _mean_of(model, pixels)
    return (predict_batches(model, [cover(pixels, scores, share, value)]) for share in shares)


def _mean_of(model: PixelModel, like: Tensor) -> Tensor:
    """(C, 1, 1): the mean of the data, in pixel space."""
    return torch.as_tensor(model.mean, dtype=like.dtype, device=like.device)[:, None, None]
