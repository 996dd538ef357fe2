"""The paper's fine-grained data sets: CUB-200-2011, Stanford Cars and FGVC-Aircraft, from their
official files.

Sources: Wah et al., 2011 (its README); Krause et al., 2013 (the README of the devkit); Maji et al.,
2013 (its README). Each comes with one box around the object of every image; those of the test
images go into `Dataset.boxes`.

Where it misleads: the images are squares (shorter side, then the centre), as everywhere here;
SnapMix's code, which the paper follows, cuts its window out of the whole length. FGVC-Aircraft
loses the 20 rows with the copyright at its bottom, as its README asks; SnapMix's code leaves them.
Whether CUB counts pixels from 0 or 1 its README does not say (taken as 0), nor does that of
Stanford Cars (taken as 1, MATLAB's way, last pixel inclusive).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files.archives import AIRCRAFT, CUB200, Archive, obtain
from ..files.folders import Listing, Split, read_text
from ..files.placement import place_boxes
from ..images import Dataset
from .listed import imagenet_protocol, read_parts, size_of
from .readers import Request

CARS_FOLDER = "stanford_cars"
CARS_LABELS = "cars_test_annos_withlabels.mat"
BANNER = 20  # rows at the bottom of every image of FGVC-Aircraft that hold the copyright


@dataclass(frozen=True)
class AnnotatedListing:
    """A data set with a box on every test image.

    Args:
        listing: its files.
        edges: (N, 4) float64, the box of each test image: left, top, right, bottom in pixels of the
            stored image, right and bottom exclusive.
        source: the file that the boxes were read from.
        banner: rows at the bottom of every image that do not belong to it.
    """

    listing: Listing
    edges: np.ndarray
    source: Path
    banner: int = 0


def read_cub200(request: Request) -> Dataset:
    """CUB-200-2011 with the boxes of its test images, downloaded if it is absent and no path was
    given.
    """
    return _read(request, "images.txt", CUB200.folder, list_cub200, CUB200)


def read_cars196(request: Request) -> Dataset:
    """Stanford Cars with the boxes of its test images; the files must be there, since their server
    is gone.
    """
    return _read(request, "devkit", CARS_FOLDER, list_stanford_cars, None)


def read_aircraft(request: Request) -> Dataset:
    """FGVC-Aircraft 2013b, variants, with the boxes of its test images, downloaded if absent and no
    path was given.
    """
    return _read(request, "data/variants.txt", AIRCRAFT.folder, list_aircraft, AIRCRAFT)


def _read(
    request: Request,
    mark: str,
    folder: str,
    annotated: Callable[[Path], AnnotatedListing],
    archive: Archive | None,
) -> Dataset:
    """The data set in the folder that the request names, or in `folder` below it or below the data
    folder; `mark` is what such a folder holds.
    """
    base = request.data_dir if request.path is None else request.path
    root = next((place for place in (base, base / folder) if (place / mark).exists()), None)
    if root is None and request.path is None and archive is not None:
        root = obtain(archive, request.data_dir, request.progress)
    listed = annotated(root or request.path or base / folder)
    train, test, kept = read_parts(listed.listing, request, banner=listed.banner)
    boxes = place_boxes(*_boxes_and_sizes(listed, kept, request.skip_unreadable), size_of(request))
    return imagenet_protocol(request.name, train, test, boxes)


def _boxes_and_sizes(
    annotated: AnnotatedListing, kept: np.ndarray, skip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of the test images at `kept`, and the sizes of those images without the banner.

    Raises:
        ValueError: if a box is empty or lies wholly outside its image, unless bad files are to be
            skipped: then the box becomes that of nothing, left of the image, which `place_boxes`
            leaves out.
    """
    from PIL import Image

    files, edges, sizes = (
        [annotated.listing.test.files[i] for i in kept],
        annotated.edges[kept].copy(),
        [],
    )
    for i, file in enumerate(files):
        with Image.open(file) as opened:  # reads the header alone
            sizes.append((opened.width, opened.height - annotated.banner))
        left, top, right, bottom = edges[i].tolist()
        if not (max(left, 0) < min(right, sizes[i][0]) and max(top, 0) < min(bottom, sizes[i][1])):
            if not skip:
                raise ValueError(
                    f"{annotated.source} gives {file.name} the box {left:g}, {top:g}, {right:g},"
                    f" {bottom:g} (left, top, right, bottom), which is empty or outside its"
                    f" {sizes[i][0]} x {sizes[i][1]} pixels: get the file again, mend the line, or"
                    " skip what is unreadable to go without the box"
                )
            edges[i] = (-2, 0, -1, 1)
    return edges, np.array(sizes)


# CUB-200-2011


