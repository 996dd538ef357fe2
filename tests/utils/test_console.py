"""Consoles of few signs: what they show, and that a command ends well on them."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catchup.utils.console import SPELLINGS, make_printable


def printed(text, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    make_printable(stream)
    print(text, file=stream, end="", flush=True)
    return raw.getvalue().decode(encoding)


def test_signs_are_spelt_out_only_where_they_are_missing():
    text = "λ ~ Beta(α, α): −0.5 ± 0.1 … ≤ 1 → 漢"
    assert printed(text, "ascii") == "lambda ~ Beta(alpha, alpha): -0.5 +/- 0.1 ... <= 1 -> ?"
    assert printed(text, "utf-8") == text
    assert printed("0.5 ± 0.1 …", "cp1252") == "0.5 ± 0.1 …"
    assert all(spelling.isascii() for spelling in SPELLINGS.values())


def test_other_streams_stay_as_they_are():
    make_printable(None)
    make_printable(io.StringIO())
    own = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    make_printable(own)
    assert own.errors == "replace"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", ("train", "--method", "catchup", "--help")),
        ("ascii", ("methods",)),
        ("ascii", ("recipes",)),
        ("ascii", ("report", "--table", "1")),
        ("cp437", ("--help",)),
        ("latin-1", ("datasets",)),
    ],
)
def test_commands_end_well_on_a_poor_console(encoding, words):
    command = [sys.executable, "-m", "catchup.cli", *words]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=root)
    assert done.returncode == 0, done.stderr.decode(encoding, "replace")
    assert done.stdout.decode(encoding)
