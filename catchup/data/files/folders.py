"""Which files a folder of images holds and what each one shows: two layouts, read without opening
an image.

Class folders: `train/<class>/…` and `test/<class>/…` or `val/<class>/…`, the layout of
torchvision's ImageFolder. Tiny-ImageNet, as published by Stanford's CS231n: `wnids.txt`,
`train/<wnid>/images/…`, `val/images/…` with the labels and the boxes in `val/val_annotations.txt`.
"""

import warnings
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..boxes import MarkedBox
from .walk import folder_names, is_image, report_passed_over, walk_images

MEND = "mend the line or take the official file"


@dataclass(frozen=True)
class Split:
    """The image files of one split, the class of each, and the boxes around their objects where
    there are any.
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    boxes: tuple[MarkedBox, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The files of a data set under `root`; labels are positions in `classes`."""

    root: Path
    classes: tuple[str, ...]
    train: Split
    test: Split


def list_class_folders(root: Path) -> Listing:
    """The layout of one folder per class; `test/` is taken where there are both `test/` and `val/`.

    Classes are the folders in `train/`, sorted by name. Images may lie deeper inside a class
    folder; which files are images, and what is passed over, is said in `walk`.

    Raises:
        FileNotFoundError: if `root`, its `train/`, or both `test/` and `val/` are missing.
        ValueError: if there are fewer than two classes, a class folder without images, or a test
            class that the training images lack.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    if not (root / "train").is_dir():
        raise FileNotFoundError(f"{root} has no folder train/ with one folder of images per class")
    test = find_test_folder(root)
    if test is None:
        raise FileNotFoundError(f"{root} has neither a folder test/ nor a folder val/")
    classes = training_classes(root / "train")
    check_known(folder_names(test), classes, test, root / "train")
    return Listing(root, classes, class_split(root / "train", classes), class_split(test, classes))


def find_test_folder(root: Path) -> Path | None:
    """`test/` in the folder, or else `val/`; None where there is neither."""
    return next((root / split for split in ("test", "val") if (root / split).is_dir()), None)


def training_classes(folder: Path) -> tuple[str, ...]:
    """The classes of a folder with one folder for each; ValueError if they are less than two."""
    classes = folder_names(folder)
    if len(classes) < 2:
        raise ValueError(
            f"{folder} needs one folder of images for each of at least 2 classes, "
            f"got {', '.join(classes) or 'none'}"
        )
    return classes


def check_known(names: Iterable[str], classes: Container[str], folder: Path, train: Path) -> None:
    """ValueError unless all classes found in `folder` are among those in `train`."""
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ValueError(f"{folder} holds the class {unknown[0]!r}, which {train} lacks")


def list_tiny_imagenet(root: Path) -> Listing:
    """The official Tiny-ImageNet layout, any number of images and classes; classes in the order of
    `wnids.txt`.

    The boxes of the test images are read too. The official files hold boxes whose corners coincide,
    left with right or top with bottom, all of them on the border: what is left of an object that
    the square picture cut away. These are left out with one warning that counts them.

    Raises:
        FileNotFoundError: if a file or folder of the layout is missing.
        ValueError: if a class has no training images, an annotation names an absent image or an
            unknown class or does not give a box, or an image has no annotation, or two.
    """
    for part in ("wnids.txt", "train", "val/images", "val/val_annotations.txt"):
        if not (root / part).exists():
            raise FileNotFoundError(
                f"{root} is not the official Tiny-ImageNet layout: it has no {part}. Of an archive "
                "that was half unpacked, remove the folder and unpack it anew, or have it made "
                f"again; class folders are read as folder:{root}"
            )
    classes = tuple(read_text(root / "wnids.txt").split())
    if len(classes) < 2:
        raise ValueError(f"{root / 'wnids.txt'} must name at least 2 classes, got {len(classes)}")
    path = next((wnid for wnid in classes if Path(wnid).name != wnid), None)
    if path is not None:
        raise ValueError(
            f"{root / 'wnids.txt'} names {path[:80]!r}, which is no name of a folder in train/: "
            f"{MEND}"
        )
    repeated = [wnid for place, wnid in enumerate(classes) if wnid in classes[:place]]
    if repeated:
        raise ValueError(f"{root / 'wnids.txt'} names {repeated[0]!r} more than once")
    missing = [wnid for wnid in classes if not (root / "train" / wnid).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{root / 'train'} has no folder for the class {missing[0]!r} of wnids.txt"
        )
    train, val = class_split(root / "train", classes), _read_annotations(root / "val", classes)
    return Listing(root, classes, train, val)


def read_text(file: Path) -> str:
    """What a text file says; ValueError naming it if it is none, OSError if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text file ({error}); get it again") from None


