"""The papers' tables and figures beside our records: printed number, ours, their differences, and a
verdict in words.

What stands beside a cell is data (`data/paper/cells.toml`, see
`catchup.experiments.report.printed`), the verdict a rule (`catchup.experiments.report.verdict`).
Where several records could fill a cell, the choice never looks at their numbers: first those that
hold the reference too; then the paper's own protocol, trained networks before those that still
learn, its data set, the nearer share of the data and network, the method's settings as in the
paper, more paired seeds, more epochs, and the name. The others are named beside it.

A column about a share of the training images holds records of that share alone (Table 4: 50 images
a class of CIFAR-100 are its 10 %).

Where it misleads: a cell shows one record, so that a table may mix several; the letters tell. Ours
are the numbers after the last epoch, where many of the papers' sources take the best epoch or the
median of the last ten.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...measures.significance import holm, resolution_of
from ...training.learning import assess_record
from . import printed as paper
from .printed import Column, Printed, Table
from .protocol import differences, model_distance, rules_left_out, test_options, true_share
from .records import Group, Records, StepCost, read, stands_for, under_recipe, value_in
from .verdict import (
    NOT_COMPARED,
    NOT_RUN,
    REFERENCE,
    WORDS,
    Difference,
    Verdict,
    judge,
    paired_difference,
)


class Ours(NamedTuple):
    """What a record says of a cell.

    record: where it is from. method: as it was run. values: by seed, for these seeds. beside: the
    reference's, by the same seeds, in the same record, which need not be the one that the
    reference's own cell shows. difference: from the reference; None where the record has none of
    the same seeds. scale: in what the run differs from the paper's, in words. learning: why a
    network of either counts as not trained, "" if all are trained.
    """

    record: Group | StepCost
    method: str
    values: tuple[float, ...]
    seeds: tuple
    beside: tuple[float, ...]
    difference: Difference | None
    scale: tuple[str, ...]
    learning: str = ""


class Cell(NamedTuple):
    """A printed number with all that stands beside it. `printed_difference`: from the reference's
    printed number. `p_holm`: of our difference, corrected for all of the table.
    """

    printed: Printed
    reference: str | None
    printed_difference: float | None
    ours: Ours | None
    others: tuple[Ours, ...]
    verdict: Verdict
    p_holm: float | None = None


def make_report(
    paths: Sequence[Path] = (),
    *,
    tables: tuple[int, ...] = (),
    figures: tuple[int, ...] = (),
    which: str = "both",
) -> dict:
    """The report as values.

    Args:
        paths: records, as for `records.read`; none: those of data/results.
        tables, figures, which: as for `paper.selected`.
    Returns:
        "cells": the `Cell`s; "records": those that stand in some cell, by their letters; "unused":
        sentences about records that stand in none; "counts": {verdict: how many}.
    Raises:
        ValueError: as `records.read` and `paper.selected`.
    """
    chosen = paper.selected(tables, figures, which)
    found = read(paths)
    cells = _corrected([cell_of(printed, found) for printed in chosen])
    used = list(
        {
            id(one.record): one.record for cell in cells for one in (cell.ours, *cell.others) if one
        }.values()
    )
    records: list[Group | StepCost] = [*found.groups, *found.costs]
    idle = [
        f"{record.source}: nothing of it stands in a cell shown here"
        for record in records
        if not any(record is one for one in used)
    ]
    return {
        "cells": cells,
        "records": {_letters(index): record for index, record in enumerate(used)},
        "unused": list(dict.fromkeys([*found.unused, *idle])),
        "counts": _counts(cells),
    }


def cell_of(printed: Printed, found: Records) -> Cell:
    """What the records say of one cell."""
    table = paper.table_of(printed)
    column, method = table.column(printed), table.method(printed)
    specs = under_recipe(table.specs(method, column.alpha), printed.protocol)
    if not specs or not (column.measure or column.step_cost):
        return Cell(printed, None, None, None, (), Verdict(NOT_COMPARED))
    every = (
        _costs(found.costs, specs)
        if column.step_cost
        else _compared(found.groups, printed, table, column, specs)
    )
    ours, others = (every[0], tuple(every[1:])) if every else (None, ())
    if method == column.reference:
        return Cell(printed, column.reference, None, ours, others, Verdict(REFERENCE))
    difference = printed_difference(printed, table, column)
    claimed = printed.better if printed.table.startswith("Figure") else 0
    said = judge(
        ours and ours.difference,
        difference,
        same_protocol=bool(ours) and not ours.scale,
        claimed=claimed,
        learning=ours.learning if ours else "",
    )
    if ours and said.word == NOT_RUN:
        said = Verdict(NOT_RUN, f"no {column.reference} beside it")
    return Cell(printed, column.reference, difference, ours, others, said)


def _corrected(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with the p values of their differences, corrected table by table."""
    tables: dict[tuple[str, str], list[int]] = {}
    for at, cell in enumerate(cells):
        tables.setdefault((cell.printed.paper, cell.printed.table), []).append(at)
    p_values = [
        one.ours.difference.p
        if one.ours and one.ours.difference and one.verdict.agrees is not None
        else None
        for one in cells
    ]
    found = {
        at: p
        for places in tables.values()
        for at, p in zip(places, holm([p_values[at] for at in places]))
    }
    return [cell._replace(p_holm=found[at]) for at, cell in enumerate(cells)]


