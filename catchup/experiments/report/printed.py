"""The printed numbers of two papers, and what of our records stands beside each: data, read and
nothing more.

Sources: Kang, Kang & Kim, "Catch-Up Mix", AAAI 2024, Tables 1–13 and Figures 1–8; Liu et al.,
"AutoMix", ECCV 2022, Tables 1–4. One row of `data/paper/*.csv` is one number with its table, row,
column, unit, whether higher or lower is better, the recipe that comes nearest to its protocol
(empty: the paper states none), the standard deviation where one is printed, and a note. A figure
has claims and few numbers: rows without a number, the claim as the note. `data/paper/cells.toml`
says which field of which of our records fills which column.

Where it misleads: the texts that were read had lost the captions, the sub-headers of Table 2's
rotations and shears, and the layer sets of Table 11; the notes say where a label is inferred. A
recipe is the nearest that is written down, not a promise that the authors ran it.
`notebooks/paper_notes.md` tells the papers' own inconsistencies.
"""

import csv
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ...utils.choices import pick
from ...utils.files import as_tuples

PAPERS = {"catchup": "Catch-up Mix", "automix": "AutoMix"}
FIELDS = ("paper", "table", "row", "column", "value", "sd", "unit", "direction", "protocol", "note")
DIRECTIONS = ("lower", "higher", "")


class Printed(NamedTuple):
    """One printed number, or one claim of a figure. `text`: the number as printed; "" if there is
    none.
    """

    paper: str
    table: str
    row: str
    column: str
    value: float | None
    text: str
    sd: float | None
    unit: str
    direction: str
    protocol: str
    note: str

    @property
    def better(self) -> int:
        """The sign of a difference that is for the better: 1, −1, or 0 where the number is
        neither.
        """
        return {"higher": 1, "lower": -1, "": 0}[self.direction]


class Column(NamedTuple):
    """What of our records fills a column (or, where the methods are the columns, a row) of a table.

    measure: for `catchup.measures.statistics.value_of`; None if nothing does. accuracy: the cell
        prints 100 minus that. data, model,
    epochs: of the paper's runs, None where it does not say. share: of the training images, and of
    those of the records that stand there. reference: the method that the others are compared with.
    stand_in: other data sets that may fill it. fixed_model: no other model may. alpha: of the
    mixing in the paper's runs. step_cost: the cell is a time. beside: {name: measure} of what has
    to be read with the number, as boxes that look at no image. measured_with: {option: value} of
    the paper's test where it is not our default, see `catchup.measures.Options`.
    remark: what our number is, where the cell's name does not tell.
    """

    measure: str | None = None
    accuracy: bool = False
    data: str | None = None
    model: str | None = None
    epochs: int | None = None
    share: float = 1.0
    reference: str | None = None
    stand_in: tuple[str, ...] = ()
    fixed_model: bool = False
    alpha: float | None = None
    step_cost: bool = False
    beside: Mapping[str, str] = MappingProxyType({})
    measured_with: Mapping[str, object] = MappingProxyType({})
    remark: str = ""


class Table(NamedTuple):
    """A table or figure and how its cells are filled. `methods`: "rows" or "columns", where they
    are named.
    """

    paper: str
    table: str
    title: str
    methods: str
    columns: Mapping[str, Column]
    rows: Mapping[str, tuple[str, ...]]

    def method(self, cell: Printed) -> str:
        """The cell's method, as the paper names it."""
        return cell.row if self.methods == "rows" else cell.column

    def column(self, cell: Printed) -> Column:
        """What fills the cell."""
        return self.columns.get(cell.column if self.methods == "rows" else cell.row, Column())

    def specs(self, method: str, alpha: float | None = None) -> tuple[str, ...]:
        """Which of our methods may stand for the paper's, the nearest first, written as for
        `choices.parse_spec`.

        Args:
            method: as the paper names it; without an entry nothing stands for it, and the tuple is
                empty.
            alpha: of the paper's runs; the mixing of channels is looked for with it first, then as
                it stands.
        """
        found = self.rows.get(method) or layout()["methods"].get(method, ())
        with_alpha = [_with_alpha(text, alpha) for text in found] if alpha is not None else []
        return tuple(dict.fromkeys([*with_alpha, *found]))


def folder() -> Path:
    """Where the numbers are: data/paper of a checkout, or the copy inside an installed package.

    Raises:
        FileNotFoundError: if neither is there.
    """
    here = Path(__file__).resolve().parents[2]
    for found in (here.parent / "data" / "paper", here / "paper_data"):
        if (found / "cells.toml").is_file():
            return found
    raise FileNotFoundError(
        f"the papers' numbers are missing: neither data/paper beside {here} nor {here}/paper_data "
        "holds cells.toml; install catchup-mix again, or take a whole checkout"
    )


