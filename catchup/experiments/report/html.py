"""The report as one HTML file: no network, no script; a table, with an anchor, for each table and
figure of a paper.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ... import __version__
from ...utils.files import write_atomically
from .cells import Cell, counts_text, surroundings
from .text import (
    HEAD,
    by_table,
    describe_record,
    heading,
    line_of,
    notes_of,
    printed_notes,
    remarks_of,
)
from .verdict import RULE

STYLE = """
body {
  font: 16px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a;
}
table {
  border-collapse: collapse; width: 100%; margin: .5rem 0; font-variant-numeric: tabular-nums;
}
th, td { border-bottom: 1px solid #ccc; padding: .2rem .5rem; text-align: right; }
th:nth-child(-n+2), td:nth-child(-n+2), th:nth-child(9), td:nth-child(9) { text-align: left; }
tr.reproduced { background: #dbe9f6; } tr.same { background: #eef5fb; }
tr.opposite { background: #fbe9dd; }
tr.not-run { color: #666; } .notes { font-size: .85rem; } code { overflow-wrap: anywhere; }
nav a { margin-right: .8rem; white-space: nowrap; } .wide { overflow-x: auto; }
"""
CLASSES = {
    "reproduced": "reproduced",
    "same": "same",
    "not reproduced": "opposite",
    "too short": "not-run",
    "not run": "not-run",
}


def write_html(results: Mapping, path: Path) -> None:
    """The report as one file that needs no network, written whole or not at all.

    Raises:
        ValueError: as `check_html`.
    """
    check_html(path)
    write_atomically(Path(path), page(results).encode())


def check_html(path: Path) -> None:
    """ValueError if no file can be written there: it is a folder, or its folder is not there."""
    path = Path(path)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"--html needs the name of a file in a folder that is there, got {path}")


def page(results: Mapping) -> str:
    """The whole page.

    Args:
        results: of `report.run`. Every text of it is escaped.
    """
    letters = {id(record): letter for letter, record in results["records"].items()}
    tables = by_table(results["cells"])
    links = "\n".join(
        f'<a href="#{_anchor(cells)}">{escape(_short(cells))}</a>' for cells in tables
    )
    parts = [
        (
            "<h1>The papers' numbers and"
            f" ours</h1><p>{escape(counts_text(results))}.</p><p>{escape(RULE)}</p>"
        ),
        f'<nav>{links}\n<a href="#records">Records</a></nav>',
        *(_section(cells, letters) for cells in tables),
        _records(results),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport"'
        ' content="width=device-width">\n<title>The papers\' numbers and'
        f" ours</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<footer><p>catchup {escape(__version__)}</p></footer>\n</body>\n</html>\n"
    )


def _section(cells: Sequence[Cell], letters: Mapping[int, str]) -> str:
    """A table of the papers."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in HEAD)
    rows = "\n".join(_row(cell, letters) for cell in cells)
    notes = "".join(
        f"<li>{escape(note)}</li>"
        for note in [*notes_of(cells, letters), *remarks_of(cells, letters), *printed_notes(cells)]
    )
    return (
        f'<section id="{_anchor(cells)}">\n<h2>{escape(heading(cells))}</h2>\n<div'
        ' class="wide"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n"
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
        + "</section>"
    )


def _row(cell: Cell, letters: Mapping[int, str]) -> str:
    """A cell of the papers, a row here; the first of its letters leads to the record."""
    *words, record = line_of(cell, letters)
    first = record.partition("+")[0]
    link = f'<a href="#record-{escape(first)}">{escape(record)}</a>' if record else ""
    kind = next((name for word, name in CLASSES.items() if cell.verdict.word.startswith(word)), "")
    cells = "".join(f"<td>{escape(word)}</td>" for word in words)
    return f'<tr class="{kind}">{cells}<td>{link}</td></tr>'


def _records(results: Mapping) -> str:
    """The list of records, and of what was found and stands nowhere."""
    items = []
    for letter, record in results["records"].items():
        where = surroundings(record)
        items.append(
            f'<li id="record-{escape(letter)}"><b>{escape(letter)}</b>'
            f" {escape(describe_record(record))}<br>"
            f"<code>{escape(where['command'])}</code><br>{escape(where['versions'])}</li>"
        )
    unused = "".join(f"<p>{escape(line)}</p>" for line in results["unused"])
    return (
        '<section id="records">\n<h2>Records</h2>\n<ul'
        f' class="notes">{"".join(items)}</ul>\n{unused}\n</section>'
    )


def _short(cells: Sequence[Cell]) -> str:
    return ("" if cells[0].printed.paper == "catchup" else "AutoMix, ") + cells[0].printed.table


def _anchor(cells: Sequence[Cell]) -> str:
    """catchup-table-1, automix-table-4, …"""
    return re.sub(r"\W+", "-", f"{cells[0].printed.paper} {cells[0].printed.table}".lower())
