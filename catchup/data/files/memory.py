"""Whether images fit into memory, asked before they are decoded: what is resident lies there whole,
as uint8.

The limit is `SHARE` of what the operating system says is available now, and of what is left of the
limit of a container (cgroup). The rest is for the model, for copies of a subset and for everything
else that runs.

Where it misleads: other processes may take the memory a moment later; and a GPU, where the images
may be moved, is not asked.
"""

from collections.abc import Callable
from pathlib import Path

SHARE = 0.75
REMEDY = (
    "stream them (loader stream), or read a folder with fewer images of each class (links to the"
    " files will do)"
)
CONTAINER = Path("/sys/fs/cgroup")


def available_bytes(container: Path = CONTAINER) -> int | None:
    """How much memory can be had without swapping; None where nobody can tell."""
    import psutil  # comes with accelerate

    left, free = _bytes_left(container), psutil.virtual_memory().available
    return free if left is None else min(free, left)


def _bytes_left(container: Path) -> int | None:
    """What a cgroup's limit leaves (version 2, then 1); None where there is no limit."""
    for folder, limit, used in (
        (container, "memory.max", "memory.current"),
        (container / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            taken = int((folder / used).read_text()) - _idle_cache(folder / "memory.stat")
            return max(0, int((folder / limit).read_text()) - taken)
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return None


def _idle_cache(stat: Path) -> int:
    """The bytes of cached files that the system gives back when asked; 0 where it does not say."""
    try:
        rows = map(str.split, stat.read_text().splitlines())
    except OSError:
        return 0
    idle = ("inactive_file", "total_inactive_file")
    return next((int(row[1]) for row in rows if row and row[0] in idle), 0)


def fits(
    count: int,
    height: int,
    width: int,
    *,
    channels: int = 3,
    available: Callable[[], int | None] = available_bytes,
) -> bool:
    """Whether so many images may lie in memory; the arguments are those of `check_memory`."""
    free = available()
    return free is None or count * channels * height * width <= SHARE * free


def check_memory(
    count: int,
    height: int,
    width: int,
    what: object,
    *,
    channels: int = 3,
    remedy: str = REMEDY,
    available: Callable[[], int | None] = available_bytes,
) -> None:
    """Raise unless so many images fit.

    Args:
        count: of images.
        height, width: of each, in pixels.
        channels: of each, one byte a pixel.
        what: where they come from, for the message.
        remedy: what else to do, for the message.
        available: how much memory there is, in bytes.
    Raises:
        ValueError: if they need more than `SHARE` of it; the message names both amounts and a size
            that would fit.
    """
    needed, free = count * channels * height * width, available()
    if fits(count, height, width, channels=channels, available=lambda: free):
        return
    side = int((SHARE * free / (count * channels)) ** 0.5)
    smaller = f"give an image_size of at most {side}, or " if side >= 8 else ""
    raise ValueError(
        f"{count} images of {height} x {width} out of {what} need {needed / 2**30:.1f} GiB of"
        f" memory, and {SHARE * free / 2**30:.1f} GiB may be used ({SHARE:.0%} of what is free):"
        f" {smaller}{remedy}"
    )
