"""Feature drop: how many of its pooled features a classifier leans on.

Source: Kang, Kang & Kim, AAAI 2024, appendix A.2, Figures 5 and 6. The input vector of the last
linear layer (512 features per image for ResNet-18) is set to zero piece by piece, for each image
its strongest features first and, separately, its weakest first, and the accuracy is measured again.
An accuracy that falls steeply as the strongest go tells of a model that relies on few features.

A feature is strong by its magnitude |z|. The paper says both "magnitude" and "value"; behind a ReLU
(ResNet-18, PreActResNet-18 with its final ReLU) they are the same, elsewhere only |z| says how much
a zero changes.

Where it misleads: |z| is not influence on the decision, since the weight behind a feature counts
too; the curve is of accuracy, so a model that is worse to begin with falls less far; and the
fraction is of D, so two models compare only if their D is the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data import Images
from ..data.augment import to_float
from ..hooks.classifier import find_classifier
from ..hooks.layers import evaluating
from ..models.inference import PixelModel, top_k_error
from ..utils.choices import pick
from ..utils.tensors import form_of

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WHICH = ("strongest", "weakest")


def feature_drop_curve(
    model: PixelModel, images: Images, fractions: Sequence[float] = FRACTIONS
) -> dict[str, list[list[float]]]:
    """Top-1 accuracy against the fraction of features removed. Features are computed once, the head
    runs again.

    Source: Kang, Kang & Kim, AAAI 2024, A.2; see the top of this file for what the curve does not
        show.

    Args:
        model: from images in [0, 1] to logits, on the device of `images`, ending in a linear layer.
        images: the images to classify.
        fractions: shares of the features to set to zero, each in [0, 1].
    Returns:
        {"strongest": [[fraction, top-1 accuracy in percent], …], "weakest": [[…], …]}, in the order
        of `fractions`.
    Raises:
        ValueError: as `pooled_features` and `drop_features`.
    """
    features, head = pooled_features(model, images), find_classifier(model)[1]

    @torch.no_grad()
    def accuracy(fraction: float, which: str) -> float:
        return 100 - top_k_error(head(drop_features(features, fraction, which)), images.labels)

    return {which: [[part, accuracy(part, which)] for part in fractions] for which in WHICH}


def drop_features(features: Tensor, fraction: float, which: str) -> Tensor:
    """The features with, in every row, a fraction of them set to zero.

    Args:
        features: (N, D) floating.
        fraction: share of the D features to set to zero, in [0, 1].
        which: "strongest" takes those of largest |z| first, "weakest" those of smallest; ties go to
            the lower index.
    Returns:
        (N, D), a new tensor; exactly round(fraction * D) features of each row were set to zero
        (Python's `round`).
    Raises:
        ValueError: if `features` is not floating (N, D) or holds NaN, `fraction` leaves [0, 1],
            `which` is unknown.
    """
    pick("end of the ranking", which, WHICH)
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(f"features must be floating (N, D), got {form_of(features)}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie in [0, 1], got {fraction}")
    if features.isnan().any():
        raise ValueError("features hold NaN, which is neither strong nor weak")
    order = features.abs().argsort(dim=1, descending=which == "strongest", stable=True)  # (N, D)
    return features.scatter(1, order[:, : round(fraction * features.shape[1])], 0.0)


@torch.no_grad()
def pooled_features(model: PixelModel, images: Images, batch_size: int = 500) -> Tensor:
    """What goes into the last linear layer, in evaluation mode; modes are restored and no hook is
    left.

    Args:
        model, images: as for `feature_drop_curve`.
        batch_size: images per forward pass, >= 1.
    Returns:
        (N, D), one row per image.
    Raises:
        ValueError: if there is no linear layer, if it does not run exactly once on one vector per
            image, or if the model does anything with its output.
    """
    with evaluating(model):
        chunks = (to_float(chunk.pixels) for chunk in images.chunks(batch_size))
        return torch.cat([_head_input(model, chunk) for chunk in chunks])


def _head_input(model: nn.Module, images: Tensor) -> Tensor:
    """(B, D): what the head was given, after making sure that what it returns is the model's
    answer.
    """
    name, head = find_classifier(model)
    seen: list[Tensor] = []
    with head.register_forward_pre_hook(lambda _module, args: seen.append(args[0])):
        logits = model(images)
    if len(seen) != 1 or seen[0].ndim != 2:
        shapes = [tuple(given.shape) for given in seen]
        raise ValueError(
            f"the last linear layer {name!r} must run exactly once, on one vector per image, "
            f"but it was given {shapes or 'nothing (a compiled model skips hooks)'}"
        )
    answer, close = head(seen[0]), {"rtol": 1e-3, "atol": 1e-4 * float(logits.abs().max())}
    if answer.shape != logits.shape or not torch.allclose(answer, logits, **close):
        raise ValueError(
            f"the model's output is not that of its last linear layer {name!r}: something comes"
            " after it (or the numbers are not finite), so its inputs are not the features that"
            " decide"
        )
    return seen[0]
