"""Out-of-distribution detection by the maximum softmax: does a model know when it is shown
something else?

Sources: Hendrycks & Gimpel, ICLR 2017 (the score); Hendrycks et al., CVPR 2021, "Natural
Adversarial Examples" (the ImageNet-O protocol, which the numbers of Kang, Kang & Kim, AAAI 2024,
Table 5 identify). Outside images are the positive class everywhere, and a higher score says
"outside".

Where it misleads: AUPR depends on how many outside images there are, so it is to be read beside
`aupr_chance`; ImageNet-O was chosen to be hard for one ResNet-50, so models near it may fall below
chance; and a model that is better calibrated, or only less confident, need not know more.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data import Images
from ..models.inference import PixelModel, predict
from ..utils.choices import pick
from ..utils.tensors import form_of


def msp_scores(logits: Tensor, keep_classes: Sequence[int] | None = None) -> Tensor:
    """How far from known each image seems: minus the largest softmax probability.

    Source: Hendrycks & Gimpel, ICLR 2017, section 2, with the sign turned.

    Args:
        logits: (N, classes) floating.
        keep_classes: indices of the classes that take part in the softmax; None: all.
    Returns:
        (N,) float64 in [-1, 0), higher for less known. In float64 because float32 rounds confident
        images to 1, all of them to the same score.
    Raises:
        ValueError: if the logits are not floating (N, classes) or not finite, or `keep_classes` is
            empty, has doubles or leaves the range.
    """
    if logits.ndim != 2 or not logits.is_floating_point() or not logits.isfinite().all():
        raise ValueError(f"logits must be finite and floating (N, classes), got {form_of(logits)}")
    count = logits.shape[1]
    kept = [int(index) for index in (range(count) if keep_classes is None else keep_classes)]
    if not kept or len(set(kept)) < len(kept) or not 0 <= min(kept) <= max(kept) < count:
        raise ValueError(
            f"keep_classes must be different indices in [0, {count - 1}], at least one, "
            f"got {kept[:10]}{' …' * (len(kept) > 10)}"
        )
    return -logits[:, kept].double().softmax(dim=1).amax(dim=1)


def ood_metrics(inside_scores: Tensor, outside_scores: Tensor) -> dict[str, float]:
    """How well scores part two sets, the outside one being the positive class.

    AUROC is the probability that an outside image scores higher than an inside one, ties counting
    half. AUPR is the average precision, Σ (Rₙ - Rₙ₋₁) Pₙ over the distinct scores, without
    interpolation. FPR95 is the share of inside images scoring at least t, where t is the highest
    score that at least 95 % of the outside images reach: tied images fall on the same side, nothing
    is interpolated.

    Differs from the release: Hendrycks' program takes the recall nearest to 95 %, and of the
    thresholds with that recall the one with the most inside images, up to 23 points more.

    Args:
        inside_scores: (N,) floating, at least one.
        outside_scores: (M,) floating, at least one.
    Returns:
        fpr95, auroc, aupr in percent; fpr95_chance, auroc_chance, aupr_chance in percent, of scores
        that know nothing (95, 50, and the share of outside images); n_inside, n_outside.
    Raises:
        ValueError: if a set is empty, not one-dimensional or not finite.
    """
    for name, scores in (("inside", inside_scores), ("outside", outside_scores)):
        if scores.ndim != 1 or len(scores) == 0 or not scores.isfinite().all():
            raise ValueError(
                f"{name} scores must be finite (N,), at least one, got {tuple(scores.shape)}"
            )
    inside, outside = (scores.double().sort().values for scores in (inside_scores, outside_scores))
    n_in, n_out = len(inside), len(outside)
    below, up_to = (torch.searchsorted(inside, outside, right=right) for right in (False, True))
    reached_in = n_in - below  # (M,) inside images at or above each outside score
    # (M,) outside images at or above it, itself included
    reached_out = n_out - torch.searchsorted(outside, outside)
    needed = -(-95 * n_out // 100)  # 95 % of them, rounded up
    precision = reached_out / (reached_out + reached_in)
    return {
        "fpr95": 100 * reached_in[n_out - needed].item() / n_in,
        "auroc": 50 * (below + up_to).double().mean().item() / n_in,
        "aupr": 100 * precision.double().mean().item(),
        "fpr95_chance": 95.0,
        "auroc_chance": 50.0,
        "aupr_chance": 100 * n_out / (n_in + n_out),
        "n_inside": n_in,
        "n_outside": n_out,
    }


def measure_ood(
    model: PixelModel,
    inside: Images,
    outside: Images,
    *,
    keep_classes: Sequence[str] | None = None,
    batch_size: int = 500,
) -> dict[str, float]:
    """How well a model's confidence tells images of its own data set from others.

    Args:
        model: from images in [0, 1] to logits, one per class of `inside`, on the device of the
            images.
        inside: images like those the model learned from.
        outside: others, of the same shape; their labels and classes are not read.
        keep_classes: names of classes of `inside`: only their images are inside images, and only
            their logits count, for both sets; None: all.
        batch_size: images per forward pass, >= 1.
    Returns:
        As `ood_metrics`.
    Raises:
        ValueError: if the two sets differ in shape, the model has another number of classes than
            `inside`, or `keep_classes` names one that `inside` does not have or none of its images.
        FloatingPointError: if the model answers with NaN or infinity.
    """
    how = {"keep_classes": keep_classes, "batch_size": batch_size}
    return ood_metrics(*ood_scores(model, inside, outside, **how))


def ood_scores(
    model: PixelModel,
    inside: Images,
    outside: Images,
    *,
    keep_classes: Sequence[str] | None = None,
    batch_size: int = 500,
) -> tuple[Tensor, Tensor]:
    """The scores behind `measure_ood`, for a histogram: (N,) of the inside images and (M,) of the
    outside ones, float64.

    Args and errors: as `measure_ood`.
    """
    shapes = [images.shape for images in (inside, outside)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"inside and outside images need one shape (C, H, W), got {shapes[0]} and {shapes[1]}; "
            f"load both with the same image_size, for example image_size={shapes[0][1]}"
        )
    kept, known = None, inside.classes
    if keep_classes is not None:
        names = [pick("class of the inside images", name, known) for name in keep_classes]
        kept = [known.index(name) for name in names]
        wanted = torch.tensor(kept, device=inside.labels.device)
        chosen = torch.isin(inside.labels, wanted).nonzero()[:, 0]
        if len(chosen) == 0:
            raise ValueError(
                f"none of the {len(inside)} inside images is of the {len(kept)} classes to keep"
            )
        inside = inside.take(chosen)
    logits = predict(model, inside, batch_size)
    if logits.shape[1] != len(inside.classes):
        raise ValueError(
            f"the model tells {logits.shape[1]} classes apart, the inside images have "
            f"{len(inside.classes)}: they are not of the data set it was trained on"
        )
    return msp_scores(logits, kept), msp_scores(predict(model, outside, batch_size), kept)


def measure_imagenet_o(
    model: PixelModel, validation: Images, images_o: Images, *, batch_size: int = 500
) -> dict[str, float]:
    """The ImageNet-O protocol: the 200 classes that ImageNet-O was made against, and its own images
    as outside ones.

    Source: Hendrycks et al., CVPR 2021, and the program published with it: ImageNet-O lies in
    folders named after the class each image is wrongly taken for; the validation images of just
    these classes are the inside set, and the logits of all others are left out for both sets.

    Args:
        model: an ImageNet classifier behind its normalisation; as for `measure_ood`.
        validation: ImageNet's validation images, classes named by WordNet id ("n01443537"), in the
            model's order.
        images_o: ImageNet-O, with its folders as classes, of the same shape.
        batch_size: images per forward pass, >= 1.
    Returns:
        As `ood_metrics`.
    Raises:
        ValueError: as `measure_ood`; a folder of ImageNet-O that is no class of the validation
            images is named.
    """
    how = {"keep_classes": images_o.classes, "batch_size": batch_size}
    return measure_ood(model, validation, images_o, **how)
