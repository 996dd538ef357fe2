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
    return labels.long() if hard else labels


def check_draw(draw: Draw, images: Tensor, blocks: Sequence[str]) -> Draw:
    """`draw`, if it fits a batch of these images and a model with these blocks; ValueError
    otherwise.
    """
    if len(draw.partner) != len(images):
        raise ValueError(f"the draw is for {len(draw.partner)} images, the batch has {len(images)}")
    if draw.layer is not None and not 0 <= draw.layer <= len(blocks):
        raise ValueError(f"the draw's layer must lie in 0 … {len(blocks)}, got {draw.layer}")
    return draw


def check_maps(maps: Tensor, images: Tensor, block: str) -> Tensor:
    """`maps`, if a block's output can be mixed per channel; ValueError otherwise."""
    if not isinstance(maps, Tensor) or maps.ndim < 3 or len(maps) != len(images):
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(
            f"block {block!r} must return maps ({len(images)}, C, H, W), got {got}; name another"
            " block"
        )
    return maps


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raises ValueError unless logits are (B, N) and, where it costs no synchronisation, the labels
    lie in [0, N).
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(labels):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must return logits ({len(labels)}, N), got {got}")
    if labels.ndim == 2 and labels.shape[1] != logits.shape[1]:
        raise ValueError(
            f"soft labels have {labels.shape[1]} classes, the model's logits {logits.shape[1]}"
        )
    if labels.ndim == 1 and labels.device.type == "cpu":
        low, high = (int(v) for v in labels.aminmax())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(f"labels must lie in 0 … {logits.shape[1] - 1}, got {low} … {high}")
