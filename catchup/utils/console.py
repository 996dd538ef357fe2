"""A console that lacks a sign (λ, α, −, …) shows a spelling of it instead of ending the command."""

import codecs
from io import TextIOWrapper
from typing import TextIO

SPELLINGS = {
    "λ": "lambda",
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "ε": "eps",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "ω": "omega",
    "Δ": "Delta",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "±": "+/-",
    "×": "x",
    "·": "*",
    "⊙": "*",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "→": "->",
    "²": "^2",
    "∞": "inf",
    "⌊": "floor(",
    "⌋": ")",
    "“": '"',
    "”": '"',
    "„": '"',
    "’": "'",
    **dict.fromkeys("─━═╌", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼", "+"),
}
HANDLER = "catchup-spelling"


def spell_out(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler for `codecs`: the spellings of what could not be encoded, "?" for others.

    Args:
        error: of an encoder.
    Returns:
        The text in place of it, and where to go on.
    Raises:
        UnicodeError: the error itself, if it is of a decoder.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(SPELLINGS.get(sign, "?") for sign in lost), error.end


def make_printable(stream: TextIO | None) -> None:
    """From now on the stream spells out what its encoding lacks. One that is not Python's own text
    stream, such as a notebook's, or that does so already, stays as it is.

    Args:
        stream: standard output, say; None does nothing.
    """
    if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors=HANDLER)


codecs.register_error(HANDLER, spell_out)
