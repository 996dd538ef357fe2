"""The command of a record is one that can be typed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAY = "from catchup.utils.provenance import surroundings\nprint(surroundings()['command'])\n"


def said(*words, cwd=ROOT):
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_module_is_started_with_m_and_a_script_by_its_place(tmp_path):
    (tmp_path / "say.py").write_text(SAY)
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__main__.py").write_text(SAY)
    assert said("-m", "say", "--of", "a b", cwd=tmp_path) == "python -m say --of 'a b'"
    assert said("-m", "pack", cwd=tmp_path) == "python -m pack"
    assert said(tmp_path / "say.py", "3") == "python say.py 3"
    inside = ROOT / "tests" / "utils" / "say_here.py"
    try:
        inside.write_text(SAY)
        assert said(inside) == "python tests/utils/say_here.py"
    finally:
        inside.unlink()
    (tmp_path / "tool").write_text(SAY)  # as an entry point is installed
    assert said(tmp_path / "tool", "--x") == "tool --x"
