"""A table of numbers in a notebook: few columns, no line breaks inside a number."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class NumberTable:
    """Numbers with names of lines and columns; a notebook shows it as an HTML table.

    Args:
        values: {line: {column: number or words}}, the same columns in each line, in one order.
        digits: of every float after the point.
    Raises:
        ValueError: if there are no lines, or they differ in their columns.
    """

    values: Mapping[str, Mapping[str, float | str]]
    digits: int = 1

    def __post_init__(self) -> None:
        columns = [tuple(line) for line in self.values.values()]
        if len(set(columns)) != 1:
            raise ValueError(f"all lines need the same columns, got {columns}")

    def _repr_html_(self) -> str:
        columns = next(iter(self.values.values()))
        head = "".join(f"<th>{escape(name)}</th>" for name in ["", *columns])
        lines = (
            f"<tr><th>{escape(name)}</th>{''.join(map(self._cell, line.values()))}</tr>"
            for name, line in self.values.items()
        )
        return f"<table><tr>{head}</tr>{''.join(lines)}</table>"

    def _cell(self, value: float | str) -> str:
        words = f"{value:.{self.digits}f}" if isinstance(value, float) else escape(str(value))
        return f'<td style="white-space: nowrap">{words}</td>'
