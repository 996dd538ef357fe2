"""Auto-PGD in the L-infinity ball: momentum, a step that is halved where the loss no longer rises,
and a return to the best point so far.

Source: Croce & Hein, ICML 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
Diverse Parameter-free Attacks": Algorithm 1, Eqs. 4 and 5 (section 3), Eqs. 6 and 7 (section 4).

Where it misleads: it follows gradients; a network that hides them looks robust (see
`catchup.measures.attacks.square`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from ...hooks.layers import evaluating
from ...models.inference import PixelModel
from ...utils.choices import check_whole
from ..robustness import check_images, pixel_length, uniform_noise

# (logits, labels) -> (B,), which the attack raises
Loss = Callable[[Tensor, Tensor], Tensor]
ALPHA = 0.75  # weight of the new step beside the momentum
RHO = 0.75  # share of the steps that must have raised the loss
FIRST, SHRINK, LEAST = 0.22, 0.03, 0.06  # of the steps: when progress is first looked at, and then


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,): the cross-entropy of each image."""
    return F.cross_entropy(logits, labels, reduction="none")


def dlr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """−(z_y − max_{i≠y} z_i) / (z_π1 − z_π3), z_π1 ≥ z_π2 ≥ … (Eq. 6): unlike the cross-entropy it
    does not change if the logits are scaled or shifted.

    Args:
        logits: (B, N), N >= 3.
        labels: (B,) int64.
    Returns:
        (B,), > 0 where the image is misclassified.
    Raises:
        ValueError: for less than three classes.
    """
    _check_classes(logits, 3, "the difference of logits ratio")
    ordered = logits.sort(dim=1, descending=True).values
    own = logits.gather(1, labels[:, None])[:, 0]
    rival = torch.where(logits.argmax(dim=1) == labels, ordered[:, 1], ordered[:, 0])
    return (rival - own) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def targeted_dlr_loss(logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """−(z_y − z_t) / (z_π1 − (z_π3 + z_π4) / 2) (Eq. 7).

    Args:
        logits: (B, N), N >= 4.
        labels: (B,) int64.
        target: (B,) int64, the class to reach.
    Raises:
        ValueError: for less than four classes.
    """
    _check_classes(logits, 4, "its targeted form")
    ordered = logits.sort(dim=1, descending=True).values
    own, other = (logits.gather(1, place[:, None])[:, 0] for place in (labels, target))
    width = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    return (other - own) / (width + 1e-12)


def apgd(
    model: PixelModel,
    images: Tensor,
    labels: Tensor,
    eps_255: float = 4.0,
    steps: int = 100,
    loss: Loss = cross_entropy,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The images that raise the loss most, or, where one was found, that are misclassified.

    Args:
        model: from images in [0, 1] to logits (B, N); in evaluation mode meanwhile.
        images: (B, C, H, W) float32 or float64, in [0, 1].
        labels: (B,) int64, the true classes.
        eps_255: radius of the ball in units of 1/255, >= 0.
        steps: gradient steps, >= 1; 100 in the source.
        loss: what is raised: `cross_entropy`, `dlr_loss`, …
        generator: on the CPU; the start is drawn from it, uniform in the ball. None starts at the
            image.
    Returns:
        Like `images`, inside the ball.
    Raises:
        ValueError: if the images, eps_255, steps or the generator are not so, or a gradient is NaN.
    """
    check_images(images)
    check_whole(steps=steps)
    eps = pixel_length("eps_255", eps_255)
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    look = partial(_look, model, labels, loss)
    start = images
    if generator is not None:
        start = (images + eps * uniform_noise(images, generator)).clamp(low, high)
    now = best = look(start)
    found, previous = best, start
    progress = _Progress(now.value)
    step, checks = torch.full_like(now.value, 2 * eps), dict(_checkpoints(steps))
    for number in range(1, steps + 1):
        moved = (now.images + _wide(step) * now.gradient.sign()).clamp(low, high)
        share = 1.0 if number == 1 else ALPHA
        onward = now.images + share * (moved - now.images)
        onward += (1 - share) * (now.images - previous)
        previous, before = now.images, now.value
        now = look(onward.clamp(low, high))
        found = found.where(found.wrong, now)
        best = now.where(now.value > best.value, best)
        progress.risen += now.value > before
        if length := checks.get(number):
            halve = progress.assess(length, best.value)
            step = torch.where(halve, step / 2, step)
            now = best.where(halve, now)
    return found.where(found.wrong, best).images


@dataclass
class _Point:
    """Where an attack stands: images (B, C, H, W), their loss (B,), its gradient like the images,
    and whether each is misclassified (B,).
    """

    images: Tensor
    value: Tensor
    gradient: Tensor
    wrong: Tensor

    def where(self, chosen: Tensor, other: "_Point") -> "_Point":
        """This one where `chosen` (B,), the other elsewhere."""
        return _Point(
            torch.where(_wide(chosen), self.images, other.images),
            torch.where(chosen, self.value, other.value),
            torch.where(_wide(chosen), self.gradient, other.gradient),
            torch.where(chosen, self.wrong, other.wrong),
        )


class _Progress:
    """Whether the step is to be halved (the two conditions of section 3), image by image."""

    def __init__(self, value: Tensor):
        self.risen, self.best = torch.zeros_like(value), value
        self.halved = torch.zeros_like(value, dtype=torch.bool)

    def assess(self, length: int, best: Tensor) -> Tensor:
        """(B,), at a checkpoint `length` steps after the last: too few of them raised the loss, or
        neither the step nor the best loss has changed since.
        """
        slow = self.risen < RHO * length
        stuck = ~self.halved & (best <= self.best)
        self.halved, self.best, self.risen = slow | stuck, best, torch.zeros_like(best)
        return self.halved


def _checkpoints(steps: int) -> Iterator[tuple[int, int]]:
    """(step, steps since the one before) at which progress is looked at: w_j = ⌈p_j · steps⌉ with
    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06).
    """
    shares = [0.0, FIRST]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - SHRINK, LEAST))
    places = sorted({ceil(share * steps - 1e-9) for share in shares})
    return ((end, end - start) for start, end in pairwise(places) if end <= steps)


def _look(model: PixelModel, labels: Tensor, loss: Loss, images: Tensor) -> _Point:
    """The model's answer to these images."""
    with evaluating(model), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        logits = model(leaf).to(images.dtype)
        values = loss(logits, labels)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    if gradient.isnan().any():
        raise ValueError(
            "the gradient of the loss holds NaN, so there is nothing to follow: the model's outputs"
            " or weights are not finite"
        )
    return _Point(images, values.detach(), gradient, logits.detach().argmax(dim=1) != labels)


def _wide(values: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return values[:, None, None, None]


def _check_classes(logits: Tensor, least: int, what: str) -> None:
    if logits.shape[1] < least:
        raise ValueError(f"{what} needs at least {least} classes, got {logits.shape[1]}")
