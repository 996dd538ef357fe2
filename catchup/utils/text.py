"""Tables as text and as Markdown."""

from collections.abc import Sequence


def as_text(table: Sequence[Sequence[str]]) -> str:
    """The table with its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*table)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in table
    )


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    head, *body = ("| " + " | ".join(line) + " |" for line in table)
    return "\n".join([head, "|" + "---|" * len(table[0]), *body])
