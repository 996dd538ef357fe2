"""Scores beside the largest softmax for images from elsewhere: four rulers of the same question.

Sources: Liu, Wang, Owens & Li, NeurIPS 2020 (energy); Hendrycks et al., ICML 2022 (max-logit); Sun,
Ming, Zhu & Li, ICML 2022 (nearest neighbours). The metrics are those of `catchup.measures.ood`; a
higher score says "outside" for every one of them.

Where it misleads: softmax is unfair to mixing, whose labels teach a network to be unsure of its own
images too; a method that wins by one score and loses by another has not become better or worse at
telling images apart. The nearest neighbours need the training images, and their k was chosen for
whole data sets (50 for CIFAR-10, 200 for CIFAR-100 with 50 000 images).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import Images
from ..hooks.classifier import find_classifier
from ..models.inference import PixelModel
from ..utils.choices import check_whole
from ..utils.tensors import form_of
from .feature_drop import pooled_features
from .ood import msp_scores, ood_metrics

NEIGHBOUR_SHARE = 0.004  # of the training images: 200 of CIFAR-100's 50 000
CHUNK = 500  # images whose distances to the bank are held at once


def energy_scores(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """−T log Σ_k exp(z_k / T): how unlikely the image is to the model's energy (Liu et al., 2020).

    Args:
        logits: (N, classes) floating and finite.
        temperature: T > 0; 1 in the source.
    Returns:
        (N,) float64, higher for less known.
    Raises:
        ValueError: for other logits or temperatures.
    """
    _check(logits, "logits")
    if not temperature > 0:
        raise ValueError(f"temperature must be more than 0, got {temperature}")
    return -temperature * (logits.double() / temperature).logsumexp(dim=1)


def max_logit_scores(logits: Tensor) -> Tensor:
    """−max_k z_k (Hendrycks et al., 2022): (N,) float64, higher for less known.

    Args and errors: as `energy_scores`.
    """
    _check(logits, "logits")
    return -logits.double().amax(dim=1)


def neighbour_scores(features: Tensor, bank: Tensor, k: int) -> Tensor:
    """The distance to the k-th nearest training image, both brought to length one (Sun et al.,
    2022).

    Args:
        features: (N, D) floating and finite, of the images to score.
        bank: (M, D), of the training images, on the same device.
        k: in [1, M].
    Returns:
        (N,) float64 in [0, 2], higher for less known. A feature vector of zeros stays zero and lies
        at distance 1 from everything.
    Raises:
        ValueError: if a shape, a value or k is not so.
    """
    _check(features, "features")
    _check(bank, "bank")
    check_whole(k=k)
    if features.shape[1] != bank.shape[1] or k > len(bank):
        raise ValueError(
            f"k must lie in [1, {len(bank)}] and bank and features have one width, got k={k} and"
            f" {form_of(bank)} beside {form_of(features)}"
        )
    known = F.normalize(bank.double(), dim=1)
    return torch.cat(
        [
            torch.cdist(part, known).kthvalue(k, dim=1).values
            for part in F.normalize(features.double(), dim=1).split(CHUNK)
        ]
    )


def measure_outside(
    model: PixelModel, inside: Images, outside: Images, training: Images
) -> dict[str, dict[str, float]]:
    """How well each score tells images of the model's own data set from others.

    Args:
        model: from images in [0, 1] to logits, ending in a linear layer.
        inside: images like those the model learned from.
        outside: others, of the same shape.
        training: what it learned from, as it sees test images: the bank of the neighbours.
    Returns:
        {"msp", "energy", "max_logit", "neighbours": as `catchup.measures.ood_metrics`, the last
        with "k", a 250th of the training images}.
    Raises:
        ValueError: as `catchup.measures.pooled_features`; for images of another shape.
    """
    if not inside.shape == outside.shape == training.shape:
        raise ValueError(
            "inside, outside and training images need one shape (C, H, W), got"
            f" {inside.shape}, {outside.shape} and {training.shape}"
        )
    ours, theirs, bank = (pooled_features(model, images) for images in (inside, outside, training))
    head = find_classifier(model)[1]
    with torch.no_grad():
        logits = head(ours), head(theirs)
    k = max(round(NEIGHBOUR_SHARE * len(bank)), 1)
    rulers = {"msp": msp_scores, "energy": energy_scores, "max_logit": max_logit_scores}
    found = {name: ood_metrics(*map(score, logits)) for name, score in rulers.items()}
    near = [neighbour_scores(features, bank, k) for features in (ours, theirs)]
    return {**found, "neighbours": {**ood_metrics(*near), "k": k}}


def _check(values: Tensor, name: str) -> None:
    if values.ndim != 2 or not values.numel() or not values.is_floating_point():
        raise ValueError(f"{name} must be floating (N, width), N >= 1, got {form_of(values)}")
    if not values.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
