"""Stochastic depth: whole residual branches are left out of a step, the deeper the more often.

Huang, Sun, Liu, Sedra & Weinberger, "Deep Networks with Stochastic Depth", ECCV 2016, Eqs. 2, 4 and
5.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...utils.choices import pick
from .branches import BranchRegulariser


def drop_branch(maps: Tensor, kept: Tensor, survival: float) -> Tensor:
    """b F(x) / p, whose expectation is F(x).

    `torchvision.ops.stochastic_depth` computes the same, but draws b from the global generator.

    Args:
        maps: F(x), (B, …) floating. kept: b, bool, (B,) or (1,). survival: p in (0, 1].
    Returns:
        A new tensor like `maps`. Dropped branches get a gradient of 0 rather than none, as DDP
        needs.
    """
    factor = (kept / survival).to(maps.dtype)
    return maps * factor.reshape(-1, *[1] * (maps.ndim - 1))


@dataclass(frozen=True, kw_only=True)
class StochDepth(BranchRegulariser):
    """The l-th of L residual branches stays with probability p_l = 1 − (l / L)(1 − p_L).

    Differs from the release: that multiplies the branches with p_l at test time (Eq. 5); here they
    are divided by p_l in training, as libraries do, so that the trained model is used as it is. The
    networks that can be learned are the same, a branch's last scale being smaller by p_l, but
    weights start and decay from another scale. A dropped branch is computed all the same (its batch
    norm sees the batch), so nothing is saved; in the paper it is skipped.

    Args:
        survival: p_L in (0, 1]; 0.5 in the paper. 1 turns it off.
        branches: see `BranchRegulariser`; names or patterns of the modules whose output is added to
            the shortcut.
        per: "batch" drops a branch for all images of a step (the paper's), "image" for each on its
            own (timm's and torchvision's "row").
    """

    per: Literal["batch", "image"] = "batch"

    title: ClassVar[str] = "StochDepth"
    about: ClassVar[str] = "residual branches: left out at random (Huang et al., ECCV 2016)"
    name: ClassVar[str] = "stochdepth"

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("per", self.per, ("batch", "image"))

    def on_branch(self, maps: Tensor, survival: float, generator: torch.Generator) -> Tensor:
        """The branch, dropped or divided by its survival probability."""
        rows = len(maps) if self.per == "image" else 1
        kept = torch.rand(rows, generator=generator, device=maps.device) < survival
        return drop_branch(maps, kept, survival)
