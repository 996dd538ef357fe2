"""Methods compared on equal terms: every method with every seed under one budget, trained,
evaluated, in one table.

Runs of one seed are paired: same subset, initial weights, order of the images. So methods are
compared by their differences seed by seed, whose mean has a Student t interval where there are at
least two seeds. Each interval is for
itself: of twenty differences that are zero in truth, one is expected to have an interval without
zero.

DIR/METHOD-SEED/    a run as `catchup train` leaves it (see `catchup.training.folder`), and its
                    evaluation.json
DIR/results.json    the evaluation objects, each with the `label` of its method, and the differences
                    as numbers
DIR/table.md        the table

What is to be done is worked out in `catchup.experiments.planning`; where it is done is an engine's
matter (`catchup.experiments.engines`). The process that calls `run_comparison` or `sweep` only
hands out runs, and it alone writes results.json and table.md.
"""

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..measures.registry import columns
from ..measures.robustness import masking_verdicts
from ..measures.statistics import comparison, differences
from ..measures.subject import Options
from ..mixers import make
from ..training.folder import RUN
from ..training.learning import assess_record, describe_learning
from ..training.lock import lock_folder
from ..training.machine.accelerator import make_accelerator
from ..training.settings import Settings
from ..training.trainer import dataset_of, model_of, train, try_blocks, try_out
from ..utils.files import jsonable, read_json, write_atomically, write_json
from ..utils.progress import counter, say
from ..utils.provenance import surroundings
from ..utils.text import as_markdown, as_text
from . import engines
from .evaluation import evaluate
from .planning import (
    APART,
    RESULTS,
    TABLE,
    Comparison,
    PlannedRun,
    check_folder,
    find_evaluation,
    options_for,
    plan_runs,
)

__all__ = [
    "APART",
    "RESULTS",
    "TABLE",
    "Comparison",
    "describe_comparison",
    "run_comparison",
    "sweep",
]

BEST = " The best epoch is chosen on the test images: too good by that choice."


class Job(NamedTuple):
    """One run to be trained as far as it is not yet, and evaluated; bars are for the process of the
    caller.
    """

    planned: PlannedRun
    tests: Sequence[str]
    options: Options
    progress: bool


class Outcome(NamedTuple):
    """What became of a job: its evaluation object, or the reason why there is none."""

    row: dict | None = None
    error: str = ""


@dataclass
class _Sheet:
    """A comparison as far as it is done."""

    of: Comparison
    planned: list[PlannedRun]
    shown: Mapping[str, str]
    found: dict[Path, dict]
    failed: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, of: Comparison) -> "_Sheet":
        """What there is already; ValueError for names, numbers or a folder that do not fit."""
        all_runs, shown = plan_runs(of), columns(of.tests)
        check_folder(Path(of.out), all_runs)
        rows = {
            one.folder: find_evaluation(one.folder, of.tests, options_for(of, one))
            for one in all_runs
        }
        return cls(of, all_runs, shown, {folder: row for folder, row in rows.items() if row})

    @property
    def missing(self) -> list[PlannedRun]:
        """The runs that have no evaluation yet."""
        return [one for one in self.planned if one.folder not in self.found]

    def add(self, folder: Path, outcome: "Outcome | engines.Lost") -> str:
        """Takes up what became of a run; the reason if it failed."""
        if isinstance(outcome, engines.Lost):
            outcome = Outcome(error=f"given up after {engines.ATTEMPTS} attempts: {outcome}")
        if outcome.row is None:
            self.failed[folder] = outcome.error
        else:
            self.found[folder] = outcome.row
        return outcome.error

    def write(self) -> dict:
        """Writes both files and returns what results.json holds."""
        asked = {
            "methods": list(self.of.methods),
            "seeds": list(self.of.seeds),
            "tests": list(self.of.tests),
        }
        failed = [
            {"label": one.label, "seed": one.settings.seed, "error": self.failed[one.folder]}
            for one in self.planned
            if one.folder in self.failed
        ]
        return _write(
            Path(self.of.out),
            {**asked, **_compared(self.planned, self.found, self.shown), "failed": failed},
        )