def list_cub200(root: Path) -> AnnotatedListing:
    """The official layout: lists of lines `<image> <value>`, and `images/<class>/<name>.jpg`.

    Classes are those of classes.txt in the order of their numbers, images in the order of
    images.txt.

    Raises:
        FileNotFoundError: if `root` or a file of the layout is missing.
        ValueError: if a list is malformed, lacks an image, names one that is absent, or a class
            that is unknown.
    """
    lists = ("image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")
    _check_layout(root, "CUB-200-2011", ("images.txt", *lists, "classes.txt", "images"))
    labels, split, source = (root / file for file in lists)
    names, numbered = _table(root / "images.txt"), _table(root / "classes.txt")
    numbers = sorted(numbered, key=lambda text: _number(root / "classes.txt", text))
    classes = _check_distinct(root / "classes.txt", [numbered[number] for number in numbers])
    position = {number: label for label, number in enumerate(numbers)}
    of_class, is_train, box = (_complete_table(file, names) for file in (labels, split, source))
    present = _files_below(root / "images")
    _check_named(root / "images.txt", names.values(), present, root / "images")
    rows = [
        (root / "images" / name, _position(labels, of_class[key], position), key)
        for key, name in names.items()
    ]
    train, test = ([row for row in rows if is_train[row[2]] == flag] for flag in ("1", "0"))
    if len(train) + len(test) < len(rows):
        raise ValueError(f"{split} must say 0 or 1 for every image")
    x, y, width, height = _floats(source, [box[row[2]] for row in test], 4).T
    edges = np.stack([x, y, x + width, y + height], axis=1)
    return AnnotatedListing(_listing(root, classes, train, test), edges, source)


# Stanford Cars


def list_stanford_cars(root: Path) -> AnnotatedListing:
    """The official layout, as torchvision reads it: `devkit/`, `cars_train/`, `cars_test/` and the
    labels of the test images, in the devkit or beside it; classes in the order of cars_meta.mat.

    Raises:
        FileNotFoundError: if `root` or a file of the layout is missing; the message says what to
            put where.
        ValueError: if a file is no MATLAB file of that kind, or names an absent image or an unknown
            class.
    """
    devkit, labels = root / "devkit", root / CARS_LABELS
    if not labels.is_file() and (devkit / CARS_LABELS).is_file():
        labels = devkit / CARS_LABELS
    meta, train = devkit / "cars_meta.mat", devkit / "cars_train_annos.mat"
    needed = (meta, train, labels, root / "cars_train", root / "cars_test")
    absent = [path for path in needed if not path.exists()]
    if absent:
        raise FileNotFoundError(
            f"there is no {absent[0]}. The server of Stanford Cars is gone, so nothing can be"
            " downloaded: put its folders cars_train/ and cars_test/ (the images themselves, no"
            " folder of the same name in between), devkit/ (cars_meta.mat, cars_train_annos.mat)"
            f" and the file {CARS_LABELS} into {root}"
        )
    names = _matlab(meta, "class_names", ())
    classes = _check_distinct(meta, [str(name) for name in names.tolist()])
    parts = (train, root / "cars_train"), (labels, root / "cars_test")
    learn, test = (_cars(source, folder, len(classes)) for source, folder in parts)
    edges = np.array([row[2] for row in test], dtype=np.float64).reshape(-1, 4)
    return AnnotatedListing(_listing(root, classes, learn, test), edges, labels)


def _cars(source: Path, folder: Path, n_classes: int) -> list[tuple[Path, int, tuple[float, ...]]]:
    """File, class and edges of the box of every image that an annotation file lists."""
    corners = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    table = _matlab(source, "annotations", (*corners, "class", "fname"))
    _check_named(source, (str(row["fname"]) for row in table), _files_below(folder), folder)
    position = {number: number - 1 for number in range(1, n_classes + 1)}
    rows = []
    for row in table:
        try:
            left, top, right, bottom, number = (float(row[field]) for field in (*corners, "class"))
        except (TypeError, ValueError):
            raise ValueError(
                f"{source} must give {row['fname']} a box and a class, one number each; get it"
                " again"
            ) from None
        label = _position(source, number, position)
        rows.append((folder / str(row["fname"]), label, (left - 1, top - 1, right, bottom)))
    return rows


def _matlab(file: Path, variable: str, fields: Sequence[str]) -> np.ndarray:
    """The variable of a MATLAB file, (N,), with at least the fields asked for."""
    from scipy.io import loadmat

    try:
        stored = np.atleast_1d(loadmat(file, squeeze_me=True)[variable])
    except Exception as error:  # SciPy has no one error for a file that is no MATLAB file
        raise ValueError(
            f"{file} is no MATLAB file with the variable {variable!r} ({type(error).__name__}:"
            f" {error}); get it again"
        ) from error
    missing = [field for field in fields if field not in (stored.dtype.names or ())]
    if missing:
        raise ValueError(
            f"{file} does not tell the {missing[0]!r} of its images; get it again (the labels of"
            f" the test images are in {CARS_LABELS}, not in cars_test_annos.mat)"
        )
    return stored


# FGVC-Aircraft


