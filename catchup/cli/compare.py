"""The `compare` command: what it can be told, several data sets or recipes in one call, and what it
prints.
"""

import json as json_format
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path

from ..experiments.engines import make_engine
from ..experiments.planning import APART, RESULTS, Comparison, assess_runs, filename, outlook
from ..training.settings import Settings
from .options import Leading, options_of, under_recipe


@dataclass(frozen=True)
class ComparisonCall:
    """What one call of the command asks for."""

    comparison: Comparison
    engine: str
    plan: bool
    json: bool


def combinations(leading: Leading) -> dict[str, tuple[str | None, str | None]]:
    """Every combination of the recipes and data sets, by its folder's name: "" for the only one.

    Raises:
        ValueError: if one is named twice, or two have one name for files.
    """
    parts: dict[str, tuple[str | None, str | None]] = {}
    for recipe, data in product(leading.recipe or (None,), leading.data or (None,)):
        several = [
            one
            for one, all_of in ((recipe, leading.recipe), (data, leading.data))
            if len(all_of) > 1
        ]
        name = filename("-".join(several))
        if name in parts:
            raise ValueError(
                f"every data set and recipe may be named once, got {' '.join(several)!r} twice"
            )
        parts[name] = recipe, data
    return parts


def make_command(leading: Leading, own_recipe: str | None, own_data: str | None):
    """The command for tyro, for one recipe and data set: what `train` can be told, but for what the
    runs of a comparison differ in.
    """
    from ..measures.registry import Options

    usual = leading.defaults(own_recipe, None, own_data)
    run_options = options_of(
        "run",
        [field for field in fields(Settings) if field.name not in (*APART, "recipe", "data")],
        Settings,
        usual,
    )
    test_options = options_of("tests", list(fields(Options)), Options)

    def compare(
        out: Path,
        run: run_options,
        options: test_options,
        data: tuple[str, ...] = (usual.get("data", Settings.data),),
        recipe: tuple[str, ...] = (),
        methods: tuple[str, ...] = ("baseline", "catchup"),
        seeds: tuple[int, ...] = (0, 1, 2),
        tests: str = "clean",
        engine: str = "local",
        plan: bool = False,
        json: bool = False,
    ) -> ComparisonCall:
        """Train every method with every seed under one budget, and compare them in pairs with 95 %
        intervals.

        --recipe and --data may each name several: a comparison in a folder of its own below --out
        for each.

        Args:
            out: Folder of the comparison; called again, it goes on and does only what is missing.
            data: Data sets (see `catchup datasets`).
            recipe: Published protocols to take the settings from (see `catchup recipes`).
            methods: Methods with their settings: cutmix, cutmix:alpha=0.2,prob=0.5. The first is
                what the others are compared with. A recipe adds its own settings of each method.
            seeds: Paired over the methods: same subset, initial weights, order of the images.
            tests: What is measured, separated by commas, as for `catchup evaluate`.
            engine: Where the runs are done: local (one after the other), pool:jobs=4 (processes of
                this machine), slurm:partition=gpu,hours=2,gpus=1,jobs=20 or ray:address=auto (a
                cluster).
            plan: Only print the runs, which are missing, and about how long they take; nothing is
                trained.
            json: Print the results as JSON instead of a table.
        """
        chosen = vars(run) | {"data": own_data or data[0], "recipe": own_recipe}
        settings = Settings(**chosen)
        comparison = Comparison(
            out=out,
            methods=under_recipe(methods, settings),
            seeds=seeds,
            settings=settings,
            tests=tuple(tests.split(",")),
            options=Options(**vars(options)),
        )
        return ComparisonCall(comparison, engine, plan, json)

    return compare


def run_calls(parts: dict[str, ComparisonCall]) -> int:
    """Does what was asked and prints what came of it; the exit code: 1 if a run failed.

    Args:
        parts: by the folder's name, "" for the folder itself; engine, plan and json are the same in
            all.
    """
    from ..experiments.compare import report, sweep

    first = next(iter(parts.values()))
    comparisons = {
        name: replace(one.comparison, out=one.comparison.out / name) for name, one in parts.items()
    }
    if first.plan:
        _print_plan(comparisons, first)
        return 0
    results = dict(zip(comparisons, sweep(list(comparisons.values()), engine=first.engine)))
    if first.json:
        print(json_format.dumps(results.get("", results)))
    else:
        for name, one in results.items():
            print(
                *([f"== {name}", ""] if name else []),
                report(one),
                "",
                f"all of it: {comparisons[name].out / RESULTS}",
                sep="\n",
            )
    return 1 if any(one["failed"] for one in results.values()) else 0


def _print_plan(comparisons: dict[str, Comparison], asked: ComparisonCall) -> None:
    """What `--plan` shows: of all comparisons together, as their runs would be done."""
    at_once = make_engine(asked.engine).at_once
    stands = {name: assess_runs(one) for name, one in comparisons.items()}
    if asked.json:
        plain = {
            name: [{**run._asdict(), "folder": str(run.folder)} for run in rows]
            for name, rows in stands.items()
        }
        return print(json_format.dumps(plain.get("", plain)))
    print(outlook([run for rows in stands.values() for run in rows], at_once))
