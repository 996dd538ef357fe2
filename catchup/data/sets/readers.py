"""From a request to a `Dataset`: one function for each kind of source."""

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...utils.choices import pick
from ..augment import Augmentation
from ..boxes import Boxes
from ..channels import channel_statistics, statistics_of
from ..files.archives import TINY, Archive, obtain
from ..files.folders import Split, list_class_folders, list_tiny_imagenet
from ..files.placement import place_boxes
from ..files.splits import Request, split_images
from ..images import Dataset, Images, subset_indices
from ..protocol import NORMALISATIONS
from .shapes import CUES, draw_scenes, images_of, test_sets

# What AlignMixup's public code takes for CIFAR-100 and Tiny-ImageNet alike; taken for CIFAR-10 too.
CIFAR_MEAN, CIFAR_STD = NORMALISATIONS["cifar"]
SHAPES_RHO, SHAPES_TRAIN, SHAPES_TEST = 0.95, 10240, 2048


def read_digits(request: Request) -> Dataset:
    """scikit-learn's 1 797 handwritten digits, (1, 8, 8); 50 of each class are the test images,
    always the same.
    """
    table = _digits_table()
    ink = (table[:, :-1] * (255 / 16)).round().astype(np.uint8).reshape(-1, 1, 8, 8)
    pixels = _resize(torch.from_numpy(ink), request.image_size)
    labels = torch.from_numpy(table[:, -1]).to(torch.int64)
    every = Images(pixels, labels, tuple(map(str, range(10))))
    test = subset_indices(every, 50, seed=0)
    train = torch.ones(len(every), dtype=torch.bool).index_fill(0, test, False).nonzero()[:, 0]
    mean, std = channel_statistics(every.take(train).pixels)
    augmentation = Augmentation(pad=_pad(1, 8, request.image_size))
    return Dataset(request.name, every.take(train), every.take(test), mean, std, augmentation)


def _digits_table() -> np.ndarray:
    """(1797, 65): 64 ink values 0 … 16 and the digit, from the file in scikit-learn.

    The file is read without `import sklearn.datasets`, which takes four seconds; where it lies
    elsewhere, with it.
    """
    file = Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    stored = load_digits()
    return np.column_stack([stored.data, stored.target])


def read_shapes(request: Request) -> Dataset:
    """Generated shapes, (3, 32, 32); `argument` is the bias, RHO or RHO:CUE (see
    `catchup.data.sets.shapes`).

    The test images are those whose cue is broken, so that the test error is that of recognising the
    shape.

    Raises:
        ValueError: if the bias is not a number in [0, 1] or the cue is unknown.
    """
    rho, cue = parse_shapes_bias(request.argument)
    train = images_of(draw_scenes(SHAPES_TRAIN, 0, rho, cue))
    mean, std = channel_statistics(train.pixels)
    train, test = (
        Images(_resize(part.pixels, request.image_size), part.labels, part.classes)
        for part in (train, test_sets(SHAPES_TEST, 0, cue)["broken"])
    )
    augmentation = Augmentation(pad=_pad(4, 32, request.image_size), flip=True)
    return Dataset(request.name, train, test, mean, std, augmentation)


def parse_shapes_bias(argument: str | None) -> tuple[float, str]:
    """ρ and cue of "0.9", "0.9:colour" or None, for which they are 0.95 and the texture.

    Raises:
        ValueError: if ρ is no number in [0, 1] or the cue is unknown.
    """
    rho, colon, cue = ("" if argument is None else argument).partition(":")
    try:
        share = float(rho) if argument is not None else SHAPES_RHO
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(
            "the data set 'shapes' takes a bias in [0, 1] after the colon, as in shapes:0.9 or "
            f"shapes:0.9:colour, got {rho!r}"
        )
    return share, pick("cue", cue, CUES) if colon else CUES[0]


