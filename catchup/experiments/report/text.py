"""The words of the report: a line for a cell, a heading for a table, a sentence for a record; the
report as text.
"""

from collections.abc import Mapping, Sequence

from ...measures.significance import format_p
from ...measures.statistics import mean_with_deviation
from ...utils.text import as_text
from . import printed as paper
from .cells import Cell, Ours, counts_text, surroundings
from .printed import PAPERS
from .records import Group, StepCost
from .remarks import remarks
from .verdict import REFERENCE, RULE, Difference

HEAD = (
    "row",
    "column",
    "printed",
    "ours",
    "our reference",
    "n",
    "printed diff.",
    "our diff. [95 %]",
    "Holm p",
    "verdict",
    "record",
)


def as_report(results: Mapping, everything: bool = True) -> str:
    """The report as text: the tables, the records, the rule, the count.

    Args:
        results: of `cells.make_report`.
        everything: all cells; False: those with a record, and how many there are besides.
    """
    said = [
        block
        for cells in by_table(results["cells"])
        for block in _table(cells, results["records"], everything)
    ]
    records = [
        f"{letter}  {describe_record(record)}" for letter, record in results["records"].items()
    ]
    for block in (
        ["Records", *records] if records else [],
        results["unused"],
        [RULE],
        [counts_text(results)],
    ):
        said += [*block, ""] if block else []
    return "\n".join(said).rstrip()