def list_aircraft(root: Path) -> AnnotatedListing:
    """The official layout, `data/`: training and validation images are for training; classes as in
    variants.txt.

    Raises:
        FileNotFoundError: if `root` or a file of the layout is missing.
        ValueError: if a list is malformed, or names an absent image or an unknown variant, or a box
            is missing.
    """
    lists = tuple(f"data/images_variant_{part}.txt" for part in ("trainval", "test"))
    others = ("data/images_box.txt", "data/images")
    _check_layout(root, "FGVC-Aircraft", ("data/variants.txt", *lists, *others))
    variants, (source, images) = root / "data/variants.txt", (root / name for name in others)
    classes = _check_distinct(variants, [line.strip() for line in _lines(variants)])
    position = {name: label for label, name in enumerate(classes)}
    present, parts = _files_below(images), []
    for file in (root / name for name in lists):
        rows = [
            (images / f"{name}.jpg", _position(file, variant, position), name)
            for name, variant in _table(file).items()
        ]
        _check_named(file, (row[0].name for row in rows), present, images)
        parts.append(rows)
    box = _complete_table(source, [row[2] for row in parts[1]])
    left, top, right, bottom = _floats(source, [box[row[2]] for row in parts[1]], 4).T
    # the first pixel is 1, 1; the last belongs to the box
    edges = np.stack([left - 1, top - 1, right, bottom], axis=1)
    return AnnotatedListing(_listing(root, classes, *parts), edges, source, BANNER)


# What the layouts share


def _check_layout(root: Path, name: str, needed: Iterable[str]) -> None:
    """Raise FileNotFoundError unless every part of the layout is there."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root} with {name}")
    for part in needed:
        if not (root / part).exists():
            raise FileNotFoundError(
                f"{root} is not the official layout of {name}, or not all of it: it has no {part}; "
                "remove the folder to have it made again, or unpack the archive anew"
            )


def _lines(file: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    return [line for line in read_text(file).splitlines() if line.strip()]


def _table(file: Path) -> dict[str, str]:
    """What a file says of each image or class: lines of a key, a space and a value; keys differ."""
    rows: dict[str, str] = {}
    for number, line in enumerate(_lines(file), start=1):
        key, _, value = line.strip().partition(" ")
        if not value.strip() or key in rows:
            raise ValueError(
                f"{file}, line {number}: {'no value' if key not in rows else 'a second one'} for"
                f" {key!r}; the file is damaged, get it again"
            )
        rows[key] = value.strip()
    if not rows:
        raise ValueError(f"{file} is empty; get it again")
    return rows


def _complete_table(file: Path, keys: Iterable[str]) -> dict[str, str]:
    """`_table`, with a line for every one of `keys`."""
    rows = _table(file)
    missing = next((key for key in keys if key not in rows), None)
    if missing is not None:
        raise ValueError(
            f"{file} has no line for the image {missing!r}; the file is incomplete, get it again"
        )
    return rows


def _floats(file: Path, values: Sequence[str], count: int) -> np.ndarray:
    """(N, count) float64 out of as many texts of numbers parted by spaces."""
    rows = []
    for value in values:
        try:
            rows.append([float(part) for part in value.split()])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != count or not np.isfinite(rows[-1]).all():
            raise ValueError(
                f"{file} must give every image {count} numbers, got {value!r}; get it again"
            )
    return np.array(rows, dtype=np.float64).reshape(-1, count)


def _check_distinct(file: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes, all different."""
    repeated = [name for place, name in enumerate(classes) if name in classes[:place]]
    if repeated:
        raise ValueError(f"{file} names the class {repeated[0]!r} more than once; get it again")
    return tuple(classes)


def _number(file: Path, text: str) -> int:
    """The number that a class goes by."""
    if not text.isdecimal():
        raise ValueError(f"{file} must number the classes, got {text!r}; get it again")
    return int(text)


def _position(file: Path, name: str | int, position: Mapping) -> int:
    """The label of a class by its name or number."""
    if name not in position:
        raise ValueError(
            f"{file} names the class {name!r}, which is not among the {len(position)} known ones;"
            " get it again"
        )
    return position[name]


def _files_below(folder: Path) -> set[str]:
    """The files below `folder`, as paths from there."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _check_named(file: Path, names: Iterable[str], present: set[str], folder: Path) -> None:
    """Raise ValueError unless every image that `file` names is in `folder`."""
    absent = [name for name in names if name not in present]
    if absent:
        raise ValueError(
            f"{file} names {absent[0]!r}, which is not in {folder} ({len(absent)} such images): the"
            " images are incomplete, unpack the archive anew"
        )


def _listing(
    root: Path, classes: tuple[str, ...], train: Sequence[tuple], test: Sequence[tuple]
) -> Listing:
    """The listing of two lists of file, label and whatever follows."""
    parts = (
        Split(tuple(row[0] for row in rows), tuple(row[1] for row in rows))
        for rows in (train, test)
    )
    return Listing(root, classes, *parts)
