"""A data set as a training protocol has it: its own border, window, crops, colours, mean and
standard deviation.
"""

from dataclasses import replace

from ..utils.choices import pick
from .augment import Augmentation
from .images import Dataset

NORMALISATIONS = {  # mean and standard deviation of pixels in [0, 1]
    "data": None,  # the data set's own
    # AlignMixup's, for CIFAR and Tiny-ImageNet
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's
    "half": ((0.5,) * 3, (0.5,) * 3),  # PuzzleMix's, for Tiny-ImageNet
}


def with_protocol(
    dataset: Dataset, augmentation: Augmentation, normalisation: str = "data"
) -> Dataset:
    """The same images, augmented and normalised otherwise.

    Where the augmentation cuts a window, the test images, and the boxes in them, are cut to their
    middle of that size.

    Args:
        dataset: as `load` returns it.
        augmentation: of the training images.
        normalisation: one of `NORMALISATIONS`.
    Raises:
        ValueError: for an unknown normalisation or one of other channels, or a window that does not
            fit.
    """
    known = NORMALISATIONS[pick("normalisation", normalisation, NORMALISATIONS)]
    mean, std = known or (dataset.mean, dataset.std)
    channels = dataset.train.shape[0]
    if len(mean) != channels:
        raise ValueError(
            f"the normalisation {normalisation!r} is for {len(mean)} channels, the images of "
            f"{dataset.name} have {channels}; take the normalisation 'data'"
        )
    size = augmentation.size_of(dataset.test.shape[1:])
    boxes = dataset.boxes if dataset.boxes is None else dataset.boxes.centre_crop(size)
    told = {"boxes": boxes, "mean": mean, "std": std, "augmentation": augmentation}
    return replace(dataset, test=dataset.test.centre_crop(size), **told)


def without_augmentation(dataset: Dataset) -> Dataset:
    """The same data set with training images that are always seen alike: whole, or their middle."""
    train = dataset.train.centre_crop(dataset.test.shape[1:])
    return replace(dataset, train=train, augmentation=Augmentation())
