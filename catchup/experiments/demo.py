"""The demo: baseline and Catch-up Mix on few real digits, same seeds, three budgets; one table, two
figures.

Small enough for a minute on two cores, and large enough to show every part of the toolkit:
training, evaluation, attacks, the feature-drop curve. The settings were chosen for the time they
take; nothing is tuned towards a result.

Where it misleads: the budget decides what is found. Mixing learns its images later than plain
training, so that among networks that are still learning it looks worse than it is. Hence several
budgets, and beside every error the one on the training images. And 500 test images hold no sign of
errors that differ by three images: none is claimed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import mean

from ..data.files.pool import usual_workers
from ..measures.statistics import COLUMNS, by_method, comparison, differences, value_of
from ..mixers import MIXERS, make
from ..training import Settings, dataset_of, fit, model_of
from ..training.learning import assess_record
from ..utils.choices import pick
from ..utils.files import check_folder_place, jsonable, write_json
from ..utils.progress import counter
from ..utils.provenance import surroundings
from ..utils.text import as_text
from ..utils.threads import single_threaded
from . import engines
from .evaluation import USUAL, describe_training, evaluation_of

# epochs; with the last plain training has learnt its images and mixing has had time
BUDGETS = (5, 20, 100)
SETTINGS = Settings(
    data="digits",
    subset=20,
    model="resnet18",
    width=16,
    epochs=BUDGETS[-1],
    batch_size=50,
    lr=0.05,
    precision="fp32",
    validate_every=0,
)
METHODS, SEEDS = ("baseline", "catchup"), (0, 1, 2)
# the column that says whether a network is trained
LEARNT = {"clean_train_error": "error on its training images"}
ERRORS, KEPT = ("top1_error", "fgsm_error", "pgd_error"), "without_strongest"
# what the curve over the budgets shows; the attacks would take as long again
FEW = ("clean", "feature-drop")
FILES = ("results.json", "feature_drop.png", "budget.png")


def run_demo(
    out: Path,
    *,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    budgets: Sequence[int] = BUDGETS,
    settings: Settings = SETTINGS,
    engine: str | engines.Engine | None = None,
    progress: bool = True,
) -> dict:
    """Trains and evaluates every method with every seed and budget; writes results.json and two
    figures to `out`.

    Every budget is a run of its own, whose learning rate ends there. Runs are trained on one thread
    each, so that the numbers are the same in one process and in two.

    Args:
        out: a folder; made if needed. Files of an earlier demo in it are replaced, others refused.
        methods: what to compare, names from `MIXERS`; the first is what the others are compared
            with.
        seeds: all methods get the same (subset, initial weights, order of images). Each ≥ 0.
        budgets: epochs, each ≥ 1. The largest is the table's; the attacks are measured there alone.
        settings: of every run; method, seed and epochs are filled in.
        engine: where to train (see `catchup.experiments.engines`); None: two processes on this
            machine, or this process where it has one core. A script that calls this with processes
            needs `if __name__ == "__main__":` around the call.
        progress: a bar on standard error.
    Returns:
        {"rows": [evaluation objects]}, as written: budget by budget, the smallest first, and there
        seed by seed.
    Raises:
        ValueError: before anything is written: for a name, number or engine that does not fit,
            something named twice, or a folder with other files.
        ChildProcessError: if a process ends without an answer, every time it is tried.
        FloatingPointError, MemoryError, KeyboardInterrupt, SystemExit: as `catchup.fit`. No results
        are written then.
    """
    jobs = _jobs(methods, seeds, budgets, settings)
    engine = (
        _usual_engine()
        if engine is None
        else engines.make_engine(engine)
        if isinstance(engine, str)
        else engine
    )
    engine.check()
    out = _folder(Path(out))
    with single_threaded():
        rows = _answers(jobs, engine, out, progress)
        around = surroundings()
    results = {"rows": [{**jsonable(row), **around} for row in rows]}
    write_json(out / "results.json", results)
    _figures(rows, out)
    return results


def train_rows(
    methods: Sequence[str],
    seeds: Iterable[int],
    settings: Settings = SETTINGS,
    tests: Sequence[str] = USUAL,
) -> Iterator[dict]:
    """Trains every method with every seed, in memory, and yields one evaluation object each.

    Args:
        methods: names from `MIXERS`.
        seeds: for every seed the methods share subset, initial weights and order of the images:
            they are paired.
        settings: of every run; method and seed are filled in.
        tests: what to measure (see `catchup.experiments.evaluation.TESTS`).
    Yields:
        What `catchup.experiments.evaluation.evaluation_of` finds, what was trained, and whether it
        is trained (`learning`).
    """
    for seed in seeds:
        dataset = dataset_of(replace(settings, seed=seed), progress=False)
        for method in methods:
            chosen = replace(settings, method=method, seed=seed)
            result = fit(
                model_of(chosen, dataset), make(method, seed=seed), dataset, chosen, progress=False
            )
            row = {
                **describe_training(chosen.as_dict(), result.rows),
                **evaluation_of(result.model, dataset, tests),
            }
            yield {**row, "learning": assess_record(row)}


def table(results: Mapping) -> list[list[str]]:
    """The cells of the demo's table, of the largest budget: means ± standard deviations, and the
    paired differences.

    Args:
        results: as `run_demo` returns them.
    """
    return comparison(_by_budget(results["rows"])[-1], {**LEARNT, **COLUMNS})


def describe_demo(results: Mapping, out: Path) -> str:
    """The table, what it says, and how it depends on the budget, as text.

    Args:
        results: as `run_demo` returns them. out: the folder that was given to `run_demo`.
    """
    *_, rows = budgets = _by_budget(results["rows"])
    seeds = len({row["seed"] for row in rows})
    said = (
        f"{rows[0]['data']}, {rows[0]['subset']} training images per class, {rows[0]['model']}"
        f" width {rows[0]['width']}, {rows[0]['epochs']} epochs; percent on {rows[0]['n_test']}"
        f" test images, mean ± standard deviation over {seeds} paired seeds"
    )
    return "\n".join(
        [
            said,
            "",
            as_text(table(results)),
            "",
            *claims(rows),
            "",
            f"The budget decides (means; {' → '.join(by_method(rows))}):",
            *map(_budget_line, budgets),
            "",
            f"results: {out / FILES[0]}",
            f"figures: {out / FILES[1]}, {out / FILES[2]}",
            "next:    uv run jupyter lab notebooks/00_quickstart.ipynb    (in a clone)",
            "         catchup notebooks course                            (elsewhere)",
        ]
    )


def claims(rows: Sequence[Mapping]) -> list[str]:
    """What the rows of one budget say: a sign for the accuracy without the strongest features
    alone.

    Args:
        rows: evaluation objects, the first method being what the others are compared with.
    Returns:
        Two sentences for each method but the first: the difference of that accuracy with its 95 %
        interval (unknown for a single seed), and how many test images decide the differences of the
        errors, without their sign.
    """
    found = {(one["method"], one["measure"]): one for one in differences(rows, (*ERRORS, KEPT))}
    said, images = [], rows[0]["n_test"]
    for method in list(by_method(rows))[1:]:
        kept = found[method, KEPT]
        pair, shown = f"{method} − {kept['minus']}", "unknown: one seed"
        if kept["low"] is not None:
            shown = f"{kept['low']:+.1f} … {kept['high']:+.1f}: " + (
                "a difference" if kept["low"] > 0 or kept["high"] < 0 else "no difference is shown"
            )
        counts = [str(round(abs(found[method, error]["mean"]) * images / 100)) for error in ERRORS]
        said += [
            (
                f"{pair}, {rows[0]['epochs']} epochs: {COLUMNS[KEPT]} {kept['mean']:+.1f} points "
                f"(95 % interval {shown})."
            ),
            (
                f"Its errors (clean, FGSM, PGD) differ by {', '.join(counts[:-1])} and {counts[-1]}"
                f" of {images} images: no sign is claimed."
            ),
        ]
    return said


def _jobs(
    methods: Sequence[str], seeds: Sequence[int], budgets: Sequence[int], settings: Settings
) -> list[Settings]:
    """The settings of every run, in the order of the rows; ValueError for what does not fit."""
    for name, values in {"methods": methods, "seeds": seeds, "budgets": budgets}.items():
        if isinstance(values, str) or not values or len(set(values)) < len(values):
            raise ValueError(
                f"{name} must be a list of at least one, none of them twice, got {values!r}"
            )
    for method in methods:
        pick("method", method, MIXERS)
    return [
        replace(settings, method=method, seed=seed, epochs=epochs)
        for epochs in sorted(budgets)
        for seed in seeds
        for method in methods
    ]


def _usual_engine() -> engines.Engine:
    """Two processes of one thread each: on 8×8 images a second thread of one process mostly
    waits.
    """
    return engines.Pool(jobs=2, threads=1) if usual_workers() else engines.Local()


def _answers(
    jobs: Sequence[Settings], engine: engines.Engine, out: Path, progress: bool
) -> list[dict]:
    """The row of every job, in their order; the longest are begun first, so that all processes end
    together.
    """
    longest = max(one.epochs for one in jobs)
    order = sorted(range(len(jobs)), key=lambda place: -jobs[place].epochs)
    tasks = [(jobs[place], USUAL if jobs[place].epochs == longest else FEW) for place in order]
    rows: list[dict] = [{}] * len(jobs)
    with (
        counter(sum(one.epochs for one in jobs), "demo", "epoch", progress) as update,
        closing(engines.run_jobs(engine, _row, tasks, out)) as answers,
    ):
        for number, answer in answers:
            one = tasks[number][0]
            if isinstance(answer, engines.Lost):
                raise ChildProcessError(
                    f"the run of {one.method}, seed {one.seed}, {one.epochs} epochs was given up "
                    f"after {engines.ATTEMPTS} attempts: {answer}; the engine 'local' does it in "
                    "the calling process"
                )
            rows[order[number]] = answer
            update(one.epochs)
    return rows


def _row(task: tuple[Settings, Sequence[str]]) -> dict:
    """The evaluation object of one run; for a process of its own, where the calling one has no part
    in it.
    """
    settings, tests = task
    return next(train_rows((settings.method,), (settings.seed,), settings, tests))


def _by_budget(rows: Sequence[Mapping]) -> list[list[Mapping]]:
    """The rows of every budget, the smallest first."""
    return [
        [row for row in rows if row["epochs"] == epochs]
        for epochs in sorted({row["epochs"] for row in rows})
    ]


def _budget_line(rows: Sequence[Mapping]) -> str:
    """One budget in a line: the methods' errors on training and test images, and what is left of
    the accuracy.
    """

    def means(column: str) -> str:
        return " → ".join(
            f"{mean(value_of(row, column) for row in group):.1f}"
            for group in by_method(rows).values()
        )

    return (
        f"{rows[0]['epochs']:>5} epochs: {LEARNT['clean_train_error']}"
        f" {means('clean_train_error')}, {COLUMNS['top1_error']} {means('top1_error')},"
        f" {COLUMNS[KEPT]} {means(KEPT)}"
    )


def _folder(out: Path) -> Path:
    """The folder, made."""
    check_folder_place(out, "the demo")
    if out.is_dir() and not {file.name for file in out.iterdir()} <= set(FILES):
        raise ValueError(f"{out} holds other files than a demo's; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _figures(rows: Sequence[Mapping], out: Path) -> None:
    from .. import plots

    plots.save(_by_budget(rows)[-1], out / FILES[1], plots.feature_drop_curves)
    plots.save_budgets(rows, out / FILES[2])
