"""MoEx: the normalised features of one image with the moments of another.

Li, Wu, Lim, Belongie & Weinberger, "On Feature Normalization and Data Augmentation", CVPR 2021,
section 3. The moments are those of positional normalisation (PONO; Li, Wu, Weinberger & Belongie,
NeurIPS 2019): mean and standard deviation over the channels at every position, which carry the
structure of an image rather than its style.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..utils.choices import pick
from .draw import Draw, Mixed
from .feature import FeatureMixer

NORMS = ("pono", "instance", "layer")
EPSILON = 1e-5  # added to the variance, as in the release


def moments(maps: Tensor, norm: str = "pono") -> tuple[Tensor, Tensor]:
    """Mean μ and standard deviation σ = √(variance + 1e-5) of each image.

    The variance is the mean squared distance from μ. The release divides by the number of values
    less one instead, which cancels in the exchange but for the weight of the 1e-5, and has no value
    for a single channel.

    Args:
        maps: (B, C, …), float32 or float64 (squares of half floats would overflow).
        norm: over what: "pono" the channels at every position, "instance" the positions of every
            channel, "layer" both.
    Returns:
        Two tensors that broadcast to the maps, for "pono" (B, 1, …), σ ≥ √1e-5; differentiable,
        also where the variance is 0.
    Raises:
        ValueError: if there is no such norm.
    """
    pick("norm", norm, NORMS)
    space = tuple(range(2, maps.ndim))
    dims = {"pono": (1,), "instance": space, "layer": (1, *space)}[norm]
    mean = maps.mean(dim=dims, keepdim=True)
    return mean, ((maps - mean).square().mean(dim=dims, keepdim=True) + EPSILON).sqrt()


def exchange_moments(maps: Tensor, partner: Tensor, norm: str = "pono") -> Tensor:
    """σ_j (h_i − μ_i) / σ_i + μ_j: the features of image i in the moments of its partner j (section
    3).

    Where the values of image i are all equal there is nothing to keep, and the result is the
    partner's mean.

    Args:
        maps: (B, C, …), any floating dtype, computed in at least float32, below 1e18 in size; the
            memory format is kept.
        partner: (B,) int64, on the maps' device.
        norm: as for `moments`.
    Returns:
        A new tensor like `maps`. In half precision, values beyond the largest that the dtype holds
        become that one. Gradients reach both images, through the moments too.
    """
    values = maps.to(torch.promote_types(maps.dtype, torch.float32))
    mean, std = moments(values, norm)
    mixed = ((values - mean) * (std[partner] / std)).add_(mean[partner])
    if mixed.dtype != maps.dtype:
        limit = torch.finfo(maps.dtype).max
        mixed = mixed.clamp(-limit, limit)
    return mixed.to(maps.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class MoEx(FeatureMixer):
    """Every image keeps its normalised features and takes its partner's moments; the label weight
    is a constant.

    Differs from the release: variances are means over all values, not over one less (equal from 16
    channels on within 5e-6). Its release runs the stem of PyramidNet twice in a step, here once.

    Args:
        prob: probability that a step mixes at all. The release: 0.25 with lam 0.5 on CIFAR, 1.0
            with lam 0.9 on ImageNet.
        lam: λ in [0, 1], the label weight of the image whose normalised features are kept; it is
            not drawn, and the exchange is whole at any λ.
        norm: whose moments: "pono" (the paper's choice), "instance" or "layer", see `moments`.
        layers: layer set to draw from, uniformly. None: (1,), behind the stem, as in the paper.
        blocks: qualified names of the blocks; None finds them (`catchup.find_blocks`).
        criterion, seed: as for every mixer.
    """

    prob: float = 0.25
    lam: float = 0.5
    norm: Literal["pono", "instance", "layer"] = "pono"

    title: ClassVar[str] = "MoEx"
    about: ClassVar[str] = (
        "stem: normalised features in the partner's moments (Li et al., CVPR 2021)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam must lie in [0, 1], got {self.lam}")
        pick("norm", self.norm, NORMS)

    def layer_set(self, n_blocks: int) -> Sequence[int]:
        """The given layers, or the first block."""
        return super().layer_set(n_blocks) if self.layers else (1,)

    def draw_lam(self, layer: int, rng: np.random.Generator) -> float:
        """The constant λ: it stands in the draw, so that a stored draw replays under other
        settings.
        """
        return float(self.lam)

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Maps (B, C, …) in their partners' moments; λ weights the labels only."""
        partner = draw.partner.to(maps.device, non_blocking=True)
        return Mixed(exchange_moments(maps, partner, self.norm), draw.lam)
