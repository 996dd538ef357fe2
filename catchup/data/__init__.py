"""Labelled images by name, in memory or streamed from the disk, as uint8, and what training does to
them by batches.

`load` reads a data set, `subset` keeps a balanced part of it, `augment` crops, flips and normalises
on the training device; `load_images` reads images from elsewhere. Nothing is downloaded before
`load`, `load_images` or `fetch` is called with the name of a set that is not there.
"""

from .augment import Augmentation, normalise, to_float
from .boxes import Boxes
from .files.stream import StreamedImages
from .images import Dataset, Images, subset
from .sources import SourceRow, describe, fetch, load, load_images, names

__all__ = [
    "Augmentation",
    "Boxes",
    "Dataset",
    "Images",
    "SourceRow",
    "StreamedImages",
    "describe",
    "fetch",
    "load",
    "load_images",
    "names",
    "normalise",
    "subset",
    "to_float",
]