def printed_difference(printed: Printed, table: Table, column: Column) -> float | None:
    """The cell's number minus its reference's; of times, by how many percent it is longer. None if
    one is missing.
    """
    place = {"row" if table.methods == "rows" else "column": column.reference}
    key = (printed._replace(**place))[:4]
    reference = next((row.value for row in paper.printed() if row[:4] == key), None)
    if printed.value is None or reference is None:
        return None
    return (
        100 * (printed.value / reference - 1)
        if column.step_cost
        else round(printed.value - reference, 6)
    )


def counts_text(results: Mapping) -> str:
    """How often each verdict was given, in one sentence."""
    return f"{len(results['cells'])} cells: " + "; ".join(
        f"{n} {word}" for word, n in results["counts"].items()
    )


def surroundings(record: Group | StepCost) -> dict[str, str]:
    """Hardware, commit, command and versions of a record, as words; of several machines or commits
    all are named.
    """
    rows = [record.record] if isinstance(record, StepCost) else record.rows
    trained = [row.get("training") or row for row in rows]
    versions = [
        ", ".join(f"{key} {value}" for key, value in (row.get("versions") or {}).items())
        for row in rows
    ]
    return {
        "hardware": _all(map(_machine, rows)),
        "commit": _all(row.get("commit") for row in trained),
        "command": str(trained[0].get("command")),
        "versions": _all(versions),
    }


def _compared(
    groups: Sequence[Group], printed: Printed, table: Table, column: Column, specs: Sequence[str]
) -> list[Ours]:
    """What every group that may stand in a cell says of it, the one to show first."""
    reference = table.specs(column.reference, column.alpha) if column.reference else ()
    reference = under_recipe(reference, printed.protocol)
    found = []
    for group in groups:
        if not _may_stand(group, column):
            continue
        if one := _of_group(group, printed, column, specs, reference):
            found.append((_rank(one, group, column, specs), one))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _may_stand(group: Group, column: Column) -> bool:
    """Are the group's data, their share and the model such that it may fill the column?"""
    data = group.data == column.data or group.data in column.stand_in
    share = column.share == 1 or true_share(group, column)
    return data and share and (not column.fixed_model or group.first["model"] == column.model)


