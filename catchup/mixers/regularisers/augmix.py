"""AugMix: the model is to say the same of an image and of two mixtures of augmentation chains of
it.

Hendrycks, Mu, Cubuk, Zoph, Gilmer & Lakshminarayanan, "AugMix: A Simple Data Processing Method to
Improve Robustness and Uncertainty", ICLR 2020, Algorithm 1 and Eqs. 1–2; settings of Section 3 and
the released code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...data.augment import normalise
from ...hooks.blocks import unwrap
from .augmix_operations import OPERATIONS, amounts, apply_operations
from .base import Regulariser
from .seeds import numbers


class Chains(NamedTuple):
    """The chance of one batch: k chains of up to D operations for each of B images, and how they
    are mixed.
    """

    kinds: np.ndarray  # (D, k, B) index into OPERATIONS, −1 where a chain has ended
    levels: np.ndarray  # (D, k, B) strengths, the sign a direction
    weights: np.ndarray  # (k, B), ≥ 0, summing to 1 over the chains
    own: np.ndarray  # (B,) in [0, 1], the share of the image itself


def draw_chains(
    batch: int,
    width: int,
    depth: int | None,
    severity: float,
    alpha: float,
    rng: np.random.Generator,
) -> Chains:
    """Operations, strengths ~ U(0.1, severity), directions, weights ~ Dirichlet(α, …), shares ~
    Beta(α, α).

    Args:
        batch: B ≥ 1. width: k ≥ 1. depth: D ≥ 1, or None for 1, 2 or 3, each as likely, chain by
            chain.
        severity: in [0.1, 10]. alpha: > 0.
    """
    longest = 3 if depth is None else depth
    kinds = rng.integers(len(OPERATIONS), size=(longest, width, batch))
    levels = rng.uniform(0.1, severity, kinds.shape) * rng.choice([-1.0, 1.0], kinds.shape)
    lengths = (
        rng.integers(1, 4, (width, batch)) if depth is None else np.full((width, batch), depth)
    )
    kinds[np.arange(longest)[:, None, None] >= lengths] = -1
    weights = rng.dirichlet([alpha] * width, batch).T
    return Chains(kinds, levels, weights, rng.beta(alpha, alpha, batch))


def mix_chains(pixels: Tensor, chains: Chains) -> Tensor:
    """Σ w_i · chain_i(x), lines 4–10 of Algorithm 1.

    Args:
        pixels: (B, C, H, W) uint8.
    Returns:
        (B, C, H, W) float32 in [0, 255], on the same device.
    """
    height, width = pixels.shape[2:]
    amount = amounts(chains.kinds, chains.levels, height, width)
    weights = torch.from_numpy(chains.weights).float().to(pixels.device, non_blocking=True)
    total = torch.zeros_like(pixels, dtype=torch.float32)
    for chain in range(chains.kinds.shape[1]):
        image = pixels
        for step in range(len(chains.kinds)):
            image = apply_operations(image, chains.kinds[step, chain], amount[step, chain])
        total.addcmul_(weights[chain, :, None, None, None], image.float())
    return total


def jensen_shannon(*logits: Tensor) -> Tensor:
    """JS(p_1; …; p_n): the mean KL divergence of the distributions from their mean, averaged over
    the batch (Eq. 2).

    Args:
        logits: n ≥ 2 tensors (B, N) of any floating dtype.
    Returns:
        0-dim float32, in [0, log n].
    """
    log_p = torch.stack(logits).float().log_softmax(dim=-1)
    log_mean = log_p.logsumexp(dim=0) - np.log(len(logits))
    return (log_p.exp() * (log_p - log_mean)).sum(dim=-1).mean()


@dataclass(frozen=True, kw_only=True)
class AugMix(Regulariser):
    """λ JS(p(x); p(x_1); p(x_2)) is added to the loss of the step, x_1 and x_2 two AugMix images of
    the unmixed x.

    The three go through the model in one pass of 3B images, as in the released code, so batch norm
    takes its statistics over clean and augmented images together. The pass goes past DDP's own
    forward; its gradients are averaged with the others.

    Differs from the release: there the labelled loss is of the clean third of that same pass; here
    the method makes its own (mixed) pass, so a step costs one pass of B images more and running
    statistics move twice. Images agree within one level of 255.

    The operations need pixels, the images come normalised: `mean` and `std` say how.
    `catchup.train` and `fit` know them from the data set; elsewhere they have to be given.

    Args:
        weight: λ ≥ 0; 12 in the paper. 0 turns it off.
        severity: the strongest operation, in [0.1, 10]; 3 in the released code.
        width: k, chains per image, ≥ 1; 3 in the paper.
        depth: operations per chain, ≥ 1; None draws 1 to 3 (the paper's).
        alpha: of the Dirichlet and Beta distributions, > 0; 1 in the paper.
        mean, std: what the pixels in [0, 1] were normalised with: a number per channel, or one for
            all.
    """

    weight: float = 12.0
    severity: float = 3.0
    width: int = 3
    depth: int | None = None
    alpha: float = 1.0
    mean: tuple[float, ...] | float | None = None
    std: tuple[float, ...] | float | None = None

    title: ClassVar[str] = "AugMix"
    about: ClassVar[str] = (
        "loss: same answer to mixed augmentation chains (Hendrycks et al., ICLR 2020)"
    )
    passes: ClassVar[tuple[int, int]] = (3, 3)

    def __post_init__(self) -> None:
        for name, low, high in (("weight", 0, 1e6), ("severity", 0.1, 10), ("alpha", 1e-6, 1e6)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"{name} must lie in [{low:g}, {high:g}], got {getattr(self, name)}"
                )
        for name, value in (
            ("width", self.width),
            ("depth", 1 if self.depth is None else self.depth),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")

    def for_data(self, mean: Sequence[float], std: Sequence[float]) -> "AugMix":
        """The same with the data set's mean and std, where none were given."""
        return replace(
            self,
            mean=tuple(mean) if self.mean is None else self.mean,
            std=tuple(std) if self.std is None else self.std,
        )

    def extra_loss(self, model: nn.Module, images: Tensor, seed: int) -> Tensor | None:
        """λ JS over the clean images (B, C, H, W) and two augmented ones each.

        Raises:
            ValueError: if mean and std are unknown, do not fit the channels or, on a CPU (elsewhere
                a look at the values would wait for the device), cannot be those the images were
                normalised with.
        """
        if self.weight == 0:
            return None
        augmented = self.augment(images, seed)
        logits = unwrap(model)(torch.cat([images, *augmented]))
        return self.weight * jensen_shannon(*logits.split(len(images)))

    def augment(self, images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Two AugMix images of each image, normalised as it is: lines 11–13 of Algorithm 1, m x +
        (1 − m) x_aug.
        """
        mean, std = self._statistics(images)
        with torch.no_grad():
            pixels = stored_pixels(images, mean, std).repeat(2, 1, 1, 1)
            rng = numbers(seed, "augmix")
            chains = draw_chains(
                len(pixels), self.width, self.depth, self.severity, self.alpha, rng
            )
            mixture = normalise(mix_chains(pixels, chains) / 255, mean, std)
            own = (
                torch.from_numpy(chains.own)
                .float()
                .to(images.device, non_blocking=True)[:, None, None, None]
            )
            mixture.lerp_(images.float().repeat(2, 1, 1, 1), own)
            # in their memory format
            first, second = mixture.chunk(2)
            return torch.empty_like(images).copy_(first), torch.empty_like(images).copy_(second)

    def _statistics(self, images: Tensor) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and std, one number per channel."""
        if self.mean is None or self.std is None:
            raise ValueError(
                "augmix works on pixels and must know what the images were normalised with: give"
                f" mean and std (per channel, of pixels in [0, 1]), got mean={self.mean},"
                f" std={self.std}"
            )
        mean, std = (
            value if isinstance(value, Sequence) else (value,) * images.shape[1]
            for value in (self.mean, self.std)
        )
        return mean, std


def stored_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The images as they were before `to_float` and `normalise`.

    Args:
        images: (B, C, H, W) floating. mean, std: C numbers each; std > 0.
    Returns:
        (B, C, H, W) uint8.
    Raises:
        ValueError: if the shapes do not fit, a std is not > 0 or, on a CPU (elsewhere a look at the
            values would wait for the device), the values cannot come from pixels in [0, 1].
    """
    normalise(images[:0], mean, std)  # its own sentences for what does not fit
    table = torch.tensor([list(mean), list(std)]).to(images.device, non_blocking=True)[
        :, :, None, None
    ]
    pixels = images.float() * table[1] + table[0]
    if images.device.type == "cpu":
        low, high = (value.item() for value in pixels.aminmax())
        if not -0.05 <= low <= high <= 1.05:  # half floats are that far off
            raise ValueError(
                f"with mean {tuple(mean)} and std {tuple(std)} these images reach from {low:.3g} to"
                f" {high:.3g} instead of from 0 to 1: they were normalised with others"
            )
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8)
