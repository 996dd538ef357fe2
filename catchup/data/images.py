"""Labelled images resident in memory, the data set made of two such sets, and balanced subsets of
one.

`ImageSource` says what training and evaluation ask of images, in memory (`Images`) or on the disk
(`Streamed`, in `stream.py`): whoever keeps to it needs not know which of the two it has.
"""

import dataclasses
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Protocol

import torch
from torch import Tensor

from ..utils.tensors import check_labels as check_label_values
from ..utils.tensors import form_of
from .augment import Augmentation, centre_crops
from .boxes import Boxes
from .channels import check_channels, luma


class ImageSource(Protocol):
    """Labelled images, wherever they lie; what each member gives stands in `Images`."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> "ImageSource":
        """The same images, to be had on `device`."""

    def take(self, indices: Tensor | Sequence[int]) -> "Images":
        """The images at `indices`, in memory."""

    def part(self, indices: Tensor | Sequence[int]) -> "ImageSource":
        """The images at `indices`, where they lie."""

    def batches(self, order: Sequence[Tensor]) -> Generator["Images", None, None]:
        """`take` of each of `order` in turn."""

    def chunks(self, size: int) -> Iterator["Images"]:
        """All images in their order, `size` at a time."""

    def centre_crop(self, size: Sequence[int]) -> "ImageSource":
        """The middle of the images, of `size` (H, W)."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images and their labels, all in memory on one device.

    Args:
        pixels: (N, C, H, W) uint8, N, C, H, W >= 1.
        labels: (N,) int64 in [0, len(classes)), on the same device.
        classes: the name of each class, all different.
    Raises:
        ValueError: if a dtype, a shape, a device or a label is not so.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.numel() == 0:
            raise ValueError(f"pixels must be uint8 (N, C, H, W), not empty, got {form_of(pixels)}")
        if labels.device != pixels.device:
            raise ValueError(
                f"pixels and labels must be on one device, got {pixels.device} and {labels.device}"
            )
        check_labels(labels, len(pixels), self.classes)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return tuple(self.pixels.shape[1:])

    def to(self, device: torch.device | str) -> "Images":
        """The same images on `device`."""
        return self._with(self.pixels.to(device), self.labels.to(device))

    def take(self, indices: Tensor | Sequence[int]) -> "Images":
        """The images at `indices`, in that order; repeats are allowed.

        Args:
            indices: (K,) integers in [0, N), K >= 1.
        Raises:
            ValueError: if `indices` is empty or holds no integers. IndexError: if an index is out
                of range.
        """
        index = as_index(indices, self.pixels.device)
        return self._with(self.pixels.index_select(0, index), self.labels.index_select(0, index))

    def part(self, indices: Tensor | Sequence[int]) -> "Images":
        """`take`, for a part that is kept for the whole run: streamed images stay on the disk
        then.
        """
        return self.take(indices)

    def batches(self, order: Sequence[Tensor]) -> Generator["Images", None, None]:
        """`take` of each of `order` in turn, indices on any device: what a training goes through in
        one epoch.
        """
        for indices in order:
            yield self.take(indices.to(self.pixels.device, non_blocking=True))

    def chunks(self, size: int) -> Iterator["Images"]:
        """All images in their order, `size` at a time, the last ones fewer; nothing is copied."""
        for pixels, labels in zip(self.pixels.split(size), self.labels.split(size)):
            yield self._with(pixels, labels)

    def centre_crop(self, size: Sequence[int]) -> "Images":
        """The middle of the images, of `size` (H, W): what evaluation sees where training cuts
        smaller windows.
        """
        whole = tuple(self.pixels.shape[2:]) == tuple(size)
        return self if whole else self._with(centre_crops(self.pixels, tuple(size)), self.labels)

    def with_channels(self, channels: int) -> "Images":
        """The same images in grey (1 channel) or in colour (3); as they are, if they are that
        already.

        Raises:
            ValueError: for other numbers of channels.
        """
        held = self.pixels.shape[1]
        check_channels(held, channels)
        if held == channels:
            return self
        if channels == 3:
            return self._with(self.pixels.repeat(1, 3, 1, 1), self.labels)
        grey = luma(*self.pixels.int().split(1, dim=1))
        return self._with(grey.to(torch.uint8), self.labels)

    def _with(self, pixels: Tensor, labels: Tensor) -> "Images":
        """The same classes over tensors cut from checked ones; a new check would make every step
        wait for the GPU.
        """
        return make_unchecked(pixels, labels, self.classes)


def check_labels(labels: Tensor, count: int, classes: tuple[str, ...]) -> None:
    """Raise ValueError unless `labels` are (count,) int64 positions in `classes`, which differ."""
    if not classes or len(set(classes)) != len(classes):
        raise ValueError(f"classes must be different names, at least one, got {classes}")
    check_label_values(labels, count, len(classes))


