"""The `compare` command: what it can be told, several data sets or recipes in one call, and what it
prints.
"""

import json as json_format
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..experiments.engines import make_engine
from ..experiments.planning import APART, RESULTS, Comparison, assess_runs, filename, outlook
from ..training.settings import Settings
from .options import Leading, ManyRuns, options_of, write_out

if TYPE_CHECKING:
    from ..measures.subject import Options


class ComparisonCall(NamedTuple):
    """What one call of the command asks for."""

    comparison: Comparison
    sweep: ManyRuns


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
    run_options = shared_settings(usual)
    test_options = options_of("tests", list(fields(Options)), Options)

    def compare(
        out: Path,
        sweep: ManyRuns,
        run: run_options,
        options: test_options,
        data: tuple[str, ...] = (usual.get("data", Settings.data),),
        recipe: tuple[str, ...] = (),
        tests: str = "clean",
    ) -> ComparisonCall:
        """Train every method with every seed under one budget, and compare them in pairs with 95 %
        intervals.

        --recipe and --data may each name several: a comparison in a folder of its own below --out
        for each.

        Args:
            out: Folder of the comparison; called again, it goes on and does only what is missing.
            data: Data sets (see `catchup datasets`).
            recipe: Published protocols to take the settings from (see `catchup recipes`).
            tests: What is measured, separated by commas, as for `catchup evaluate`.
        """
        settings = Settings(**vars(run), data=own_data or data[0], recipe=own_recipe)
        comparison = comparison_of(out, sweep, settings, tests, Options(**vars(options)))
        return ComparisonCall(comparison, sweep)

    return compare


def comparison_of(
    out: Path, sweep: ManyRuns, settings: Settings, tests: str, options: "Options"
) -> Comparison:
    """What is to be compared, from what a command was told."""
    return Comparison(
        out=out,
        methods=write_out(sweep.methods, settings, sweep.preset),
        seeds=sweep.seeds,
        settings=settings,
        tests=tuple(tests.split(",")),
        options=options,
    )


def shared_settings(usual: Mapping, *left_out: str) -> type:
    """A dataclass for tyro of the settings that all runs share.

    Args:
        usual: defaults that go before the fields' own.
        left_out: settings that are not offered besides.
    """
    apart = {*APART, "recipe", "data", *left_out}
    return options_of(
        "run", [one for one in fields(Settings) if one.name not in apart], Settings, usual
    )


def run_calls(parts: dict[str, ComparisonCall]) -> int:
    """Does what was asked and prints what came of it; the exit code: 1 if a run failed.

    Args:
        parts: by the folder's name, "" for the folder itself; engine, plan and json are the same in
            all.
    """
    from ..experiments.compare import describe_comparison, sweep

    asked = next(iter(parts.values())).sweep
    comparisons = {
        name: replace(one.comparison, out=one.comparison.out / name) for name, one in parts.items()
    }
    if asked.plan:
        print_plan(comparisons, asked)
        return 0
    results = dict(zip(comparisons, sweep(list(comparisons.values()), engine=asked.engine)))
    if asked.json:
        print(json_format.dumps(results.get("", results)))
    else:
        for name, one in results.items():
            print(
                *([f"== {name}", ""] if name else []),
                describe_comparison(one),
                "",
                f"all of it: {comparisons[name].out / RESULTS}",
                sep="\n",
            )
    return 1 if any(one["failed"] for one in results.values()) else 0


def print_plan(comparisons: Mapping[str, Comparison], asked: ManyRuns) -> None:
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
