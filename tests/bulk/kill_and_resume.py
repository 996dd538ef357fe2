"""Kills runs with SIGKILL at random moments, takes them up again, and compares their last weights
and their metrics with a whole run's.

    python tests/bulk/kill_and_resume.py --trials 100 --controls 20 --out data/results/kills.json

A warm parent imports torch once and forks every attempt. A trial is one run, killed again and again
until it has used up its kills or is through. A kill comes a random while after a random number of
the run's files were written, which the
attempt tells in shared memory: a clock alone would kill slow machines' runs before they have begun.
Half of the kills wait for a file that is being written. After each kill the checkpoint must load.

The negative controls forget a part of the state on resuming, the generators or the running sums of
the epoch: what they end with has to differ, or the comparison could not fail.

Where it misleads: SIGKILL ends a process, not the machine. That a file outlives a loss of power
rests on fsync, which no process can test.
"""

import argparse
import hashlib
import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from catchup import Settings, train
from catchup.training import checkpoint, folder
from catchup.training.folder import CHECKPOINT, RUN, read_metrics
from catchup.utils.files import write_json
from catchup.utils.provenance import surroundings

# Four steps an epoch. float32 also where a processor has bfloat16: the same numbers are asked of
# every machine.
SMALL = Settings(
    subset=5, width=2, epochs=3, batch_size=13, lr=0.05, device="cpu", precision="fp32"
)
CASES: dict[str, dict] = {
    "automix": {"method": "automix"},
    "recursivemix": {"method": "recursivemix"},
    "catchup": {"method": "catchup"},
    "catchup-layer0": {"method": "catchup", "method_settings": {"layers": (0,)}},
    "catchup-regularised": {
        "method": "catchup",
        "method_settings": {"regularisers": ("augmix", "dropblock", "shakedrop")},
    },
    # the one network here that draws from PyTorch's global generator
    "catchup-dropout": {
        "method": "catchup",
        "model": "vgg11",
        "stem": "imagenet",
        "width": 1,
        "image_size": 32,
    },
}
CONTROLS = ("generators", "torch_rng", "totals")  # what they forget, in turn
MOST_KILLS = 6  # in a trial; then it is let through
SAVES = (0.0, 0.0, 0.02, None)  # seconds between two checkpoints, drawn anew for each attempt


class Ending(NamedTuple):
    """What a finished run leaves: SHA-256 of the weights, and of each epoch what no clock
    decides.
    """

    weights: str
    metrics: list[dict]


def ending(out: Path) -> Ending:
    """What the run in `out` has ended with."""
    state = checkpoint.load(Path(out) / CHECKPOINT)["model"]
    weights = b"".join(value.numpy().tobytes() for value in state.values())
    rows = [
        {key: value for key, value in row.items() if key not in ("images_per_s", "time_s")}
        for row in read_metrics(out)
    ]
    return Ending(hashlib.sha256(weights).hexdigest(), rows)


def forked(work: Callable[[], object]) -> int:
    """Starts `work` in a child process; its id. It ends with 0, or with 1 and a traceback on
    standard error.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work()
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int, timeout_s: float = 120.0) -> int:
    """Waits for a child; its exit code, negative for a signal. One that hangs is killed, and an
    error.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a run did not end within {timeout_s} s")


def pictures(folder: Path) -> Path:
    """A few digits as PNG files in class folders, train/ and test/, for the loader that streams."""
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for label in range(10):
        images = bunch.images[bunch.target == label][:10]
        for part, chosen in (("train", images[:5]), ("test", images[5:])):
            (folder / part / str(label)).mkdir(parents=True, exist_ok=True)
            for number, image in enumerate(chosen):
                pixels = Image.fromarray((image * 15).astype(np.uint8))
                pixels.save(folder / part / str(label) / f"{number}.png")
    return folder


def settings_of(case: str, loader: str, folder: Path) -> Settings:
    """The settings of a case, its images resident, or streamed from `folder` by two workers."""
    settings = replace(SMALL, **CASES[case])
    if loader == "resident":
        return settings
    return replace(settings, data=f"folder:{folder}", subset=None, loader="stream", workers=2)


