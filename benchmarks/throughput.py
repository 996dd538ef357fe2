"""`python -m benchmarks.throughput`: the speed of training, where a step's time goes, and how it
grows; side by side, in one call.

The parts are functions of their own: `benchmarks.loops`, and those of `benchmarks.scaling`.
"""

import json as json_format
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import scaling
from benchmarks.command import call, check_results_file
from benchmarks.loops import Workload, describe, throughput
from catchup.training.machine.accelerator import make_accelerator
from catchup.training.seeds import fork_rng
from catchup.utils.choices import pick
from catchup.utils.files import write_json
from catchup.utils.progress import bar
from catchup.utils.provenance import surroundings

PARTS = ("throughput", "mix", "scaling", "streaming", "precision")


def measure(
    load: Workload | None = None,
    parts: Sequence[str] = ("throughput", "mix"),
    *,
    out: Path | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> dict:
    """Measures, and writes what was found so far after every part.

    Args:
        load: what is trained; None takes the defaults.
        parts: of `PARTS`: "throughput" (see above), "mix" (what each piece of Catch-up Mix costs),
            "scaling" (how cost and memory grow with images, classes, width), "streaming" (images
            per second and memory of the loader that reads files while it trains), "precision" (the
            error with bf16 beside that with fp32).
        out: a JSON file; None writes nothing.
        folder: of classes, to stream; None: made up.
        progress: a bar on standard error.
    Returns:
        {"load": its fields, "device", "computed_in", one entry for each part, "versions",
        "hardware", …}.
    Raises:
        ValueError: before anything is measured, for an unknown part, a number out of range, or an
            `out` that holds something else.
    """
    load, asked = load or Workload(), [pick("part", part, PARTS) for part in parts]
    if out is not None:
        check_results_file(Path(out), "load", "throughput")
    settings = load.settings
    results = {
        "load": asdict(load),
        "computed_in": settings.precision,
        "device": make_accelerator(settings).device.type,
    }
    work = {
        "throughput": throughput,
        "mix": scaling.pieces,
        "scaling": scaling.sweeps,
        "streaming": partial(scaling.streaming, folder=folder),
        "precision": scaling.precisions,
    }
    for part in bar(asked, "bench", "part", progress):
        with fork_rng(0):
            results[part] = work[part](load)
        if out is not None:
            write_json(Path(out), {**results, **surroundings()})
    return {**results, **surroundings()}


def report(results: Mapping) -> str:
    """What was measured, as text."""
    load = results["load"]
    head = (
        f"{load['model']} width {load['width']}, {load['image_size']}×{load['image_size']}, batch"
        f" {load['batch']}, {load['classes']} classes; {results['device']},"
        f" {results['hardware']['threads']} threads, ours in {results['computed_in']}"
    )
    told: dict[str, Callable] = {"throughput": describe, **scaling.TEXTS}
    return "\n\n".join([head, *(told[part](results[part]) for part in PARTS if part in results)])


def main(
    load: Workload = Workload(),  # noqa: B008 (frozen)
    parts: tuple[str, ...] = ("throughput", "mix"),
    out: Path | None = None,
    folder: Path | None = None,
    json: bool = False,
) -> None:
    """Measure how fast training is here: beside the loop most people write, and beside what the
    model itself takes.

    Args:
        load: What is trained, and how often.
        parts: throughput, mix (the pieces of Catch-up Mix), scaling (growth with images, classes,
            width), streaming (images out of files), precision (the error with bf16). Minutes for
            all of them on a CPU.
        out: JSON file for the results, written after every part; results of an earlier call are
            replaced.
        folder: Class folders of images to stream; pictures are made up, if none is named.
        json: Print the results as JSON instead of text.
    """
    results = measure(load, parts, out=out, folder=folder)
    print(json_format.dumps(results) if json else report(results))


if __name__ == "__main__":
    raise SystemExit(call(main, "throughput"))
