"""Where the time of a step goes, and how it and the memory grow: the parts of `python -m
benchmarks.throughput` beside the throughput.

Times are the process's own (on a GPU the wall clock's, after waiting for it), medians over rounds
in which the variants take turns. An exponent is the slope of the least-squares line through the
logarithms; 1 is linear growth.

Where it misleads: while fixed costs are large beside the growing ones an exponent is below 1, and
rises with the size.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

from benchmarks.loops import Trainer, Workload
from benchmarks.timing import clock_of, peak_memory, ratios
from catchup.data import load as load_data
from catchup.data import subset
from catchup.hooks.blocks import find_blocks
from catchup.hooks.layers import captured
from catchup.measures.statistics import interval
from catchup.mixers import CatchUpMix, make
from catchup.mixers.catchup import (
    filter_influence,
    keep_mask,
    mix_channels,
    relative_filter_influence,
)
from catchup.training.settings import Settings
from catchup.training.trainer import fit, model_of
from catchup.utils.text import as_text
from catchup.utils.threads import single_threaded

# images: in batches
SWEEPS = {
    "images": (1, 2, 4, 8),
    "classes": (10, 100, 1000, 10000),
    "width": (16, 32, 64, 128, 256),
    "batch": (16, 32, 64, 128, 256),
}
STREAMED, SIDE = (500, 1000, 2000), 224  # pictures, and pixels of their sides
SEEDS = tuple(range(16))


def pieces(load: Workload) -> dict:
    """What Catch-up Mix adds to a step, block by block, in pieces: norms, ranking, gather and
    select, their backward.

    Returns:
        {"step_ms": of a plain step, "blocks": [{"block", "shape", "norms_ms", "ranking_ms",
        "select_ms", "backward_ms"}], "share_percent": {piece: of a plain step, mean over the
        blocks, "all": their sum}}.
    """
    trainer = Trainer(load, "baseline")
    with single_threaded():
        step = _median(trainer.epoch, load.rounds, trainer.device) / load.steps
        rows = [
            {"block": name, "shape": list(maps.shape), **_pieces_of(maps, load.rounds)}
            for name, maps in _block_outputs(trainer).items()
        ]
    shares = {
        key.removesuffix("_ms"): 100 * mean(row[key] for row in rows) / (1e3 * step)
        for key in rows[0]
        if key.endswith("_ms")
    }
    return {
        "step_ms": 1e3 * step,
        "blocks": rows,
        "share_percent": {**shares, "all": sum(shares.values())},
    }


def _block_outputs(trainer: Trainer) -> dict[str, Tensor]:
    """The output of every block for one batch, in the memory format of the run."""
    model = trainer.run.accelerator.unwrap_model(trainer.run.model)
    with torch.no_grad(), captured(model, *find_blocks(model)) as maps:
        model(trainer.batch[0])
    return {name: seen[0] for name, seen in maps.items()}


def _pieces_of(maps: Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds of each piece on these maps."""
    partner = torch.randperm(len(maps), device=maps.device)
    influence = filter_influence(maps)
    rfi = relative_filter_influence(influence, influence[partner])
    keep = keep_mask(rfi, 0.5)
    leaf = maps.detach().requires_grad_()
    mixed = mix_channels(leaf, partner, keep)
    gradient = torch.randn_like(mixed)

    def ranking() -> None:
        keep_mask(relative_filter_influence(influence, influence[partner]), 0.5)

    def backward() -> None:
        torch.autograd.grad(mixed, leaf, gradient, retain_graph=True)

    work = {
        "norms_ms": lambda: filter_influence(maps),
        "ranking_ms": ranking,
        "select_ms": lambda: mix_channels(maps, partner, keep),
        "backward_ms": backward,
    }
    return {name: 1e3 * _median(call, rounds, maps.device) for name, call in work.items()}


