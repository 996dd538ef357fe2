"""Error under adversarial attack: FGSM and PGD in pixel space, untargeted, in the L-infinity ball.

Sources: FGSM, Goodfellow, Shlens & Szegedy, ICLR 2015; PGD, Madry et al., ICLR 2018. Our own lines,
because captum's FGSM leaves every pixel untouched whose |gradient| is below 1e-6 (on a confident
model most of them, so the model looks robust) and takes -log(output) as its loss unless told
otherwise, which on logits is wrong.

Where it misleads: both follow the gradient. A model whose gradient is exactly zero (the softmax is
saturated beyond float32) is not moved and looks robust. And FGSM alone can be fooled, above all by
a model trained against it: read both together (`catchup.measures.robustness`).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import Images
from ..data.augment import to_float
from ..hooks.layers import evaluating
from ..models.inference import PixelModel, predict_batches, top_k_error
from ..utils.progress import bar
from ..utils.tensors import check_on_cpu, check_unit_range, form_of

# (model, images, labels) -> adversarial images
Attack = Callable[[PixelModel, Tensor, Tensor], Tensor]


def fgsm(model: PixelModel, images: Tensor, labels: Tensor, eps_255: float = 4.0) -> Tensor:
    """One step of size eps along the sign of the loss gradient: clip(x + eps sign(∇ₓL), 0, 1).

    Source: Goodfellow et al., ICLR 2015, section 4. Differs: the result is clipped to [0, 1].

    Args:
        model: from images in [0, 1] to logits (B, N); in evaluation mode during the attack, then as
            it was.
        images: (B, C, H, W) float32 or float64, in [0, 1].
        labels: (B,) int64, the true classes.
        eps_255: radius of the ball in units of 1/255 of the pixel range, >= 0.
    Returns:
        Adversarial images, like `images`; no pixel is further than eps_255 / 255 from where it was.
        Deterministic.
    Raises:
        ValueError: if the images are not so, eps_255 is negative or not finite, or a gradient is
            NaN.
    """
    check_images(images)
    eps = pixel_length("eps_255", eps_255)
    return (images + eps * loss_gradient(model, images, labels).sign()).clamp(0, 1)


def pgd(
    model: PixelModel,
    images: Tensor,
    labels: Tensor,
    eps_255: float = 4.0,
    steps: int = 10,
    step_255: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Several small steps along the sign of the gradient, each projected back to the eps ball and
    to [0, 1].

    Source: Madry et al., ICLR 2018, section 2.1.

    Args:
        model, images, labels, eps_255: as for `fgsm`.
        steps: gradient steps, >= 1.
        step_255: length of a step, units of 1/255, > 0.
        generator: on the CPU; the start is drawn from it, uniform in the ball (so it means the same
            on every device and for every batch size). None starts at the image itself, without
            chance.
    Returns:
        Adversarial images, like `images`, inside the ball.
    Raises:
        ValueError: as for `fgsm`; if steps < 1, step_255 is not > 0, or the generator is not on the
            CPU.
    """
    check_images(images)
    eps, step = pixel_length("eps_255", eps_255), pixel_length("step_255", step_255)
    if steps < 1 or step == 0:
        raise ValueError(
            f"steps must be at least 1 and step_255 greater than 0, got {steps} and {step_255}"
        )
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    adversarial = images
    if generator is not None:
        adversarial = (images + eps * uniform_noise(images, generator)).clamp(low, high)
    for _ in range(steps):
        gradient = loss_gradient(model, adversarial, labels)
        adversarial = (adversarial + step * gradient.sign()).clamp(low, high)
    return adversarial


