"""The values that pass between the parts of a step: what chance drew, what mixing made of it, what
the step did.
"""

from dataclasses import dataclass, field
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from .target import Target


@dataclass(frozen=True, eq=False)
class Draw:
    """Everything that chance decided for one step. Fix it, store it (`as_dict`), replay it
    (`loss(..., draw=)`).

    Args:
        layer: where to mix: 0 is the input, k ≥ 1 the output of the k-th block, None mixes nothing.
        partner: (B,) int64 on the CPU, a permutation: image i is mixed with image partner[i].
        lam: λ in [0, 1], the share that image i keeps of itself.
        seed: of whatever else a method draws (a box, a mask); the same seed gives the same.
        extra: tensors that `Mixer.plan` looked up for `mix` and `target` (a saliency map, weights);
            empty as drawn.
    """

    layer: int | None
    partner: Tensor
    lam: float
    seed: int = 0
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = torch.as_tensor(self.partner, device="cpu")
        if len(given) and (
            given.is_floating_point() or given.is_complex() or given.dtype == torch.bool
        ):
            raise ValueError(
                f"partner must be integers, a permutation of 0 … B-1, got {given.dtype}"
            )
        if self.layer is not None and not isinstance(self.layer, Integral):
            raise ValueError(f"layer must be an integer or None, got {self.layer!r}")
        object.__setattr__(self, "partner", given.to(torch.int64))
        if self.partner.ndim != 1 or not torch.equal(
            self.partner.sort().values, torch.arange(len(self.partner))
        ):
            raise ValueError(
                f"partner must be a permutation of 0 … B-1, got {self.partner.tolist()}"
            )
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam must lie in [0, 1], got {self.lam}")

    def as_dict(self) -> dict:
        """Plain numbers, ready for JSON; `Draw(**d)` gives the draw back (what was looked up is
        looked up again).
        """
        return {
            "layer": self.layer,
            "partner": self.partner.tolist(),
            "lam": float(self.lam),
            "seed": int(self.seed),
        }


class Mixed(NamedTuple):
    """What `mix` returns.

    Attributes:
        maps: the mixed maps, shape, dtype and memory format of the input.
        own_weight: of the image's own label, in [0, 1], a number or (B,).
        keep: bool, True where the image's own values stayed, broadcastable to the maps: (B, C, 1,
            1) for a choice of channels, (1, 1, H, W) for a region; None where values are blended.
        partner_weight: of the partner's label, as `own_weight`; None is 1 − own_weight (only
            SnapMix weighs the two apart).
    """

    maps: Tensor
    own_weight: float | Tensor
    keep: Tensor | None = None
    partner_weight: float | Tensor | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """What the last step did; tensors stay on the training device and carry no gradient.

    Attributes:
        draw: the draw that was used.
        block: qualified name of the block mixed; None for the input or no mixing.
        own_weight: of the image's own label, in [0, 1], a number or (B,).
        keep: as in `Mixed`.
        target: the labels used.
        logits: (B, N), the model's answer to the mixed batch.
    """

    draw: Draw
    block: str | None
    own_weight: float | Tensor
    keep: Tensor | None
    target: Target
    logits: Tensor
