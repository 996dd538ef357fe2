"""The `background` command: the causal test at several shares and budgets, and what it prints."""

import json as json_format
from pathlib import Path
from typing import Literal

from ..training.settings import Settings
from .compare import comparison_of, print_plan, shared_settings
from .options import ManyRuns


def make_command():
    """The command for tyro: what `compare` can be told, with the causal test's own defaults."""
    from ..experiments.background_bias import BUDGETS, RHOS, SETTINGS
    from ..measures.subject import Options

    run_options = shared_settings(SETTINGS.as_dict(), "epochs")

    def background(
        out: Path,
        sweep: ManyRuns,
        run: run_options,
        rhos: tuple[float, ...] = RHOS,
        budgets: tuple[int, ...] = BUDGETS,
        cue: Literal["texture", "colour"] = "texture",
    ) -> int:
        """Train on shapes whose background agrees with the class, and measure where it does not: at
        equal budget, and against the shortest run of the first method that has learnt as much.

        Args:
            out: Folder of the runs, RHO/EPOCHS/METHOD-SEED; called again, it goes on, and other
                methods, shares, seeds and budgets are added. background.jsonl and what is printed
                are of all that is finished there.
            rhos: Shares of the training images whose background agrees with the class; 0.125 is
                chance.
            budgets: Epochs of the runs; the schedule of each ends there.
            cue: Which attribute of the background agrees.
        """
        settings = Settings(**vars(run), data=SETTINGS.data)
        comparison = comparison_of(out, sweep, settings, "clean", Options())
        return _run_call(comparison, sweep, {"rhos": rhos, "budgets": budgets, "cue": cue})

    return background


def _run_call(comparison, asked: ManyRuns, axes: dict) -> int:
    """Does what was asked and prints what came of it; the exit code: 1 if a run is missing."""
    from ..experiments import background_bias
    from ..experiments.planning import assess_runs

    parts = background_bias.plan_background(comparison, **axes)
    if asked.plan:
        print_plan({f"{one.out.parent.name}/{one.settings.epochs}": one for one in parts}, asked)
        return 0
    rows = background_bias.run_background(comparison, **axes, engine=asked.engine)
    if asked.json:
        print(json_format.dumps(rows))
    elif rows:
        print(background_bias.describe_background(rows), "", sep="\n")
        print(f"all of it: {comparison.out / background_bias.ROWS}")
    missing = [run for one in parts for run in assess_runs(one) if run.state != "finished"]
    return 1 if missing else 0
