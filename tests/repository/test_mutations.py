"""The script that breaks the package: its places exist, and it tells a test that notices from one
that does not.
"""

import subprocess
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation, broken, outcome

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_every_place_exists_once_and_still_compiles_when_broken(mutation):
    source = broken((ROOT / "catchup" / mutation.file).read_text(), mutation)
    compile(source, mutation.file, "exec")
    assert (ROOT / "tests" / mutation.tests).is_file() and mutation.was != mutation.now


def test_there_are_thirty_places_in_many_files():
    assert len(MUTATIONS) >= 30 and len({mutation.file for mutation in MUTATIONS}) >= 15
    assert len({mutation.what for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.slow
def test_a_noticed_place_is_told_from_one_that_survives(tmp_path):
    (tmp_path / "catchup").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "catchup" / "__init__.py").write_text("")
    source = "def double(x):\n    return 2 * x\n\n\ndef untested():\n    return 1\n"
    (tmp_path / "catchup" / "small.py").write_text(source)
    (tmp_path / "tests" / "test_small.py").write_text(
        "from catchup.small import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
    )
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    noticed = outcome(tmp_path, Mutation("small.py", "2 * x", "3 * x", "test_small.py", "thrice"))
    assert noticed["noticed"] and noticed["by"] == "tests/test_small.py::test_double"
    survived = outcome(
        tmp_path, Mutation("small.py", "return 1", "return 2", "test_small.py", "nobody looks")
    )
    assert not survived["noticed"] and survived["by"] is None
    assert (tmp_path / "catchup" / "small.py").read_text() == source
    with pytest.raises(ValueError, match="0 times 'gone'"):
        broken(source, Mutation("small.py", "gone", "", "test_small.py", "no such place"))


@pytest.mark.slow
def test_the_script_can_be_called():
    done = subprocess.run(
        ["python", str(ROOT / "tests" / "bulk" / "mutations.py"), "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--only" in done.stdout
