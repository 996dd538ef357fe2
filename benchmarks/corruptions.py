"""How long our corruptions take beside those of the library `imagecorruptions`, with the CIFAR
numbers in both.

    pip install imagecorruptions-imaug        (into an environment of its own; nothing else here
                                              needs it)
    python -m benchmarks.corruptions [--out FILE]

Both run on one thread, in turns, on the same random images of 32 x 32 pixels, and what is compared
is processor time, so that other work on the machine does not count. Differs: the library has no
affine map in `elastic_transform`, and its frost reads a photograph for every image.
"""

import argparse
import inspect
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType

import numpy as np
import torch

from catchup.measures.corruptions import CONSTANTS, CORRUPTIONS, SEVERITIES, quantise
from catchup.measures.corruptions.constants import STANDARD
from catchup.utils.files import write_json
from catchup.utils.provenance import surroundings


def reference_functions() -> dict[str, Callable]:
    """{name: f(PIL image, severity) -> array or image} of `imagecorruptions`, with the numbers of
    CIFAR-C in place of its own; `elastic_transform`, whose formula is another, is left as it is.

    Raises:
        ImportError: if the library is not installed.
    """
    from imagecorruptions import corruptions as library

    changed = {}
    for name, numbers in CONSTANTS.items():
        if name == "zoom_blur":
            numbers = f"[{', '.join(f'np.arange(1, {end}, 0.01)' for end in numbers)}]"
        source, count = re.subn(
            r"c = \[.*?\]\[\s*severity - 1\]",
            f"c = {numbers}[severity - 1]",
            inspect.getsource(getattr(library, name)),
            count=1,
            flags=re.DOTALL,
        )
        if not count and name != "elastic_transform":
            raise ImportError(
                f"imagecorruptions.{name} is written in a way this program does not know; use "
                "imagecorruptions-imaug 1.1.5"
            )
        code = next(
            part for part in compile(source, name, "exec").co_consts if inspect.iscode(part)
        )
        theirs = getattr(library, name)
        changed[name] = FunctionType(code, library.__dict__, name, theirs.__defaults__)
    return changed


def measure(count: int = 200, theirs_count: int = 20) -> dict[str, tuple[float, float]]:
    """{name: (milliseconds per image of the library, ours)}: processor time, mean over the five
    severities.

    Args:
        count: images that ours corrupts at once.
        theirs_count: images the library is timed on, one by one.
    """
    import cv2
    from PIL import Image

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pixels = torch.randint(
        0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = pixels / 255
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels[:theirs_count]]
    reference, found = reference_functions(), {}
    for name, ours in CORRUPTIONS.items():
        dice, times = torch.Generator().manual_seed(0), []
        # compiled, and tables made, before the clock starts
        (reference[name](pictures[0], 1), ours(images, 1, dice))
        for severity in SEVERITIES:
            slow = _seconds(lambda: [np.uint8(reference[name](one, severity)) for one in pictures])  # noqa: B023
            quick = _seconds(lambda: quantise(ours(images, severity, dice)))  # noqa: B023
            times.append((slow / len(pictures), quick / count))
        found[name] = tuple(1e3 * value for value in np.mean(times, axis=0).tolist())
    return found


def _seconds(work: Callable[[], object]) -> float:
    """Processor time of two calls, the shorter one."""
    times = []
    for _ in range(2):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def totals(found: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """{which: (milliseconds per image of the library, ours)}, summed over several of what
    `measure` found.
    """
    groups = {"all 19": found, "standard 15": STANDARD, "all but frost": set(found) - {"frost"}}
    return {
        label: tuple(sum(found[name][which] for name in names) for which in (0, 1))
        for label, names in groups.items()
    }


def main(arguments: Sequence[str]) -> None:
    """Prints a line for each corruption and the totals."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.corruptions", description=main.__doc__
    )
    parser.add_argument("--images", type=int, default=200, help="that ours corrupts at once")
    parser.add_argument(
        "--theirs", type=int, default=20, help="that the library is timed on, one by one"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    chosen = parser.parse_args(arguments)
    found = measure(chosen.images, chosen.theirs)
    for name, (theirs, ours) in found.items():
        print(f"{name:20} {theirs:8.3f} ms  {ours:8.3f} ms  {theirs / ours:6.1f}")
    for label, (theirs, ours) in totals(found).items():
        print(
            f"{label:20} {theirs:8.3f} ms  {ours:8.3f} ms  {theirs / ours:6.1f}; 10 000 images x 5:"
            f" {theirs * 50:.0f} s, {ours * 50:.0f} s"
        )
    if chosen.out:
        write_json(
            chosen.out,
            {
                "images": chosen.images,
                "theirs_images": chosen.theirs,
                "ms": found,
                "total_ms": totals(found),
                **surroundings(),
            },
        )


if __name__ == "__main__":
    main(sys.argv[1:])
