"""What a comparison consists of, which of it is there already, and about how long the rest takes:
nothing is done here.

DIR/METHOD-SEED/ is a run's folder. It is finished when its evaluation.json is of its checkpoint and
covers the tests.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from ..measures.registry import MEASURES
from ..measures.subject import Options
from ..mixers import make
from ..training.folder import CHECKPOINT, EVALUATION, METRICS, RUN, check_claim, read_metrics
from ..training.lock import is_vacant
from ..training.machine.precision import resolve_precision
from ..training.settings import Settings
from ..utils.choices import build, parse_spec
from ..utils.files import check_folder_place, jsonable, read_json
from ..utils.schema import NUMBER, fits, read_evaluation
from .evaluation import with_published

RESULTS, TABLE = "results.json", "table.md"
APART = ("method", "method_settings", "seed")  # all in which the runs of a comparison may differ


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is to be compared, and where; arguments as for
    `catchup.experiments.compare.run_comparison`.
    """

    out: Path
    methods: Sequence[str]
    seeds: Sequence[int]
    settings: Settings = field(default_factory=Settings)
    tests: Sequence[str] = ("clean",)
    options: Options = field(default_factory=Options)


class PlannedRun(NamedTuple):
    """One run of a comparison. `label`: the method as it was named, with its settings."""

    label: str
    settings: Settings
    folder: Path


class Prospect(NamedTuple):
    """One run as it stands. `state`: finished, begun, or missing; `epochs`: of training that are
    done; `time_s`: of the training still to be done, as long as the runs beside it took an epoch;
    None where none of them has finished one.
    """

    folder: Path
    label: str
    seed: int
    state: str
    epochs: int
    time_s: float | None


