"""From listed files to images, for the data sets that share one protocol: the shorter side to 256
pixels, windows of 224, ImageNet's mean and standard deviation.

Source: He et al., 2016 (ImageNet); SnapMix's code, which the paper names for the fine-grained sets,
has the same sizes.
"""

from dataclasses import replace

import numpy as np

from ..augment import Augmentation
from ..boxes import Boxes
from ..files.folders import Listing
from ..files.splits import Request, split_images, test_images
from ..files.stream import StreamedImages
from ..images import Dataset, Images
from ..protocol import NORMALISATIONS, with_protocol

IMAGE_SIZE = 256  # pixels of the shorter side where the request names no other size


def size_of(request: Request) -> int:
    """The image size asked for, or that of the protocol."""
    return request.image_size or IMAGE_SIZE


def window_of(image_size: int) -> int:
    """The side of the window for images of `image_size` pixels: 224 of 256, in proportion."""
    return max(1, image_size * 7 // 8)


def imagenet_protocol(
    name: str,
    train: Images | StreamedImages,
    test: Images | StreamedImages,
    boxes: Boxes | None = None,
) -> Dataset:
    """The data set with random windows and flips in training, the middle of the test images and of
    their `boxes`.
    """
    mean, std = NORMALISATIONS["imagenet"]
    whole = Dataset(
        name, train.with_channels(3), test.with_channels(3), mean, std, Augmentation(), boxes
    )
    return with_protocol(whole, Augmentation(window=window_of(train.shape[1]), flip=True))


def read_parts(
    listing: Listing, request: Request, *, banner: int = 0
) -> tuple[Images | StreamedImages, Images | StreamedImages, np.ndarray]:
    """The images of both splits, of size_of(request) pixels, read together.

    Args:
        banner: rows at the bottom of every stored image that are left out.
    Returns:
        train, test; and (K,) int64, the positions of the test images in their split, fewer where
        some were skipped.
    Raises:
        ValueError: if an image cannot be read, a class keeps no training image, or nothing is left
            to test on.
    """
    return split_images(listing, replace(request, image_size=size_of(request)), banner)[:3]


def read_test_part(
    listing: Listing, request: Request, *, keep_size: bool = False
) -> tuple[Images | StreamedImages, np.ndarray]:
    """The images of `listing.test` alone, and the positions of those that could be read.

    Args:
        keep_size: leave the images as they are where the request names no size.
    """
    if not listing.test.files:
        raise ValueError(f"{listing.root} lists no images")
    image_size = request.image_size if keep_size else size_of(request)
    return test_images(listing, replace(request, image_size=image_size))
