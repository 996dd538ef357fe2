"""Streaming sums over a training run: what a recorder keeps, in memory that does not grow with
images or steps.

Everything stays on the device it was measured on until it is read; adding a batch never waits for
the device.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

BINS = 48
NORM_RANGE = (-4.0, 4.0)  # decades of ‖a‖₂, of which a 32×32 map of unit values has 1.5
GRADIENT_RANGE = (-9.0, 1.0)  # decades of ‖∂ℓ/∂a‖₂


@dataclass
class Mean:
    """The mean of (B, C) values per column, over rows of many batches, each cell counted or not."""

    total: Tensor | float = 0.0
    count: Tensor | float = 0.0

    def add(self, values: Tensor, counted: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            values: (B, C) floating.
            counted: bool (B, C), which cells count; None: all.
        """
        weight = torch.ones_like(values) if counted is None else counted.to(values.dtype)
        self.total = self.total + (values * weight).sum(dim=0, dtype=torch.float32)
        self.count = self.count + weight.sum(dim=0, dtype=torch.float32)

    def read(self, channels: int) -> Tensor:
        """(channels,) float32 on the CPU; NaN where nothing was counted."""
        if isinstance(self.count, float):
            return torch.full((channels,), torch.nan)
        return (self.total / self.count).cpu()


@dataclass
class JointHistogram:
    """Counts of (norm, gradient) pairs in log-spaced bins that are fixed beforehand, so that they
    can be streamed.

    Values beyond the ends are counted in the outermost bins; zeros, which no logarithm has, and
    what is not finite, apart.
    """

    counts: Tensor | None = None
    # (3,): pairs with norm 0, other pairs with gradient 0, pairs that are not finite
    apart: Tensor | int = 0
    pairs: int = 0

    def add(self, norms: Tensor, gradients: Tensor) -> None:
        """Adds the pairs of two tensors of one shape, both ≥ 0."""
        if self.counts is None:
            # the last one: zeros
            self.counts = torch.zeros(BINS * BINS + 1, dtype=torch.int64, device=norms.device)
        cell = _bin(norms, NORM_RANGE) * BINS + _bin(gradients, GRADIENT_RANGE)
        broken = ~(norms.isfinite() & gradients.isfinite())
        silent = (norms == 0) & ~broken
        still = (gradients == 0) & ~silent & ~broken
        cell = torch.where(broken | silent | still, BINS * BINS, cell).flatten()
        self.counts.index_add_(0, cell, torch.ones_like(cell))
        self.apart = self.apart + torch.stack([silent.sum(), still.sum(), broken.sum()])
        self.pairs += norms.numel()

    def read(self) -> dict:
        """{"counts": (BINS, BINS) int64 on the CPU (norm × gradient), "zero_norm", "zero_gradient",
        "not_finite", "pairs": integers}.
        """
        counts = (
            torch.zeros(BINS * BINS + 1, dtype=torch.int64)
            if self.counts is None
            else self.counts.cpu()
        )
        apart = self.apart.tolist() if isinstance(self.apart, Tensor) else (0, 0, 0)
        named = dict(zip(("zero_norm", "zero_gradient", "not_finite"), apart))
        return {"counts": counts[:-1].reshape(BINS, BINS), **named, "pairs": self.pairs}


@dataclass
class BlockTally:
    """All that is kept of one block during one epoch."""

    channels: int = 0
    images: int = 0
    batches: int = 0
    norm: Mean = field(default_factory=Mean)
    map_gradient: Mean = field(default_factory=Mean)
    weight_gradient: Mean = field(default_factory=Mean)
    histogram: JointHistogram = field(default_factory=JointHistogram)
    kept: Tensor | float = 0
    replaced: Tensor | float = 0
    mixed_steps: int = 0
    lead_kept: Mean = field(default_factory=Mean)
    lead_replaced: Mean = field(default_factory=Mean)
    gradient_kept: Mean = field(default_factory=Mean)
    gradient_replaced: Mean = field(default_factory=Mean)
    gradient_plain: Mean = field(default_factory=Mean)


def edges(decades: tuple[float, float]) -> list[float]:
    """The BINS + 1 edges of the bins, ascending, > 0."""
    return torch.logspace(*decades, BINS + 1, dtype=torch.float64).tolist()


def _bin(values: Tensor, decades: tuple[float, float]) -> Tensor:
    """The bin of each value, 0 … BINS − 1, int64."""
    low, high = decades
    known = values.nan_to_num(nan=1.0, posinf=1.0)  # of what is not finite the bin does not count
    place = (known.clamp_min(10.0 ** (low - 1)).log10() - low) * (BINS / (high - low))
    return place.floor().clamp(0, BINS - 1).to(torch.int64)