def sweeps(load: Workload) -> list[dict]:
    """How cost grows.

    Returns:
        One row for each sweep: {"cost": what is timed, "over": what grows, "sizes", "seconds",
        "exponent", "exponent_se", "peak_bytes": of tensors, or None, "memory_exponent",
        "memory_exponent_se"}. Timed are a training epoch over the number of batches, a step of
        Catch-up Mix over the classes, and its mixing of one block's maps, forward and backward,
        over their channels (the width) and over the batch.
    """
    device = Trainer(replace(load, steps=1), "baseline").device
    rows = (
        ("training epoch", "images", lambda batches: _epoch_of(load, batches * load.batch)),
        ("Catch-up step", "classes", partial(_step_of, load)),
        ("Catch-up mixing", "width", partial(_mixing_of, load.batch, device)),
        ("Catch-up mixing", "batch", lambda size: _mixing_of(size, device, 64)),
    )
    return [_sweep(cost, over, work, load, device) for cost, over, work in rows]


def _epoch_of(load: Workload, images: int) -> Callable[[], None]:
    return Trainer(replace(load, steps=-(-images // load.batch)), "baseline").epoch


def _step_of(load: Workload, classes: int) -> Callable[[], None]:
    return Trainer(replace(load, classes=classes, steps=1), "catchup").epoch


def _mixing_of(batch: int, device: torch.device, channels: int) -> Callable[[], None]:
    """Mixing of ReLU-like maps (batch, channels, 32, 32), forward and backward."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(batch, channels, 32, 32, generator=generator).relu_().to(device)
    maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient, mixer = torch.ones_like(maps), CatchUpMix(layers=(1,), seed=0)

    def go() -> None:
        drawn = mixer.draw(batch, 1, mixer.rng)
        torch.autograd.grad(mixer.mix(maps, drawn).maps, maps, gradient)

    return go


def _sweep(
    cost: str,
    over: str,
    work_of: Callable[[int], Callable[[], None]],
    load: Workload,
    device: torch.device,
) -> dict:
    """One row of `sweeps`: all sizes in turn."""
    work = {size: work_of(size) for size in SWEEPS[over]}
    with single_threaded():
        found = ratios(work, load.rounds, clock_of(device))
    seconds = [found[size]["time_s"] for size in SWEEPS[over]]
    peaks = [_peak(work_of, size, device) for size in SWEEPS[over]]
    sizes = [size * (load.batch if over == "images" else 1) for size in SWEEPS[over]]
    slope, error = exponent(sizes, seconds)
    row = {
        "cost": cost,
        "over": over,
        "sizes": sizes,
        "seconds": seconds,
        "exponent": slope,
        "exponent_se": error,
        "peak_bytes": peaks,
        "memory_exponent": None,
        "memory_exponent_se": None,
    }
    if all(peaks):
        row["memory_exponent"], row["memory_exponent_se"] = exponent(sizes, peaks)
    return row


def _peak(
    work_of: Callable[[int], Callable[[], None]], size: int, device: torch.device
) -> int | None:
    """The peak of tensor memory of one piece of work, its data and model included."""
    with peak_memory(device) as peak:
        work_of(size)()
    return peak.bytes


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """Slope of log cost against log size by least squares, and its standard error (residuals over n
    − 2).

    Args:
        sizes, costs: at least three each, > 0.
    Raises:
        ValueError: if there are fewer, a number is not positive, or all sizes are one.
    """
    if (
        len(sizes) != len(costs)
        or len(sizes) < 3
        or min(*sizes, *costs) <= 0
        or len(set(sizes)) < 2
    ):
        raise ValueError(
            f"an exponent needs at least three positive sizes and costs, got {sizes} and {costs}"
        )
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    middle, level = mean(x), mean(y)
    spread = sum((value - middle) ** 2 for value in x)
    slope = sum((value - middle) * (cost - level) for value, cost in zip(x, y)) / spread
    left = sum((cost - level - slope * (value - middle)) ** 2 for value, cost in zip(x, y))
    return slope, math.sqrt(left / (len(x) - 2) / spread)


def streaming(
    load: Workload, folder: Path | None = None, counts: Sequence[int] = STREAMED
) -> list[dict]:
    """Images per second and peak memory of the loader that reads files while it trains, and of the
    one that does not.

    Args:
        load: its batch and workers count.
        folder: a folder of classes; None: pictures made for it, gone afterwards.
        counts: how many of its images, growing.
    Returns:
        The rows of `benchmarks.streaming.footprint`.
    """
    from benchmarks.streaming import footprint, make_pictures

    with tempfile.TemporaryDirectory(prefix="catchup-bench-") as made:
        root = make_pictures(Path(made), max(counts), SIDE) if folder is None else folder
        return footprint(
            root,
            counts,
            workers=[load.workers],
            loaders=("stream", "resident"),
            batch_size=load.batch,
        )


def precisions(load: Workload) -> dict:
    """The error with bf16 beside that with fp32, same seeds: Catch-up Mix on the digits, 20 of
    each, 20 epochs.

    Returns:
        {"fp32", "bf16": test errors in percent, a seed each, "difference", "low", "high": bf16 −
        fp32, mean and 95 % interval (Student t)}.
    """
    settings = Settings(
        data="digits",
        subset=20,
        width=16,
        epochs=20,
        batch_size=50,
        lr=0.05,
        validate_every=20,
        device=load.device,
    )
    errors: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for seed in SEEDS:
        digits = load_data("digits")
        digits = digits.with_train(subset(digits.train, 20, seed))
        for name, found in errors.items():
            chosen = replace(settings, precision=name, seed=seed)
            result = fit(
                model_of(chosen, digits), make("catchup", seed=seed), digits, chosen, progress=False
            )
            found.append(result.summary["last_error_percent"])
    gaps = [half - full for half, full in zip(errors["bf16"], errors["fp32"])]
    low, high = interval(gaps)
    return {**errors, "difference": mean(gaps), "low": low, "high": high}


def _pieces_text(found: Mapping) -> str:
    keys = [key for key in found["blocks"][0] if key.endswith("_ms")]
    rows = [["ms", *(key.removesuffix("_ms") for key in keys)]]
    rows += [
        [f"{row['block']} {tuple(row['shape'])}", *(f"{row[key]:.2f}" for key in keys)]
        for row in found["blocks"]
    ]
    rows += [
        [
            "% of a plain step",
            *(f"{found['share_percent'][key.removesuffix('_ms')]:.2f}" for key in keys),
        ]
    ]
    return (
        f"{as_text(rows)}\nall together {found['share_percent']['all']:.2f} % of a step of"
        f" {found['step_ms']:.0f} ms"
    )


def _sweeps_text(rows: Sequence[Mapping]) -> str:
    def grown(row: Mapping, key: str) -> str:
        return "" if row[key] is None else f"{row[key]:.2f} ± {row[key + '_se']:.2f}"

    return as_text(
        [
            ["", "over", "from … to", "exponent of time", "of memory"],
            *(
                [
                    row["cost"],
                    row["over"],
                    f"{row['sizes'][0]} … {row['sizes'][-1]}",
                    grown(row, "exponent"),
                    grown(row, "memory_exponent"),
                ]
                for row in rows
            ),
        ]
    )


def _streaming_text(rows: Sequence[Mapping]) -> str:
    return as_text(
        [
            list(rows[0]),
            *(
                [
                    f"{value:.4g}" if isinstance(value, float) else str(value)
                    for value in row.values()
                ]
                for row in rows
            ),
        ]
    )


def _precision_text(found: Mapping) -> str:
    return (
        f"error with bf16 − with fp32, {len(found['fp32'])} seeds: {found['difference']:+.2f}"
        f" [{found['low']:+.2f}, {found['high']:+.2f}] points (digits, fp32"
        f" {mean(found['fp32']):.2f}, spread {stdev(found['fp32']):.2f})"
    )


def _median(call: Callable[[], None], rounds: int, device: torch.device) -> float:
    """Seconds of one call, after one that does not count."""
    return ratios({"call": call}, rounds, clock_of(device))["call"]["time_s"]


TEXTS = {
    "mix": _pieces_text,
    "scaling": _sweeps_text,
    "streaming": _streaming_text,
    "precision": _precision_text,
}
