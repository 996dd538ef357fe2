"""ImageNet (ILSVRC 2012) and ImageNet-O by folder; and any folder of images that has no training
part.

Sources: Russakovsky et al., 2015 (the layout of the devkit); Hendrycks et al., CVPR 2021
(ImageNet-O: folders named after 200 of ImageNet's classes, whose images show none of the 1 000).

Where it misleads: all of ImageNet's training images fit into memory at small sizes only
(`memory.py` says which), and are streamed at others; the validation images alone are read by
`load_images`. The labels of ImageNet-O are the classes that its images were mistaken for, good for
choosing logits and for nothing else.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..files.archives import IMAGENET_O, obtain
from ..files.folders import (
    Listing,
    Split,
    check_known,
    class_split,
    find_test_folder,
    list_class_folders,
    read_text,
    training_classes,
)
from ..files.walk import folder_names, report_passed_over, walk_images
from ..images import Dataset, Images
from .listed import imagenet_protocol, read_parts, read_test_part
from .readers import Request

FOLDER = "imagenet"
DEVKIT = "ILSVRC2012_devkit_t12/data"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
NO_SPLIT = Split((), ())
IMAGES_O = 2000  # of ImageNet-O as published


def read_imagenet(request: Request) -> Dataset:
    """ImageNet: training images out of `train/<wnid>/`, test images out of `val/`; it cannot be
    downloaded.
    """
    train, test, _ = read_parts(list_imagenet(_imagenet_root(request)), request)
    return imagenet_protocol(request.name, train, test)


def read_imagenet_val(request: Request, classes: Sequence[str] | None) -> Images:
    """ImageNet's validation images alone; `train/` may be missing."""
    listing = list_imagenet_val(_imagenet_root(request))
    return read_test_part(choose_classes(listing, classes), request)[0]


def read_imagenet_o(request: Request, classes: Sequence[str] | None) -> Images:
    """ImageNet-O, downloaded if it is absent and no path was given, and then all of it; labels are
    the folders'.
    """
    if request.path is None:
        listing = list_picture_folder(obtain(IMAGENET_O, request.data_dir, request.progress))
        if len(listing.test.files) != IMAGES_O:
            raise ValueError(
                f"{listing.root} holds {len(listing.test.files)} of ImageNet-O's {IMAGES_O} images:"
                " remove the folder to have it made again, or name it,"
                f" {request.name}:{listing.root}, to take what is there"
            )
    else:
        nested = request.path / IMAGENET_O.folder
        listing = list_picture_folder(nested if nested.is_dir() else request.path)
    return read_test_part(choose_classes(listing, classes), request)[0]


def read_pictures(request: Request, classes: Sequence[str] | None) -> Images:
    """Any folder as images without a training part: the test images of class folders, folders of
    images, or images.
    """
    test = find_test_folder(request.folder)
    if test is not None and (request.folder / "train").is_dir():
        listing = list_class_folders(request.folder)
        # its cache lies beside the images themselves
        listing = Listing(test, listing.classes, NO_SPLIT, listing.test)
    else:
        listing = list_picture_folder(request.folder)
    return read_test_part(choose_classes(listing, classes), request, keep_size=True)[0]


def _imagenet_root(request: Request) -> Path:
    """The folder with ImageNet: the path of the request, or `imagenet/` in the data folder."""
    return request.data_dir / FOLDER if request.path is None else request.path


def list_imagenet(root: Path) -> Listing:
    """Both splits of the usual layout, `train/<wnid>/` and `val/`; classes are the folders of
    `train/`, sorted, which is the order of torchvision's models.

    Raises:
        FileNotFoundError: if a folder is missing; the message says what to put where.
        ValueError: if a class has no images, or a validation image is of a class that `train/`
            lacks.
    """
    if not (root / "train").is_dir():
        raise FileNotFoundError(_instructions(root, "train/"))
    classes = training_classes(root / "train")
    val = list_imagenet_val(root, classes)
    return Listing(root, classes, class_split(root / "train", classes, deep=False), val.test)


def list_imagenet_val(root: Path, classes: tuple[str, ...] | None = None) -> Listing:
    """The validation images, in folders `val/<wnid>/`, or flat as published and then with the
    devkit beside `val/`.

    Args:
        classes: of the training images; None takes those that are found, sorted.
    Returns:
        A listing without training images, its root `val/`.
    Raises:
        FileNotFoundError: if `val/` is missing, or flat without a devkit.
        ValueError: if a class is empty, unknown or missing, or the devkit does not fit the images.
    """
    folder = root / "val"
    if not folder.is_dir():
        raise FileNotFoundError(_instructions(root, "val/"))
    names = folder_names(folder)
    if not names:
        return _flat_val(root, classes)
    check_known(names, classes or names, folder, root / "train")
    _check_whole(root, classes or (), names)
    classes = classes or names
    return Listing(folder, classes, NO_SPLIT, class_split(folder, classes, deep=False))


