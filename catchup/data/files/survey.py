"""One pass over image files that keeps none: which can be read, their one shape, and how often each
value occurs.

What the resident loader knows once everything is decoded, a streamed folder has to find out in a
pass of its own, where
it is needed: for the mean and standard deviation of a folder, and to leave out what cannot be read.
The answer is kept beside the files as `.catchup-survey-<size>-<fingerprint>.npz`, as the decoded
images are (see `decode.py`).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...utils.progress import counter
from .decode import (
    are_positions,
    check_size,
    fingerprint,
    is_passing,
    read_image,
    report_skipped,
    unreadable_message,
    write_cache,
)
from .npz import read_npz
from .pool import map_ahead

PIECE = 32  # files that a worker looks at a time
FIELDS = ("skipped", "shape", "counts", "border")


class Survey(NamedTuple):
    """What the files hold.

    skipped: (S,) int64, ascending, positions of those that cannot be read.
    shape: (C, H, W) of all others, C = 1 if every one is greyscale, else 3.
    counts: (C, 256) int64, how many pixels of the training images have each value.
    """

    skipped: np.ndarray
    shape: tuple[int, int, int]
    counts: np.ndarray


class _Piece(NamedTuple):
    """What a piece of the files holds: for each its size or why it cannot be read, and its counts
    of values.
    """

    sizes: list[tuple[int, int] | str]
    grey: bool
    counts: np.ndarray
    lasting: bool


@dataclass(frozen=True)
class _Look:
    """The work of a process: files to what they hold, counted where they are training images."""

    root: Path
    image_size: int | None
    banner: int

    def __call__(self, task: tuple[np.ndarray, bool]) -> _Piece:
        names, counted = task
        sizes, grey, lasting, counts = [], True, True, np.zeros((3, 256), dtype=np.int64)
        for name in names:
            try:
                image = read_image(self.root / os.fsdecode(name), self.image_size, self.banner)
            except Exception as error:
                # each format of Pillow has its own: OSError, SyntaxError, EOFError, …
                sizes.append(str(error))
                lasting &= not is_passing(error)
                continue
            sizes.append(image.shape[:2])
            grey &= image.ndim == 2
            if counted:
                channels = [image] if image.ndim == 2 else np.moveaxis(image, 2, 0)
                counts += [np.bincount(channel.ravel(), minlength=256) for channel in channels]
        return _Piece(sizes, grey, counts, lasting)


def names_below(root: Path, files: Sequence[Path]) -> np.ndarray:
    """(N,) bytes: the path of every file below `root`, as the file system has it."""
    return np.array([os.fsencode(file.relative_to(root)) for file in files])


def survey_files(
    root: Path,
    files: Sequence[Path],
    border: int,
    *,
    image_size: int | None = None,
    banner: int = 0,
    skip_unreadable: bool = False,
    workers: int = 0,
    progress: bool = True,
) -> Survey:
    """What `files` hold, from the survey in `root` where there is one; the arguments are those of
    `decode.decoded`.

    Args:
        border: so many of the files, the first ones, are training images.
        workers: processes that decode.
    Raises:
        ValueError: if an image cannot be read and is not to be skipped, two differ in size, or none
            can be read.
    """
    cache = root / f".catchup-survey-{image_size or 'full'}-{fingerprint(root, files, banner)}.npz"
    stored = _read(cache, len(files), border)
    if stored:
        report_skipped(root, files, stored.skipped, skip_unreadable)
        return stored
    names, look = names_below(root, files), _Look(root, image_size, banner)
    tasks = [
        (piece, counted)
        for part, counted in ((names[:border], True), (names[border:], False))
        if len(part)
        for piece in np.array_split(part, -(-len(part) // PIECE))
    ]
    with (
        closing(map_ahead(look, tasks, workers)) as pieces,
        counter(len(files), "looking", " images", progress, terminal=True) as update,
    ):
        survey, lasting = _merge(files, pieces, skip_unreadable, update)
    report_skipped(root, files, survey.skipped, skip_unreadable)
    if lasting:
        shape, split = np.array(survey.shape), np.array(border)
        write_cache(cache, skipped=survey.skipped, shape=shape, counts=survey.counts, border=split)
    return survey


def _merge(
    files: Sequence[Path], pieces: Iterable[_Piece], skip: bool, update: Callable[[int], object]
) -> tuple[Survey, bool]:
    """What all pieces hold together; and whether it would be the same another time."""
    first, skipped, grey, lasting, place = None, [], True, True, 0
    counts = np.zeros((3, 256), dtype=np.int64)
    for piece in pieces:
        for number, size in enumerate(piece.sizes, start=place):
            if isinstance(size, str):
                if not skip:
                    raise ValueError(unreadable_message(files[number], size))
                skipped.append(number)
            elif first is None:
                first = (number, size)
            else:
                check_size(files[number], size, files[first[0]], first[1])
        place += len(piece.sizes)
        grey &= piece.grey
        lasting &= piece.lasting
        counts += piece.counts
        update(len(piece.sizes))
    if first is None:
        raise ValueError(f"none of {len(files)} images could be read, the first is {files[0]}")
    channels = 1 if grey else 3
    survey = Survey(np.array(skipped, dtype=np.int64), (channels, *first[1]), counts[:channels])
    return survey, lasting


def _read(cache: Path, n_files: int, border: int) -> Survey | None:
    """What `write_cache` wrote for as many files, or None where it is absent, damaged or of
    another split.
    """
    arrays = read_npz(cache, FIELDS)
    if arrays is None:
        return None
    skipped, shape, counts, split = arrays
    whole = (
        shape.dtype == counts.dtype == np.int64
        and are_positions(skipped, n_files)
        and shape.shape == (3,)
        and (shape > 0).all()
        and shape[0] in (1, 3)
        and counts.shape == (shape[0], 256)
        and (counts >= 0).all()
        and split.shape == ()
        and split == border
    )
    return Survey(skipped, tuple(shape.tolist()), counts) if whole else None
