"""ShakeDrop: residual branches are multiplied by random factors, others in the backward pass than
in the forward pass.

Yamada, Iwamura, Akiba & Kise, "ShakeDrop Regularization for Deep Residual Learning", IEEE Access
2019 (arXiv 1802.02375): b + α − bα forward, b + β − bβ backward, E[b + α − bα] at test time.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...utils.choices import pick
from .branches import BranchRegulariser

LEVELS = ("image", "pixel", "channel", "batch")


def expected_factor(survival: float, alpha: tuple[float, float]) -> float:
    """E[b + α − bα] = p + (1 − p) E[α], for b ~ Bernoulli(p) and α uniform on `alpha`."""
    return survival + (1 - survival) * (alpha[0] + alpha[1]) / 2


def shake(maps: Tensor, ahead: Tensor, back: Tensor) -> Tensor:
    """`ahead` × maps, with the gradient of `back` × maps.

    Args:
        maps: (B, …) floating. ahead, back: factors, broadcastable to `maps`, of its dtype.
    Returns:
        A new tensor like `maps`.
    """
    return _Shaken.apply(maps, ahead, back)


@dataclass(frozen=True, kw_only=True)
class ShakeDrop(BranchRegulariser):
    """b per branch and step, with probability p_l = 1 − (l / L)(1 − p_L) of being 1; α and β at the
    level of `per`.

    Differs from the release: both factors are divided by the expectation of the forward one, E_l =
    p_l + (1 − p_l) E[α] (for the default α just p_l), where the paper multiplies with E_l at test
    time: so the trained model is used as it is. The networks that can be learned are the same, a
    branch's last scale being smaller by E_l; to start from the paper's network too, set the weights
    of each branch's last batch norm to E_l. In the paper branches end in batch norm; those of our
    pre-activation blocks end in a convolution and are shaken as they are.

    Args:
        survival: p_L in (0, 1]; 0.5 in the paper. 1 turns it off.
        branches: see `BranchRegulariser`; names or patterns of the modules whose output is added to
            the shortcut.
        alpha, beta: ends of the uniform distributions of α and β; the paper's best are (−1, 1) and
            (0, 1).
        per: what shares one α and one β: an "image" (as released implementations have it), a
            "pixel" (every value its own), a "channel" of an image, or the whole "batch".
    """

    alpha: tuple[float, float] = (-1.0, 1.0)
    beta: tuple[float, float] = (0.0, 1.0)
    per: Literal["image", "pixel", "channel", "batch"] = "image"

    title: ClassVar[str] = "ShakeDrop"
    about: ClassVar[str] = (
        "residual branches: random factors, others backward (Yamada et al., IEEE Access 2019)"
    )
    name: ClassVar[str] = "shakedrop"

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("per", self.per, LEVELS)
        for name, ends in (("alpha", self.alpha), ("beta", self.beta)):
            if len(ends) != 2 or not ends[0] <= ends[1]:
                raise ValueError(
                    f"{name} must be the two ends of a range, the lower first, got {ends}"
                )
        if not expected_factor(self.survival, self.alpha) > 0:
            raise ValueError(
                "survival + (1 − survival) · E[alpha] must be greater than 0, since branches are"
                f" divided by it, got survival {self.survival} and alpha {self.alpha}"
            )

    def on_branch(self, maps: Tensor, survival: float, generator: torch.Generator) -> Tensor:
        """The branch, shaken."""
        ahead, back = self.factors(maps.shape, survival, generator)
        return shake(maps, ahead.to(maps.dtype), back.to(maps.dtype))

    def factors(
        self, shape: tuple[int, ...], survival: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(b + α − bα) / E and (b + β − bβ) / E, float32, broadcastable to maps of `shape` (B, C,
        …).
        """

        def uniform(ends: tuple[float, float], size: tuple[int, ...]) -> Tensor:
            dice = torch.rand(size, generator=generator, device=generator.device)
            return ends[0] + (ends[1] - ends[0]) * dice

        ones = [1] * len(shape)
        size = {
            "image": (shape[0], *ones[1:]),
            "channel": (*shape[:2], *ones[2:]),
            "pixel": tuple(shape),
            "batch": tuple(ones),
        }[self.per]
        b = (uniform((0, 1), tuple(ones)) < survival).float()
        alpha, beta = uniform(self.alpha, size), uniform(self.beta, size)
        expected = expected_factor(survival, self.alpha)
        return (b + alpha - b * alpha) / expected, (b + beta - b * beta) / expected


class _Shaken(torch.autograd.Function):
    """One factor forward, another backward."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, ahead: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return maps * ahead

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (back,) = ctx.saved_tensors
        return grad * back, None, None
