"""Image files into one uint8 array, decoded once and cached beside their source.

The cache is `.catchup-cache-<size>-<fingerprint>.npz` in the folder itself; the fingerprint covers
the name, size and time of every file, so that a folder that has changed is decoded anew. It is
written whole or not at all and read without running code; where it is damaged it is made again, and
where the folder cannot be written there is none.
"""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...utils.files import remove_abandoned, temporary_of
from ...utils.progress import bar
from .memory import check_memory
from .npz import read_npz
from .placement import placement

if TYPE_CHECKING:
    from PIL import Image

FORMAT = 1  # of the cache; raising it makes every older cache stale
# Pillow would hand others to programs (Ghostscript)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# of a file, which may claim any size, and of what it becomes; Pillow only warns above it
MAX_PIXELS = 2**30 // 12


def decode_images(
    root: Path,
    files: Sequence[Path],
    *,
    image_size: int | None = None,
    banner: int = 0,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """All `files` as one array, from the cache in `root` where there is one.

    Args:
        root: the folder that all files lie in.
        image_size: pixels; the shorter side is brought to it (bilinear, antialiased) and the centre
            square kept. None keeps every image as it is, and then all must have one size.
        banner: rows at the bottom of every file that are no part of the image, cut off before all
            else.
        skip_unreadable: leave out files that cannot be decoded, with a warning that names them.
        progress: show a bar while decoding, if standard error is a terminal.
    Returns:
        pixels: (K, C, H, W) uint8, C = 1 if every image is greyscale, else 3 (greyscale ones
            repeated, alpha dropped);
        skipped: (N - K,) int64, ascending, the positions in `files` that were left out.
    Raises:
        ValueError: if an image cannot be decoded and is not to be skipped, two differ in size, or
            they would not fit into memory (see `memory.py`).
    """
    if image_size is not None:  # asked before a million files are looked at
        check_memory(len(files), image_size, image_size, root)
    cache = root / f".catchup-cache-{image_size or 'full'}-{fingerprint(root, files, banner)}.npz"
    stored = _read_cache(cache, len(files))
    pixels, skipped, lasting = (
        (*stored, True) if stored else _decode(files, image_size, banner, skip_unreadable, progress)
    )
    report_skipped(root, files, skipped, skip_unreadable)
    if not stored and lasting:
        write_cache(cache, pixels=pixels, skipped=skipped)
    return pixels, skipped


def report_skipped(
    root: Path, files: Sequence[Path], skipped: np.ndarray, skip_unreadable: bool
) -> None:
    """Warns of the `skipped` ones among the files, by name; ValueError if none was to be
    skipped.
    """
    if not len(skipped):
        return
    if not skip_unreadable:
        raise ValueError(unreadable_message(files[skipped[0]], "as when it was decoded first"))
    names = [str(files[i].relative_to(root)) for i in skipped]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    warnings.warn(
        f"skipped {len(names)} unreadable images in {root}: {', '.join(names[:10])}{more}",
        stacklevel=3,
    )


def _decode(
    files: Sequence[Path], image_size: int | None, banner: int, skip: bool, progress: bool
) -> tuple[np.ndarray, np.ndarray, bool]:
    """`decode_images`, without the cache; and whether it would be the same another time."""
    pixels, kept, skipped, grey, lasting = None, [], [], True, True
    for i, file in enumerate(bar(files, "decoding", " images", progress, terminal=True)):
        try:
            image = read_image(file, image_size, banner)
        except Exception as error:
            # each format of Pillow has its own: OSError, SyntaxError, EOFError, …
            if not skip:
                raise ValueError(unreadable_message(file, error)) from error
            skipped.append(i)
            lasting &= not is_passing(error)
            continue
        if pixels is None:
            check_memory(len(files), *image.shape[:2], file.parent)
            pixels = np.empty((len(files), 3, *image.shape[:2]), dtype=np.uint8)
        check_size(file, image.shape, files[kept[0]] if kept else file, pixels.shape[2:])
        pixels[len(kept)] = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        grey &= image.ndim == 2
        kept.append(i)
    if pixels is None:
        raise ValueError(f"none of {len(files)} images could be read, the first is {files[0]}")
    kept_pixels = np.ascontiguousarray(pixels[: len(kept), : 1 if grey else 3])
    return kept_pixels, np.array(skipped, dtype=np.int64), lasting


def is_passing(error: Exception) -> bool:
    """Whether the system, not the file, was at fault: read another time, the image may be there."""
    return isinstance(error, OSError) and error.errno is not None


def read_image(file: Path, image_size: int | None, banner: int = 0) -> np.ndarray:
    """One image as uint8: (H, W) if greyscale, else (H, W, 3); without the `banner` last rows of
    the file.
    """
    from PIL import Image

    if not file.is_file():  # a pipe would never answer
        raise ValueError("it is no file")
    with Image.open(file, formats=FORMATS) as opened:
        if opened.mode.startswith(("I", "F")) or _is_deep(opened):
            raise ValueError(
                f"more than 8 bits a channel (mode {opened.mode}), of which half would be lost; "
                "save it with 8 bits"
            )
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(
                f"{opened.width} x {opened.height} pixels, more than {MAX_PIXELS // 10**6} million"
            )
        image = opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
    if banner:
        if image.height <= banner:
            raise ValueError(
                f"{image.height} rows, of which the last {banner} are no part of the image"
            )
        image = image.crop((0, 0, image.width, image.height - banner))
    if image_size is not None:
        width, height, left, top = placement(*image.size, image_size)
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"{image.width} x {image.height} pixels, too long and narrow for {image_size}"
                " pixels"
            )
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + image_size, top + image_size))
    return np.asarray(image)


