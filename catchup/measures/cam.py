"""Class activation maps of a classifier in pixel space: where in an image its classes score.

Source: Zhou, Khosla, Lapedriza, Oliva & Torralba, "Learning Deep Features for Discriminative
Localization", CVPR 2016, Eqs. 1 and 2. Where a network ends in global average pooling and a linear
layer, the score of a class is the average of a map, the last maps summed with the weights of that
class; this map is the CAM. What such a network averages, and which layer classifies, is found as
SnapMix finds it; that the average of the maps really makes the scores is checked each time, so that
a network without this end (VGG, ConvNeXt, a transformer) is refused rather than mapped wrongly.

Where it misleads: a CAM is as coarse as the last maps, and only its average is the score: a class
may score high in one place and below zero everywhere else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.augment import normalise
from ..hooks.blocks import unwrap
from ..hooks.class_maps import class_activation_map, pooled_maps
from ..hooks.classifier import find_classifier
from ..hooks.layers import evaluating
from ..models.inference import PixelModel
from ..utils.tensors import check_answers, check_labels

ENDS = "global average pooling and a linear layer, as ResNet and DenseNet do"
REMEDY = "Leave the localisation out, or measure maps of your own with cam="


@torch.no_grad()
def class_maps(model: PixelModel, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The class activation map of each image's label, and the scores, from one forward pass in
    evaluation mode.

    Source: Zhou et al., CVPR 2016, Eq. 2. The bias of the classifier, a constant, is left out.

    Args:
        model: ends in global average pooling and a linear layer; a norm, an activation or a 1x1
            convolution between the last block and the pooling is included. On the device of the
            images; modes are restored.
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64, the classes to map.
    Returns:
        Maps (B, h, w), at least float32, of any sign, as large as the last maps; scores (B, N) of
        the same pass.
    Raises:
        ValueError: if the model does not end so, if its last maps have one pixel, or a label is no
            class.
        FloatingPointError: if the model answers with NaN or infinity.
    """
    bare = unwrap(model.model)
    with evaluating(model):
        head, maps, scores = _end(bare, normalise(images, model.mean, model.std))
    maps = _maps_behind_scores(bare, maps, head, check_answers(scores))
    if maps.shape[-2:].numel() == 1:
        raise ValueError(
            f"the last maps of {type(bare).__name__} have a single pixel for images of"
            f" {images.shape[3]} x {images.shape[2]}, which says nothing of the place; use larger"
            " images or a network for small ones"
        )
    check_labels(labels, len(images), scores.shape[1])
    return class_activation_map(maps, head.weight, labels), scores


def enlarge_maps(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps brought to the size of the image (bilinear) and stretched, each from its smallest to its
    largest value.

    In this order, as the WSOL evaluation's release (Choe et al., CVPR 2020), so that every map
    reaches 0 and 1. Its interpolation is cubic; the CAM paper does not say.

    Args:
        maps: (B, h, w) floating, any sign.
        height, width: of the images, in pixels.
    Returns:
        (B, height, width) in [0, 1]; zeros where a map is constant.
    Raises:
        FloatingPointError: if a value is not finite.
    """
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    if not (low.isfinite() & high.isfinite()).all():
        raise FloatingPointError(
            "a map holds NaN or infinity: the model's weights are of no use, train it again"
        )
    maps = F.interpolate(
        (maps - low)[:, None], size=(height, width), mode="bilinear", align_corners=False
    )[:, 0]
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    top = maps.amax(dim=(1, 2), keepdim=True)
    # a constant map may vary by it
    rounding = 4 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    return torch.where(top > rounding, maps / top, 0)


def _end(bare: nn.Module, images: Tensor) -> tuple[nn.Linear, Tensor, Tensor]:
    """The classifier of a bare model, the last maps it could be reading, and the scores of
    normalised images.
    """
    try:
        _, head = find_classifier(bare)
        return head, *pooled_maps(bare, images, head.in_features)
    except ValueError as error:
        raise ValueError(
            f"class activation maps need a model that ends in {ENDS}; no such end was found in "
            f"{type(bare).__name__}. {REMEDY}"
        ) from error


def _maps_behind_scores(bare: nn.Module, maps: Tensor, head: nn.Linear, scores: Tensor) -> Tensor:
    """The maps whose averages make the scores: the last ones found, or these behind a ReLU that is
    no module.
    """
    for candidate in (maps, maps.relu()):
        answer = head(candidate.mean(dim=(2, 3)))
        close = {"rtol": 1e-3, "atol": 1e-4 * float(scores.abs().max())}
        if answer.shape == scores.shape and torch.allclose(answer, scores, **close):
            return candidate
    raise ValueError(
        f"class activation maps need a model that ends in {ENDS}; what {type(bare).__name__}"
        f" classifies are not the averages of its last maps {tuple(maps.shape[1:])}. {REMEDY}"
    )
