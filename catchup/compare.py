"""Methods compared on equal terms: every method with every seed under one budget, trained, evaluated, in one table.

Runs of one seed are paired: same subset, initial weights, order of the images. So methods are compared by their
differences seed by seed, whose mean has a Student t interval where there are at least two seeds. Each interval is for
itself: of twenty differences that are zero in truth, one is expected to have an interval without zero.

DIR/METHOD-SEED/    a run as `catchup train` leaves it (see `catchup.runs`), and its evaluation.json
DIR/results.json    the evaluation objects, each with the `label` of its method, and the differences as numbers
DIR/table.md        the table
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

from . import runs
from .checkpoint import write_atomically
from .choices import built, spec
from .evaluation import evaluate
from .loop import accelerator
from .measures import MEASURES, Options, columns
from .mixers import make
from .settings import Settings
from .tables import as_markdown, as_text, comparison, differences
from .training import dataset_of, model_of, train, try_out

RESULTS, TABLE = "results.json", "table.md"
BEST = " The best epoch is chosen on the test images: too good by that choice."
APART = ("method", "method_settings", "seed")  # all in which the runs of a comparison may differ


class Planned(NamedTuple):
    """One run of a comparison. `label`: the method as it was named, with its settings."""

    label: str
    settings: Settings
    folder: Path


def run(out: Path, *, methods: Sequence[str], seeds: Sequence[int], settings: Settings | None = None,
        tests: Sequence[str] = ("clean",), options: Options | None = None, progress: bool = True) -> dict:
    """Trains and evaluates every method with every seed, seed by seed; what is finished in `out` is not done again.

    Called again after an interruption it goes on, inside a run after its last finished epoch. Called with more methods,
    seeds or tests it does what is missing. results.json and table.md are written anew after every run, of the runs
    asked for that are finished; those of a seed count once the first method has it. Other runs stay in their folders.

    Args:
        out: a folder; made, or continued if its runs are of the same settings.
        methods: each as for `catchup.choices.spec`: "cutmix", "cutmix:alpha=0.2". The first is what the others are
            compared with. seeds: each ≥ 0.
        settings: of every run; None takes the defaults. Method, its settings and the seed are filled in.
        tests: what to measure (see `catchup.measures`). options: of the tests.
        progress: bars on standard error.
    Returns:
        What results.json holds: "methods", "seeds", "tests" as asked for; "rows", the evaluation objects, seed by seed;
        "differences" (see `catchup.tables.differences`); "failed", [{"label", "seed", "error"}], the runs that became
        NaN or infinite, which are left out; and versions, hardware, command, commit.
    Raises:
        ValueError: before anything is trained or written: for a name, setting or number that does not fit, a method or
            seed named twice, a model that the data or a method cannot train, a folder with other runs or other files.
    """
    out, settings = Path(out), settings or Settings()
    planned, shown, options = _planned(out, methods, seeds, settings), columns(tests), options or Options()
    _check_folder(out, planned, settings)
    found = {one.folder: row for one in planned if (row := _evaluated(one.folder, tests, options))}
    missing = [one for one in planned if one.folder not in found]
    if missing:
        _check_runnable(missing, progress)
    asked, failed = {"methods": list(methods), "seeds": list(seeds), "tests": list(tests)}, []
    for one in _bar(missing, progress):
        try:
            found[one.folder] = _done(one, tests, options, progress)
        except FloatingPointError as error:
            failed.append({"label": one.label, "seed": one.settings.seed, "error": str(error)})
        _write(out, {**asked, **_compared(planned, found, shown), "failed": failed})
    return _write(out, {**asked, **_compared(planned, found, shown), "failed": failed})


def report(results: Mapping, layout: Callable[[Sequence[Sequence[str]]], str] = as_text) -> str:
    """What was compared, and the table.

    Args:
        results: as `run` returns them. layout: `as_text` or `as_markdown`.
    """
    rows, said = results["rows"], []
    if rows:
        said = [_budget(rows[0]), "", layout(comparison(rows, columns(results["tests"]), intervals=True)), "",
                f"Percent: mean ± standard deviation over n seeds; then each method minus {rows[0]['label']}, seed by "
                "seed, with the 95 % interval of the mean (Student t, n − 1 degrees of freedom; each for itself; "
                "unknown for a single seed)." + (BEST if "clean" in results["tests"] else "")]
    left_out = [f"left out: {one['label']}, seed {one['seed']}: {one['error']}" for one in results["failed"]]
    return "\n".join([*said, *([""] if said and left_out else []), *left_out])


def _planned(out: Path, methods: Sequence[str], seeds: Sequence[int], settings: Settings) -> list[Planned]:
    """All runs, whole seeds first; ValueError for what does not fit."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("a comparison runs in one process, not under torchrun")
    for name, values in (("methods", methods), ("seeds", seeds)):
        if isinstance(values, str) or not values:
            raise ValueError(f"{name} must name at least one, got {values!r}")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"a seed may be named once, got {', '.join(map(str, seeds))}")
    resolved = {label: _resolved(label) for label in methods}
    for index, label in enumerate(methods):
        for earlier in methods[:index]:
            if resolved[earlier] == resolved[label]:
                raise ValueError(f"{earlier!r} and {label!r} are one method with the same settings; name it once")
    return [Planned(label, replace(settings, method=resolved[label][0], method_settings=resolved[label][1], seed=seed),
                    out / f"{_folder(label)}-{seed}") for seed in seeds for label in methods]