def _is_deep(opened: "Image.Image") -> bool:
    """Whether the file has more than 8 bits a channel where Pillow keeps the upper 8 alone."""
    for tile in getattr(opened, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        most = arguments[1] if tile[0] in ("ppm", "ppm_plain") and len(arguments) > 1 else 0
        if ";16" in str(arguments[0]) or (isinstance(most, int) and most > 255):
            return True
    return False


def unreadable_message(file: Path, reason: object) -> str:
    return (
        f"{file} cannot be read as an image ({str(reason)[:150]}); mend or remove it, or skip"
        " unreadable images"
    )


def check_size(file: Path, size: Sequence[int], other: object, wanted: Sequence[int]) -> None:
    """ValueError unless an image has the height and the width of another one (or all others)."""
    if tuple(size[:2]) != tuple(wanted):
        raise ValueError(
            f"images differ in size: {other} has {wanted[1]} x {wanted[0]} pixels, {file} has"
            f" {size[1]} x {size[0]}; give image_size to bring them to one size"
        )


def are_positions(values: np.ndarray, count: int) -> bool:
    """Whether an array of ours holds different positions among `count` files, ascending."""
    if values.dtype != np.int64 or values.ndim != 1:
        return False
    return bool((np.diff(values, prepend=-1, append=count) > 0).all())


def fingerprint(root: Path, files: Sequence[Path], banner: int) -> str:
    """16 hex digits over the name below `root`, the size and the time of every file, in order, and
    the banner.
    """
    digest = hashlib.sha256(
        (f"format {FORMAT}\n" + (f"banner {banner}\n" if banner else "")).encode()
    )
    for file in files:
        try:
            status = file.stat()
            state = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError:  # a link to nowhere, or a file that went meanwhile: reading it will tell
            state = "gone"
        name = file.relative_to(root).as_posix()
        digest.update(f"{name}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _read_cache(cache: Path, n_files: int) -> tuple[np.ndarray, np.ndarray] | None:
    """What `write_cache` wrote for as many files, or None where it is absent or damaged."""
    pixels, skipped = read_npz(cache, ("pixels", "skipped")) or (np.empty(0), np.empty(0))
    fits = (
        pixels.dtype == np.uint8
        and pixels.ndim == 4
        and pixels.size > 0
        and pixels.shape[1] in (1, 3)
        and len(pixels) + len(skipped) == n_files
        and are_positions(skipped, n_files)
    )
    return (pixels, skipped) if fits else None


def write_cache(cache: Path, **arrays: np.ndarray) -> None:
    """Put the cache in place whole, in place of older ones of the same image size; do without where
    that fails.
    """
    # of whatever fingerprint: the folder may have changed since a decoding was killed
    remove_abandoned(cache.parent, "..catchup-cache-*.tmp", age_s=60)
    unfinished = temporary_of(cache)
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, **arrays)
        os.replace(unfinished, cache)
        for stale in cache.parent.glob(f"{cache.name.rsplit('-', 1)[0]}-*.npz"):
            if stale != cache:
                stale.unlink()
    except OSError:  # a folder or disk that takes no more: the next run decodes again
        return
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
