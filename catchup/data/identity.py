"""What makes two data sets the same one: names, counts and a fingerprint of the images.

A run keeps the identity of its data, so that it is neither continued nor evaluated on others
without a word. Its mean and standard deviation are what an evaluation has to normalise with.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..utils.files import jsonable
from .files.stream import StreamedImages
from .images import Dataset, ImageSource

CHUNK = 4096  # images that are hashed at a time


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """The identity of a data set, as plain values.

    Args:
        name: as the data set was named; a label, for a folder may be moved.
        classes: the name of each class, in the order of the labels.
        train_count: training images.
        test_count: test images.
        shape: (C, H, W) of a training image before its crop.
        test_shape: (C, H, W) of a test image.
        mean: one number per channel, of pixels in [0, 1]: what the run normalises with.
        std: likewise the standard deviation.
        train_fingerprint: "pixels:" and the SHA-256 over the pixels and labels of the training
            images; of streamed ones, which are not decoded for it, "files:" and the SHA-256 over
            the path below the folder, the size in bytes and the label of each file.
        test_fingerprint: the same of the test images.
    """

    name: str
    classes: tuple[str, ...]
    train_count: int
    test_count: int
    shape: tuple[int, int, int]
    test_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_fingerprint: str
    test_fingerprint: str

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; `from_dict` gives it back."""
        return jsonable(asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DataIdentity":
        """The identity that a `run.json` or a checkpoint records.

        Raises:
            TypeError: if it is no dictionary of these fields.
        """
        tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **tuples})

    def differences(self, now: "DataIdentity") -> list[str]:
        """What differs between this data set and `now`, a phrase each; empty if they are the same.

        The name does not count. Of one data set in memory and the same one streamed the
        fingerprints cannot be compared; all else is.
        """
        before, after = self.as_dict(), now.as_dict()
        phrases = [
            f"{key.replace('_', ' ')} was {_short(before[key])}, now {_short(after[key])}"
            for key in before
            if key != "name" and "fingerprint" not in key and before[key] != after[key]
        ]
        for part in ("train", "test"):
            old, new = (which[f"{part}_fingerprint"] for which in (before, after))
            if old != new and old.split(":", 1)[0] == new.split(":", 1)[0]:
                phrases.append(f"the {part} images or their labels are others")
        return phrases


def identify(dataset: Dataset) -> DataIdentity:
    """The identity of a data set; reads every pixel of what lies in memory once.

    Raises:
        OSError: if a file of a streamed set is gone.
    """
    return DataIdentity(
        name=dataset.name,
        classes=tuple(dataset.train.classes),
        train_count=len(dataset.train),
        test_count=len(dataset.test),
        shape=dataset.train.shape,
        test_shape=dataset.test.shape,
        mean=tuple(map(float, dataset.mean)),
        std=tuple(map(float, dataset.std)),
        train_fingerprint=fingerprint(dataset.train),
        test_fingerprint=fingerprint(dataset.test),
    )


def fingerprint(images: ImageSource) -> str:
    """The fingerprint of images and labels in their order, as `DataIdentity` describes it."""
    digest = hashlib.sha256(images.labels.cpu().numpy().tobytes())
    if isinstance(images, StreamedImages):
        for name in images.names:
            size = os.stat(images.decoder.root / os.fsdecode(name)).st_size
            digest.update(b"%s\0%d\n" % (name, size))
        return f"files:{digest.hexdigest()}"
    for part in images.chunks(CHUNK):
        digest.update(part.pixels.contiguous().cpu().numpy())
    return f"pixels:{digest.hexdigest()}"


def check_same_data(before: object, now: Mapping[str, Any] | None, what: str) -> None:
    """Refuses a record of other data.

    Args:
        before: what the record holds of its data, as `DataIdentity.as_dict` makes it.
        now: likewise of the data at hand; None: not compared.
        what: the record, for the message: "run-0 holds a run".
    Raises:
        ValueError: if they are of different data, with what differs, or if `before` is no identity.
    """
    if now is None:
        return
    try:
        if not isinstance(before, dict):
            raise TypeError
        differences = DataIdentity.from_dict(before).differences(DataIdentity.from_dict(dict(now)))
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"{what} that does not say which data it is of: train it again") from None
    if differences:
        raise ValueError(
            f"{what} of other data ({'; '.join(differences)}): give the data of that run, or"
            " another folder"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]} …"
