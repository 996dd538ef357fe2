"""The measurements at the end of an epoch: errors on the validation images and on clean training
images.
"""

from collections.abc import Callable

import torch
from torch import nn

from ..data import Dataset, Images
from ..models.inference import PixelModel, predict, top_k_error
from .seeds import make_generator
from .settings import Settings

PROBE = 1000  # training images on which the clean error is measured
MEASURED = ("val_error_percent", "val_loss", "clean_train_error_percent")


class Stopped(Exception):
    """Leaves a validation that was not to be finished."""


def is_validation_epoch(epoch: int, settings: Settings) -> bool:
    """Is there a validation after this epoch, counted from 0?"""
    every, left = settings.validate_every, settings.epochs - epoch - 1
    return left == 0 if every == 0 else (epoch + 1) % every == 0 or left < 10


def draw_probe(dataset: Dataset) -> Images:
    """At most `PROBE` training images, always the same ones, of the test images' size."""
    order = torch.randperm(len(dataset.train), generator=make_generator(0))
    return dataset.train.take(order[:PROBE]).centre_crop(dataset.test.shape[1:])


def validate(
    model: nn.Module, dataset: Dataset, probe: Images, before_batch: Callable[[], None]
) -> dict[str, float | None]:
    """The values of `MEASURED`: errors in percent, and the cross-entropy on the validation images.

    Args:
        model: in training mode or not; left as it was.
        dataset: its test images are predicted, its mean and std normalise.
        probe: as `draw_probe` returns it.
        before_batch: called before each batch; what it raises ends the validation.
    Raises:
        FloatingPointError: if an answer of the model is not finite.
    """
    pixel_model, labels = PixelModel.of(model, dataset), dataset.test.labels
    logits, of_probe = (
        predict(pixel_model, images, before_batch=before_batch) for images in (dataset.test, probe)
    )
    loss = nn.functional.cross_entropy(logits, labels).item()
    errors = top_k_error(logits, labels), top_k_error(of_probe, probe.labels)
    return dict(zip(MEASURED, (errors[0], loss, errors[1])))