def by_table(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells, parted by table."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.printed.paper, cell.printed.table), []).append(cell)
    return list(found.values())


def line_of(cell: Cell, letters: Mapping[int, str]) -> tuple[str, ...]:
    """The cell as words, one for each of `HEAD`.

    Args:
        letters: of the records, by their `id`.
    """
    printed, ours = cell.printed, cell.ours
    number = printed.text + (f" ± {printed.sd:g}" if printed.sd is not None else "")
    plain = cell.verdict.word == REFERENCE or ours is None
    difference = None if plain else ours.difference
    others = "".join(f"+{letters[id(one.record)]}" for one in cell.others)
    return (
        printed.row,
        printed.column,
        number or "–",
        _number(ours, "values"),
        "" if plain else _number(ours, "beside"),
        _n(cell),
        _signed(cell.printed_difference, cell),
        _bounds(difference, cell) if difference else "",
        format_p(cell.p_holm) if difference else "",
        str(cell.verdict),
        letters[id(ours.record)] + others if ours else "",
    )


def notes_of(cells: Sequence[Cell], letters: Mapping[int, str]) -> list[str]:
    """What has to be known of these cells: in what each record differs from the paper's runs."""
    scales: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for cell in cells:
        if cell.ours:
            key = letters[id(cell.ours.record)], cell.ours.scale
            scales.setdefault(key, []).append(f"{cell.printed.row}, {cell.printed.column}")
    several = {letter for letter, _ in scales if sum(key == letter for key, _ in scales) > 1}
    return [
        f"{letter}{f' ({_few(places)})' if letter in several else ''}: "
        f"{'; '.join(scale) or 'the same protocol, as far as the record tells'}"
        for (letter, scale), places in sorted(scales.items())
    ]


def printed_notes(cells: Sequence[Cell]) -> list[str]:
    """The notes on the printed numbers, each with the cells that it is about."""
    notes: dict[str, list[str]] = {}
    for cell in cells:
        if cell.printed.note:
            notes.setdefault(cell.printed.note, []).append(
                f"{cell.printed.row}, {cell.printed.column}"
            )
    return [
        note if len(places) == len(cells) else f"{_few(places)}: {note}"
        for note, places in notes.items()
    ]


def remarks_of(cells: Sequence[Cell], letters: Mapping[int, str]) -> list[str]:
    """What has to be read beside our numbers (see `remarks`), with the records and cells
    that it is about.
    """
    said: dict[str, list[tuple[str, str]]] = {}
    for cell in cells:
        for words in remarks(cell):
            place = f"{cell.printed.row}, {cell.printed.column}"
            said.setdefault(words, []).append((letters[id(cell.ours.record)], place))
    return [
        f"{'+'.join(dict.fromkeys(letter for letter, _ in found))}"
        f" ({_few([place for _, place in found])}): {words}"
        for words, found in said.items()
    ]


def heading(cells: Sequence[Cell]) -> str:
    """Paper, table, title, protocols and reference of a table's cells."""
    first = cells[0].printed
    protocols = _words(cell.printed.protocol for cell in cells)
    references = _words(cell.reference for cell in cells)
    return (
        f"{PAPERS[first.paper]}, {first.table}: {paper.table_of(first).title}"
        + (f"; protocol {protocols}" if protocols else "")
        + (f"; compared with {references}" if references else "")
    )


def describe_record(record: Group | StepCost) -> str:
    """A record in a line: where it is, what was run, on what hardware, from which commit."""
    found = surroundings(record)
    if isinstance(record, StepCost):
        what = "one training step: " + ", ".join(
            f"{key} {value}" for key, value in record.record["bench"].items()
        )
    else:
        row = record.first
        width = f" width {row['width']}" if row.get("width") else ""
        part = "" if row.get("subset") is None else f", subset {row['subset']}"
        seeds = ", ".join(map(str, sorted({one.get("seed") for one in record.rows}, key=str)))
        what = f"{row['data']}{part}, {row['model']}{width}, {row['epochs']} epochs, seeds {seeds}"
    return f"{record.source}: {what}; {found['hardware']}; commit {found['commit']}"


def _table(
    cells: Sequence[Cell], records: Mapping[str, Group | StepCost], everything: bool
) -> list[str]:
    """The blocks of a table; of one without any record, where not everything is shown, one line."""
    letters = {id(record): letter for letter, record in records.items()}
    shown = [cell for cell in cells if everything or cell.ours]
    if not shown:
        return [f"{heading(cells)}: no record ({len(cells)} cells)", ""]
    rest = (
        [f"without a record, not shown: {len(cells) - len(shown)} cells"]
        if len(shown) < len(cells)
        else []
    )
    body = as_text([HEAD, *(line_of(cell, letters) for cell in shown)])
    notes = [*notes_of(shown, letters), *remarks_of(shown, letters), *printed_notes(shown)]
    return [heading(cells), body, *notes, *rest, ""]


def _number(ours: Ours | None, name: str) -> str:
    """Mean and spread of a field of `ours`; of steps, the ratio."""
    values = () if ours is None else getattr(ours, name)
    return (
        ""
        if not values
        else f"×{values[0]:.2f}"
        if isinstance(ours.record, StepCost)
        else mean_with_deviation(values)
    )


def _n(cell: Cell) -> str:
    ours = cell.ours
    return "" if ours is None else str(ours.difference.n if ours.difference else len(ours.values))


def _signed(value: float | None, cell: Cell) -> str:
    """A difference with its sign; of times in percent. "" for none."""
    unit = " %" if paper.table_of(cell.printed).column(cell.printed).step_cost else ""
    return "" if value is None else f"{value:+.2f}{unit}"


def _bounds(difference: Difference, cell: Cell) -> str:
    if difference.low is None or difference.high is None:
        return f"{_signed(difference.mean, cell)} [one seed]"
    return f"{_signed(difference.mean, cell)} [{difference.low:+.2f}, {difference.high:+.2f}]"


def _few(places: Sequence[str]) -> str:
    """The first places, and how many there are besides."""
    return "; ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")


def _words(values) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def as_values(results: Mapping) -> dict:
    """The report ready for JSON: "cells", "records", "unused", "counts", "rule"."""
    letters = {id(record): letter for letter, record in results["records"].items()}
    return {
        "cells": [_cell_values(cell, letters) for cell in results["cells"]],
        "records": {
            letter: {
                "source": record.source,
                "described": describe_record(record),
                **surroundings(record),
            }
            for letter, record in results["records"].items()
        },
        "unused": results["unused"],
        "counts": results["counts"],
        "rule": RULE,
    }


def _cell_values(cell: Cell, letters: Mapping[int, str]) -> dict:
    """A cell for JSON."""
    ours = cell.ours
    mine = (
        None
        if ours is None
        else {
            "record": letters[id(ours.record)],
            "method": ours.method,
            "values": list(ours.values),
            "reference_values": list(ours.beside),
            "scale": list(ours.scale),
            "difference": ours.difference._asdict() if ours.difference else None,
            "hardware": surroundings(ours.record)["hardware"],
        }
    )
    return {
        **cell.printed._asdict(),
        "reference": cell.reference,
        "printed_difference": cell.printed_difference,
        "p_holm": cell.p_holm,
        "ours": mine,
        "remarks": remarks(cell),
        "other_records": [letters[id(one.record)] for one in cell.others],
        **cell.verdict._asdict(),
    }
