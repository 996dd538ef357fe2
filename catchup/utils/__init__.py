"""Utilities: files, provenance, threads, text, progress bars, optional packages, and the sentence
for a misspelt name.

Nothing here knows a model, an image or a method.
"""

from .choices import build, check_whole, parse_spec, pick
from .files import jsonable, read_json, read_lines, write_atomically, write_json
from .optional import require
from .progress import bar, counter, say
from .provenance import surroundings
from .text import as_markdown, as_text
from .threads import single_threaded

__all__ = [
    "as_markdown",
    "as_text",
    "bar",
    "build",
    "check_whole",
    "counter",
    "jsonable",
    "parse_spec",
    "pick",
    "read_json",
    "read_lines",
    "require",
    "say",
    "single_threaded",
    "surroundings",
    "write_atomically",
    "write_json",
]
