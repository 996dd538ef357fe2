"""Streaming sums over a training run: what a recorder keeps, in memory that does not grow with images or steps.

Everything stays on the device it was measured on until it is read; adding a batch never waits for the device.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

BINS = 48
NORM_RANGE = (-4.0, 4.0)      # decades of ‖a‖₂, of which a 32×32 map of unit values has 1.5
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
    """Counts of (norm, gradient) pairs in log-spaced bins that are fixed beforehand, so that they can be streamed.

    Values beyond the ends are counted in the outermost bins; zeros, which no logarithm has, apart.
    """

    counts: Tensor | None = None
    zeros: Tensor | int = 0  # (2,): pairs with norm 0, other pairs with gradient 0
    pairs: int = 0

    def add(self, norms: Tensor, gradients: Tensor) -> None:
        """Adds the pairs of two tensors of one shape, both ≥ 0."""
        if self.counts is None:
            self.counts = torch.zeros(BINS * BINS + 1, dtype=torch.int64, device=norms.device)  # the last one: zeros
        cell = _bin(norms, NORM_RANGE) * BINS + _bin(gradients, GRADIENT_RANGE)
        nothing = (norms == 0) | (gradients == 0)
        cell = torch.where(nothing, BINS * BINS, cell).flatten()
        self.counts.index_add_(0, cell, torch.ones_like(cell))
        silent = norms == 0
        self.zeros = self.zeros + torch.stack([silent.sum(), (nothing & ~silent).sum()])
        self.pairs += norms.numel()

    def read(self) -> dict:
        """{"counts": BINS × BINS lists (norm × gradient), "norm_edges", "gradient_edges": BINS + 1 numbers,
        "zero_norm", "zero_gradient", "pairs": integers}."""
        table = self.counts[:-1].reshape(BINS, BINS) if self.counts is not None else torch.zeros(BINS, BINS).long()
        zero_norm, zero_gradient = self.zeros.tolist() if isinstance(self.zeros, Tensor) else (0, 0)
        return {"counts": table.tolist(), "norm_edges": edges(NORM_RANGE), "gradient_edges": edges(GRADIENT_RANGE),
                "zero_norm": zero_norm, "zero_gradient": zero_gradient, "pairs": self.pairs}


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
    gradient_kept: Mean = field(default_factory=Mean)
    gradient_replaced: Mean = field(default_factory=Mean)
    gradient_plain: Mean = field(default_factory=Mean)


def edges(decades: tuple[float, float]) -> list[float]:
    """The BINS + 1 edges of the bins, ascending, > 0."""
    return torch.logspace(*decades, BINS + 1, dtype=torch.float64).tolist()


def _bin(values: Tensor, decades: tuple[float, float]) -> Tensor:
    """The bin of each value, 0 … BINS − 1, int64."""
    low, high = decades
    place = (values.clamp_min(10.0 ** (low - 1)).log10() - low) * (BINS / (high - low))
    return place.floor().clamp(0, BINS - 1).to(torch.int64)
