"""Mean corruption error: a model on the nineteen corruptions of CIFAR-C, generated or as published.

Source: Hendrycks & Dietterich, ICLR 2019; Kang, Kang & Kim, AAAI 2024, report the plain mean of the
top-1 error over 19 corruptions and 5 severities of CIFAR-100-C. Hendrycks & Dietterich divide by
AlexNet's errors first; nobody does on CIFAR.

Where it misleads: generated images follow the definitions but not the dice of the published arrays,
and their frost is synthetic (`corruptions.weather.frost`), so errors on them compare models
measured alike, not to the last digit with printed ones; give `published` for those. The mean over
some of the corruptions is not the mCE.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from ..data import Images
from ..data.augment import to_float
from ..data.files.npz import read_npz
from ..models.inference import PixelModel, predict, top_k_error
from ..utils.choices import pick
from ..utils.files import write_atomically
from ..utils.progress import bar
from .corruptions import CORRUPTIONS, SEVERITIES, quantise

# of what the corruptions generate; a change of any of them raises it, and old caches are made again
VERSION = 1
# pixels corrupted together; part of the definition, since chance is drawn per part
AT_ONCE = 200 * 32 * 32


def corruption_errors(
    model: PixelModel,
    images: Images,
    *,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    cache: Path | None = None,
    published: Path | None = None,
    batch_size: int = 500,
    progress: bool = False,
) -> dict:
    """Top-1 error under every corruption and severity, and the mean of all.

    Args:
        model: from images in [0, 1] to logits, on the device of `images`.
        images: the clean test images.
        corruptions, severities: which of them.
        seed: of everything that chance decides while images are generated; the same for every model
            compared.
        cache: folder in which generated images are kept (made if need be) and looked for: one npz
            for each corruption and severity, named after images, seed and version. None keeps
            nothing.
        published: folder of CIFAR-100-C (or CIFAR-10-C) as published: labels.npy and NAME.npy, five
            severities stacked. Nothing is generated then, and `seed` and `cache` play no part.
        batch_size: images per forward pass, >= 1; changes memory and time, not the result.
        progress: a bar on standard error.
    Returns:
        {"mce": mean of all the errors below, percent; "corruptions": {name: [error in percent, one
        per severity]}; "severities": those asked for; "source": "generated" or "published"}.
    Raises:
        ValueError: for an unknown corruption or severity, images that cannot be corrupted, or
            published arrays that do not belong to `images`. FileNotFoundError: naming the published
            files that are not there.
        FloatingPointError: as `predict`.
    """
    names, levels = _choose(corruptions, severities)
    if published is not None:
        arrays = _open_published(Path(published), images, names)
    errors: dict[str, list[float]] = {name: [] for name in names}
    kept_in = None if cache is None or published is not None else _Cache(Path(cache), images, seed)
    pairs = [(name, severity) for name in names for severity in levels]
    for name, severity in bar(pairs, "corruptions", "set", progress, leave=False):
        if published is not None:
            pixels = _take_severity(arrays[name], severity, images)
        else:
            pixels = _generate(images.pixels, name, severity, seed, kept_in)
        logits = predict(model, replace(images, pixels=pixels), batch_size)
        errors[name].append(top_k_error(logits, images.labels))
    return {
        "mce": fmean(error for row in errors.values() for error in row),
        "corruptions": errors,
        "severities": levels,
        "source": "generated" if published is None else "published",
    }


def corrupt(pixels: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """Images under one corruption, as the published arrays hold them; the same for the same
    arguments, on every device up to rounding.

    Images are corrupted in parts of a fixed number, each with dice of its own, so whole parts do
    not depend on how many images follow.

    Args:
        pixels: (N, C, H, W) uint8; C = 1 or 3, sides of at least 8.
        name: one of `corruptions.CORRUPTIONS`.
        severity: 1 to 5.
        seed: any integer.
    Returns:
        uint8, same shape and device.
    Raises:
        ValueError: as the corruption.
    """
    corrupt = CORRUPTIONS[pick("corruption", name, CORRUPTIONS)]
    part = max(1, AT_ONCE // (pixels.shape[2] * pixels.shape[3]))
    corrupted = []
    for number, some in enumerate(pixels.split(part)):
        dice = _dice(seed, name, severity, number)
        corrupted.append(quantise(corrupt(to_float(some), severity, dice)))
    return torch.cat(corrupted)


def corruption_tiles(
    image: Tensor, corruptions: Sequence[str] = tuple(CORRUPTIONS), seed: int = 0
) -> dict[str, Tensor]:
    """One image under every corruption: {name: (5, C, H, W) uint8, severity 1 to 5}, for
    `plot_corruption_grid`.

    Args:
        image: (C, H, W) uint8.
        corruptions, seed: as for `corruption_errors`.
    Raises:
        ValueError: as `corrupt`.
    """
    return {
        name: torch.cat([corrupt(image[None], name, severity, seed) for severity in SEVERITIES])
        for name in _choose(corruptions, SEVERITIES)[0]
    }


def _choose(corruptions: Sequence[str], severities: Sequence[int]) -> tuple[list[str], list[int]]:
    """The corruptions, each once, in the order of the registry, and the severities, ascending."""
    wanted = {pick("corruption", name, CORRUPTIONS) for name in corruptions}
    if not wanted or not severities or not set(severities) <= set(SEVERITIES):
        raise ValueError(
            f"at least one corruption and severities of 1 to 5 are needed, got {list(corruptions)}"
            f" and {list(severities)}"
        )
    return [name for name in CORRUPTIONS if name in wanted], sorted(set(severities))


def _dice(seed: int, name: str, severity: int, part: int) -> torch.Generator:
    """The generator of one part; told apart by a hash, so that no two corruptions share their
    noise.
    """
    digest = hashlib.sha256(f"{seed} {name} {severity} {part}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _generate(
    pixels: Tensor, name: str, severity: int, seed: int, cache: "_Cache | None"
) -> Tensor:
    """`corrupt`, from the cache where it holds them, which is filled where it does not."""
    cached = None if cache is None else cache.read(name, severity, tuple(pixels.shape))
    if cached is not None:
        return cached.to(pixels.device)
    made = corrupt(pixels, name, severity, seed)
    if cache is not None:
        cache.write(name, severity, made)
    return made


class _Cache:
    """Generated images on disk: NAME-SEVERITY-FINGERPRINT.npz, which holds `pixels` and the whole
    fingerprint.

    Args:
        folder: made if it does not exist.
        images, seed: whose corrupted versions these are.
    Raises:
        ValueError: if `folder` is a file.
    """

    def __init__(self, folder: Path, images: Images, seed: int):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"cache must be a folder, got the file {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        head = f"{VERSION} {AT_ONCE} {seed} {tuple(images.pixels.shape)} "
        content = hashlib.sha256(head.encode())
        content.update(images.pixels.cpu().contiguous().numpy())
        self.folder, self.fingerprint = folder, content.hexdigest()

    def path(self, name: str, severity: int) -> Path:
        return self.folder / f"{name}-{severity}-{self.fingerprint[:16]}.npz"

    def read(self, name: str, severity: int, shape: tuple[int, ...]) -> Tensor | None:
        """(N, C, H, W) uint8 on the CPU; None if there are none, or what is there is damaged.
        Nothing is executed.
        """
        held = read_npz(self.path(name, severity), ("pixels", "fingerprint"))
        if held is None:
            return None
        pixels, told = held[0], str(held[1])
        ours = told == f"{name} {severity} {self.fingerprint}"
        whole = ours and pixels.dtype == np.uint8 and pixels.shape == shape
        return torch.from_numpy(pixels) if whole else None

    def write(self, name: str, severity: int, pixels: Tensor) -> None:
        buffer = io.BytesIO()
        fingerprint = f"{name} {severity} {self.fingerprint}"
        np.savez(buffer, pixels=pixels.cpu().numpy(), fingerprint=fingerprint)
        write_atomically(self.path(name, severity), buffer.getvalue())


def check_published(folder: Path, images: Images) -> None:
    """Raises as `corruption_errors` unless the published arrays of all corruptions are there and
    belong to `images`.
    """
    _open_published(Path(folder), images, list(CORRUPTIONS))


def _open_published(folder: Path, images: Images, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The published arrays of these corruptions, memory-mapped, after making sure that they belong
    to `images`.
    """
    files = {name: folder / f"{name}.npy" for name in ["labels", *names]}
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}: unpack CIFAR-100-C.tar as published, all of it, "
            "or move it away, and name none (`published`, --cifar-c-dir), to generate the images"
        )
    arrays = {name: _open_array(path) for name, path in files.items()}
    labels, count = arrays.pop("labels"), len(images)
    belongs = (
        f"they belong to the {len(labels) // 5} test images in their published order, five"
        " severities one after the other: give exactly those images"
    )
    if labels.shape != (5 * count,):
        raise ValueError(
            f"{files['labels']} has shape {labels.shape}, {count} images need ({5 * count},);"
            f" {belongs}"
        )
    if not np.array_equal(labels, np.tile(images.labels.cpu().numpy(), 5)):
        raise ValueError(
            f"{files['labels']} holds other labels than the images, or in another order; {belongs}"
        )
    shape = (5 * count, *images.pixels.shape[2:], images.pixels.shape[1])
    for name, array in arrays.items():
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError(
                f"{files[name]} must be uint8 {shape}, got {array.dtype} {array.shape}"
            )
    return arrays


def _open_array(path: Path) -> np.ndarray:
    """The array in a file, memory-mapped; nothing in it is executed."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} is cut off or no NumPy array: unpack it again ({error})"
        ) from None


def _take_severity(array: np.ndarray, severity: int, images: Images) -> Tensor:
    """(N, C, H, W) uint8 on the device of `images`: one severity of a published array."""
    count = len(images)
    some = array[(severity - 1) * count : severity * count].transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(some)).to(images.pixels.device)
