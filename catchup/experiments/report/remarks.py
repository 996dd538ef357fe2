"""What has to be read beside our number in a table: a number that needs no network, a check, the
epoch it is of.
"""

from collections.abc import Mapping
from statistics import fmean

from ...measures.robustness import masking_verdict
from ...measures.statistics import value_of
from ...training import recipes
from . import printed as paper
from .cells import Cell, Ours
from .records import Group

# what a recipe's source may print instead of the last epoch's number
NOT_LAST = ("best", "median10")


def remarks(cell: Cell) -> list[str]:
    """Sentences about our number in a cell; none if there is none, or for a time.

    They tell: records of the same setting whose difference has another sign; the numbers that the
    layout wants beside it (`Column.beside`), each a mean over the runs; what FGSM and PGD say
    together of gradient masking; what was measured, where the layout has a word on it; and that
    ours is of the last epoch, where the protocol prints another.
    """
    if cell.ours is None or not isinstance(cell.ours.record, Group):
        return []
    column, group = paper.table_of(cell.printed).column(cell.printed), cell.ours.record
    rows = [
        row
        for row, method in zip(group.rows, group.methods)
        if method == cell.ours.method and row.get("seed") in cell.ours.seeds
    ]
    said = [*disagreements(cell), *([column.remark] if column.remark else [])]
    beside = {name: _mean(rows, measure) for name, measure in column.beside.items()}
    if known := [f"{name} {value:.2f}" for name, value in beside.items() if value is not None]:
        said.append(f"beside ours: {', '.join(known)}")
    if column.measure == "fgsm_error":
        signs = [
            words for row in rows if not (words := masking_verdict(row) or "").startswith("no sign")
        ]
        said += dict.fromkeys(signs) or [
            "no sign of gradient masking: PGD errs as often as FGSM, or more"
        ]
    prints = (
        recipes.load()[cell.printed.protocol].reports
        if cell.printed.protocol in recipes.load()
        else ""
    )
    if column.measure in ("top1_error", "last_error", "last_val_loss") and prints in NOT_LAST:
        said.append(
            f"ours after the last epoch; {cell.printed.protocol} prints {recipes.REPORTS[prints]}"
        )
    return said


def disagreements(cell: Cell) -> list[str]:
    """A sentence with the differences of all records of the cell's setting, if their signs differ;
    else none.
    """
    same = [
        one for one in (cell.ours, *cell.others) if one and _setting(one) == _setting(cell.ours)
    ]
    told = [one for one in same if one.difference]
    means = [one.difference.mean for one in told]
    if not told or not min(means) < 0 < max(means):
        return []
    shown = (
        f"{one.difference.mean:+.2f} ({one.difference.n} pairs, {one.record.source})"
        for one in told
    )
    return [f"records of one setting disagree: {'; '.join(shown)}"]


def _setting(one: Ours) -> tuple:
    """What makes two records of a method the same measurement, their seeds and machines apart."""
    group = one.record
    return (
        one.method,
        group.data,
        group.classes,
        group.per_class,
        group.width,
        group.first["epochs"],
    )


def _mean(rows: list[Mapping], measure: str) -> float | None:
    values = [value for row in rows if isinstance(value := value_of(row, measure), (int, float))]
    return fmean(values) if values else None
