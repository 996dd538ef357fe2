"""What is left after three attacks of different kinds: AutoAttack without its fourth, FAB.

Source: Croce & Hein, ICML 2020, section 5: Auto-PGD on the cross-entropy, then towards each of the
nine classes next in the ranking by the targeted difference of logits ratio, then Square; each on
the images that withstood those before it. AutoAttack proper has FAB between the last two, so that
its robust accuracy can be a little lower.

Where it misleads: robust means "not broken by these". The cost is some thousand passes an image.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ...data import Images
from ...data.augment import to_float
from ...models.inference import PixelModel, predict_batches
from ...utils.progress import bar
from .apgd import apgd, targeted_dlr_loss
from .square import square

Attempt = Callable[[Tensor, Tensor], Tensor]  # (images, labels) -> attacked images
ATTACKS = ("apgd_ce", "apgd_t", "square")
TARGETS = 9  # classes next in the ranking
LEAST_CLASSES = 4  # for the targeted loss
SEED = 0


def measure_attacks(
    model: PixelModel,
    images: Images,
    *,
    eps_255: float = 4.0,
    steps: int = 100,
    queries: int = 5000,
    batch_size: int = 100,
    progress: bool = False,
) -> dict[str, float]:
    """The error in percent after each attack.

    Args:
        model: from images in [0, 1] to logits, on the device of `images`.
        images: the images to attack, of at least four classes.
        eps_255: radius of the ball in 1/255.
        steps: of Auto-PGD, for each loss and target.
        queries: of Square.
        batch_size: images attacked at once.
        progress: a bar on standard error.
    Returns:
        {"clean", "apgd_ce", "apgd_t", "square"}: the error after the attacks up to and with this
        one; the last is also there as "union".
    Raises:
        ValueError: for less than four classes, and as the attacks do.
    """
    check_classes(images.classes)
    left = _right(model, images, batch_size)
    errors = {"clean": _error(left)}
    for name, attempts in _attempts(model, eps_255, steps, queries).items():
        for attempt in bar(attempts, name, "attempt", progress, leave=False):
            for part in left.nonzero()[:, 0].split(batch_size):
                kept = images.take(part)
                attacked = attempt(to_float(kept.pixels), kept.labels)
                left[part] = predict_batches(model, [attacked]).argmax(dim=1) == kept.labels
        errors[name] = _error(left)
    return {**errors, "union": errors["square"]}


def check_classes(classes: Sequence[str]) -> None:
    """ValueError unless there are enough classes for the targeted loss."""
    if len(classes) < LEAST_CLASSES:
        raise ValueError(
            f"the test 'attacks' needs at least {LEAST_CLASSES} classes, got {len(classes)}:"
            " measure fgsm and pgd instead"
        )


def _attempts(
    model: PixelModel, eps_255: float, steps: int, queries: int
) -> dict[str, list[Attempt]]:
    """What each attack tries, one after the other, on the images that are left."""
    generator = torch.Generator().manual_seed(SEED)
    told = {"eps_255": eps_255, "steps": steps, "generator": generator}
    return {
        "apgd_ce": [partial(apgd, model, **told)],
        "apgd_t": [partial(_towards, model, rank, told) for rank in range(TARGETS)],
        "square": [partial(square, model, eps_255=eps_255, queries=queries, seed=SEED)],
    }


def _towards(model: PixelModel, rank: int, told: Mapping, images: Tensor, labels: Tensor) -> Tensor:
    """Auto-PGD towards the class of that rank among the others, 0 being the likeliest of them."""
    others = predict_batches(model, [images]).scatter(1, labels[:, None], -torch.inf)
    if rank >= others.shape[1] - 1:
        return images
    target = others.argsort(dim=1, descending=True)[:, rank]
    return apgd(model, images, labels, loss=partial(targeted_dlr_loss, target=target), **told)


def _right(model: PixelModel, images: Images, batch_size: int) -> Tensor:
    """(N,) whether an image is classified right as it is."""
    batches = (to_float(pixels) for pixels in images.pixels.split(batch_size))
    return predict_batches(model, batches).argmax(dim=1) == images.labels


def _error(left: Tensor) -> float:
    return 100 * (1 - left.double().mean().item())
