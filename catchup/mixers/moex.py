"""MoEx: the normalised features of one image with the moments of another.

Li, Wu, Lim, Belongie & Weinberger, "On Feature Normalization and Data Augmentation", CVPR 2021,
section 3. The moments are those of positional normalisation (PONO; Li, Wu, Weinberger & Belongie,
NeurIPS 2019): mean and standard deviation over the channels at every position, which carry the
structure of an image rather than its style.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..utils.choices import pick
from .draw import Draw, Mixed
from .feature import FeatureMixer

NORMS = ("pono", "instance", "layer")
EPSILON = 1e-5  # added to the variance, as in the release
CACHED = 2**18  # values, 1 MiB in float32


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
    dims = _dims(maps, pick("norm", norm, NORMS))
    mean = _mean(maps, dims)
    return mean, (_mean((maps - mean).square(), dims) + EPSILON).sqrt()


def exchange_moments(maps: Tensor, partner: Tensor, norm: str = "pono") -> Tensor:
    """σ_j (h_i − μ_i) / σ_i + μ_j: the features of image i in the moments of its partner j (section
    3).

    Where the values of image i are all equal there is nothing to keep, and the result is the
    partner's mean.

    Args:
        maps: (B, C, …), any floating dtype, computed in at least float32, below 1e18 in size; the
            memory format is kept.
        partner: (B,) int64, a permutation, on the maps' device.
        norm: as for `moments`.
    Returns:
        A new tensor like `maps`. In half precision, values beyond the largest that the dtype holds
        become that one. Gradients reach both images, through the moments too; they can be taken
        once.
    """
    return _Exchange.apply(maps, partner, pick("norm", norm, NORMS))


class _Exchange(torch.autograd.Function):
    """The exchange with its gradient written out, a few images at a time: as single operations it
    passes over the maps thrice as often.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, partner: Tensor, norm: str) -> Tensor:
        parts, limit = _parts(maps), torch.finfo(maps.dtype).max
        normed = torch.empty_like(maps, dtype=_wide(maps[:0]).dtype)
        mixed, found = torch.empty_like(maps), []
        for part in parts:
            mean, std = moments(_wide(maps[part]), norm)
            torch.sub(maps[part], mean, out=normed[part]).mul_(std.reciprocal())
            found.append((mean, std))
        mean, std = (torch.cat(values) for values in zip(*found))
        other_mean, other_std = mean[partner], std[partner]
        for part in parts:
            values = torch.addcmul(other_mean[part], normed[part], other_std[part])
            mixed[part] = values if values.dtype == maps.dtype else values.clamp_(-limit, limit)
        ctx.save_for_backward(normed, partner, std)
        ctx.norm = norm
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """With x̂ = (h − μ) / σ and the means G of g and Ĝ of g x̂ over a moment's values, image i
        gets σ_j/σ_i (g − G − x̂ Ĝ) by its features, and G_k + x̂ Ĝ_k by its moments from k, whose
        partner it is.
        """
        normed, partner, std = ctx.saved_tensors
        parts, dims = _parts(normed), _dims(normed, ctx.norm)
        found = []
        for part in parts:
            values = _wide(grad[part])
            found.append((_mean(values, dims), _mean(values * normed[part], dims)))
        plain, along = (torch.cat(values) for values in zip(*found))
        ratio, lender = std[partner] / std, partner.argsort()
        plain, along = plain[lender] - ratio * plain, along[lender] - ratio * along
        back = torch.empty_like(grad)
        for part in parts:
            values = torch.addcmul(plain[part], normed[part], along[part])
            back[part] = values.addcmul_(_wide(grad[part]), ratio[part])
        return back, None, None


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


def _wide(maps: Tensor) -> Tensor:
    """The maps in at least float32."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def _dims(maps: Tensor, norm: str) -> tuple[int, ...]:
    """The axes that a moment is taken over."""
    space = tuple(range(2, maps.ndim))
    return {"pono": (1,), "instance": space, "layer": (1, *space)}[norm]


def _mean(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`values.mean(dims, keepdim=True)`, by a matrix product where the channels lie innermost in a
    processor's memory: their sums are too short for its vectors.
    """
    if dims != (1,) or values.stride(1) != 1 or values.device.type != "cpu":
        return values.mean(dims, keepdim=True)
    channels = values.shape[1]
    with torch.autocast("cpu", enabled=False):
        weights = values.new_full((channels, 1), 1 / channels)
        return (values.movedim(1, -1) @ weights).movedim(-1, 1)


def _parts(maps: Tensor) -> list[slice]:
    """The batch cut so that on a CPU a part fits into its cache; one part elsewhere."""
    each = max(CACHED // max(maps[:1].numel(), 1), 1) if maps.device.type == "cpu" else len(maps)
    return [slice(start, start + each) for start in range(0, len(maps), max(each, 1))]