class Attempt:
    """One child that trains in `out`, going on where the one before was killed."""

    def __init__(self, settings: Settings, out: Path, forget: str | None = None):
        # 1 while a file of the run is written; how many were (up to 255)
        self.writing = mmap.mmap(-1, 2)

        def work() -> None:
            self._tell()
            if forget:
                _forget(forget)
            warnings.simplefilter("ignore")
            train(settings, out, resume=(out / RUN).is_file(), progress=False)

        self.pid = forked(work)

    def _tell(self) -> None:
        for module in (checkpoint, folder):
            write = module.write_atomically

            def told(path, content, write=write):
                self.writing[0] = 1
                write(path, content)
                self.writing[0], self.writing[1] = 0, min(255, self.writing[1] + 1)

            module.write_atomically = told

    def killed(self, rng: random.Random, after: int, longest_s: float) -> tuple[bool, bool]:
        """(Was it killed, or through before? in the middle of a write?) a random while after so
        many writes.
        """
        in_write, code, at = rng.random() < 0.5, None, None
        while code is None and (
            at is None or time.monotonic() < at or (in_write and not self.writing[0])
        ):
            found, status = os.waitpid(self.pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if found else None
            if at is None and self.writing[1] >= after:
                at = time.monotonic() + rng.uniform(0, longest_s)
            time.sleep(0.0003)
        if code is None:
            if in_write:
                time.sleep(rng.uniform(0, 0.002))
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
        if code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"an attempt ended with {code}; its traceback is on standard error")
        return code != 0, code != 0 and bool(self.writing[0])


def _forget(what: str) -> None:
    """From now on a checkpoint of this process gives back weights and place, but not `what`, one of
    `CONTROLS`: instead the generators, or the sums, of a new run.
    """
    load = checkpoint.load

    def forgetful(path: Path) -> dict:
        state = load(path)
        fresh, under_way = torch.Generator().manual_seed(0).get_state(), state["under_way"]
        if what in ("generators", "torch_rng"):
            state["torch_rng"] = fresh
        if what == "generators":
            state["mixer"]["rng"] = np.random.default_rng(0).bit_generator.state
            if under_way:
                under_way["augment"] = fresh
        if what == "totals" and under_way:
            under_way["totals"] = torch.zeros_like(under_way["totals"])
        return state

    checkpoint.load = forgetful


def strays(out: Path) -> int:
    """Temporary files in a run's folder."""
    return sum(path.suffix == ".tmp" for path in out.iterdir()) if out.is_dir() else 0


def trial(
    settings: Settings, out: Path, seed: int, whole_s: float, forget: str | None = None
) -> dict:
    """One run, killed up to `MOST_KILLS` times: the kills, those in a write, those after which a
    checkpoint was there, what was unloadable or left over, and the ending.
    """
    rng, found = (
        random.Random(seed),
        {"kills": 0, "in_write": 0, "resumed": 0, "unloadable": 0, "lost": 0, "strays": 0},
    )
    there = False
    while True:
        one = replace(settings, save_every_s=rng.choice(SAVES))
        attempt = Attempt(one, out, forget)
        if found["kills"] == MOST_KILLS:
            if (code := ended(attempt.pid)) != 0:
                raise RuntimeError(
                    f"the last attempt ended with {code}; its traceback is on standard error"
                )
            break
        # the first kill finds a checkpoint
        after = rng.randrange(4, 7) if found["kills"] == 0 else rng.randrange(6)
        killed, in_write = attempt.killed(rng, after, 0.03 * whole_s)
        if not killed:
            break
        found["kills"] += 1
        found["in_write"] += in_write
        found["strays"] = max(found["strays"], strays(out))
        found["lost"] += there and not (out / CHECKPOINT).exists()
        there = (out / CHECKPOINT).exists()
        found["resumed"] += there
        if there:
            try:
                checkpoint.load(out / CHECKPOINT)
            except checkpoint.CheckpointError:
                found["unloadable"] += 1
    return {**found, "left": sorted(path.name for path in out.iterdir()), "ending": ending(out)}


def warm(folder: Path) -> None:
    """One run in this process, so that the children find everything imported."""
    train(replace(SMALL, epochs=1), folder / "warm", progress=False)


def whole(settings: Settings, out: Path) -> tuple[Ending, float]:
    """(ending, seconds) of the run that nobody kills; it saves at the end of epochs alone."""
    started = time.monotonic()
    if ended(forked(lambda: train(replace(settings, save_every_s=None), out, progress=False))) != 0:
        raise RuntimeError("the run without kills failed; its traceback is on standard error")
    return ending(out), time.monotonic() - started