def plan_runs(one: Comparison) -> list[PlannedRun]:
    """All runs of a comparison, whole seeds first, all in one precision; ValueError for what does
    not fit.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("a comparison runs in one process, not under torchrun")
    for name, values in (("methods", one.methods), ("seeds", one.seeds)):
        if isinstance(values, str) or not values:
            raise ValueError(f"{name} must name at least one, got {values!r}")
    if len(set(one.seeds)) < len(one.seeds):
        raise ValueError(f"a seed may be named once, got {', '.join(map(str, one.seeds))}")
    resolved = {label: _resolve(label) for label in one.methods}
    for index, label in enumerate(one.methods):
        for earlier in one.methods[:index]:
            if resolved[earlier] == resolved[label]:
                raise ValueError(
                    f"{earlier!r} and {label!r} are one method with the same settings; name it once"
                )
    folders = {
        (label, seed): Path(one.out) / f"{_folder_name(label)}-{seed}"
        for seed in one.seeds
        for label in one.methods
    }
    shared = resolve_precision(
        one.settings, [path for path in folders.values() if (path / RUN).is_file()]
    )
    return [
        PlannedRun(
            label,
            replace(
                shared, method=resolved[label][0], method_settings=resolved[label][1], seed=seed
            ),
            folder,
        )
        for (label, seed), folder in folders.items()
    ]


def check_folder(out: Path, runs_of_it: Sequence[PlannedRun]) -> None:
    """ValueError if `out` holds anything but a comparison with the settings of these runs; nothing
    is written.
    """
    check_folder_place(out, "the comparison")
    chosen = {one.folder: jsonable(one.settings.as_dict()) for one in runs_of_it}
    shared = {key: value for key, value in chosen[runs_of_it[0].folder].items() if key not in APART}
    ours = (RESULTS, TABLE) if _is_ours(out / RESULTS) else ()
    for path in sorted(out.iterdir()) if out.is_dir() else ():
        if path.name in ours or path.name.startswith(".") or path.is_dir() and is_vacant(path):
            continue
        if not (path / RUN).is_file():
            raise ValueError(
                f"{out} holds {path.name}, which is no part of a comparison; give a new folder"
            )
        now = chosen.get(path) or {**_settings_of(path), **shared}
        check_claim(path, now, None, resume=True)


def options_for(one: Comparison, run: PlannedRun) -> Options:
    """The options with which a run is evaluated."""
    return with_published(one.options, run.settings)


def find_evaluation(folder: Path, tests: Sequence[str], options: Options) -> dict | None:
    """The evaluation of the finished run in `folder`, if it is of its checkpoint and covers these
    tests.
    """
    path, state = folder / EVALUATION, folder / CHECKPOINT
    row = read_evaluation(path) if path.is_file() else {}
    told = row.get("measured_with") or {}
    if not row.get("finished") or row.get("settings") != _settings_of(folder):
        return None
    if any(not _as_asked(told.get(test), test, options) for test in tests):
        return None
    if state.is_file():
        content = hashlib.sha256(state.read_bytes())
        return row if content.hexdigest() == row.get("checkpoint_sha256") else None
    return row


def _as_asked(held: object, test: str, options: Options) -> bool:
    """Was a test done as the options have it? Of published arrays it does not matter where they
    lay.
    """
    wanted = MEASURES[test].settings(options)
    if not isinstance(held, dict) or "cifar_c_dir" not in wanted:
        return held == wanted
    return {**held, "cifar_c_dir": held.get("cifar_c_dir") is None} == {
        **wanted,
        "cifar_c_dir": wanted["cifar_c_dir"] is None,
    }


def assess_runs(one: Comparison) -> list[Prospect]:
    """Every run of a comparison as it stands; nothing is trained or written.

    Raises:
        ValueError: as `catchup.experiments.compare.run_comparison`, for names, settings, and
            the folder.
    """
    all_runs = plan_runs(one)
    check_folder(Path(one.out), all_runs)
    times = {run.folder: _times(run.folder) for run in all_runs}
    by_label = {
        label: [time for run in all_runs if run.label == label for time in times[run.folder]]
        for label in one.methods
    }
    everything = [time for own in by_label.values() for time in own]
    return [
        _prospect(run, one, len(times[run.folder]), by_label[run.label] or everything)
        for run in all_runs
    ]


def outlook(stands: Sequence[Prospect], at_once: int | None = 1) -> str:
    """What is there, what is missing, and about how long it takes, as text.

    Args:
        stands: as `assess_runs` returns them. at_once: runs that are trained at the same time;
            None: not known.
    """
    open_ones = [run for run in stands if run.state != "finished"]
    lines = [
        f"{run.state:9} {run.epochs:5} epochs done  {_time_left(run)}  {run.folder}"
        for run in stands
    ]
    lines += [
        f"{len(stands)} runs: {len(stands) - len(open_ones)} finished, {len(open_ones)} to do"
    ]
    known = [run.time_s for run in open_ones if run.time_s is not None]
    if known:
        unknown = (
            f", and {len(open_ones) - len(known)} of unknown time"
            if len(known) < len(open_ones)
            else ""
        )
        share = (
            f"; {sum(known) / 3600 / at_once:.2f} h with {at_once} at once"
            if at_once and at_once > 1
            else ""
        )
        lines += [
            f"about {sum(known) / 3600:.2f} h of training, as the epochs so far"
            f" took{share}{unknown}"
        ]
    elif open_ones:
        lines += [
            "no epoch is finished here, so their time is not known; do one seed first, or measure"
            " the images/s with `python -m benchmarks.throughput`: runs x"
            " epochs x images / (images/s) / runs at once"
        ]
    return "\n".join(lines)


def _prospect(run: PlannedRun, one: Comparison, epochs: int, times: Sequence[float]) -> Prospect:
    """How one run stands; `times` of an epoch like its own."""
    if find_evaluation(run.folder, one.tests, options_for(one, run)):
        state, left = "finished", 0.0
    else:
        state = "begun" if (run.folder / RUN).is_file() else "missing"
        left = max(0, run.settings.epochs - epochs) * mean(times) if times else None
    return Prospect(run.folder, run.label, run.settings.seed, state, epochs, left)


def _times(folder: Path) -> list[float]:
    """Seconds of each finished epoch of a run; none where there are none."""
    rows = read_metrics(folder) if (folder / METRICS).is_file() else []
    for number, row in enumerate(rows, start=1):
        if not fits(row.get("time_s"), NUMBER):
            raise ValueError(
                f"line {number} of {folder / METRICS} has no time_s in seconds but"
                f" {row.get('time_s')!r}: restore a copy, or train the run again"
            )
    return [row["time_s"] for row in rows]


def _time_left(run: Prospect) -> str:
    return "   time unknown" if run.time_s is None else f"{run.time_s:10.0f} s left"


def _resolve(label: str) -> tuple[str, dict]:
    """The method that `label` names, with all its settings, defaults too: as `catchup train`
    records them.
    """
    mixer = build(make, label, seed=0)
    return parse_spec(label)[0], {
        field.name: getattr(mixer, field.name) for field in fields(mixer) if field.name != "seed"
    }


def _folder_name(label: str) -> str:
    """A name for files, the same however the settings are ordered or written."""
    name, settings = parse_spec(label)
    return filename(
        "_".join([name, *(f"{key}={value}" for key, value in sorted(settings.items()))])
    )


def filename(text: str) -> str:
    """`text` as a name for files."""
    return re.sub(r"[^\w.=-]+", "_", text).strip("_")


def _settings_of(folder: Path) -> dict:
    """The settings that a run's record holds; empty where it holds none."""
    record = read_json(folder / RUN)
    settings = record.get("settings") if isinstance(record, Mapping) else None
    return settings if isinstance(settings, dict) else {}


def _is_ours(path: Path) -> bool:
    """Is this the results.json of a comparison?"""
    held = read_json(path) if path.is_file() else None
    return isinstance(held, dict) and {"rows", "differences"} <= held.keys()
