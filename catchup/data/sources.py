"""The data sets by name: what they are, and `load`, which reads one.

A new data set is a reader in `readers.py` and an entry of `SOURCES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..choices import pick
from .images import Dataset
from .readers import Request, read_cifar, read_digits, read_folder, read_shapes, read_tiny_imagenet, tiny_root


class SourceRow(NamedTuple):
    """One line of the list of data sets."""

    name: str  # as `load` takes it
    size: str  # height x width x channels, in pixels
    classes: int | None  # None where the folder decides
    images: str  # how many for training and for testing
    origin: str  # where they come from
    present: bool | None  # whether `load` needs no download; None where a path decides


@dataclass(frozen=True)
class Source:
    """A data set: the columns of `SourceRow`, how it is read, whether it lies in a data folder; `takes` is what may
    stand after the colon of its name, "" for nothing."""

    size: str
    classes: int | None
    images: str
    origin: str
    read: Callable[[Request], Dataset]
    present: Callable[[Path], bool | None]
    takes: str = ""


SOURCES = {
    "digits": Source(
        "8 x 8 x 1", 10, "1297 + 500", "inside scikit-learn", read_digits, lambda data_dir: True
    ),
    "shapes": Source(
        "32 x 32 x 3", 8, "10240 + 2048", "generated; the bias of the background: shapes:0.9, shapes:0.9:colour",
        read_shapes, lambda data_dir: True, takes="bias",
    ),
    "cifar10": Source(
        "32 x 32 x 3", 10, "50000 + 10000", "download, cs.toronto.edu, 170 MB", read_cifar,
        lambda data_dir: (data_dir / "cifar-10-batches-py").is_dir(),
    ),
    "cifar100": Source(
        "32 x 32 x 3", 100, "50000 + 10000", "download, cs.toronto.edu, 169 MB", read_cifar,
        lambda data_dir: (data_dir / "cifar-100-python").is_dir(),
    ),
    "tiny-imagenet": Source(
        "64 x 64 x 3", 200, "100000 + 10000", "download, cs231n.stanford.edu, 248 MB; or tiny-imagenet:PATH",
        read_tiny_imagenet, lambda data_dir: tiny_root(data_dir) is not None, takes="path",
    ),
    "folder": Source(
        "any", None, "any", "your own, one folder per class: folder:PATH", read_folder, lambda data_dir: None,
        takes="path",
    ),
}


def load(
    name: str,
    data_dir: str | Path = "data",
    *,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> Dataset:
    """The data set called `name`, whole in memory on the CPU.

    Args:
        name: one of `names()`; for "folder" and "tiny-imagenet" with the folder to read after a colon, "folder:photos";
            for "shapes" with the bias, "shapes:0.8" or "shapes:0.8:colour" (without it, 0.95 by texture).
        data_dir: where downloads are looked for and put; made when something is downloaded.
        image_size: pixels; every image is brought to this square (shorter side, then the centre; bilinear,
            antialiased). None keeps the size.
        skip_unreadable: go on without image files that cannot be decoded, with a warning that names them.
        progress: show a bar while decoding, if standard error is a terminal.
    Raises:
        ValueError: if the name is unknown (the message lists the names), or the images are not as they should be.
        FileNotFoundError: if a folder is missing, or a download fails (the message says what to put where).
    """
    base, colon, argument = name.partition(":")
    source = SOURCES[pick("data set", base, names())]
    if colon and not (argument and source.takes):
        wanted = f"needs a {source.takes}" if source.takes else "takes no path"
        raise ValueError(f"the data set {base!r} {wanted} after the colon, got {name!r}")
    if image_size is not None and (isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1):
        raise ValueError(f"image_size must be an integer of at least 1 pixel, got {image_size!r}")
    return source.read(
        Request(name, argument or None, Path(data_dir).expanduser(), image_size, skip_unreadable, progress))


def names() -> tuple[str, ...]:
    """The names that `load` knows; "folder" needs a path behind it, "tiny-imagenet" and "shapes" may have more."""
    return tuple(SOURCES)


def describe(data_dir: str | Path = "data") -> list[SourceRow]:
    """One row for each data set, with whether it lies in `data_dir`; downloads and decodes nothing."""
    folder = Path(data_dir).expanduser()
    return [
        SourceRow(name, source.size, source.classes, source.images, source.origin, source.present(folder))
        for name, source in SOURCES.items()
    ]
