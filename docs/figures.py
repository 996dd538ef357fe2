"""The figures of README and docs, drawn from the recorded runs: `python docs/figures.py`.

figures/budget.png, budget-digits.png
                    error and what is left without the strongest features, against the budget
figures/claim.png   accuracy against the share of the strongest features removed; its title is
                    written from the numbers, whichever way they come out
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from catchup.measures.statistics import by_method, span
from catchup.plots import results
from catchup.plots.budget import save_budgets

DOCS = Path(__file__).parent
MAIN = DOCS.parent / "data" / "results" / "main.jsonl"
BUDGETS = ("budget", "budget-digits")
TESTED = ("top1_error", "fgsm_error", "without_strongest")
REMOVED = 0.1  # the share of features of which the title speaks


def claim(rows: Sequence[Mapping]) -> Figure:
    """The claim figure: what is left of the accuracy, its sentence above, its budget beneath.

    Args:
        rows: evaluation objects with `feature_drop` of baseline, catchup and others.
    """
    groups = by_method(rows, "feature_drop")
    kept = {
        method: fmean(dict(map(tuple, row["feature_drop"]["strongest"]))[REMOVED] for row in group)
        for method, group in groups.items()
    }
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    ax = results.feature_drop_curves(rows, figure.subplots())
    ax.set(title="", xlim=(-1, 51))  # beyond half, nothing is left of any
    verb = "keeps" if kept["catchup"] > kept["baseline"] else "keeps only"
    figure.suptitle(
        f"Without the strongest {100 * REMOVED:.0f} % of its features a network trained with\n"
        f"Catch-up Mix {verb} {kept['catchup']:.0f} % accuracy, a plainly trained one"
        f" {kept['baseline']:.0f} %",
        fontsize=13,
    )
    seeds = span(sorted({len(group) for group in groups.values()}))
    figure.supxlabel(
        f"CIFAR-100, 50 training images a class, ResNet-18 of width {rows[0]['width']},"
        f" {rows[0]['epochs']} epochs,\n{seeds} seeds a method; bands: one standard deviation",
        fontsize=10,
    )
    return figure


def read_rows(path: Path = MAIN) -> list[dict]:
    """The evaluation objects of the main table's runs."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_budget(name: str = "budget") -> dict:
    """A record of `catchup budget`."""
    return json.loads((MAIN.parent / f"{name}.json").read_text())


if __name__ == "__main__":
    for name in BUDGETS:
        save_budgets(read_budget(name)["rows"], DOCS / "figures" / f"{name}.png", TESTED)
    claim(read_rows()).savefig(DOCS / "figures" / "claim.png", dpi=110)