def class_split(folder: Path, classes: Sequence[str], *, deep: bool = True) -> Split:
    """The images of every class that has a folder; those below it too, if `deep`."""
    files: list[Path] = []
    labels: list[int] = []
    passed_over: Counter[str] = Counter()
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            continue
        images, passed = walk_images(folder / name, deep=deep)
        if not images:
            raise ValueError(
                f"the class folder {folder / name} holds no images: it is incomplete, or to be"
                " removed"
            )
        files += images
        labels += [label] * len(images)
        passed_over.update(passed)
    report_passed_over(folder, passed_over)
    if not files:
        raise ValueError(f"{folder} holds no class folders")
    return Split(tuple(files), tuple(labels))


def _read_annotations(folder: Path, classes: tuple[str, ...]) -> Split:
    """The images that `val_annotations.txt` lists, in its order; a line is name, wnid and box,
    parted by tabs.
    """
    source = folder / "val_annotations.txt"
    position = {wnid: label for label, wnid in enumerate(classes)}
    present = {path.name for path in (folder / "images").iterdir()}
    names, labels, boxes, cut_away = [], [], [], 0
    for number, line in enumerate(read_text(source).splitlines(), start=1):
        name, wnid = [*line.split("\t"), ""][:2]
        if name not in present:
            raise ValueError(
                f"{source} names {name[:80]!r} in line {number}, which is not in"
                f" {folder / 'images'}: {MEND}"
            )
        if wnid not in position:
            raise ValueError(
                f"{source} gives {name} the class {wnid[:80]!r} in line {number}, which is not in "
                f"wnids.txt: {MEND}"
            )
        place = f"line {number} of {source}"
        left, top, right, bottom = _corners(line, place)
        if left == right or top == bottom:
            cut_away += 1
        else:
            boxes.append(MarkedBox(len(names), (left, top, right + 1, bottom + 1), place))
        names.append(name)
        labels.append(position[wnid])
    if not names:
        raise ValueError(f"{source} lists no images")
    _check_once(source, names, folder / "images", present)
    if cut_away:
        warnings.warn(
            f"{cut_away} of {len(names)} boxes in {source} have corners that coincide: nothing is"
            " left of the object in the picture, and these images have no box",
            stacklevel=2,
        )
    return Split(tuple(folder / "images" / name for name in names), tuple(labels), tuple(boxes))


def _check_once(source: Path, names: Sequence[str], folder: Path, present: set[str]) -> None:
    """ValueError unless every image in `folder` has one line in `source`, whose lines name
    `names`.
    """
    if len(set(names)) < len(names):
        twice, count = Counter(names).most_common(1)[0]
        raise ValueError(f"{source} names {twice!r} in {count} lines: {MEND}")
    left = sorted(filter(is_image, present.difference(names)))
    if left:
        raise ValueError(
            f"{source} has no line for {len(left)} images in {folder}, {left[0]!r} among them: it"
            f" is cut off, or the images are of another set; {MEND}"
        )


def _corners(line: str, place: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a line of `val_annotations.txt`, all inclusive, in pixels."""
    fields = line.split("\t")[2:]
    try:
        left, top, right, bottom = map(int, fields)
    except ValueError:
        raise ValueError(
            f"{place} gives no box: after name and class it needs left, top, right and bottom,"
            f" whole numbers parted by tabs, got {str(fields)[:80]}; {MEND} (images without boxes"
            " are read as folder:PATH)"
        ) from None
    if not (0 <= left <= right and 0 <= top <= bottom):
        raise ValueError(
            f"{place} gives a box that is empty or begins outside the image: left {left}, top"
            f" {top}, right {right}, bottom {bottom} (inclusive); {MEND}"
        )
    return left, top, right, bottom