@cache
def printed() -> tuple[Printed, ...]:
    """All printed numbers and claims, tables in their order, first of Catch-up Mix and then of
    AutoMix.

    Raises:
        FileNotFoundError: as `folder`. ValueError: for a file that is not of this form; the message
            names the line.
    """
    rows = [row for path in sorted(folder().glob("*.csv")) for row in read(path)]
    return tuple(sorted(rows, key=lambda row: (list(PAPERS).index(row.paper), order(row.table))))


def read(path: Path) -> list[Printed]:
    """The rows of one file.

    Raises:
        ValueError: naming file and line, if a column is missing, a number is none, a name is
            unknown, or a cell stands twice.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if tuple(lines.fieldnames or ()) != FIELDS:
            raise ValueError(
                f"{path} must have the columns {', '.join(FIELDS)}, got {lines.fieldnames}"
            )
        rows = [_row(line, f"{path}, line {lines.line_num}") for line in lines]
    cells = [row[:4] for row in rows]
    for cell in cells:
        if cells.count(cell) > 1:
            raise ValueError(f"{path}: the cell {', '.join(cell)} stands twice")
    return rows


@cache
def layout() -> dict:
    """`cells.toml`: "data", "parts" and "methods" as they stand there, and "tables", {(paper,
    table): Table}.
    """
    with open(folder() / "cells.toml", "rb") as file:
        held = tomllib.load(file)
    return {**held, "tables": {(one["paper"], one["table"]): _table(one) for one in held["tables"]}}


def table_of(cell: Printed) -> Table:
    """The table that a cell belongs to."""
    return layout()["tables"][cell.paper, cell.table]


def selected(
    tables: tuple[int, ...] = (), figures: tuple[int, ...] = (), paper: str = "both"
) -> tuple[Printed, ...]:
    """The rows of these tables and figures; of all, if none is named.

    Args:
        tables, figures: their numbers. paper: catchup, automix or both.
    Raises:
        ValueError: for a paper, table or figure that is not there; the message lists those that
            are.
    """
    pick("paper", paper, (*PAPERS, "both"))
    rows = [row for row in printed() if paper in (row.paper, "both")]
    for kind, numbers in (("Table", tables), ("Figure", figures)):
        there = sorted({order(row.table)[1] for row in rows if row.table.startswith(kind)})
        for number in numbers:
            if number not in there:
                raise ValueError(
                    f"there is no {kind} {number} here; choose of"
                    f" {', '.join(map(str, there)) or 'none'}"
                )
    asked = {*(f"Table {number}" for number in tables), *(f"Figure {number}" for number in figures)}
    return tuple(row for row in rows if not asked or row.table in asked)


def order(table: str) -> tuple[bool, int]:
    """Sorts tables before figures, each by number."""
    kind, number = table.split()
    return kind != "Table", int(number)


def _row(line: Mapping[str, str], where: str) -> Printed:
    """One line of a file; ValueError naming `where` if it does not fit."""
    try:
        value, sd = (float(line[key]) if line[key] else None for key in ("value", "sd"))
        pick("paper", line["paper"], PAPERS)
        pick("direction", line["direction"], DIRECTIONS)
        order(line["table"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None
    return Printed(
        line["paper"],
        line["table"],
        line["row"],
        line["column"],
        value,
        line["value"],
        sd,
        line["unit"],
        line["direction"],
        line["protocol"],
        line["note"],
    )


def _table(entry: Mapping) -> Table:
    """A table of `cells.toml`; what stands at the table holds for its columns."""
    shared = {key: value for key, value in entry.items() if key in Column._fields}
    columns = {
        name: Column(**as_tuples({**shared, **own})) for name, own in entry["columns"].items()
    }
    rows = {name: tuple(specs) for name, specs in entry.get("rows", {}).items()}
    return Table(
        entry["paper"], entry["table"], entry["title"], entry.get("methods", "rows"), columns, rows
    )


def _with_alpha(text: str, alpha: float) -> str:
    """The method with this α, if it mixes channels and names none."""
    name, _, settings = text.partition(":")
    if name not in ("catchup", "randomchannel") or "alpha=" in settings or settings == "layers=[0]":
        return text
    return f"{name}:{','.join(filter(None, [settings, f'alpha={alpha}']))}"
