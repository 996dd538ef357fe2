"""Labelled images that stay on the disk: decoded when they are asked for, a few batches ahead, by
worker processes.

The same few methods as `Images`, and the same pixels, byte for byte: both come out of `decode.py`.
Which images a batch holds is the caller's business, and so is all chance; so the number of workers
changes how fast the images come, and nothing else.

Where it misleads: every epoch decodes every image again, which costs more than most steps on small
images; what fits into memory should lie there. The names and labels of all images do lie in memory,
about a hundred bytes each. A file that cannot be read ends the run when its turn comes;
`skip_unreadable` looks at all of them first (`survey.py`).
"""

import math
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..channels import check_channels, luma
from ..images import Images, as_index, check_labels, make_unchecked
from .decode import check_size, read_image, unreadable_message
from .memory import check_memory
from .pool import AHEAD, can_share, map_ahead, shared_memory

PIECE = 32  # images that a worker decodes at a time
FEW = 2  # pieces that are decoded here: to start workers for them would take longer


@dataclass(frozen=True)
class Decoder:
    """From names of files to pixels: all that a worker has to know.

    Args:
        root: the folder that the files lie in.
        image_size, banner: as for `decode.decoded`.
        stored: (C, H, W) of every image once it is read and resized; C is 1 or 3.
        crop: top, left, height and width of what is kept of it.
        grey: whether coloured images are made grey.
    """

    root: Path
    image_size: int | None
    banner: int
    stored: tuple[int, int, int]
    crop: tuple[int, int, int, int]
    grey: bool = False

    @classmethod
    def whole(
        cls, root: Path, image_size: int | None, banner: int, stored: tuple[int, int, int]
    ) -> "Decoder":
        """One that keeps all of every image."""
        return cls(root, image_size, banner, stored, (0, 0, *stored[1:]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what comes out."""
        return (self.stored[0], *self.crop[2:])

    def read(self, names: np.ndarray, pixels: np.ndarray) -> None:
        """Fills `pixels`, (K, *shape) uint8, from the files of these (K,) bytes, paths below
        `root`.

        Raises:
            ValueError: if a file cannot be read, or has another size, or colours where the others
                have none.
        """
        for place, name in zip(pixels, names):
            place[:] = self._one(self.root / os.fsdecode(name))

    def _one(self, file: Path) -> np.ndarray:
        """(1 or C, H, W): one image, cropped."""
        try:
            image = read_image(file, self.image_size, self.banner)
        except Exception as error:
            # each format of Pillow has its own: OSError, SyntaxError, EOFError, …
            raise ValueError(unreadable_message(file, error)) from error
        check_size(file, image.shape, "the first", self.stored[1:])
        if image.ndim == 3 and self.grey:
            image = luma(*image.astype(np.int32).transpose(2, 0, 1)).astype(np.uint8)
        if image.ndim == 3 and self.stored[0] == 1:
            raise ValueError(
                f"{file} has colours, and when the folder was looked through no image had: leave"
                " the folder as it is while it is read"
            )
        top, left, height, width = self.crop
        image = image[top : top + height, left : left + width]
        return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def _decode_task(
    decoder: Decoder, slots: np.ndarray | None, task: tuple[int, np.ndarray]
) -> tuple[int, int, np.ndarray | None]:
    """The work of a process: the number of the task, how many images, and their pixels where they
    are not in a slot.

    A slot is free again when the task as many numbers later is handed out: not before this one's
    result was copied.
    """
    number, names = task
    if slots is not None:
        decoder.read(names, slots[number % len(slots)][: len(names)])
        return number, len(names), None
    pixels = np.empty((len(names), *decoder.shape), np.uint8)
    decoder.read(names, pixels)
    return number, len(names), pixels


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images on the disk and their labels in memory.

    Args:
        decoder: reads them.
        names: (N,) bytes, the path of each file below the decoder's folder. An array, because
            workers that were forked share it, and would copy a list bit by bit.
        labels: (N,) int64 in [0, len(classes)); batches come on their device.
        classes: the name of each class, all different.
        workers: processes that decode, >= 0; 0 decodes in the process that asks.
    Raises:
        ValueError: if a dtype, a shape or a label is not so.
    """

    decoder: Decoder
    names: np.ndarray
    labels: Tensor
    classes: tuple[str, ...]
    workers: int = 0

    def __post_init__(self) -> None:
        if self.names.dtype.kind != "S" or self.names.ndim != 1 or not len(self.names):
            raise ValueError(
                f"names must be (N,) bytes, not empty, got {self.names.dtype} {self.names.shape}"
            )
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, got {self.workers}")
        check_labels(self.labels, len(self.names), self.classes)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.decoder.shape

    @cached_property
    def pixels(self) -> Tensor:
        """(N, C, H, W) uint8 on the labels' device: every image at once, for measurements that need
        them so.

        Raises:
            ValueError: if they do not fit into memory.
        """
        channels, *sides = self.shape
        advice = {
            "channels": channels,
            "remedy": "do this on a part of the images (subset, sample)",
        }
        check_memory(len(self), *sides, self.decoder.root, **advice)
        return self.take(torch.arange(len(self))).pixels

    def to(self, device: torch.device | str) -> "StreamedImages":
        """The same images, their batches on `device`."""
        return replace(self, labels=self.labels.to(device))

    def take(self, indices: Tensor | Sequence[int]) -> Images:
        """The images at `indices`, in that order, now in memory; arguments and errors as of
        `Images.take`.
        """
        with closing(self.batches([as_index(indices, torch.device("cpu"))])) as one:
            return next(one)

    def part(self, indices: Tensor | Sequence[int]) -> "StreamedImages":
        """The images at `indices`, in that order, still on the disk."""
        index = as_index(indices, torch.device("cpu"))
        labels = self.labels[index.to(self.labels.device)]
        return replace(self, names=self.names[index.numpy()], labels=labels)

    def batches(self, order: Sequence[Tensor]) -> Generator[Images, None, None]:
        """The images at each of `order` in turn, (K,) integers with K >= 1; nothing else is
        decoded.

        The workers live as long as the iterator: close it (`contextlib.closing`) where it may not
            come to its end.

        Raises:
            ValueError: as `Decoder`, when the turn of such a file has come.
        """
        order = [as_index(indices, torch.device("cpu")) for indices in order]
        pieces = [index.tensor_split(math.ceil(len(index) / PIECE)) for index in order]
        workers = self.workers if sum(map(len, pieces)) > FEW else 0
        slots = None
        if can_share(workers):
            slots = shared_memory((max(1, AHEAD * workers), PIECE, *self.shape))
        work, every = partial(_decode_task, self.decoder, slots), chain.from_iterable(pieces)
        tasks = ((i, self.names[piece.numpy()]) for i, piece in enumerate(every))
        with closing(map_ahead(work, tasks, workers)) as decoded:
            for index, batch in zip(order, pieces):
                # Pages of its own: between images of this size the allocator would leave holes, and
                # memory would grow.
                pixels, done = torch.from_numpy(shared_memory((len(index), *self.shape))), 0
                for i, count, sent in islice(decoded, len(batch)):
                    piece = sent if slots is None else slots[i % len(slots), :count]
                    pixels[done : done + count] = torch.from_numpy(piece)
                    done += count
                place = self.labels.device
                yield make_unchecked(pixels.to(place), self.labels[index.to(place)], self.classes)

    def chunks(self, size: int) -> Iterator[Images]:
        """All images in their order, `size` at a time, the last ones fewer."""
        return self.batches(torch.arange(len(self)).split(size))

    def centre_crop(self, size: Sequence[int]) -> "StreamedImages":
        """The middle of the images, of `size` (H, W): what evaluation sees where training cuts
        smaller windows.
        """
        top, left, *sides = self.decoder.crop
        down, right = ((side - inner) // 2 for side, inner in zip(sides, size))
        return replace(self, decoder=replace(self.decoder, crop=(top + down, left + right, *size)))

    def with_channels(self, channels: int) -> "StreamedImages":
        """The same images in grey (1 channel) or in colour (3), as `Images.with_channels`."""
        check_channels(self.shape[0], channels)
        grey, stored = self.decoder.grey or channels < self.shape[0], self.decoder.stored
        decoder = replace(self.decoder, stored=(channels, *stored[1:]), grey=grey)
        return replace(self, decoder=decoder)
