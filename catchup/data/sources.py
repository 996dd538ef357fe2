"""The data sets by name: what they are, and `load`, which reads one.

A new data set is a reader and an entry of `SOURCES`. `load_images` reads images without a training
part, `fetch` gets what is published and decodes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..utils.choices import check_whole, pick
from .files.archives import AIRCRAFT, CIFAR100_C, CUB200, IMAGENET_O, Archive, obtain
from .files.splits import Request
from .files.stream import StreamedImages
from .images import Dataset, Images
from .sets.finegrained import CARS_FOLDER, read_aircraft, read_cars196, read_cub200
from .sets.imagenet import FOLDER, read_imagenet, read_imagenet_o, read_imagenet_val, read_pictures
from .sets.readers import (
    read_cifar,
    read_digits,
    read_folder,
    read_shapes,
    read_tiny_imagenet,
    tiny_root,
)


class SourceRow(NamedTuple):
    """One line of the list of data sets."""

    name: str  # as `load` takes it
    size: str  # height x width x channels, in pixels
    classes: int | None  # None where the folder decides
    images: str  # how many for training and for testing
    origin: str  # where they come from
    present: bool | None  # whether `load` needs no download; None where a path decides


@dataclass(frozen=True)
class DataSource:
    """A data set: the columns of `SourceRow`, how it is read, whether it lies in a data folder;
    `takes` is what may stand after the colon of its name, "" for nothing. `read` is None where
    there are no training images; `images_of` reads images alone, of some classes or of all;
    `archive` is what `fetch` gets; `files` says that its images are files, which can be streamed.
    """

    size: str
    classes: int | None
    images: str
    origin: str
    read: Callable[[Request], Dataset] | None
    present: Callable[[Path], bool | None]
    takes: str = ""
    images_of: Callable[[Request, Sequence[str] | None], Images] | None = None
    archive: Archive | None = None


SOURCES = {
    "digits": DataSource(
        "8 x 8 x 1", 10, "1297 + 500", "inside scikit-learn", read_digits, lambda data_dir: True
    ),
    "shapes": DataSource(
        "32 x 32 x 3",
        8,
        "10240 + 2048",
        "generated; the bias of the background: shapes:0.9, shapes:0.9:colour",
        read_shapes,
        lambda data_dir: True,
        takes="bias",
    ),
    "cifar10": DataSource(
        "32 x 32 x 3",
        10,
        "50000 + 10000",
        "download, cs.toronto.edu, 170 MB",
        read_cifar,
        lambda data_dir: (data_dir / "cifar-10-batches-py").is_dir(),
    ),
    "cifar100": DataSource(
        "32 x 32 x 3",
        100,
        "50000 + 10000",
        "download, cs.toronto.edu, 169 MB",
        read_cifar,
        lambda data_dir: (data_dir / "cifar-100-python").is_dir(),
    ),
    "tiny-imagenet": DataSource(
        "64 x 64 x 3",
        200,
        "100000 + 10000",
        "download, cs231n.stanford.edu, 248 MB; or tiny-imagenet:PATH",
        read_tiny_imagenet,
        lambda data_dir: tiny_root(data_dir) is not None,
        takes="path",
    ),
    "folder": DataSource(
        "any",
        None,
        "any",
        "your own, one folder per class: folder:PATH",
        read_folder,
        lambda data_dir: None,
        takes="path",
        images_of=read_pictures,
    ),
    "cub200": DataSource(
        "256 x 256 x 3",
        200,
        "5994 + 5794",
        "download, data.caltech.edu, 1.1 GB; or cub200:PATH",
        read_cub200,
        lambda data_dir: (data_dir / CUB200.folder).is_dir(),
        takes="path",
        archive=CUB200,
    ),
    "cars196": DataSource(
        "256 x 256 x 3",
        196,
        "8144 + 8041",
        "by hand: its server is gone; in stanford_cars, or cars196:PATH",
        read_cars196,
        lambda data_dir: (data_dir / CARS_FOLDER).is_dir(),
        takes="path",
    ),
    "aircraft": DataSource(
        "256 x 256 x 3",
        100,
        "6667 + 3333",
        "download, robots.ox.ac.uk, 2.75 GB; or aircraft:PATH",
        read_aircraft,
        lambda data_dir: (data_dir / AIRCRAFT.folder).is_dir(),
        takes="path",
        archive=AIRCRAFT,
    ),
    "imagenet": DataSource(
        "256 x 256 x 3",
        1000,
        "1281167 + 50000",
        "by hand: image-net.org wants an account; in imagenet, or imagenet:PATH",
        read_imagenet,
        lambda data_dir: (data_dir / FOLDER / "val").is_dir(),
        takes="path",
        images_of=read_imagenet_val,
    ),
    "imagenet-o": DataSource(
        "256 x 256 x 3",
        200,
        "0 + 2000",
        "download, people.eecs.berkeley.edu; or imagenet-o:PATH; out of distribution",
        None,
        lambda data_dir: (data_dir / IMAGENET_O.folder).is_dir(),
        takes="path",
        images_of=read_imagenet_o,
        archive=IMAGENET_O,
    ),
    "cifar100-c": DataSource(
        "32 x 32 x 3",
        100,
        "0 + 19 x 50000",
        "download, zenodo.org, 2.9 GB; the corrupted test images",
        None,
        lambda data_dir: (data_dir / CIFAR100_C.folder).is_dir(),
        archive=CIFAR100_C,
    ),
}


def load(
    name: str,
    data_dir: str | Path = "data",
    *,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    progress: bool = True,
    loader: str = "auto",
    workers: int | None = None,
) -> Dataset:
    """The data set called `name`: whole in memory on the CPU, or streamed from the disk.

    Args:
        name: one of `names()`; for "folder" and "tiny-imagenet" with the folder to read after a
            colon, "folder:photos"; for "shapes" with the bias, "shapes:0.8" or "shapes:0.8:colour"
            (without it, 0.95 by texture).
        data_dir: where downloads are looked for and put; made when something is downloaded.
        image_size: pixels; every image is brought to this square (shorter side, then the centre;
            bilinear, antialiased). None keeps the size; for the fine-grained sets and ImageNet,
            whose images differ in size, it is 256. These have windows of seven eighths of it, and
            the test images are the middle of that size.
        skip_unreadable: go on without image files that cannot be decoded, with a warning that names
            them.
        progress: show a bar while decoding, if standard error is a terminal.
        loader: "resident", in memory; "stream", decoded when they are asked for (see
            `catchup.data.files.stream`), where the data set is one of image files; "auto", resident
            if they fit into memory, else streamed where possible.
        workers: processes that decode streamed images; 0 decodes in this one, None takes as many as
            are usual here.
    Raises:
        ValueError: if the name is unknown (the message lists the names), or the images are not as
            they should be.
        FileNotFoundError: if a folder is missing, or a download fails (the message says what to put
            where).
    """
    source, request = _request(
        name, data_dir, image_size, skip_unreadable, progress, loader, workers
    )
    return _read_whole(source, request)


def load_images(
    name: str,
    data_dir: str | Path = "data",
    *,
    image_size: int | None = None,
    window: int | None = None,
    classes: Sequence[str] | None = None,
    skip_unreadable: bool = False,
    progress: bool = True,
    loader: str = "auto",
    workers: int | None = None,
) -> Images | StreamedImages:
    """Images without a training part, on the CPU or the disk: those from elsewhere, or a data set's
    test images.

    Args:
        name: as for `load`. "folder:PATH" may also be a folder of folders of images, or a folder of
            images; "imagenet" needs no training images; "imagenet-o" has classes named as those of
            "imagenet".
        data_dir, image_size, skip_unreadable, progress, loader, workers: as for `load`.
        window: pixels; the middle square of so many is kept, as the test images of a data set with
            a window are (see `Augmentation`). None keeps all.
        classes: only images of these are read, while labels and classes stay: for the ImageNet-O
            protocol, the classes of "imagenet-o" out of "imagenet". None reads all.
    Raises:
        ValueError: as `load`; for a class that is not there, a set that cannot be read in part, or
            a window that is larger than the images.
        FileNotFoundError: as `load`.
    """
    if window is not None:
        check_whole(window=window)
    source, request = _request(
        name, data_dir, image_size, skip_unreadable, progress, loader, workers
    )
    if source.images_of is not None:
        images = source.images_of(request, classes)
    elif classes is not None:
        able = ", ".join(known for known, other in SOURCES.items() if other.images_of)
        raise ValueError(f"the classes of {name} cannot be chosen; they can for: {able}")
    else:
        images = _read_whole(source, request).test
    return images if window is None else middle_square(images, window)


def middle_square(images: Images | StreamedImages, window: int) -> Images | StreamedImages:
    """The middle square of every image, of `window` pixels a side.

    Raises:
        ValueError: if it is larger than the images.
    """
    height, width = images.shape[1:]
    if window > min(height, width):
        raise ValueError(
            f"a window of {window} pixels does not fit into images of {height} x {width}; give a"
            " larger image_size"
        )
    return images.centre_crop((window, window))


def fetch(name: str, data_dir: str | Path = "data", *, progress: bool = True) -> Path:
    """The folder of a data set's published files in `data_dir`, downloaded where it is absent;
    nothing is decoded.

    Raises:
        ValueError: if the name is unknown, nothing can be fetched for it, or the archive is bad.
        FileNotFoundError: if the download fails (the message says what to put where).
    """
    source = SOURCES[pick("data set", name, names())]
    if source.archive is None:
        able = ", ".join(known for known, other in SOURCES.items() if other.archive)
        raise ValueError(f"{name} is not fetched alone ({source.origin}); these are: {able}")
    return obtain(source.archive, Path(data_dir).expanduser(), progress)


def _read_whole(source: DataSource, request: Request) -> Dataset:
    """The data set, training part and all."""
    if source.read is None:
        use = "its folder is for evaluate --tests corruption, and catchup.data.fetch gets it"
        if source.images_of:
            use = "it is for catchup.data.load_images, and for evaluate --tests ood"
        raise ValueError(f"{request.name} has no training images: {use}")
    return source.read(request)


def _request(
    name: str,
    data_dir: str | Path,
    image_size: int | None,
    skip_unreadable: bool,
    progress: bool,
    loader: str,
    workers: int | None,
) -> tuple[DataSource, Request]:
    """The source of a name, and what it is asked for, checked."""
    base, colon, argument = name.partition(":")
    source = SOURCES[pick("data set", base, names())]
    if colon and not (argument and source.takes):
        wanted = f"needs a {source.takes}" if source.takes else "takes no path"
        raise ValueError(f"the data set {base!r} {wanted} after the colon, got {name!r}")
    if image_size is not None:
        check_whole(image_size=image_size)
    if loader == "stream" and source.takes != "path":
        able = ", ".join(known for known, other in SOURCES.items() if other.takes == "path")
        raise ValueError(
            f"the images of {base} are no files, and cannot be streamed; those of {able} can: take"
            " the loader auto or resident"
        )
    path, how = (
        Path(data_dir).expanduser(),
        (image_size, skip_unreadable, progress, loader, workers),
    )
    return source, Request(name, argument or None, path, *how)


def names() -> tuple[str, ...]:
    """The names that `load` and `load_images` know; "folder" needs a path behind it, others may
    have more.
    """
    return tuple(SOURCES)


def describe(data_dir: str | Path = "data") -> list[SourceRow]:
    """One row for each data set, with whether it lies in `data_dir`; downloads and decodes
    nothing.
    """
    folder = Path(data_dir).expanduser()
    rows = []
    for name, source in SOURCES.items():
        facts = source.size, source.classes, source.images, source.origin
        rows.append(SourceRow(name, *facts, source.present(folder)))
    return rows