def measured(
    case: str, loader: str, trials: int, controls: int, folder: Path, seed: int = 0
) -> dict:
    """All trials of a case: how many ended as the whole run did, and the controls."""
    settings = settings_of(case, loader, folder / "pictures")
    reference, whole_s = whole(settings, folder / f"{case}-{loader}")
    rows = [
        trial(settings, folder / f"{case}-{loader}-{number}", seed + number, whole_s)
        for number in range(trials)
    ]
    # what a network without dropout cannot show is not asked of it
    kinds = [kind for kind in CONTROLS if kind != "torch_rng" or "dropout" in case]
    control = [
        {
            "forgot": kinds[number % len(kinds)],
            **trial(
                settings,
                folder / f"{case}-{loader}-control-{number}",
                seed + number,
                whole_s,
                kinds[number % len(kinds)],
            ),
        }
        for number in range(controls)
    ]
    # one that was never resumed forgot nothing
    control = [row for row in control if row["resumed"]]
    usual = ["checkpoint.pt", "metrics.jsonl", "run.json"]
    return {
        "case": case,
        "loader": loader,
        "trials": trials,
        "identical": sum(row["ending"] == reference for row in rows),
        **{
            key: sum(row[key] for row in rows)
            for key in ("kills", "in_write", "resumed", "unloadable", "lost")
        },
        "most_strays": max((row["strays"] for row in rows), default=0),
        "left_over": sum(row["left"] != usual for row in rows),
        "controls": len(control),
        "controls_different": sum(row["ending"] != reference for row in control),
        "noticed": {  # of the controls that forgot it, how many differ
            kind: sum(row["ending"] != reference for row in control if row["forgot"] == kind)
            for kind in {row["forgot"] for row in control}
        },
    }


def writes(kills: int, folder: Path, seed: int = 0) -> dict:
    """A process that does nothing but save, killed again and again: every time a whole checkpoint
    must be there.
    """
    folder.mkdir()
    path, rng = folder / CHECKPOINT, random.Random(seed)
    checkpoint.save(path, {"weights": torch.zeros(200_000), "number": -1})

    def save_for_ever() -> None:
        for number in range(10**9):
            checkpoint.save(
                path, {"weights": torch.full((200_000,), float(number)), "number": number}
            )

    found = {"kills": kills, "unloadable": 0, "torn": 0, "most_strays": 0}
    from catchup.utils.files import remove_abandoned

    for _ in range(kills):
        pid = forked(save_for_ever)
        time.sleep(rng.uniform(0.002, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found["most_strays"] = max(found["most_strays"], strays(folder))
        try:
            state = checkpoint.load(path)
            found["torn"] += not bool((state["weights"] == max(state["number"], 0)).all())
        except checkpoint.CheckpointError:
            found["unloadable"] += 1
        remove_abandoned(folder)
    return {**found, "strays_after_clean": strays(folder)}


def main() -> int:
    """Runs what was asked for, prints it and writes it to --out; 1 if anything was lost or
    differs.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--trials", type=int, default=50, help="in all, shared by the cases and loaders"
    )
    parser.add_argument(
        "--controls", type=int, default=10, help="trials of the negative control, shared likewise"
    )
    parser.add_argument(
        "--writes", type=int, default=50, help="kills of a process that does nothing but save"
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument(
        "--loaders", nargs="+", default=["resident", "stream"], choices=["resident", "stream"]
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures(folder / "pictures")
        warm(folder)
        rows, pairs = [], [(case, loader) for loader in chosen.loaders for case in chosen.cases]
        for number, (case, loader) in enumerate(pairs):
            shares = [
                total // len(pairs) + (number < total % len(pairs))
                for total in (chosen.trials, chosen.controls)
            ]
            rows.append(measured(case, loader, *shares, folder, chosen.seed))
            print(json.dumps(rows[-1]), flush=True)
        keys = (
            "trials",
            "identical",
            "kills",
            "in_write",
            "resumed",
            "unloadable",
            "lost",
            "left_over",
            "controls",
            "controls_different",
        )
        results = {
            "total": {key: sum(row[key] for row in rows) for key in keys},
            "cases": rows,
            "writes": writes(chosen.writes, folder / "writes"),
        }
    results |= {
        "threads": torch.get_num_threads(),
        "time_s": time.monotonic() - started,
        **surroundings(),
    }
    print(json.dumps({key: results[key] for key in ("total", "writes", "time_s")}, indent=1))
    if chosen.out:
        write_json(chosen.out, results)
    total = results["total"]
    kinds = {kind for row in rows for kind in row["noticed"]}
    unnoticed = [kind for kind in kinds if not any(row["noticed"].get(kind) for row in rows)]
    empty = any(row["trials"] and not row["resumed"] for row in rows) or unnoticed
    return int(
        total["identical"] < total["trials"]
        or bool(
            empty
            or total["unloadable"]
            or total["lost"]
            or total["left_over"]
            or results["writes"]["unloadable"]
            or results["writes"]["torn"]
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
