"""What a run outlives, and whether it is the same every time: interrupts, SIGTERM, repeats, many
runs, bad numbers.

    python tests/bulk/endurance.py --out data/results/endurance.json
    python tests/bulk/endurance.py --parts soak --seconds 600

Runs that are killed outright are the matter of `kill_and_resume.py`, whose small runs are used here
too.
"""

import argparse
import copy
import gc
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import kill_and_resume as kills
import notebook_scan
import torch
from matplotlib.figure import Figure
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.output_widget import OutputWidget
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks.loops import Trainer, Workload
from catchup import Settings, count_hooks, fit, train
from catchup.mixers import MIXERS, make
from catchup.training import checkpoint
from catchup.training.folder import CHECKPOINT, read_metrics
from catchup.training.seeds import fork_rng
from catchup.training.trainer import dataset_of, model_of
from catchup.utils.files import jsonable, read_json, write_json
from catchup.utils.provenance import surroundings
from catchup.widgets import Range, explore
from conftest import TinyNet


def interrupted(after_s: float, work: Callable[[], object], signum: int = signal.SIGINT) -> object:
    """`work()`, while a thread sends this process a signal after so many seconds; its result, or
    the KeyboardInterrupt that the signal raised.
    """
    timer = threading.Timer(after_s, os.kill, (os.getpid(), signum))
    try:
        timer.start()
        try:
            return work()
        finally:
            timer.cancel()
            timer.join()
    except KeyboardInterrupt as error:
        return error


def network() -> TinyNet:
    """The small network of the interrupted runs: always the same weights."""
    with fork_rng(0):
        return TinyNet(10, 1)


def interrupts(trials: int, least: int, folder: Path, seed: int = 0) -> dict:
    """Runs interrupted at random moments, and called again in the same process until they are
    through.

    Args:
        trials, least: so many runs at least, and so many interrupts.
        folder: for the runs. seed: of the moments.
    Returns:
        trials, interrupts, and how many of the runs ended with the weights of one that was left
        alone; and what must
        be 0: hooks found in a model after an interrupt, interrupts after which the signals'
        handlers were others or a lock or half a file lay about, runs after which the model was not
        in training mode any more, or that did not leave one row for each epoch.
    """
    settings = replace(
        kills.SMALL, epochs=4, batch_size=5, validate_every=100, method="recursivemix"
    )
    dataset, rng = dataset_of(settings, progress=False), random.Random(seed)

    def run(model, out):  # a method with a history, a layer of its own, and hooks
        mixer = make("recursivemix", seed=0, block="layer2")
        return fit(model, mixer, dataset, settings, out=out, resume=True, progress=False)

    run(network(), folder / "imports")
    started = time.perf_counter()
    reference = weights(run(network(), folder / "whole").model)
    took, before = time.perf_counter() - started, handlers()
    found = dict.fromkeys(
        (
            "trials",
            "interrupts",
            "identical",
            "hooks_left",
            "handlers_changed",
            "left_over",
            "mode_changed",
            "rows_wrong",
        ),
        0,
    )
    while found["trials"] < trials or found["interrupts"] < least:
        model, out, result = network(), folder / str(found["trials"]), KeyboardInterrupt()
        while isinstance(result, KeyboardInterrupt):
            result = interrupted(
                rng.uniform(0, 0.25 * took), lambda model=model, out=out: run(model, out)
            )
            found["interrupts"] += isinstance(result, KeyboardInterrupt)
            found["hooks_left"] += count_hooks(model)
            found["handlers_changed"] += handlers() != before
            found["left_over"] += bool(list(out.glob(".*")))
        found["trials"] += 1
        found["rows_wrong"] += [row["epoch"] for row in read_metrics(out)] != list(
            range(1, settings.epochs + 1)
        )
        found["identical"] += torch.equal(weights(result.model), reference)
        found["mode_changed"] += not result.model.training
    return found


def terminations(trials: int, folder: Path, seed: int = 0) -> dict:
    """Runs that get SIGTERM at a random moment, as clusters send it before they kill, and are taken
    up again.

    Returns:
        trials; how many of them left with 143, kept a checkpoint that can be read, and ended with
        the weights of a run left alone; seconds of a step and of a save, medians, and from the
        signal to the end of the process, the median and the most. Runs that were through before the
        signal are no trials.
    """
    settings, rng = replace(kills.SMALL, epochs=6, method="catchup"), random.Random(seed)
    reference, whole_s = kills.whole(settings, folder / "terminated")
    found, stops = dict.fromkeys(("trials", "code_143", "kept", "identical"), 0), []
    for number in range(10 * trials):
        if found["trials"] == trials:
            break
        out = folder / f"terminated-{number}"
        code, took = _terminated(settings, out, rng.uniform(0, 0.3 * whole_s))
        if code == 0 or code == -signal.SIGTERM and len(read_metrics(out)) == settings.epochs:
            continue  # it was through, or about to leave
        stops.append(took)
        found["trials"] += 1
        found["code_143"] += code == 143
        with suppress(checkpoint.CheckpointError):
            checkpoint.load(out / CHECKPOINT)
            found["kept"] += 1
        if (
            kills.ended(
                kills.forked(lambda out=out: train(settings, out, resume=True, progress=False))
            )
            == 0
        ):
            found["identical"] += kills.ending(out) == reference
    if not stops:
        raise RuntimeError(
            f"no signal met a run under way in {10 * trials} tries: the runs are too short"
        )
    step_s, save_s = _step_and_save(settings, folder / "timed")
    return {
        **found,
        "step_s": step_s,
        "save_s": save_s,
        "stop_s": statistics.median(stops),
        "most_s": max(stops),
    }