def run_comparison(
    out: Path,
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    settings: Settings | None = None,
    tests: Sequence[str] = ("clean",),
    options: Options | None = None,
    engine: str | engines.Engine = "local",
    progress: bool = True,
) -> dict:
    """Trains and evaluates every method with every seed, seed by seed; what is finished in `out` is
    not done again.

    Called again after an interruption it goes on, inside a run after its last finished epoch.
    Called with more methods, seeds or tests it does what is missing. results.json and table.md are
    written anew after every run, of the runs asked for that are finished; those of a seed count
    once the first method has it. Other runs stay in their folders. A run that fails is reported and
    left out, and the others go on.

    Args:
        out: a folder; made, or continued if its runs are of the same settings.
        methods: each as for `catchup.utils.choices.parse_spec`: "cutmix", "cutmix:alpha=0.2". The
            first is what the others are compared with. seeds: each ≥ 0.
        settings: of every run; None takes the defaults. Method, its settings and the seed are
            filled in.
        tests: what to measure (see `catchup.measures`). options: of the tests.
        engine: where the runs are done (see `catchup.experiments.engines`): "local" one after the
            other in this process, "pool:jobs=4", "slurm:partition=gpu,hours=2,gpus=1",
            "ray:address=auto".
        progress: bars on standard error.
    Returns:
        What results.json holds: "methods", "seeds", "tests" as asked for; "rows", the evaluation
        objects, seed by seed, each with its `learning`; "differences" (see
        `catchup.measures.statistics.differences`);
        "failed", [{"label", "seed", "error"}], the runs that are left out, because they became NaN
        or infinite, or for another error; and versions, hardware, command, commit.
    Raises:
        ValueError: before anything is trained or written: for a name, setting or number that does
            not fit, a method or seed named twice, a model that the data or a method cannot train, a
            folder with other runs or other files, or one in which another process is at work.
        ImportError: likewise, for an engine whose package is not installed.
    """
    one = Comparison(
        out=Path(out),
        methods=methods,
        seeds=seeds,
        settings=settings or Settings(),
        tests=tests,
        options=options or Options(),
    )
    return sweep([one], engine=engine, progress=progress)[0]


def sweep(
    comparisons: Sequence[Comparison],
    *,
    engine: str | engines.Engine = "local",
    progress: bool = True,
) -> list[dict]:
    """Several comparisons, over data sets or recipes for example, their runs handed to one engine
    together.

    Args:
        comparisons: each in a folder of its own. engine, progress: as for `run_comparison`.
    Returns:
        What `run_comparison` returns, for each.
    Raises:
        ValueError, ImportError: as `run_comparison`; nothing is trained or written unless all
            of the comparisons can be.
    """
    engine = engines.make_engine(engine) if isinstance(engine, str) else engine
    # not resolve(), for which a link in a circle is an error without a sentence
    folders = [os.path.realpath(one.out) for one in comparisons]
    if len(set(folders)) < len(folders):
        raise ValueError(f"every comparison needs a folder of its own, got {', '.join(folders)}")
    sheets = [_Sheet.begin(one) for one in comparisons]
    engine.check()
    for sheet in sheets:
        if sheet.missing:
            _check_runnable(sheet.missing, progress, engine)
    with ExitStack() as stack:
        for sheet in sheets:
            stack.enter_context(lock_folder(Path(sheet.of.out)))
        _fill(sheets, engine, progress)
        return [sheet.write() for sheet in sheets]


def describe_comparison(
    results: Mapping, layout: Callable[[Sequence[Sequence[str]]], str] = as_text
) -> str:
    """What was compared, and the table.

    Args:
        results: as `run_comparison` returns them. layout: `as_text` or `as_markdown`.
    """
    rows, said = results["rows"], []
    if rows:
        said = [
            _budget(rows[0]),
            "",
            layout(comparison(rows, columns(results["tests"]), intervals=True)),
            "",
            "Percent: mean ± standard deviation over n seeds; then each method minus"
            f" {rows[0]['label']}, seed by seed, with the 95 % interval of the mean (Student t, n −"
            " 1 degrees of freedom; each for itself; unknown for a single seed) and p after Holm's"
            " correction for all differences of the table. They share one reference, so that their"
            " signs are not independent." + (BEST if "clean" in results["tests"] else ""),
        ]
        said += masking_verdicts(rows) if "fgsm" in results["tests"] else []
        said += filter(None, [describe_learning(rows)])
    left_out = [
        f"left out: {one['label']}, seed {one['seed']}: {one['error']}" for one in results["failed"]
    ]
    return "\n".join([*said, *([""] if said and left_out else []), *left_out])