def make_unchecked(pixels: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Images:
    """`Images` of which its maker knows that they are as they should be."""
    images = object.__new__(Images)
    for name, value in (("pixels", pixels), ("labels", labels), ("classes", classes)):
        object.__setattr__(images, name, value)
    return images


def as_index(indices: Tensor | Sequence[int], device: torch.device) -> Tensor:
    """`indices` as a tensor on `device`.

    Raises:
        ValueError: if it is not (K,) integers, K >= 1.
    """
    index = torch.as_tensor(indices, device=device)
    whole = not index.is_floating_point() and index.dtype not in (torch.bool, torch.uint8)
    if index.ndim != 1 or len(index) == 0 or not whole:
        raise ValueError(f"indices must be (K,) integers, at least one, got {form_of(index)}")
    return index.long()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready to train on.

    Args:
        name: as `load` took it.
        train, test: images, resident or streamed, with the same classes and of one shape; where the
            augmentation cuts a smaller window, the test images have its size already (see
            `catchup.data.protocol`).
        mean, std: one number per channel, of pixels scaled to [0, 1]; std > 0.
        augmentation: what the training images go through.
        boxes: around the objects of the test images, where the data set has any.
    Raises:
        ValueError: if train and test differ in classes or shape, or mean, std or boxes do not fit.
    """

    name: str
    train: ImageSource
    test: ImageSource
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    boxes: Boxes | None = None

    def __post_init__(self) -> None:
        if self.train.classes != self.test.classes:
            raise ValueError(
                f"train and test need the same classes, got {len(self.train.classes)} and "
                f"{len(self.test.classes)} that differ in name or order"
            )
        shape, other = self.train.shape, self.test.shape
        shape = shape[:1] + self.augmentation.size_of(shape[1:])
        if shape != other:
            raise ValueError(
                f"train and test images need one shape (C, H, W), got {shape} and {other}"
            )
        if len(self.mean) != shape[0] or len(self.std) != shape[0]:
            raise ValueError(
                f"mean and std need one number for each of {shape[0]} channels, "
                f"got {self.mean} and {self.std}"
            )
        if not all(value > 0 for value in self.std):
            raise ValueError(
                "every std must be greater than 0 (a channel that never varies teaches nothing), "
                f"got {self.std}"
            )
        boxes = self.boxes
        if boxes is None:
            return
        last = int(boxes.image[-1]) if len(boxes) else 0
        if boxes.size != shape[1:] or last >= len(self.test):
            raise ValueError(
                f"the boxes are for images of {boxes.size} (H, W), of which there are more"
                f" than {len(self.test)} or which are not of {shape[1:]}"
            )

    def with_train(self, train: ImageSource) -> "Dataset":
        """The same data set with other training images of the same classes and shape."""
        return dataclasses.replace(self, train=train)

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set on `device`."""
        boxes = None if self.boxes is None else self.boxes.to(device)
        train, test = self.train.to(device), self.test.to(device)
        return dataclasses.replace(self, train=train, test=test, boxes=boxes)


def subset(images: ImageSource, amount: float | int, seed: int) -> ImageSource:
    """A balanced, seeded part of `images`, in their order: `images.part(subset_indices(…))`.

    Raises:
        ValueError: as `subset_indices`.
    """
    return images.part(subset_indices(images, amount, seed))


def subset_indices(images: ImageSource, amount: float | int, seed: int) -> Tensor:
    """Which images a balanced subset keeps.

    One shuffle by `seed` ranks the images of every class and the first ones are kept: a smaller
    subset lies inside a larger one of the same seed, and whatever is trained with that seed sees
    the same images.

    Args:
        amount: a float is the share of each class, in (0, 1], rounded to the nearest count (halves
            up); an integer is the number of images of each class, >= 1. So 1.0 is everything and 1
            one image of each.
        seed: any integer.
    Returns:
        (K,) int64 on the CPU, ascending.
    Raises:
        ValueError: if `amount` is out of range, asks for more than a class has, or would leave a
            class empty.
    """
    labels = images.labels.cpu()
    counts = labels.bincount(minlength=len(images.classes))
    kept = _kept_counts(counts, amount, images.classes)
    return (_ranks(labels, counts, seed) < kept[labels]).nonzero()[:, 0]


def _kept_counts(counts: Tensor, amount: float | int, classes: tuple[str, ...]) -> Tensor:
    """(len(classes),) int64: how many of the `counts` images of every class `amount` keeps."""
    if isinstance(amount, bool) or not isinstance(amount, Real):
        raise ValueError(
            f"a subset is a share in (0, 1] or a number of images per class, got {amount!r}"
        )
    fewest = int(counts.min())
    scarce = f"class {classes[int(counts.argmin())]!r} has {fewest}"
    if isinstance(amount, Integral):
        if not 1 <= amount <= fewest:
            raise ValueError(
                f"images per class must be at least 1 and no more than there are, got {amount};"
                f" {scarce}"
            )
        return torch.full_like(counts, int(amount))
    if not 0 < amount <= 1:
        raise ValueError(
            f"a share must lie in (0, 1], got {amount} (an integer means images per class)"
        )
    kept = torch.tensor([math.floor(amount * count + 0.5) for count in counts.tolist()])
    if int(kept.min()) == 0:
        raise ValueError(f"a share of {amount} would leave a class without images; {scarce}")
    return kept


def _ranks(labels: Tensor, counts: Tensor, seed: int) -> Tensor:
    """(N,) int64: the place of each image among the `counts` of its class after a shuffle by
    `seed`.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    # where the class of each place begins
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.empty_like(labels).scatter_(0, by_class, torch.arange(len(labels)) - first)
