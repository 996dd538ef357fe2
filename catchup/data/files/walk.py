"""The one walk over folders of images: which files are images, and what is passed over.

The rule, for every loader: an image is a file whose name ends as those of `SUFFIXES` do. Names that
start with a dot are hidden and passed over, folders with all that lies in them. Linked files and
folders count as what they lead to, but a folder that leads back to one it lies in is passed over,
and so is a folder that was already walked under another name. A link to nowhere with the name of an
image is an image, one that cannot be read. What is passed over is counted and said.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
HIDDEN, OTHER, LOOP = "hidden", "no images by their names", "linked folders met before"


class Walk(NamedTuple):
    """What lies below a folder.

    Attributes:
        images: the image files, sorted by path.
        passed_over: {reason: how many files or folders were passed over for it}.
    """

    images: tuple[Path, ...]
    passed_over: Mapping[str, int]


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return _has_suffix(name) and not name.startswith(".")


def folder_names(folder: Path) -> tuple[str, ...]:
    """The names of the folders in `folder` that are not hidden, linked ones too, sorted."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_folder(entry)]
    return tuple(sorted(name for name in names if not name.startswith(".")))


def walk_images(folder: Path, *, deep: bool = True) -> Walk:
    """The images in `folder`, without a call of the system for each file, for there may be a
    million.

    Args:
        folder: where to look.
        deep: whether folders inside it are walked too.
    Raises:
        OSError: if a folder cannot be listed.
    """
    passed: Counter[str] = Counter()
    # those it lies in, too: a link upwards would bring in the images of every other class
    around = (folder, *folder.absolute().parents, *folder.resolve().parents)
    images = sorted(_images_below(folder, deep, set(map(_place, around)), passed))
    return Walk(tuple(images), passed)


def report_passed_over(root: Path, passed_over: Mapping[str, int]) -> None:
    """Says with one warning what was passed over for another reason than its ending.

    Args:
        root: the folder that was walked.
        passed_over: as `Walk` has it, summed over all folders.
    """
    words = [f"{passed_over[kind]} {kind}" for kind in (HIDDEN, LOOP) if passed_over.get(kind)]
    if words:
        warnings.warn(f"passed over in {root}: {', '.join(words)}", stacklevel=3)


def _images_below(
    folder: Path, deep: bool, met: set[tuple[int, int]], passed: Counter[str]
) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):  # a .DS_Store is not worth a word
                passed[HIDDEN if entry.is_dir() or _has_suffix(entry.name) else OTHER] += 1
            elif not _is_folder(entry):
                if is_image(entry.name):
                    yield folder / entry.name
                else:
                    passed[OTHER] += 1
            elif deep:
                below = folder / entry.name
                if (place := _place(below)) in met:
                    passed[LOOP] += 1
                else:
                    met.add(place)
                    yield from _images_below(below, deep, met, passed)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _place(folder: Path) -> tuple[int, int]:
    """What tells a folder from every other, however it is reached."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _has_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