def run_job(job: Job) -> Outcome:
    """Does a job where it is called; whatever stops it is its outcome, but for what ends the
    process.
    """
    try:
        return Outcome(_train_and_evaluate(job.planned, job.tests, job.options, job.progress))
    except FloatingPointError as error:
        return Outcome(error=str(error))
    except (ValueError, OSError, MemoryError) as error:  # sentences of our own, or the system's
        return Outcome(error=f"{type(error).__name__}: {error}")
    except Exception as error:
        traceback.print_exc()
        return Outcome(error=f"{type(error).__name__}: {error}")


def _fill(sheets: Sequence[_Sheet], engine: engines.Engine, progress: bool) -> None:
    """Does what is missing, and writes the files of a comparison after each of its runs."""
    missing = [(sheet, one) for sheet in sheets for one in sheet.missing]
    # those of several processes would be over each other
    bars = progress and isinstance(engine, engines.Local)
    jobs = [Job(one, sheet.of.tests, options_for(sheet.of, one), bars) for sheet, one in missing]
    with (
        counter(len(jobs), "compare", "run", progress) as update,
        closing(_outcomes_of(sheets, engine, jobs)) as outcomes,
    ):
        for number, outcome in outcomes:
            sheet, one = missing[number]
            if error := sheet.add(one.folder, outcome):
                say(f"left out: {one.folder}: {error}", progress)
            sheet.write()
            update(1)


def _outcomes_of(
    sheets: Sequence[_Sheet], engine: engines.Engine, jobs: Sequence[Job]
) -> Iterator[tuple[int, Outcome]]:
    """What becomes of the jobs, as they finish; no engine is started for none."""
    if jobs:
        yield from engines.run_jobs(engine, run_job, jobs, Path(sheets[0].of.out))


def _check_runnable(missing: Sequence[PlannedRun], progress: bool, engine: engines.Engine) -> None:
    """ValueError if the data, the model, the precision or a method's layers do not fit together."""
    first = missing[0].settings
    if not engine.elsewhere:  # where other machines compute, they know what they can
        make_accelerator(first)
    dataset = dataset_of(first, progress)
    model = model_of(first, dataset)
    try_out(model, dataset)
    for one in {one.label: one.settings for one in missing}.values():
        mixer = make(one.method, seed=0, **one.method_settings)
        mixer.check(model)
        try_blocks(model, mixer, dataset)


def _train_and_evaluate(
    one: PlannedRun, tests: Sequence[str], options: Options, progress: bool
) -> dict:
    """The evaluation object of a run, trained as far as it is not yet."""
    record = one.folder / RUN
    if not record.is_file() or "result" not in read_json(record):
        train(one.settings, one.folder, resume=record.is_file(), progress=progress)
    return evaluate(
        one.folder, tests, options=options, device=one.settings.device, progress=progress
    )


def _compared(
    planned: Sequence[PlannedRun], found: Mapping[Path, dict], columns: Mapping[str, str]
) -> dict:
    """The rows to show, and their differences."""
    first = {
        one.settings.seed
        for one in planned
        if one.label == planned[0].label and one.folder in found
    }
    rows = [
        {"label": one.label, **found[one.folder], "learning": assess_record(found[one.folder])}
        for one in planned
        if one.folder in found and one.settings.seed in first
    ]
    return {"rows": rows, "differences": differences(rows, columns) if rows else []}


def _write(out: Path, results: dict) -> dict:
    """Writes both files and returns what results.json holds."""
    results = jsonable({**results, **surroundings()})
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULTS, results)
    write_atomically(out / TABLE, (describe_comparison(results, as_markdown) + "\n").encode())
    return results


def _budget(row: Mapping) -> str:
    """What every run was given, from one of them."""
    amount = {
        int: f"{row['subset']} training images per class",
        float: f"{row['subset']} of each class's images",
    }
    width = "" if row["width"] is None else f" width {row['width']}"
    return (
        f"{row['data']}, {amount.get(type(row['subset']), 'all training images')},"
        f" {row['model']}{width}, {row['epochs']} epochs; {row['n_test']} test images"
    )
