"""The budget as an axis: methods x budgets x seeds, every budget a run of its own whose schedule
ends there.

DIR/EPOCHS/         a comparison of that many epochs (see `catchup.experiments.compare`)
DIR/budget.json     all its rows, from which budget on each method pays, and which networks are
                    trained (see `catchup.measures.crossing`, `catchup.training.learning`)
DIR/budget.png      error, FGSM error and accuracy without the strongest features over the budgets

Where it misleads: mixing learns its images later than plain training, so that one budget shows
which method learns faster as much as which one is better. Hence several, each with a schedule of
its own: the middle of a long run is no short run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from ..measures.crossing import Crossing, describe_crossing, find_crossings
from ..measures.statistics import COLUMNS, by_method, mean_with_deviation, method_of, value_of
from ..training.learning import assess_record, describe_learning
from ..utils.files import check_folder_place, jsonable, write_json
from ..utils.provenance import surroundings
from ..utils.text import as_text
from . import engines
from .compare import sweep
from .planning import Comparison

RESULTS, FIGURE = "budget.json", "budget.png"
TESTS = ("clean", "fgsm", "feature-drop")  # what the axis is about
SHOWN = ("top1_error", "fgsm_error", "without_strongest")


def plan_budgets(
    comparison: Comparison, budgets: Sequence[int], tests: Sequence[str] = TESTS
) -> list[Comparison]:
    """One comparison for each budget, in a folder of its own.

    Args:
        comparison: what is compared, and where; its epochs are not read.
        budgets: epochs, ≥ 1, none of them twice.
        tests: added to those of the comparison.
    Raises:
        ValueError: for budgets that are not so.
    """
    whole = all(isinstance(epochs, int) and epochs >= 1 for epochs in budgets)
    if not budgets or not whole or len(set(budgets)) < len(budgets):
        raise ValueError(
            f"budgets must be whole numbers of epochs, at least one, none twice; got {budgets!r}"
        )
    return [
        replace(
            comparison,
            out=Path(comparison.out) / str(epochs),
            tests=tuple(dict.fromkeys((*tests, *comparison.tests))),
            settings=replace(comparison.settings, epochs=epochs),
        )
        for epochs in sorted(budgets)
    ]


def run_budgets(
    comparison: Comparison,
    budgets: Sequence[int],
    *,
    engine: str | engines.Engine = "local",
    progress: bool = True,
) -> dict:
    """Trains and evaluates every method with every seed and budget; what is finished is kept.

    Args:
        comparison: as for `plan_budgets`.
        budgets: epochs of the runs.
        engine: where the runs are done (see `catchup.experiments.engines`).
        progress: bars on standard error.
    Returns:
        What budget.json holds: "rows", evaluation objects; "crossings", `Crossing` as objects, an
        infinite number as None; "sentences"; "still_learning", a line on the networks that are not
        trained, or ""; "failed" runs; and where it comes from.
    Raises:
        ValueError, ImportError: as `catchup.experiments.compare.sweep`, before anything is trained.
    """
    parts, out = plan_budgets(comparison, budgets), Path(comparison.out)
    check_contents(out, str.isdecimal, (RESULTS, FIGURE), "is no budget")
    compared = sweep(parts, engine=engine, progress=progress)
    rows = judge_rows([row for part in compared for row in part["rows"]])
    crossings, unpaired = _crossings(rows)
    results = jsonable(
        {
            "rows": rows,
            "crossings": [_as_object(crossing) for crossing in crossings],
            "sentences": [*map(describe_crossing, crossings), *unpaired],
            "still_learning": describe_learning(rows),
            "failed": [failure for part in compared for failure in part["failed"]],
            **surroundings(),
        }
    )
    write_json(out / RESULTS, results)
    if rows:
        from ..plots import save_budgets

        save_budgets(rows, out / FIGURE, SHOWN)
    return results


def describe_budgets(results: Mapping) -> str:
    """A table of means ± standard deviations, a line for each budget and method, then a sentence
    for each method and measure.

    Args:
        results: as `run_budgets` returns them.
    """
    rows = results["rows"]
    head = ("epochs", "method", "trained", "error on training images")
    table = [[*head, *(COLUMNS[key] for key in SHOWN)]]
    for epochs in sorted({row["epochs"] for row in rows}):
        groups = by_method([row for row in rows if row["epochs"] == epochs])
        for method, group in groups.items():
            cells = [_spread(group, key) for key in ("clean_train_error", *SHOWN)]
            table.append([str(epochs), method, _trained(group), *cells])
    failed = [
        f"left out: {run['label']}, seed {run['seed']}: {run['error']}" for run in results["failed"]
    ]
    learning = filter(None, [results["still_learning"]])
    return "\n".join([as_text(table), "", *results["sentences"], *learning, *failed])


def _trained(rows: Sequence[Mapping]) -> str:
    """How many networks of a method and budget are trained."""
    return f"{sum(row['learning']['trained'] for row in rows)} of {len(rows)}"


def judge_rows(rows: Sequence[Mapping]) -> list[dict]:
    """The rows, each with its `learning`, judged beside that of half its budget, if there is one.

    Args:
        rows: evaluation objects of one setting but for method, seed and epochs.
    """
    by_run = {(method_of(row), row["seed"], row["epochs"]): row for row in rows}
    return [
        {**row, "learning": assess_record(row, by_run.get((*key[:2], key[2] / 2)))}
        for key, row in by_run.items()
    ]


def check_contents(
    out: Path, belongs: Callable[[str], bool], files: Sequence[str], otherwise: str
) -> None:
    """ValueError if a folder holds anything else than its own; nothing is written.

    Args:
        out: the folder, which may not be there yet.
        belongs: is this the name of one of its folders?
        files: names of its files.
        otherwise: what is wrong with another one, in words.
    """
    check_folder_place(out, "the runs")
    for path in sorted(out.iterdir()) if out.is_dir() else ():
        ours = path.is_dir() and belongs(path.name)
        if not (ours or path.name in files or path.name.startswith(".")):
            raise ValueError(f"{out} holds {path.name}, which {otherwise}; give a new folder")


def _crossings(rows: Sequence[Mapping]) -> tuple[list[Crossing], list[str]]:
    """The crossings of the methods that have pairs, and a sentence about each of the others."""
    found: list[Crossing] = []
    unpaired: list[str] = []
    first, *others = dict.fromkeys(map(method_of, rows)) or ("",)
    for method in others:
        pair = [row for row in rows if method_of(row) in (first, method)]
        try:
            found += find_crossings(pair, SHOWN)
        except ValueError as error:
            unpaired.append(f"{method} against {first}: not known, {error}.")
    return found, unpaired


def _spread(rows: Sequence[Mapping], measure: str) -> str:
    values = [value_of(row, measure) for row in rows]
    return "not measured" if None in values else mean_with_deviation(values)


def _as_object(crossing: Crossing) -> dict:
    """A crossing for JSON, which knows no infinity."""
    numbers = crossing._asdict()
    return {key: None if value == inf else value for key, value in numbers.items()}
