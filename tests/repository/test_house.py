"""The house: few rooms, each of which says what it is for; one gate, which every door calls."""

import ast
import importlib
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "catchup"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = sorted(path.parent.name for path in HOUSE.glob("*/__init__.py"))
SOURCES = sorted(HOUSE.rglob("*.py"))


def test_the_top_of_the_package_is_rooms_and_nothing_else():
    entries = {path.name for path in HOUSE.iterdir()} - {"__pycache__", "py.typed"}
    assert entries == {*ROOMS, "__init__.py"} and len(entries) <= 13


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_and_lists_names_that_exist(room):
    tree = ast.parse((HOUSE / room / "__init__.py").read_text())
    assert ast.get_docstring(tree), f"catchup/{room}/__init__.py opens with no docstring"
    module = importlib.import_module(f"catchup.{room}")
    assert module.__all__ and len(set(module.__all__)) == len(module.__all__)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing, f"catchup.{room}.__all__ names {missing}"


def test_every_room_has_its_tests():
    assert not [room for room in ROOMS if not list((ROOT / "tests" / room).rglob("test_*.py"))]


def test_no_two_test_files_share_a_name():
    """pytest collects only the first of them."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)


def test_most_files_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert sum(length < 250 for length in lengths.values()) >= 0.75 * len(lengths)
    assert max(lengths.values()) < 500, max(lengths, key=lengths.get)


def test_every_door_calls_the_same_gate():
    gate = ROOT / ".ci" / "check"
    assert os.access(gate, os.X_OK)
    assert all(
        command in gate.read_text()
        for command in ("ruff format --check", "ruff check", "mypy", "lint-imports")
    )
    run = (ROOT / ".ci" / "run").read_text()
    assert 0 < run.index(".ci/check") < run.index("uv run pytest")
    assert ".ci/check" in (ROOT / "CONTRIBUTING.md").read_text()
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == [".ci/check"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())
    steps = [step.get("run") for step in workflow["jobs"]["check"]["steps"]]
    assert steps.index(".ci/check") < len(steps) - 1 and "uv run pytest" in steps[-1]


def test_the_workflow_begins_with_the_oldest_python_that_the_package_allows():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())
    pythons = workflow["jobs"]["check"]["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["project"]["requires-python"] == f">={pythons[0]}"


def test_the_package_is_typed_and_little_is_kept_from_the_checker():
    assert (HOUSE / "py.typed").is_file()
    for override in PROJECT["tool"]["mypy"]["overrides"]:
        assert not {"ignore_errors", "disable_error_code", "follow_imports"} & set(override)
    (core,) = [row for row in PROJECT["tool"]["mypy"]["overrides"]]
    assert core["disallow_untyped_defs"]
    assert core["module"] == ["catchup.hooks.*", "catchup.mixers.*", "catchup.training.*"]
    texts = [path.read_text() for path in SOURCES]
    assert sum(len(re.findall(r"#\s*type:\s*ignore", text)) for text in texts) <= 20
    assert not [text for text in texts if re.search(r"#\s*mypy:", text)]


def test_all_rooms_stand_in_the_contract_of_arrows():
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    assert sorted(room.strip() for layer in layers for room in layer.split("|")) == ROOMS


@pytest.mark.slow
def test_an_arrow_that_points_up_is_refused(tmp_path):
    """The contracts can fail: in a copy, hooks import a mixer."""
    listed = ["cp", "-r", str(HOUSE), str(ROOT / "pyproject.toml"), str(tmp_path)]
    subprocess.run(listed, check=True)
    blocks = tmp_path / "catchup" / "hooks" / "blocks.py"
    blocks.write_text(blocks.read_text() + "\nfrom ..mixers import MIXERS\n")
    done = subprocess.run(
        ["lint-imports", "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1 and "Arrows between rooms point down BROKEN" in done.stdout
