"""What streaming costs: images per second, and the highest memory of all its processes, against the
number of images.

    python -m benchmarks.streaming FOLDER --images 500 1000 2000 --workers 0 2

Every measurement is a process of its own, because one that was large once does not become small
again. Memory is what the process and its workers hold together, looked at ten times a second: a
page that several of them share counts once, and program files, which all processes of the machine
share, do not count (Linux: Pss_Anon + Pss_Shmem). Elsewhere it is the resident set size, which
counts both.

Where it misleads: the files come from the system's cache when they were read before, and no model
is trained, so that this is the most that a training can get. The first load of a folder also looks
at every file (`survey.py`).
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch

from catchup.data.files.pool import usual_workers
from catchup.data.sources import load

LOOK_S = 0.1


def footprint(
    folder: str | Path,
    images: Sequence[int],
    *,
    workers: Sequence[int | None] = (None,),
    loaders: Sequence[str] = ("stream",),
    image_size: int | None = None,
    batch_size: int = 128,
) -> list[dict]:
    """One pass over the first so many training images of a folder of classes, for every
    combination, in new processes.

    Args:
        folder: as for folder:PATH.
        images: how many, each at least 1 and at most what the folder has.
        workers: processes that decode; None takes as many as are usual. It changes nothing for the
            loader resident.
        loaders: stream, resident.
        image_size: pixels, as for `load`.
        batch_size: images.
    Returns:
        One row each: loader, workers, images, shape (C, H, W), decoded_mib (what the images need in
        memory), load_s (of the listing and, the first time, the look at every file), images_per_s,
        base_mib (of the process before it loads) and peak_mib.
    Raises:
        ValueError: with the message of a measurement that failed.
    """
    rows = []
    for loader, count, number in ((a, b, c) for a in loaders for b in workers for c in images):
        asked = {
            "folder": str(folder),
            "loader": loader,
            "workers": count,
            "images": number,
            "image_size": image_size,
            "batch_size": batch_size,
        }
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.streaming", "--one", json.dumps(asked)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ValueError(f"the measurement {asked} failed: {done.stderr.strip()[-500:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def make_pictures(root: Path, images: int, side: int, *, test: int = 2, seed: int = 0) -> Path:
    """A folder of two classes with JPEG files of side x side pixels, smooth with some noise, as
    photographs are.

    Args:
        root: made.
        images: for training, over both classes.
        test: likewise.
        side: pixels, a multiple of 8.
    """
    from PIL import Image

    chance = np.random.default_rng(seed)
    for split, count in (("train", images), ("test", test)):
        for i in range(count):
            rough = Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
                (side, side)
            )
            pixels = np.asarray(rough) + chance.normal(0, 6, (side, side, 1))
            file = root / split / f"class{i % 2}" / f"{i:06d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return root


def _measure(asked: dict) -> dict:
    """One row of `footprint`, in this process."""
    workers = usual_workers() if asked["workers"] is None else asked["workers"]
    with _peak_mib() as memory:
        started = time.perf_counter()
        train = load(
            f"folder:{asked['folder']}",
            image_size=asked["image_size"],
            loader=asked["loader"],
            workers=workers,
            progress=False,
        ).train
        if asked["images"] > len(train):
            raise ValueError(
                f"{asked['folder']} has {len(train)} training images, asked for {asked['images']}"
            )
        train = train.part(torch.arange(asked["images"]))
        loaded, order = time.perf_counter(), torch.randperm(len(train)).split(asked["batch_size"])
        with closing(train.batches(order)) as batches:
            seen = sum(len(batch) for batch in batches)
        took = time.perf_counter() - loaded
    return {
        "loader": asked["loader"],
        "workers": workers,
        "images": seen,
        "shape": train.shape,
        "decoded_mib": seen * int(np.prod(train.shape)) / 2**20,
        "load_s": loaded - started,
        "images_per_s": seen / took,
        **memory,
    }


@contextmanager
def _peak_mib() -> Iterator[dict]:
    """Afterwards `base_mib` and `peak_mib` of this process and its workers."""
    found = {"base_mib": _tree_mib()}
    found["peak_mib"], over = found["base_mib"], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            found["peak_mib"] = max(found["peak_mib"], _tree_mib())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def _tree_mib() -> float:
    """Memory of this process and its workers, in MiB."""
    return sum(
        map(_held_mib, (os.getpid(), *(worker.pid for worker in multiprocessing.active_children())))
    )


def _held_mib(number: int) -> float:
    """Memory of the process of that number, in MiB; 0 if it has ended."""
    import psutil

    try:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        sizes = {
            name: int(rest.split()[0])
            for name, _, rest in (line.partition(":") for line in lines[1:])
        }
        return (sizes["Pss_Anon"] + sizes["Pss_Shmem"]) / 1024
    except (OSError, KeyError):
        pass
    try:
        return psutil.Process(number).memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints a line for each measurement."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", nargs="?", type=Path, help="class folders, as for folder:PATH")
    parser.add_argument("--images", nargs="+", type=int, default=[500, 1000, 2000])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--loaders", nargs="+", choices=("stream", "resident"), default=["stream"])
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.one:
        return print(json.dumps(_measure(json.loads(given.one))))
    if given.folder is None:
        parser.error("name a folder")
    for row in footprint(
        given.folder,
        given.images,
        workers=given.workers,
        loaders=given.loaders,
        image_size=given.image_size,
    ):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
