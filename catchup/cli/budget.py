"""The `budget` command: a comparison at several budgets, and what it prints."""

import json as json_format
from dataclasses import fields
from pathlib import Path

from ..experiments.planning import Comparison
from ..training.settings import Settings
from .compare import comparison_of, print_plan, shared_settings
from .options import Leading, ManyRuns, options_of


def make_command(leading: Leading):
    """The command for tyro: what `compare` can be told of one data set, with budgets in place of
    the epochs.
    """
    from ..measures.subject import Options

    own_recipe, own_data = (next(iter(named), None) for named in (leading.recipe, leading.data))
    usual = leading.defaults(own_recipe, None, own_data)
    run_options = shared_settings(usual, "epochs")
    test_options = options_of("tests", list(fields(Options)), Options)

    def budget(
        out: Path,
        sweep: ManyRuns,
        run: run_options,
        options: test_options,
        budgets: tuple[int, ...] = (20, 50, 100),
        data: str = usual.get("data", Settings.data),
        recipe: str | None = None,
        tests: str = "clean,fgsm,feature-drop",
    ) -> int:
        """Train every method with every seed under several budgets, each a run of its own, and say
        from which budget on a method pays.

        Args:
            out: Folder of the budgets, a comparison in each of its folders 20, 50, …; called again,
                it goes on and does only what is missing. What `catchup compare --epochs 20` left in
                its folder 20 is taken as it is.
            budgets: Epochs of the runs; the schedule of each ends there.
            data: The data set (see `catchup datasets`).
            recipe: A published protocol to take the other settings from (see `catchup recipes`).
            tests: What is measured, separated by commas, as for `catchup evaluate`; clean, fgsm and
                feature-drop always are.
        """
        settings = Settings(**vars(run), data=data, recipe=recipe)
        comparison = comparison_of(out, sweep, settings, tests, Options(**vars(options)))
        return _run_call(comparison, budgets, sweep)

    return budget


def _run_call(comparison: Comparison, budgets: tuple[int, ...], asked: ManyRuns) -> int:
    """Does what was asked and prints what came of it; the exit code: 1 if a run failed."""
    from ..experiments.budget import FIGURE, RESULTS, describe_budgets, plan_budgets, run_budgets

    if asked.plan:
        parts = plan_budgets(comparison, budgets)
        print_plan({str(one.settings.epochs): one for one in parts}, asked)
        return 0
    results = run_budgets(comparison, budgets, engine=asked.engine)
    if asked.json:
        print(json_format.dumps(results))
    else:
        files = f"all of it: {comparison.out / RESULTS}, {comparison.out / FIGURE}"
        print(describe_budgets(results), "", files, sep="\n")
    return 1 if results["failed"] else 0
