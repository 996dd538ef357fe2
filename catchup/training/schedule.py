"""The learning rate step by step: PyTorch's schedules by name, a rise before them, floors by
parameter group.
"""

import math
from collections.abc import Callable
from functools import partial

import torch

from .settings import Settings


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: Settings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """PyTorch's scheduler of that name over `steps` optimiser steps; a group's own `min_lr` comes
    before the run's.

    With a warm-up every rate of its steps is that of the schedule times a line from 1 / n to 1, n
    being their number.
    """
    from torch.optim import lr_scheduler as kinds

    if settings.warmup_epochs:
        rises = max(1, round(settings.warmup_epochs * steps / settings.epochs))
        shares = _shares(optimizer, settings, steps)
        return kinds.LambdaLR(
            optimizer,
            [
                lambda step, share=share: (
                    share(step)  # type: ignore[misc]
                    * min(1.0, (step + 1) / rises)
                )
                for share in shares
            ],
        )
    if settings.schedule == "cosine":
        floors = [group.get("min_lr", settings.min_lr) for group in optimizer.param_groups]
        if len(set(floors)) == 1:
            return kinds.CosineAnnealingLR(optimizer, T_max=steps, eta_min=floors[0])
        return kinds.LambdaLR(optimizer, _shares(optimizer, settings, steps))
    if settings.schedule == "step":
        return kinds.MultiStepLR(
            optimizer, [round(share * steps) for share in settings.milestones], gamma=0.1
        )
    if settings.schedule == "onecycle":
        return kinds.OneCycleLR(
            optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps + 1
        )
    return kinds.ConstantLR(optimizer, factor=1.0)


def _shares(
    optimizer: torch.optim.Optimizer, settings: Settings, steps: int
) -> list[Callable[[int], float]]:
    """For each group its rate in step 0, 1, … of `steps`, as a share of its highest."""

    def cosine(step: int, end: float) -> float:
        return end + (1 - end) * (1 + math.cos(math.pi * step / steps)) / 2

    if settings.schedule == "cosine":
        ends = [
            group.get("min_lr", settings.min_lr) / group["lr"] for group in optimizer.param_groups
        ]
        return [partial(cosine, end=end) for end in ends]
    passed = (
        [round(share * steps) for share in settings.milestones]
        if settings.schedule == "step"
        else []
    )
    return [lambda step: 0.1 ** sum(step >= mark for mark in passed)] * len(optimizer.param_groups)
