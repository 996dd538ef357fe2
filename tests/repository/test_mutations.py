"""The script that breaks the package: its places exist, and it tells a test that notices from one
that does not.
"""

import subprocess
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation, broken, check_unbroken, outcome

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_every_place_exists_once_and_still_compiles_when_broken(mutation):
    source = broken((ROOT / "catchup" / mutation.file).read_text(), mutation)
    compile(source, mutation.file, "exec")
    assert (ROOT / "tests" / mutation.tests).is_file() and mutation.was != mutation.now


def test_there_are_thirty_places_in_many_files():
    assert len(MUTATIONS) >= 30 and len({mutation.file for mutation in MUTATIONS}) >= 15
    assert len({mutation.what for mutation in MUTATIONS}) == len(MUTATIONS)


SOURCE = "def double(x):\n    return 2 * x\n\n\ndef untested():\n    return 1\n"


@pytest.fixture
def checkout(tmp_path):
    """A package of two functions, of which one is tested."""
    (tmp_path / "catchup").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "catchup" / "__init__.py").write_text("")
    (tmp_path / "catchup" / "small.py").write_text(SOURCE)
    (tmp_path / "tests" / "test_small.py").write_text(
        "from catchup.small import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
    )
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tmp_path


@pytest.mark.slow
def test_a_noticed_place_is_told_from_one_that_survives(checkout):
    check_unbroken(checkout, "test_small.py")
    noticed = outcome(checkout, Mutation("small.py", "2 * x", "3 * x", "test_small.py", "thrice"))
    assert noticed["noticed"] and noticed["by"] == "tests/test_small.py::test_double"
    survived = outcome(
        checkout, Mutation("small.py", "return 1", "return 2", "test_small.py", "nobody looks")
    )
    assert not survived["noticed"] and survived["by"] is None
    assert (checkout / "catchup" / "small.py").read_text() == SOURCE
    with pytest.raises(ValueError, match="0 times 'gone'"):
        broken(SOURCE, Mutation("small.py", "gone", "", "test_small.py", "no such place"))


@pytest.mark.slow
def test_tests_that_fail_with_nothing_broken_are_refused(checkout):
    """They would be counted as noticing everything."""
    (checkout / "catchup" / "small.py").write_text(SOURCE.replace("2 * x", "x"))
    with pytest.raises(ValueError, match="test_small.py::test_double fails with nothing broken"):
        check_unbroken(checkout, "test_small.py")
    with pytest.raises(ValueError, match="tests/test_gone.py cannot be run"):
        check_unbroken(checkout, "test_gone.py")


@pytest.mark.slow
def test_the_script_can_be_called():
    done = subprocess.run(
        ["python", str(ROOT / "tests" / "bulk" / "mutations.py"), "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--only" in done.stdout
