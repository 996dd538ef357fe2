"""A momentum encoder: a copy of the model that follows it slowly, as a moving average of its
weights.

He et al., "Momentum Contrast", CVPR 2020, Eq. 2; Grill et al., "Bootstrap your own latent", NeurIPS
2020 (the cosine schedule of the momentum); Eq. 12 of the AutoMix paper (Liu et al., ECCV 2022).
"""

import copy
import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

HOOKS = ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks")


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine, flat at both ends.

    Source: Grill et al., NeurIPS 2020, section 3.2: τ = 1 − (1 − τ_base)(cos(πk/K) + 1)/2.

    Args:
        start, end: any numbers. progress: share of the way, in [0, 1].
    """
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


def frozen_copy(model: nn.Module) -> nn.Module:
    """A deep copy that no gradient reaches and nobody watches: hooks set on `model` are not copied.

    Old-style spectral norm is a hook, too, but part of what the model computes: such hooks of
    `torch.nn.utils` stay.

    Args:
        model: the bare model (see `catchup.hooks.blocks.unwrap`).
    Returns:
        The same class on the same device, in the same dtype, memory format and mode.
    """
    empty: dict[int, Any] = {
        id(getattr(module, kind)): OrderedDict() for module in model.modules() for kind in HOOKS
    }
    for module in model.modules():
        empty[id(module._forward_pre_hooks)] = OrderedDict(
            (key, hook)
            for key, hook in module._forward_pre_hooks.items()
            if type(hook).__module__.startswith("torch.nn.utils.")
        )
    # deepcopy takes what its memo holds for a copy made
    return copy.deepcopy(model, empty).requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, momentum: float) -> None:
    """θ_k ← m θ_k + (1 − m) θ_q, in place (Eq. 12), for floating parameters and buffers; other
    buffers are copied.

    The sum is formed in the weights' own dtype: a step (1 − m)(θ_q − θ_k) below half a unit in the
    last place is lost. With weights in half precision the average may thus stand still; mixed
    precision keeps them in float32.

    Args:
        average: the copy that follows. model: the bare model it was copied from.
        momentum: m in [0, 1]: 1 keeps the average, 0 copies the model.
    Raises:
        ValueError: for a momentum outside [0, 1], or if the two have different parameters or
            buffers.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie in [0, 1], got {momentum}")
    own, theirs = _tensors(average), _tensors(model)
    if {name: value.shape for name, value in own.items()} != {
        name: value.shape for name, value in theirs.items()
    }:
        raise ValueError(
            f"the momentum encoder was copied from another model than this {type(model).__name__}: "
            "call begin_run(model, num_classes) with the model that is trained"
        )
    floating = [name for name, value in own.items() if value.is_floating_point()]
    if floating:
        get_ema_multi_avg_fn(momentum)(
            [own[name] for name in floating], [theirs[name] for name in floating], None
        )
    for name in own.keys() - set(floating):
        own[name].copy_(theirs[name])


def same_modes(average: nn.Module, model: nn.Module) -> None:
    """Puts every module of `average` in the mode, training or evaluation, that its original in
    `model` is in.
    """
    for own, theirs in zip(average.modules(), model.modules(), strict=True):
        own.training = theirs.training


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())
