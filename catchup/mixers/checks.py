"""The sentences that bad input gets, before anything is computed from it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .draw import Draw


def check_positive(name: str, value: float) -> None:
    """Raises ValueError unless `value` is a positive finite number."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a positive number, got {value}")


def check_batch(images: Tensor, labels: Tensor) -> Tensor:
    """The labels, (B,) int64 or (B, N) floating; ValueError unless they and the images (B, C, …)
    fit together.
    """
    if (
        not isinstance(images, Tensor)
        or not isinstance(labels, Tensor)
        or images.device != labels.device
    ):
        got = " and ".join(
            f"a tensor on {one.device}" if isinstance(one, Tensor) else type(one).__name__
            for one in (images, labels)
        )
        raise ValueError(f"images and labels must be tensors on one device, got {got}")
    if images.ndim < 3 or not images.is_floating_point():
        raise ValueError(
            f"images must be (B, C, H, W) floating, got {tuple(images.shape)} {images.dtype}"
        )
    hard = labels.ndim == 1 and not labels.is_floating_point() and labels.dtype != torch.bool
    soft = labels.ndim == 2 and labels.is_floating_point()
    if len(labels) != len(images) or not (hard or soft):
        raise ValueError(
            f"labels must be ({len(images)},) integers or ({len(images)}, N) floating, "
            f"got {tuple(labels.shape)} {labels.dtype}"
        )
    if len(images) == 0:
        raise ValueError("the batch is empty: at least one image is needed")
    if soft:
        check_shares(labels)
    return labels.long() if hard else labels


def check_shares(labels: Tensor) -> None:
    """Raises ValueError unless soft labels (B, N) are shares of the classes: finite, none below 0,
    each row summing to 1 (within a hundredth, for those made in half precision).
    """
    rows = labels.detach().float()
    right = rows.isfinite().all(dim=1) & (rows >= 0).all(dim=1)
    right &= (rows.sum(dim=1) - 1).abs() <= 0.01
    if not right.all():
        row = int(right.logical_not().nonzero()[0])
        shown = ", ".join(f"{value:.3g}" for value in rows[row, :8].tolist())
        raise ValueError(
            f"soft labels must be shares of the classes, 0 … 1 with a sum of 1, got row {row}:"
            f" {shown}{', …' if rows.shape[1] > 8 else ''} (sum {rows[row].sum().item():.4g});"
            " logits need a softmax first"
        )


def check_draw(draw: Draw, images: Tensor, blocks: Sequence[str]) -> Draw:
    """`draw`, if it fits a batch of these images and a model with these blocks; ValueError
    otherwise.
    """
    if len(draw.partner) != len(images):
        raise ValueError(f"the draw is for {len(draw.partner)} images, the batch has {len(images)}")
    if draw.layer is not None and not 0 <= draw.layer <= len(blocks):
        raise ValueError(f"the draw's layer must lie in 0 … {len(blocks)}, got {draw.layer}")
    return draw


def check_maps(maps: Tensor, images: Tensor, block: str, features: int | None = None) -> Tensor:
    """`maps`, if a block's output can be mixed per channel; ValueError otherwise.

    Args:
        maps: what the block returned.
        images: of the batch.
        block: its name.
        features: how many the block's last layer makes in its last dimension (see
            `trailing_features`): maps that end in them are laid out (B, H, W, C).
    """
    shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
    axes = (4, 5) if images.ndim == 5 else (4,)  # of volumes as well as of images
    if not isinstance(maps, Tensor) or maps.ndim not in axes or len(maps) != len(images):
        what = ""
        if isinstance(maps, Tensor) and maps.ndim == 3:
            what = " (tokens of a transformer, or a signal, have no channels of pixels)"
        raise ValueError(
            f"block {block!r} must return maps ({len(images)}, C, H, W), got {shape}{what}; name"
            " another block"
        )
    if features is not None and maps.shape[1] != features == maps.shape[-1]:
        raise ValueError(
            f"block {block!r} must return maps ({len(images)}, C, H, W), got {shape} with its"
            f" {features} channels last (B, H, W, C); name a block behind which they come second"
        )
    return maps


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raises ValueError unless logits are (B, N) and, where it costs no synchronisation, the labels
    lie in [0, N).
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(labels):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must return logits ({len(labels)}, N), got {got}")
    if logits.shape[1] < 2:
        raise ValueError(
            "the model must return a logit for each of at least 2 classes, got"
            f" {tuple(logits.shape)}: the softmax over one class is constant, and nothing would be"
            " learnt; give the two classes a logit each"
        )
    if labels.ndim == 2 and labels.shape[1] != logits.shape[1]:
        raise ValueError(
            f"soft labels have {labels.shape[1]} classes, the model's logits {logits.shape[1]}"
        )
    if labels.ndim == 1 and labels.device.type == "cpu":
        low, high = (int(v) for v in labels.aminmax())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(f"labels must lie in 0 … {logits.shape[1] - 1}, got {low} … {high}")


def check_at_least(**settings: tuple[float, float]) -> None:
    """Raises ValueError for a setting (value, least) that is below its least value or not
    finite.
    """
    for name, (value, least) in settings.items():
        if not (value >= least and math.isfinite(value)):
            raise ValueError(f"{name} must be a number ≥ {least}, got {value}")
