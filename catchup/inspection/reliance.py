"""How much a layer relies on a few of its filters, as numbers of their influences.

The influence of a filter on an image is the norm of its map (Kang, Kang & Kim, AAAI 2024, Eq. 4).
The paper argues with pictures that a few filters carry most of it; these measures say how few. They
share one limit: a strong map is not yet a map that decides, since what the next layer makes of it
is not seen. The feature-drop curve (`drop_area`) sees decisions, but of the last layer alone.

An image to which no filter answers has nothing to share out: its measures are NaN.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Images
from ..data.augment import normalise, to_float
from ..hooks.layers import edited, evaluating
from ..mixers.catchup import filter_influence
from ..models.inference import PixelModel
from ..utils.tensors import form_of
from .maps import choose_blocks, influences
from .strength import rank_correlation


def top_share(influence: Tensor, k: int) -> Tensor:
    """Share of all influence that the k strongest filters hold.

    Range: k/C where all are equal, to 1 where no more than k answer at all.

    Misleads: it sees nothing of how the rest is spread, it depends on k, and a wider layer has a
    smaller one at the same k: compare layers at the same share k/C.

    Args:
        influence: (…, C) ≥ 0, floating.
        k: in [1, C].
    Returns:
        (…), NaN where all influence is 0.
    Raises:
        ValueError: if an influence is negative or not finite, or `k` is not in [1, C].
    """
    _check(influence)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= influence.shape[-1]:
        raise ValueError(f"k must be a whole number in [1, {influence.shape[-1]}], got {k!r}")
    return _shares(influence).topk(k, dim=-1).values.sum(dim=-1)


def gini(influence: Tensor) -> Tensor:
    """The Gini coefficient of the influences: half the mean difference of two filters, relative to
    their mean.

    Range: 0 where all are equal, to 1 − 1/C where one filter holds all.

    Misleads: its upper end depends on C, so that narrow layers look more equal; dead filters raise
    it like a dominant one does; and different spreads can have one Gini (it is the area under the
    Lorenz curve, not the curve).

    Args:
        influence: (…, C) ≥ 0, floating.
    Returns:
        (…), NaN where all influence is 0.
    Raises:
        ValueError: if an influence is negative or not finite.
    """
    _check(influence)
    count = influence.shape[-1]
    rank = torch.arange(1, count + 1, dtype=influence.dtype, device=influence.device)
    weighted = _shares(influence).sort(dim=-1).values * (2 * rank - count - 1)
    return weighted.sum(dim=-1).clamp_min(0) / count


def effective_filters(influence: Tensor) -> Tensor:
    """The participation ratio (Σp)² / Σp²: how many equally strong filters would be as
    concentrated.

    Range: 1 where one filter holds all, to C where all are equal; k equal filters and C − k dead
        ones give k.

    Misleads: it is ruled by the strongest and hardly sees the weak ones; and it counts filters, not
    what they do: ten copies of one filter count as ten.

    Args:
        influence: (…, C) ≥ 0, floating.
    Returns:
        (…), NaN where all influence is 0.
    Raises:
        ValueError: if an influence is negative or not finite.
    """
    _check(influence)
    return 1 / _shares(influence).square().sum(dim=-1)


def drop_area(curve: Sequence[Sequence[float]]) -> float:
    """Area under a feature-drop curve, relative to a curve that never falls (trapezoids).

    Range: 1 where dropping features costs nothing, towards 0 where the first dropped feature costs
    everything; above 1 where dropping helps. Of the strongest-first curve, a small area tells of
    reliance on few features.

    Misleads: it is relative to the accuracy with all features, so a poor model that falls to chance
    looks robust; chance is not subtracted; and curves compare only over the same range of
    fractions.

    Args:
        curve: [[fraction, accuracy], …] from `feature_drop_curve`, fractions ascending from 0, at
            least two points; the accuracies ≥ 0 in any one unit.
    Returns:
        ≥ 0.
    Raises:
        ValueError: if the fractions are not so, the accuracy at 0 is 0, or a number is negative or
            not finite.
    """
    points = torch.tensor([list(point) for point in curve], dtype=torch.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
        raise ValueError(
            f"a curve needs at least two points [fraction, accuracy], got {list(curve)}"
        )
    fractions, accuracies = points.T
    if fractions[0] != 0 or not (fractions.diff() > 0).all():
        raise ValueError(f"fractions must ascend from 0, got {fractions.tolist()}")
    if not (points.isfinite().all() and accuracies.min() >= 0 and accuracies[0] > 0):
        raise ValueError(
            f"accuracies must be finite and ≥ 0, at fraction 0 above 0, got {accuracies.tolist()}"
        )
    return float(torch.trapezoid(accuracies, fractions) / (accuracies[0] * fractions[-1]))


def measure_reliance(
    model: nn.Module, images: Tensor, blocks: Sequence[str] | None = None, batch_size: int = 100
) -> list[dict]:
    """The measures of each block, averaged over images; evaluation mode, modes restored, no hook
    left.

    Args:
        model: any CNN.
        images: (N, C, H, W) floating, as the model takes them, on its device; N ≥ 1.
        blocks: qualified names; None takes `find_blocks`.
        batch_size: images per forward pass, ≥ 1; bounds the memory.
    Returns:
        One row per block: {"block", "top10_share": share of the strongest tenth of the filters
        (rounded up), "gini", "effective_filters": means over the images to which any filter answers
        (NaN if there is none), "filters": C, "images": N}.
    Raises:
        ValueError: for an unknown block, no images, or a block that does not run exactly once.
    """
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be (N, C, H, W), N at least 1, got {tuple(images.shape)}")
    measured = influences(model, images.split(batch_size), choose_blocks(model, blocks))
    return [_row(name, influence) for name, influence in measured.items()]


def measure_norm_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    blocks: Sequence[str] | None = None,
    batch_size: int = 100,
) -> list[dict]:
    """Norm and gradient of every filter, averaged over images: do the weak filters get less
    gradient?

    Source: Kang, Kang & Kim, AAAI 2024, Figure 1b, for a model at rest: evaluation mode, no mixing,
    the gradient of each image's own cross-entropy. `catchup.recording` shows the same during
    training.

    Misleads: the filters of one block are compared by what they return, but a filter whose norm is
    large may be scaled down by the next layer; and on images that the model has learnt the
    gradients are small for every filter.

    Args:
        model, images, blocks, batch_size: as for `measure_reliance`.
        labels: (N,) int64.
    Returns:
        One row per block: {"block", "norm": C means of ‖a‖₂, "gradient": C means of ‖∂ℓ/∂a‖₂,
        "rank_correlation": Spearman's ρ of the two over the filters, in [-1, 1], NaN where one is
        constant}.
    Raises:
        ValueError: for an unknown block, or images and labels that do not fit.
        RuntimeError: if a block does not run exactly once (see `catchup.edited`).
    """
    if images.ndim != 4 or len(images) == 0 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"images must be (N, C, H, W), N at least 1, and labels (N,), got {tuple(images.shape)}"
            f" and {tuple(labels.shape)}"
        )
    names, total = choose_blocks(model, blocks), {}
    with evaluating(model), torch.enable_grad():
        for batch, truth in zip(images.split(batch_size), labels.split(batch_size)):
            for name, sums in _norms_and_gradients(model, batch, truth, names).items():
                total[name] = total.get(name, 0) + sums
    rows = []
    for name, sums in total.items():
        norm, gradient = (sums / len(images)).cpu()
        row = {"block": name, "norm": norm.tolist(), "gradient": gradient.tolist()}
        rows.append({**row, "rank_correlation": rank_correlation(norm, gradient)})
    return rows


def reliance_record(model: PixelModel, images: Images) -> dict:
    """The measures of this file as one part of an evaluation object.

    Args:
        model, images: on one device.
    Returns:
        {"blocks": the rows of `measure_reliance`, each with the "rank_correlation" of
        `measure_norm_gradient`, "top10_share", "rank_correlation": their means over the blocks}.
    """
    inputs = normalise(to_float(images.pixels), model.mean, model.std)
    rows = measure_reliance(model.model, inputs)
    gradients = measure_norm_gradient(model.model, inputs, images.labels)
    for row, other in zip(rows, gradients):
        row["rank_correlation"] = other["rank_correlation"]
    keys = ("top10_share", "rank_correlation")
    return {"blocks": rows, **{key: sum(row[key] for row in rows) / len(rows) for key in keys}}


def _norms_and_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, names: Sequence[str]
) -> dict[str, Tensor]:
    """{block: (2, C) float64, norms and gradient norms summed over the images}."""
    maps: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        maps[name] = output
        return output.clone()  # the next layer may work in place

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(edited(model, name, partial(keep, name)))
        loss = F.cross_entropy(model(images.detach().requires_grad_()), labels, reduction="sum")
    gradients = torch.autograd.grad(loss, list(maps.values()))
    return {
        name: torch.stack([filter_influence(part).double().sum(0) for part in (own, gradient)])
        for (name, own), gradient in zip(maps.items(), gradients)
    }


def _row(block: str, influence: Tensor) -> dict:
    """The measures of (N, C) influences, averaged over N."""
    count = influence.shape[1]
    measures = {
        "top10_share": top_share(influence, -(-count // 10)),
        "gini": gini(influence),
        "effective_filters": effective_filters(influence),
    }
    return {
        "block": block,
        **{name: float(values.nanmean()) for name, values in measures.items()},
        "filters": count,
        "images": len(influence),
    }


def _shares(influence: Tensor) -> Tensor:
    """Each row divided by its sum; NaN where that is 0."""
    return influence / influence.sum(dim=-1, keepdim=True)


def _check(influence: Tensor) -> None:
    """Raise ValueError unless `influence` is floating (…, C), C ≥ 1, finite and ≥ 0."""
    if influence.ndim < 1 or influence.shape[-1] < 1 or not influence.is_floating_point():
        raise ValueError(
            f"influence must be floating (…, C), C at least 1, got {form_of(influence)}"
        )
    if not (influence.isfinite() & (influence >= 0)).all():
        raise ValueError("influence must be finite and ≥ 0 everywhere, as a norm is")
