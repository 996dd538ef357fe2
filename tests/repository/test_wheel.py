"""What `pip install` gives, without the checkout: the wheel is built without the network, laid into
an environment that sees this one's packages but not this package, and used there.
"""

import json
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
RUN_NOTEBOOK = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
NotebookClient(book, timeout=300, resources={"metadata": {"path": sys.argv[2]}}).execute()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment with the wheel in it."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=False, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # a line in a .pth file adds a folder; the .pth files of that folder, such as that of an
    # editable install, are not read
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin" / "python"


def call(python, *words, cwd, timeout=300):
    done = subprocess.run(
        [python, *words], cwd=cwd, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def counted(said):
    """How many cells of a report have each verdict."""
    return json.loads(said)["counts"]


def test_the_wheel_is_small_and_whole(wheel):
    assert wheel.stat().st_size < 12_000_000
    names = zipfile.ZipFile(wheel).namelist()
    assert {"catchup/py.typed", "catchup/paper_data/cells.toml"} <= set(names)
    assert not any("weights/main" in name for name in names)
    read = re.compile(r"\.\./(data/results/[\w./-]+\.jsonl?)")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"catchup/course/notebooks/{notebook.name}" in names
        for record in read.findall(notebook.read_text()):
            assert f"catchup/course/{record}" in names, (notebook.name, record)


def test_it_runs_without_the_checkout(python, tmp_path):
    where = call(python, "-c", "import catchup; print(catchup.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    said = call(python, "-m", "catchup.cli", "report", "--json", cwd=tmp_path)
    here = call(sys.executable, "-m", "catchup.cli", "report", "--json", cwd=ROOT)
    assert counted(said) == counted(here), "the wheel's records are those of the checkout"
    code = (
        "from pathlib import Path\n"
        "from catchup.experiments.demo import describe_demo, run_demo\n"
        "out = Path('demo')\n"
        "print(describe_demo(run_demo(out, seeds=(7,), budgets=(1, 2), progress=False), out))\n"
    )
    script = tmp_path / "small_demo.py"
    script.write_text(f"if __name__ == '__main__':\n    {code.replace(chr(10), chr(10) + '    ')}")
    assert "catchup notebooks course" in call(python, script, cwd=tmp_path)


def test_the_readmes_code_runs_there(python, tmp_path):
    readme = (ROOT / "README.md").read_text()
    for code, output in re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", readme, re.S):
        assert call(python, "-c", code, cwd=tmp_path).strip() == output.strip()


def test_the_notebooks_come_along_and_run(python, tmp_path):
    said = call(python, "-m", "catchup.cli", "notebooks", "course", cwd=tmp_path)
    ours = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert f"{len(ours)} notebooks in course/notebooks" in said
    books = tmp_path / "course" / "notebooks"
    assert sorted(path.name for path in books.glob("*.ipynb")) == ours
    for name in ("02_catchup_mix_step_by_step", "13_reproduce_the_paper"):
        call(python, "-c", RUN_NOTEBOOK, books / f"{name}.ipynb", books, cwd=tmp_path)