def loss_gradient(model: PixelModel, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient, with respect to the images, of the cross-entropy summed over them: a batch attacks
    as its images do.

    Nothing else is differentiated: parameters get no gradient, and a `.grad` they carry stays as it
        is.

    Args:
        model, images, labels: as for `fgsm`.
    Returns:
        Like `images`.
    Raises:
        ValueError: if the gradient holds NaN.
    """
    with evaluating(model), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        loss = F.cross_entropy(model(leaf).to(images.dtype), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
    if gradient.isnan().any():
        raise ValueError(
            "the gradient of the loss holds NaN, so there is nothing to follow: the model's outputs"
            " or weights are not finite"
        )
    return gradient


def attack_error(
    model: PixelModel,
    images: Images,
    attack: Attack,
    batch_size: int = 100,
    progress: bool = False,
    name: str = "attack",
) -> float:
    """Top-1 error under `attack`, in percent of all images (those the model already gets wrong
    count too).

    Args:
        model: from images in [0, 1] to logits, on the device of `images`.
        images: the images to attack.
        attack: called as attack(model, images in [0, 1], labels), for example `fgsm`.
        batch_size: images attacked at once, >= 1; changes memory and time, not the result.
        progress: a bar on standard error.
        name: of the bar.
    Raises:
        ValueError: as the attack does.
    """
    parts = list(zip(images.pixels.split(batch_size), images.labels.split(batch_size)))
    shown = bar(parts, name, "batch", progress, leave=False)
    attacked = (attack(model, to_float(pixels), labels) for pixels, labels in shown)
    return top_k_error(predict_batches(model, attacked), images.labels)


def uniform_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in [-1, 1), like `images`, drawn on the CPU."""
    check_on_cpu(generator)
    draw = torch.rand(images.shape, generator=generator, dtype=images.dtype)
    return (2 * draw - 1).to(images.device)


def pixel_length(name: str, value_255: float) -> float:
    """A length in 1/255 as one in [0, 1] pixel units."""
    if not 0 <= value_255 < math.inf:
        raise ValueError(
            f"{name} must be a finite number of at least 0 (in 1/255 of the pixel range), got"
            f" {value_255}"
        )
    return value_255 / 255


def check_images(images: Tensor) -> None:
    """Raise unless the images are (B, C, H, W), float32 or float64, in [0, 1]."""
    if images.ndim != 4 or images.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "images must be float32 or float64 (B, C, H, W) in [0, 1], got"
            f" {form_of(images)}; catchup.data.augment.to_float makes them from stored pixels"
        )
    if images.numel() == 0:
        raise ValueError(f"images must hold at least one, got {tuple(images.shape)}")
    check_unit_range(images)


def masking_verdict(row: Mapping) -> str | None:
    """What FGSM and PGD together say of gradient masking, in a sentence; None if FGSM was not
    measured.

    PGD may do all that FGSM does and more, so its error must not be lower; where it is, the
    gradient at the image does not point to where the loss is high, and the FGSM error says little
    about robustness (Athalye et al., 2018). The check can show masking, it cannot rule it out: a
    gradient of zero stops both.
    """
    single, several = row.get("fgsm_error"), row.get("pgd_error")
    if single is None:
        return None
    how = row.get("measured_with") or {}
    first, other = (how.get(test, {}) for test in ("fgsm", "pgd"))
    alike = all(first.get(name) == other.get(name) for name in ("sample", "eps_255"))
    if several is None or not alike or not (math.isfinite(single) and math.isfinite(several)):
        return "not checked for gradient masking: ask for the tests 'fgsm' and 'pgd' together"
    if several < single:
        return (
            f"gradient masking: the PGD error ({several:.2f} %) is lower than that of FGSM"
            f" ({single:.2f} %)"
        )
    return (
        f"no sign of gradient masking: PGD ({several:.2f} %) errs at least as often as FGSM"
        f" ({single:.2f} %)"
    )


def masking_verdicts(rows: Sequence[Mapping]) -> list[str]:
    """`masking_verdict` of several evaluation objects: those that show it, one by one, or one
    sentence for all.
    """
    verdicts = []
    for row in rows:
        if verdict := masking_verdict(row):
            name = f"{row.get('label', row.get('method'))}, seed {row.get('seed')}"
            verdicts.append((name, verdict))
    bad = [f"{name}: {words}" for name, words in verdicts if words.startswith("gradient masking")]
    if bad or not verdicts:
        return bad
    unchecked = sum(words.startswith("not checked") for _, words in verdicts)
    if unchecked:
        return [
            f"{unchecked} of {len(verdicts)} models not checked for gradient masking: FGSM and"
            " PGD not both run alike"
        ]
    return [
        f"no sign of gradient masking in {len(verdicts)} models: PGD errs at least as often as"
        " FGSM in each"
    ]
