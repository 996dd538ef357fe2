"""From the listed files of a data set to its training and test images: in memory, or streamed from
the disk.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...utils.choices import pick
from ..channels import value_counts
from ..images import Images
from .decode import decode_images, read_image, unreadable_message
from .folders import Listing
from .memory import fits
from .pool import usual_workers
from .stream import Decoder, StreamedImages
from .survey import names_below, survey_files

LOADERS = ("auto", "resident", "stream")


@dataclass(frozen=True)
class Request:
    """What `load` was asked for; `argument` is what follows the colon of the name, None without a
    colon.
    """

    name: str
    argument: str | None
    data_dir: Path
    image_size: int | None
    skip_unreadable: bool
    progress: bool
    loader: str = "resident"
    workers: int | None = None

    def __post_init__(self) -> None:
        pick("loader", self.loader, LOADERS)
        if self.workers is not None and (not isinstance(self.workers, int) or self.workers < 0):
            raise ValueError(
                f"workers must be an integer of at least 0, or None, got {self.workers!r}"
            )

    @property
    def path(self) -> Path | None:
        """The argument as the path that it names."""
        return None if self.argument is None else Path(self.argument).expanduser()

    @property
    def folder(self) -> Path:
        """`path`, where nothing can be read without one."""
        if self.path is None:
            raise ValueError(
                f"the data set {self.name!r} needs the folder to read, as in folder:PATH"
            )
        return self.path


class Parts(NamedTuple):
    """The two splits; which test images could be read, positions in their split (K,) int64; and the
    `value_counts` of the training images, None where nobody asked.
    """

    train: Images | StreamedImages
    test: Images | StreamedImages
    kept: np.ndarray
    counts: Tensor | None


def split_images(
    listing: Listing, request: Request, banner: int = 0, *, counted: bool = False
) -> Parts:
    """Both splits of one size and one number of channels, where the request's loader says: with
    "auto" in memory if they fit, else on the disk.

    Args:
        listing: has training and test files.
        banner: rows at the bottom of every stored image that are left out.
        counted: whether the counts are wanted, which needs a look at every image.
    Raises:
        ValueError: if an image cannot be read, a class keeps no training image, or nothing is left
            to test on.
    """
    files, border = listing.train.files + listing.test.files, len(listing.train.files)
    labels = torch.tensor(listing.train.labels + listing.test.labels)
    images, skipped, counts = _open(listing, files, labels, border, request, banner, counted)
    readable = np.delete(np.arange(len(files)), skipped)
    kept = int((readable < border).sum())
    empty = set(range(len(listing.classes))) - set(images.labels[:kept].tolist())
    if empty:
        raise ValueError(
            f"the class {listing.classes[min(empty)]!r} has no readable training image in"
            f" {listing.root}"
        )
    if kept == len(images):
        raise ValueError(f"{listing.root} has no readable test image")
    train, test = (_slice(images, *ends) for ends in ((0, kept), (kept, len(images))))
    if counted and counts is None:
        counts = value_counts(train.pixels)
    return Parts(train, test, readable[kept:] - border, counts)


def test_images(listing: Listing, request: Request) -> tuple[Images | StreamedImages, np.ndarray]:
    """The images of `listing.test` alone, as `split_images`, and the positions of those that could
    be read.
    """
    files, labels = listing.test.files, torch.tensor(listing.test.labels)
    images, skipped, _ = _open(listing, files, labels, 0, request, 0, True)
    return images, np.delete(np.arange(len(files)), skipped)


def must_stream(files: Sequence[Path], request: Request, banner: int = 0) -> bool:
    """Whether these files are to be streamed; asked before any of them is decoded, but for the
    first.
    """
    if request.loader != "auto":
        return request.loader == "stream"
    try:
        size = _first_size(files, request, banner)
    except ValueError:  # the decoding will say it, or skip the file
        return False
    if fits(len(files), *size):
        return False
    warnings.warn(
        f"{len(files)} images of {size[0]} x {size[1]} do not fit into memory: {request.name} is"
        " streamed from the disk, each image decoded whenever it is needed",
        stacklevel=2,
    )
    return True


def _first_size(files: Sequence[Path], request: Request, banner: int) -> tuple[int, int]:
    """(H, W) that the first image comes to; ValueError if it cannot be read."""
    if request.image_size:
        return request.image_size, request.image_size
    try:
        return read_image(files[0], None, banner).shape[:2]
    except Exception as error:
        # each format of Pillow has its own: OSError, SyntaxError, EOFError, …
        raise ValueError(unreadable_message(files[0], error)) from error


def _open(
    listing: Listing,
    files: Sequence[Path],
    labels: Tensor,
    border: int,
    request: Request,
    banner: int,
    counted: bool,
) -> tuple[Images | StreamedImages, np.ndarray, Tensor | None]:
    """All readable images, in memory or on the disk; the positions of the others; and the counts of
    the first `border` where streamed files were looked through.
    """
    how = {
        "image_size": request.image_size,
        "banner": banner,
        "skip_unreadable": request.skip_unreadable,
        "progress": request.progress,
    }
    if not must_stream(files, request, banner):
        pixels, skipped = decode_images(listing.root, files, **how)
        kept = np.delete(labels.numpy(), skipped)
        images = Images(torch.from_numpy(pixels), torch.from_numpy(kept), listing.classes)
        return images, skipped, None
    workers = usual_workers() if request.workers is None else request.workers
    skipped, counts = np.empty(0, dtype=np.int64), None
    if counted or request.skip_unreadable:
        survey = survey_files(listing.root, files, border, workers=workers, **how)
        skipped, shape, counts = survey.skipped, survey.shape, torch.from_numpy(survey.counts)
    else:  # colours are taken for granted where the data set is one that is known to have them
        shape = (3, *_first_size(files, request, banner))
    decoder = Decoder.whole(listing.root, request.image_size, banner, shape)
    names = np.delete(names_below(listing.root, files), skipped)
    kept = torch.from_numpy(np.delete(labels.numpy(), skipped))
    return StreamedImages(decoder, names, kept, listing.classes, workers), skipped, counts


def _slice(images: Images | StreamedImages, start: int, end: int) -> Images | StreamedImages:
    """A part of the images in a row, not copied."""
    if isinstance(images, StreamedImages):
        return images.part(torch.arange(start, end))
    return Images(images.pixels[start:end], images.labels[start:end], images.classes)
