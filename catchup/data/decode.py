"""Image files into one uint8 array, decoded once and cached beside their source.

The cache is `.catchup-cache-<size>-<fingerprint>.npz` in the folder itself; the fingerprint covers the name, size and
time of every file, so that a folder that has changed is decoded anew. It is written whole or not at all and read
without running code; where it is damaged it is made again, and where the folder cannot be written there is none.
"""

import contextlib
import hashlib
import os
import secrets
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .memory import check_memory
from .placement import placement

FORMAT = 1  # of the cache; raising it makes every older cache stale


def decoded(
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
        image_size: pixels; the shorter side is brought to it (bilinear, antialiased) and the centre square kept. None
            keeps every image as it is, and then all must have one size.
        banner: rows at the bottom of every file that are no part of the image, cut off before all else.
        skip_unreadable: leave out files that cannot be decoded, with a warning that names them.
        progress: show a bar while decoding, if standard error is a terminal.
    Returns:
        pixels: (K, C, H, W) uint8, C = 1 if every image is greyscale, else 3 (greyscale ones repeated, alpha dropped);
        skipped: (N - K,) int64, ascending, the positions in `files` that were left out.
    Raises:
        ValueError: if an image cannot be decoded and is not to be skipped, two differ in size, or they would not fit
            into memory (see `memory.py`).
    """
    if image_size is not None:  # asked before a million files are looked at
        check_memory(len(files), image_size, image_size, root)
    cache = root / f".catchup-cache-{image_size or 'full'}-{_fingerprint(root, files, banner)}.npz"
    stored = _read_cache(cache, len(files))
    pixels, skipped = stored or _decode(files, image_size, banner, skip_unreadable, progress)
    if len(skipped):
        names = [str(files[i].relative_to(root)) for i in skipped]
        if not skip_unreadable:
            raise ValueError(_unreadable(files[skipped[0]], "as when it was decoded first"))
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        warnings.warn(f"skipped {len(names)} unreadable images in {root}: {', '.join(names[:10])}{more}", stacklevel=2)
    if not stored:
        _write_cache(cache, pixels, skipped)
    return pixels, skipped


def _decode(files: Sequence[Path], image_size: int | None, banner: int, skip: bool,
            progress: bool) -> tuple[np.ndarray, np.ndarray]:
    """`decoded`, without the cache."""
    from tqdm import tqdm

    pixels, kept, skipped, grey = None, [], [], True
    for i, file in enumerate(tqdm(files, "decoding", unit=" images", disable=None if progress else True)):
        try:
            image = _read_image(file, image_size, banner)
        except Exception as error:  # each format of Pillow has its own: OSError, SyntaxError, EOFError, …
            if not skip:
                raise ValueError(_unreadable(file, error)) from error
            skipped.append(i)
            continue
        if pixels is None:
            check_memory(len(files), *image.shape[:2], file.parent)
            pixels = np.empty((len(files), 3, *image.shape[:2]), dtype=np.uint8)
        if image.shape[:2] != pixels.shape[2:]:
            raise ValueError(f"images differ in size: {files[kept[0]]} has {_size(pixels[0, 0])} pixels, "
                             f"{file} has {_size(image)}; give image_size to bring them to one size")
        pixels[len(kept)] = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        grey &= image.ndim == 2
        kept.append(i)
    if pixels is None:
        raise ValueError(f"none of {len(files)} images could be read, the first is {files[0]}")
    return np.ascontiguousarray(pixels[: len(kept), : 1 if grey else 3]), np.array(skipped, dtype=np.int64)


def _read_image(file: Path, image_size: int | None, banner: int = 0) -> np.ndarray:
    """One image as uint8: (H, W) if greyscale, else (H, W, 3); without the `banner` last rows of the file."""
    from PIL import Image

    with Image.open(file) as opened:
        if opened.mode.startswith(("I", "F")):
            raise ValueError(f"more than 8 bits a channel (mode {opened.mode})")
        image = opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
    if banner:
        if image.height <= banner:
            raise ValueError(f"{image.height} rows, of which the last {banner} are no part of the image")
        image = image.crop((0, 0, image.width, image.height - banner))
    if image_size is not None:
        width, height, left, top = placement(*image.size, image_size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + image_size, top + image_size))
    return np.asarray(image)


def _unreadable(file: Path, reason: object) -> str:
    return f"{file} cannot be read as an image ({reason}); mend or remove it, or skip unreadable images"


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _fingerprint(root: Path, files: Sequence[Path], banner: int) -> str:
    """16 hex digits over the name below `root`, the size and the time of every file, in order, and the banner."""
    digest = hashlib.sha256((f"format {FORMAT}\n" + (f"banner {banner}\n" if banner else "")).encode())
    for file in files:
        status = file.stat()
        digest.update(f"{file.relative_to(root).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _read_cache(cache: Path, n_files: int) -> tuple[np.ndarray, np.ndarray] | None:
    """What `_write_cache` wrote for as many files, or None where it is absent or damaged."""
    try:
        with np.load(cache, allow_pickle=False) as archive:  # checks the sum of every array
            pixels, skipped = archive["pixels"], archive["skipped"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    fits = pixels.dtype == np.uint8 and pixels.ndim == 4 and skipped.ndim == 1 and len(pixels) + len(skipped) == n_files
    return (pixels, skipped) if fits else None


def _write_cache(cache: Path, pixels: np.ndarray, skipped: np.ndarray) -> None:
    """Put the cache in place whole, in place of older ones of the same image size; do without where that fails."""
    unfinished = cache.with_name(f"{cache.stem}-{secrets.token_hex(4)}.tmp")
    try:
        with open(unfinished, "xb") as file:
            np.savez(file, pixels=pixels, skipped=skipped)
        os.replace(unfinished, cache)
        for stale in cache.parent.glob(f"{cache.name.rsplit('-', 1)[0]}-*.npz"):
            if stale != cache:
                stale.unlink()
    except OSError:  # a folder or disk that takes no more: the next run decodes again
        return
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