def _terminated(settings: Settings, out: Path, after_s: float) -> tuple[int, float]:
    """(exit code, seconds it took to end) of a run that gets SIGTERM so long after its first
    checkpoint.
    """
    pid = kills.forked(lambda: train(settings, out, progress=False))
    end = time.monotonic() + 120
    while not (out / CHECKPOINT).exists() and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(after_s)
    sent = time.perf_counter()
    # one that is through waits for us as a zombie: the number is still its own
    os.kill(pid, signal.SIGTERM)
    return kills.ended(pid), time.perf_counter() - sent


def _step_and_save(settings: Settings, out: Path) -> tuple[float, float]:
    """Median seconds of a step and of a save of such a run."""
    times, saves = [], []
    dataset = dataset_of(settings, progress=False)
    mixer = make(settings.method, seed=0)
    fit(
        model_of(settings, dataset),
        mixer,
        dataset,
        settings,
        out=out,
        progress=False,
        on_step=lambda _: times.append(time.perf_counter()),
    )
    state = checkpoint.load(out / CHECKPOINT)
    for _ in range(9):
        started = time.perf_counter()
        checkpoint.save(out / "again.pt", state)
        saves.append(time.perf_counter() - started)
    return statistics.median(b - a for a, b in zip(times, times[1:])), statistics.median(saves)


def repeats(methods: Sequence[str], folder: Path, times: int = 3) -> dict:
    """The same run again and again: with every method, and with every number of processes that read
    the images.

    Returns:
        methods, {method: number of different results, 1 if all is well}; workers, the same for
        {method: resident, and streamed by 0, 1 and 2 processes}.
    """

    def digests(settings: Sequence[Settings], name: str) -> int:
        seen = set()
        for number, one in enumerate(settings):
            out = folder / f"{name}-{number}"
            train(one, out, progress=False)
            seen.add(kills.ending(out).weights)
        return len(seen)

    small = replace(kills.SMALL, epochs=2)
    found = {
        method: digests([replace(small, method=method)] * times, f"repeat-{method}")
        for method in methods
    }
    pictures = replace(small, data=f"folder:{folder / 'pictures'}", subset=None)
    loaders = [("resident", None), ("stream", 0), ("stream", 1), ("stream", 2)]
    workers = {
        method: digests(
            [
                replace(pictures, method=method, loader=loader, workers=count)
                for loader, count in loaders
            ],
            f"workers-{method}",
        )
        for method in methods
        if method in ("catchup", "recursivemix", "automix")
    }
    return {"times": times, "methods": found, "workers": workers}


def watching(folder: Path, widths: Sequence[int] = (16, 64), rounds: int = 9) -> list[dict]:
    """What it costs to look for numbers that are none: in every step the loss, once an epoch the
    weights.

    Returns:
        For each width of a CIFAR ResNet-18 (100 images a batch, one thread): step_ms, the median
        milliseconds of an epoch of one step, all that an epoch does included; look_ms and
        weights_ms, those of the two looks; percent, what they add to an epoch of 500 steps.
    """
    rows = []
    for width in widths:
        trainer = Trainer(
            Workload(width=width, batch=100, steps=1, rounds=rounds, device="cpu"), "baseline"
        )
        run, loss, bad = trainer.run, torch.tensor(1.0), torch.full((), math.inf)

        def look(loss=loss, bad=bad) -> float:
            assert loss.isfinite()
            return bad.minimum(torch.where(loss.isfinite(), math.inf, 1.0)).item()

        trainer.epoch()
        step, weights = _median_s(trainer.epoch, rounds), _median_s(run._check_weights, rounds)
        looked = _median_s(lambda look=look: [look() for _ in range(100)], rounds) / 100
        rows.append(
            {
                "width": width,
                "step_ms": 1e3 * step,
                "look_ms": 1e3 * looked,
                "weights_ms": 1e3 * weights,
                "percent": 100 * (looked + weights / 500) / step,
            }
        )
    return rows


