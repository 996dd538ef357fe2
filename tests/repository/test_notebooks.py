"""What every notebook must have; that it runs is checked by nbmake in the same test run."""

import re
from pathlib import Path

import address
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def cells(path, kind):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def test_there_is_the_quickstart():
    assert "00_quickstart.ipynb" in [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_rules_of_the_house(path):
    code, prose = cells(path, "code"), cells(path, "markdown")
    assert all(not cell.outputs and cell.execution_count is None for cell in code), (
        "committed with outputs"
    )
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert any(re.search(r"^\s*assert ", cell.source, re.M) for cell in code), "asserts no claim"
    assert re.match(r"# .*\?$", prose[0].source.splitlines()[0]), "the title is a question"
    text = "\n".join(cell.source for cell in prose)
    parts = (
        "**Claim.**",
        "**Where it stops holding.**",
        "**Predict:**",
        "**Read it.**",
        "## Exercise",
        "## Limits",
    )
    for part in parts:
        assert part in text, f"{part} is missing"
    assert any("solution" in cell.metadata.get("tags", []) for cell in code), "no tested solution"
    longest = max(len(cell.source.splitlines()) for cell in code)
    assert longest <= 15, f"a cell of {longest} lines: longer code belongs into the package"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_opens_elsewhere_and_installs_what_is_missing_there(path):
    project = address.read_address().split("/", 3)[3]
    first, install = nbformat.read(path, 4).cells[:2]
    assert (
        f"https://colab.research.google.com/github/{project}/blob/main/notebooks/{path.name})"
        in (first.source)
    )
    assert (
        f"https://mybinder.org/v2/gh/{project}/main?labpath=notebooks/{path.name})" in first.source
    )
    # nothing happens where the package is there
    tried, otherwise = re.split(r"^except ImportError:\n", install.source, flags=re.M)
    assert re.fullmatch(r"# .*\ntry:\n    import catchup\n", tried)
    assert f'"catchup-mix[notebooks] @ git+{address.read_address()}"' in otherwise
    assert all(line.startswith("    ") for line in otherwise.splitlines())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_prediction_is_answered(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    said = [*re.findall(r"\*+(Predict|Read it)\b", text), "the end"]
    unanswered = sum(a == "Predict" and b != "Read it" for a, b in zip(said, said[1:]))
    assert not unanswered, f"{unanswered} predictions have no reading behind them: {said}"