def read_cifar(request: Request) -> Dataset:
    """CIFAR-10 or CIFAR-100, (3, 32, 32), from the published Python archive, downloaded if it is
    absent.
    """
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[request.name]
    folder = request.data_dir / kind.base_folder
    if not folder.is_dir():
        archive = Archive(kind.url, kind.tgz_md5, kind.filename, kind.base_folder)
        obtain(archive, request.data_dir, request.progress)
    try:
        parts = [kind(request.data_dir, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise ValueError(
            f"{folder} is damaged: a file is missing or its checksum is wrong; "
            "remove the folder to have it made again"
        ) from error
    train, test = (_cifar_images(part, request.image_size) for part in parts)
    augmentation = Augmentation(pad=_pad(4, 32, request.image_size), flip=True)
    return Dataset(request.name, train, test, CIFAR_MEAN, CIFAR_STD, augmentation)


def read_tiny_imagenet(request: Request) -> Dataset:
    """Tiny-ImageNet, (3, 64, 64), from its official layout, downloaded if it is absent and no path
    was given.

    With the boxes of its test images (see `list_tiny_imagenet`), which follow the images where
    these are resized.
    """
    if request.path is not None:
        root = tiny_root(request.path) or request.path
    else:
        root = tiny_root(request.data_dir) or request.data_dir / TINY.folder
        if not root.is_dir():
            obtain(TINY, request.data_dir, request.progress)
    listing = list_tiny_imagenet(root)
    train, test, kept, _ = split_images(listing, request)
    augmentation = Augmentation(pad=_pad(4, 64, request.image_size), flip=True)
    boxes = _tiny_boxes(listing.test, kept, request.image_size, test.shape[1:])
    return Dataset(request.name, train, test, CIFAR_MEAN, CIFAR_STD, augmentation, boxes)


def _tiny_boxes(
    split: Split, kept: np.ndarray, image_size: int | None, size: tuple[int, int]
) -> Boxes:
    """The boxes of the images of `split` at the positions `kept`, which have become `size` (H, W).

    Raises:
        ValueError: if a box leaves the image as it is stored.
    """
    from PIL import Image

    edges = np.tile((-2.0, 0.0, -1.0, 1.0), (len(kept), 1))
    sizes = np.tile(size[::-1], (len(kept), 1))
    position = {file: i for i, file in enumerate(kept.tolist())}
    marked = [(position[box.file], box) for box in split.boxes if box.file in position]
    for i, box in marked:
        if image_size is not None:
            with Image.open(split.files[box.file]) as opened:  # reads the header alone
                sizes[i] = opened.size
        if box.edges[2] > sizes[i][0] or box.edges[3] > sizes[i][1]:
            raise ValueError(
                f"{box.place} gives a box that leaves the image of {sizes[i][0]} x {sizes[i][1]}"
                f" pixels: {box.edges} (left, top, right, bottom, the last two exclusive); mend the"
                " line or take the official file"
            )
        edges[i] = box.edges
    if image_size is not None:
        # what lies left of the image, as nothing does, is left out
        return place_boxes(edges, sizes, image_size)
    image = torch.tensor([i for i, _ in marked], dtype=torch.int64)
    return Boxes(torch.from_numpy(edges)[image].float(), image, size)


def read_folder(request: Request) -> Dataset:
    """Any class folders; mean and std are those of the training pixels, the crop moves by an eighth
    of the height.
    """
    train, test, _, counts = split_images(list_class_folders(request.folder), request, counted=True)
    mean, std = statistics_of(counts)
    augmentation = Augmentation(pad=train.shape[1] // 8, flip=True)
    return Dataset(request.name, train, test, mean, std, augmentation)


def tiny_root(folder: Path) -> Path | None:
    """`folder` or its `tiny-imagenet-200/`, whichever holds `wnids.txt`."""
    return next(
        (root for root in (folder, folder / TINY.folder) if (root / "wnids.txt").is_file()), None
    )


def _cifar_images(part, image_size: int | None) -> Images:
    """A torchvision CIFAR part as `Images`; it holds (N, H, W, C)."""
    pixels = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return Images(_resize(pixels, image_size), torch.tensor(part.targets), tuple(part.classes))


def _resize(pixels: Tensor, image_size: int | None) -> Tensor:
    """(N, C, H, H) uint8 brought to (N, C, image_size, image_size), bilinear and antialiased."""
    if image_size in (None, pixels.shape[2]):
        return pixels
    return F.interpolate(pixels, size=(image_size, image_size), mode="bilinear", antialias=True)


def _pad(pad: int, side: int, image_size: int | None) -> int:
    """The padding of images of `side` pixels, in proportion where they are brought to another
    size.
    """
    return pad if image_size is None else max(1, round(pad * image_size / side))
