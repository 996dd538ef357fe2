"""Notebooks into a folder: whole, or without the solutions, and never over somebody's work."""

import json
from pathlib import Path

import pytest

from catchup.cli import main
from catchup.experiments.course import copy_notebooks, find_source, without_solutions

ROOT = Path(__file__).parents[2]


def tags(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [tag for cell in cells for tag in cell["metadata"].get("tags", ())]


def test_they_come_with_the_records_they_read_and_without_the_weights(tmp_path):
    written = copy_notebooks(tmp_path / "course")
    ours = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [path.name for path in written] == [path.name for path in ours]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(written, ours))
    results = tmp_path / "course" / "data" / "results"
    assert (results / "scaled").is_dir() and not (results / "weights").exists()
    assert (tmp_path / "course" / "notebooks" / "paper_notes.md").is_file()


def test_a_student_gets_every_cell_but_the_solutions(tmp_path):
    for path in copy_notebooks(tmp_path, student=True):
        whole = ROOT / "notebooks" / path.name
        assert "solution" in tags(whole) and "solution" not in tags(path)
        cells, all_cells = (json.loads(p.read_text("utf-8"))["cells"] for p in (path, whole))
        kept = [c for c in all_cells if "solution" not in c["metadata"].get("tags", ())]
        assert cells == kept


def test_a_notebook_without_solutions_is_the_same_text():
    text = (ROOT / "notebooks" / "00_quickstart.ipynb").read_text("utf-8")
    once = without_solutions(text)
    assert without_solutions(once) == once != text


@pytest.mark.parametrize("part", ["notebooks", "data/results"])
def test_nothing_is_replaced_and_nothing_begun(tmp_path, part, capsys):
    (tmp_path / part).mkdir(parents=True)
    (tmp_path / part / "mine.txt").write_text("work")
    assert main(["notebooks", str(tmp_path)]) == 2
    assert f"{tmp_path / part} is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]


def test_the_command_says_where_they_are_and_what_comes_next(tmp_path, capsys):
    assert main(["notebooks", str(tmp_path / "a"), "--student"]) == 0
    out = capsys.readouterr().out
    assert f"notebooks in {tmp_path / 'a' / 'notebooks'}" in out
    assert f"jupyter lab {tmp_path / 'a' / 'notebooks' / '00_quickstart.ipynb'}" in out


def test_a_package_without_its_notebooks_says_so(tmp_path, monkeypatch):
    from catchup.experiments import course

    monkeypatch.setattr(course, "__file__", str(tmp_path / "site" / "catchup" / "x" / "course.py"))
    with pytest.raises(FileNotFoundError, match="holds notebooks and data/results"):
        find_source()