def soak(seconds: float, folder: Path) -> dict:
    """Small runs one after the other in this process: resident memory and open files, early and
    late.

    Args:
        seconds: for so long, and at least four runs of each case of `kill_and_resume`.
    """
    seen, end, names = [], time.monotonic() + seconds, list(kills.CASES)
    while time.monotonic() < end or len(seen) < 4 * len(names):
        case = names[len(seen) % len(names)]
        train(
            kills.settings_of(case, "resident", folder),
            folder / f"soak-{len(seen)}",
            progress=False,
        )
        seen.append((_resident(), len(os.listdir("/proc/self/fd"))))
    early = seen[len(names) : len(seen) // 2]  # after every case has run once
    late = seen[len(seen) // 2 :]
    mean = {
        name: sum(row[0] for row in part) / len(part)
        for name, part in (("early", early), ("late", late))
    }
    return {
        "runs": len(seen),
        "seconds": seconds,
        "resident_early_mib": mean["early"] / 2**20,
        "resident_late_mib": mean["late"] / 2**20,
        "growth_percent": 100 * (mean["late"] / mean["early"] - 1),
        "open_files_early": max(row[1] for row in early),
        "open_files_late": max(row[1] for row in late),
    }


def outputs(times: int, folder: Path) -> dict:
    """A notebook that prints into an `Output`, executed again and again while two processes keep
    the cores busy.

    nbclient alone can wait for ever for such a cell (its issue 312); `notebook_scan.awake` cures
    it.

    Returns:
        times; slow, the executions that took over 30 s or failed; the median and the most seconds
        of one.
    """
    cells = [
        "import ipywidgets as w\nout = w.Output()\nout",
        *["for i in range(20):\n    with out:\n        out.clear_output(wait=True); print(i)"] * 5,
    ]
    book, took, slow = new_notebook(cells=[new_code_cell(cell) for cell in cells]), [], 0
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    send = OutputWidget.send
    OutputWidget.send = notebook_scan.awake(send)
    try:
        for _ in range(times):
            started, failed = time.perf_counter(), False
            try:
                notebook_scan.ListeningClient(copy.deepcopy(book), timeout=30).execute(
                    cwd=str(folder)
                )
            except (CellTimeoutError, CellExecutionError, DeadKernelError):
                failed = True
            took.append(time.perf_counter() - started)
            slow += failed or took[-1] > 30
    finally:
        OutputWidget.send = send
        for process in busy:
            process.kill()
            process.wait()
    return {"times": times, "slow": slow, "median_s": statistics.median(took), "most_s": max(took)}


def moves(times: int) -> dict:
    """A slider moved again and again; every picture is drawn.

    Returns:
        times; grown_mib, by how much the resident memory grew after the first fifth of them
        (figures wait for the garbage collector); kept, the figures that are still there when it has
        come.
    """
    figures = weakref.WeakSet()

    def draw(lam: float) -> Figure:
        figure = Figure(figsize=(6, 4), layout="constrained")
        figure.subplots().plot(torch.rand(1000).tolist(), alpha=lam)
        figures.add(figure)
        return figure

    explorer, before = explore(draw, lam=Range("λ", 0, 1, 0.01, 0.5)), 0
    for number in range(times):
        if number == times // 5:
            before = _resident()
        explorer.set(lam=number % 101 / 100)
        assert not explorer.error, explorer.traceback
    grown = (_resident() - before) / 2**20
    gc.collect()
    return {"times": times, "grown_mib": grown, "kept": len(figures)}


def _resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _median_s(work: Callable[[], object], rounds: int) -> float:
    """Median CPU seconds of a call."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times)


def weights(model: torch.nn.Module) -> torch.Tensor:
    """(n,) float64: weights and buffers, one after the other."""
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def handlers() -> tuple:
    """What answers SIGINT and SIGTERM."""
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


PARTS = {
    "interrupts": lambda chosen, folder: interrupts(60, 200, folder),
    "terminations": lambda chosen, folder: terminations(20, folder),
    "repeats": lambda chosen, folder: repeats(list(MIXERS), folder),
    "watching": lambda chosen, folder: watching(folder),
    "outputs": lambda chosen, folder: outputs(20, folder),
    "moves": lambda chosen, folder: moves(500),
    "soak": lambda chosen, folder: soak(chosen.seconds, folder),
}


def main() -> None:
    """Runs the parts, prints them and writes them to --out; those that an earlier call wrote there
    stay.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seconds", type=float, default=600.0, help="part soak: for so long")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    chosen = parser.parse_args()
    # a shell takes it from background jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    found = read_json(chosen.out) if chosen.out and chosen.out.exists() else {}
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        kills.pictures(folder / "pictures")
        kills.warm(folder)
        for part in chosen.parts:
            found[part] = jsonable(PARTS[part](chosen, folder))
            print(json.dumps({part: found[part]}, indent=1), flush=True)
            if chosen.out:
                write_json(chosen.out, {**found, **surroundings()})


if __name__ == "__main__":
    main()