def _resolved(label: str) -> tuple[str, dict]:
    """The method that `label` names, with all its settings, defaults too: as `catchup train` records them."""
    mixer = built(make, label, seed=0)
    return spec(label)[0], {field.name: getattr(mixer, field.name) for field in fields(mixer) if field.name != "seed"}


def _folder(label: str) -> str:
    """A name for files, the same however the settings are ordered or written."""
    name, settings = spec(label)
    parts = [name, *(f"{key}={value}" for key, value in sorted(settings.items()))]
    return re.sub(r"[^\w.=-]+", "_", "_".join(parts)).strip("_")


def _check_folder(out: Path, planned: Sequence[Planned], settings: Settings) -> None:
    """ValueError if `out` holds anything but a comparison with these settings; nothing is written."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder for the comparison")
    shared = {key: value for key, value in runs.plain(settings.as_dict()).items() if key not in APART}
    chosen = {one.folder: runs.plain(one.settings.as_dict()) for one in planned}
    ours = (RESULTS, TABLE) if _is_ours(out / RESULTS) else ()
    for path in sorted(out.iterdir()) if out.is_dir() else ():
        if path.name in ours or path.name.startswith(".") or path.is_dir() and not any(path.iterdir()):
            continue
        if not (path / runs.RUN).is_file():
            raise ValueError(f"{out} holds {path.name}, which is no part of a comparison; give a new folder")
        now = chosen.get(path) or {**_settings_of(path), **shared}
        runs.claim(path, now, resume=True)  # where there is a run already: checks, and no more


def _settings_of(folder: Path) -> dict:
    """The settings that a run's record holds; empty where it holds none."""
    record = runs.read_json(folder / runs.RUN)
    settings = record.get("settings") if isinstance(record, dict) else None
    return settings if isinstance(settings, dict) else {}


def _is_ours(path: Path) -> bool:
    """Is this the results.json of a comparison?"""
    held = runs.read_json(path) if path.is_file() else None
    return isinstance(held, dict) and {"rows", "differences"} <= held.keys()


def _check_runnable(planned: Sequence[Planned], progress: bool) -> None:
    """ValueError if the data, the model, the precision or a method's layers do not fit together."""
    first = planned[0].settings
    accelerator(first)
    dataset = dataset_of(first, progress)
    model = model_of(first, dataset)
    try_out(model, dataset)
    for one in {one.label: one.settings for one in planned}.values():
        make(one.method, seed=0, **one.method_settings).check(model)


def _evaluated(folder: Path, tests: Sequence[str], options: Options) -> dict | None:
    """The evaluation of the finished run in `folder`, if it is of its checkpoint and covers these tests."""
    path, state = folder / runs.EVALUATION, folder / runs.CHECKPOINT
    row = runs.read_json(path) if path.is_file() else {}
    with_what = row.get("measured_with") or {}
    if not row.get("finished") or any(with_what.get(test) != MEASURES[test].settings(options) for test in tests):
        return None
    if state.is_file() and hashlib.sha256(state.read_bytes()).hexdigest() != row.get("checkpoint_sha256"):
        return None
    return row


def _done(one: Planned, tests: Sequence[str], options: Options, progress: bool) -> dict:
    """The evaluation object of a run, trained as far as it is not yet."""
    record = one.folder / runs.RUN
    if not record.is_file() or "result" not in runs.read_json(record):
        train(one.settings, one.folder, resume=record.is_file(), progress=progress)
    return evaluate(one.folder, tests, options=options, device=one.settings.device, progress=progress)


def _compared(planned: Sequence[Planned], found: Mapping[Path, dict], columns: Mapping[str, str]) -> dict:
    """The rows to show, and their differences."""
    first = {one.settings.seed for one in planned if one.label == planned[0].label and one.folder in found}
    rows = [{"label": one.label, **found[one.folder]} for one in planned
            if one.folder in found and one.settings.seed in first]
    return {"rows": rows, "differences": differences(rows, columns) if rows else []}


def _write(out: Path, results: dict) -> dict:
    """Writes both files and returns what results.json holds."""
    results = runs.plain({**results, **runs.surroundings()})
    out.mkdir(parents=True, exist_ok=True)
    runs.write_json(out / RESULTS, results)
    write_atomically(out / TABLE, (report(results, as_markdown) + "\n").encode())
    return results


def _budget(row: Mapping) -> str:
    """What every run was given, from one of them."""
    amount = {int: f"{row['subset']} training images per class", float: f"{row['subset']} of each class's images"}
    width = "" if row["width"] is None else f" width {row['width']}"
    return (f"{row['data']}, {amount.get(type(row['subset']), 'all training images')}, {row['model']}{width}, "
            f"{row['epochs']} epochs; {row['n_test']} test images")


def _bar(rows: Sequence, shown: bool) -> Iterable:
    from tqdm.auto import tqdm

    return tqdm(rows, desc="compare", unit="run", disable=not shown)