def _flat_val(root: Path, classes: tuple[str, ...] | None) -> Listing:
    """The validation images as published: one folder, the class of each in the devkit."""
    files = walk_images(root / "val", deep=False).images
    meta, source = root / DEVKIT / "meta.mat", root / DEVKIT / TRUTH
    if not files or not meta.is_file() or not source.is_file():
        raise FileNotFoundError(
            f"{root / 'val'} holds"
            f" {'no images' if not files else 'images, but no folder for each class'}: sort them"
            " into folders val/<wnid>/, or leave them flat and unpack ILSVRC2012_devkit_t12.tar.gz"
            f" into {root}, for {source} to tell their classes"
        )
    wnids, truth = _wnids(meta), read_text(source).split()
    named = [_true_wnid(file, truth, wnids, source) for file in files]
    classes = classes or tuple(sorted(wnids.values()))
    position = {wnid: label for label, wnid in enumerate(classes)}
    check_known(named, position, root / "val", root / "train")
    _check_whole(root, classes, named)
    labels = tuple(position[wnid] for wnid in named)
    return Listing(root / "val", classes, NO_SPLIT, Split(files, labels))


def _check_whole(root: Path, classes: Sequence[str], names: Sequence[str]) -> None:
    """ValueError unless every one of the classes is found among the validation images."""
    absent = sorted(set(classes).difference(names))
    if absent:
        raise ValueError(
            f"{root / 'val'} has no images of {len(absent)} of the {len(classes)} classes,"
            f" {absent[0]!r} among them: unpack ILSVRC2012_img_val.tar whole, or remove them from"
            f" {root / 'train'}"
        )


def _true_wnid(file: Path, truth: Sequence[str], wnids: dict[str, str], source: Path) -> str:
    """The class of ILSVRC2012_val_<number>.JPEG: line <number> of the ground truth, a key of
    `wnids`.
    """
    digits = file.stem.rpartition("_")[2]
    number = int(digits) if digits.isdecimal() else 0
    if not 1 <= number <= len(truth) or truth[number - 1] not in wnids:
        raise ValueError(
            f"{source} does not tell the class of {file}: a name like ILSVRC2012_val_00000001.JPEG"
            " is wanted, and a line with a class of meta.mat for its number"
        )
    return wnids[truth[number - 1]]


def _wnids(meta: Path) -> dict[str, str]:
    """The wnid of every class by its ILSVRC2012_ID; synsets with children are no classes."""
    from scipy.io import loadmat

    try:
        rows = loadmat(meta, squeeze_me=True)["synsets"]
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in leaves}
    except Exception as error:  # SciPy has no one error for a file that is no MATLAB file
        raise ValueError(
            f"{meta} is not the table of classes of the ILSVRC 2012 devkit ({type(error).__name__}:"
            f" {error}); unpack the devkit anew"
        ) from error


def list_picture_folder(root: Path) -> Listing:
    """A folder of folders of images, one for each class, or a folder of images, which are then one
    class of its name.

    Images may lie deeper inside their class folder. Classes are sorted by name; folders without
    images are passed over.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no images, or both images and folders of images.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    flat, passed_over = walk_images(root, deep=False)
    passed_over = Counter(passed_over)
    files: list[Path] = []
    labels: list[int] = []
    classes: list[str] = []
    for name in folder_names(root):
        images, passed = walk_images(root / name)
        labels += [len(classes)] * len(images)
        files += images
        classes += [name] if images else []
        passed_over.update(passed)
    report_passed_over(root, passed_over)
    if flat and files:
        raise ValueError(f"{root} holds both images and folders of images: move one of them away")
    if not flat and not files:
        raise ValueError(f"{root} holds no images, nor folders of images")
    if flat:
        name = root.resolve().name or "images"
        return Listing(root, (name,), NO_SPLIT, Split(flat, (0,) * len(flat)))
    return Listing(root, tuple(classes), NO_SPLIT, Split(tuple(files), tuple(labels)))


def choose_classes(listing: Listing, classes: Sequence[str] | None) -> Listing:
    """The listing with the test images of these classes alone; labels and classes stay. None keeps
    all.

    Raises:
        ValueError: if a class is not one of the listing's, or none of them has an image.
    """
    if classes is None:
        return listing
    unknown = [name for name in classes if name not in listing.classes]
    if unknown:
        raise ValueError(f"{listing.root} has no class {unknown[0]!r}")
    wanted = {listing.classes.index(name) for name in classes}
    pairs = zip(listing.test.files, listing.test.labels)
    kept = [(file, label) for file, label in pairs if label in wanted]
    if not kept:
        raise ValueError(f"{listing.root} has no images of the {len(wanted)} classes asked for")
    return Listing(listing.root, listing.classes, NO_SPLIT, Split(*zip(*kept)))


def _instructions(root: Path, part: str) -> str:
    return (
        f"there is no folder {root / part.rstrip('/')}. ImageNet may not be downloaded without an"
        " account: get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org and"
        f" unpack them into {root / 'train'}/<wnid>/ and {root / 'val'}/<wnid>/"
    )