def _of_group(
    group: Group, printed: Printed, column: Column, specs: Sequence[str], reference: Sequence[str]
) -> Ours | None:
    """What one group says of a cell; None if it has not measured it."""
    method, mine = _by_seed(group, column, specs)
    if not mine:
        return None
    compared_with, theirs = _by_seed(group, column, reference)
    seeds = [  # only what was measured in the same way is compared
        seed
        for seed in mine
        if seed in theirs and test_options(mine[seed], column) == test_options(theirs[seed], column)
    ]
    shown = tuple(seeds or mine)
    values = tuple(value_in(mine[seed], column) for seed in shown)
    beside = tuple(value_in(theirs[seed], column) for seed in seeds)
    rows = [rows[seed] for rows in (mine, theirs) for seed in shown if seed in rows]
    resolution = max(resolution_of(row, column.measure or "") for row in rows)
    difference = paired_difference(values, beside, resolution) if seeds else None
    scale = differences(group, column, printed.protocol, [mine[seed] for seed in shown])
    for one, wanted in ((method, specs), (compared_with, reference)):
        if one and not stands_for(one, wanted[0]):
            scale.append(f"{one} instead of {wanted[0]}")
        scale += [
            said
            for name, row in zip(group.methods, group.rows)
            if name == one
            for said in rules_left_out(row, printed.protocol)
        ]
    learning = _why_learning(rows)
    return Ours(
        group, method, values, shown, beside, difference, tuple(dict.fromkeys(scale)), learning
    )


def _why_learning(rows: Sequence[Mapping]) -> str:
    """The reason of the first network that counts as not trained; "" if there is none."""
    told = filter(None, map(assess_record, rows))
    return next((one["reason"] for one in told if not one["trained"]), "")


def _by_seed(group: Group, column: Column, specs: Sequence[str]) -> tuple[str, dict]:
    """The method that stands for the first of `specs` that the group has measured, and its rows by
    seed.
    """
    for text in specs:
        for method in sorted({name for name in group.methods if stands_for(name, text)}):
            rows = {
                row.get("seed"): row
                for name, row in zip(group.methods, group.rows)
                if name == method and value_in(row, column) is not None
            }
            if rows:
                return method, rows
    return "", {}


def _rank(one: Ours, group: Group, column: Column, specs: Sequence[str]) -> tuple:
    """Sorts what may stand in a cell, the one to show first; blind to the numbers (see the module's
    docstring).
    """
    near = max(group.share, column.share) / min(group.share, column.share)
    return (
        one.difference is None,
        bool(one.scale),
        bool(one.learning),
        group.data != column.data,
        model_distance(group, column),
        near,
        not stands_for(one.method, specs[0]),
        -(one.difference.n if one.difference else 0),
        -group.first["epochs"],
        group.source,
    )


def _costs(costs: Sequence[StepCost], specs: Sequence[str]) -> list[Ours]:
    """The ratios of steps that were measured for a method; 1 for the baseline, which is what they
    are ratios to.
    """
    found = []
    for cost in costs:
        bench = cost.record["bench"]
        scale = (
            (
                f"a training step of {bench.get('model')}, width {bench.get('width')}, batch"
                f" {bench.get('batch')}, on {cost.record.get('device')} instead of an epoch; n are"
                " rounds, in brackets their quartiles"
            ),
        )
        rows = {"baseline": {"ratio": 1.0}, **{row["method"]: row for row in cost.record["rows"]}}
        if (name := next((spec for spec in specs if spec in rows), None)) is None:
            continue
        low, middle, high = (
            100 * (rows[name].get(key, 1.0) - 1) for key in ("low", "ratio", "high")
        )
        difference = Difference(middle, low, high, bench.get("rounds", 1), "quartile range")
        gap = None if name == "baseline" else difference
        found.append(Ours(cost, name, (rows[name]["ratio"],), (), (1.0,), gap, scale))
    return found


def _counts(cells: Sequence[Cell]) -> dict[str, int]:
    """How often each verdict was given, in the order of `verdict.WORDS`."""
    seen = Counter(cell.verdict.word for cell in cells)
    return {word: seen[word] for word in WORDS if seen[word]}


def _machine(row: Mapping) -> str:
    hardware = row.get("hardware") or {}
    return str(
        hardware.get("gpu")
        or (hardware and f"{hardware.get('processor')}, threads: {hardware.get('threads')}")
        or "hardware not recorded"
    )


def _all(values) -> str:
    """The different values, as words."""
    return " / ".join(dict.fromkeys(map(str, values)))


def _letters(index: int) -> str:
    """a, b, … z, aa, ab, …"""
    return (_letters(index // 26 - 1) if index >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[
        index % 26
    ]
