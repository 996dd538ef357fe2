"""What a newcomer installs: three files that must agree, a light import, and a tree without foreign
matter.
"""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def pinned() -> dict[str, list[Requirement]]:
    """The pins of constraints.txt by package; one package may have several, each for its own
    Pythons.
    """
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            pin = Requirement(line)
            pins.setdefault(pin.name.lower(), []).append(pin)
    return pins


def wanted() -> list[Requirement]:
    """Every bound that pyproject.toml states, the package's own extras left out."""
    groups = [
        PROJECT["project"]["dependencies"],
        *EXTRAS.values(),
        *PROJECT["dependency-groups"].values(),
    ]
    return [
        need for group in groups for need in map(Requirement, group) if need.name != "catchup-mix"
    ]


@pytest.mark.parametrize("need", wanted(), ids=str)
def test_every_pin_satisfies_its_bound(need):
    pins = pinned().get(need.name.lower())
    assert pins, (
        f"{need.name} is missing in constraints.txt: write it anew with the command at its top"
    )
    for pin in pins:
        (pinned_to,) = [spec.version for spec in pin.specifier]
        assert need.specifier.contains(pinned_to), f"{pin} does not satisfy {need}"
    assert need.specifier, f"{need.name} needs a lower bound"


def test_environment_yml_installs_the_same_packages_with_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert (
        f"python={PROJECT['project']['requires-python'].removeprefix('>=')}"
        in environment["dependencies"]
    )
    (lines,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert lines[:2] == ["-c constraints.txt", f"-e .[{','.join(EXTRAS)}]"]
    dev = [
        need
        for need in PROJECT["dependency-groups"]["dev"]
        if not need.startswith(("catchup-mix", "ruff"))
    ]
    assert lines[2:] == dev


def test_no_committed_file_names_a_registry_a_machine_or_is_large():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    # In parts, so as not to name them here.
    hosts = "pypi|org", "python|hosted", "conda.|anaconda", "download.|pytorch", "/|simple/"
    registries = "|".join(
        re.escape(named)
        for named in (
            hosts[0].replace("|", "."),
            *(part.replace("|", "") for part in (*hosts[1:], "/|root/", "/|work/")),
        )
    )
    registries = re.compile(registries)
    names = listed.stdout.split()
    assert "pyproject.toml" in names and "uv.lock" not in names
    for name in names:
        path = ROOT / name
        if not path.is_file():
            continue
        assert path.stat().st_size < 1_000_000, f"{name} is over 1 MB"
        if path.suffix not in (".png", ".pt", ".safetensors"):
            found = registries.search(path.read_text())
            assert not found, f"{name} names {found.group()}"


def test_ci_calls_the_readmes_test_command():
    command = "pip install -q uv && uv run pytest"
    assert (
        command in (ROOT / ".ci" / "run").read_text()
        and command in (ROOT / "README.md").read_text()
    )


@pytest.mark.slow
def test_import_is_light_seeds_nothing_and_touches_no_global_state():
    """Heavy packages are imported by the functions that need them."""
    script = """
import sys, random
import numpy, torch
def state():
    numbers = numpy.random.get_state()[1].tolist()
    return torch.get_rng_state(), random.getstate(), numbers, torch.get_num_threads()
before = state()
import catchup, catchup.cli.commands, catchup.experiments.evaluation
import catchup.plots, catchup.experiments.demo
heavy = ["torchvision", "timm", "sklearn", "PIL", "captum", "accelerate", "matplotlib",
         "seaborn", "scipy", "IPython"]
print([name for name in heavy if name in sys.modules])
after = state()
print(torch.equal(before[0], after[0]) and before[1:] == after[1:])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines() == ["[]", "True"]


def test_public_names_exist_and_are_documented():
    import catchup

    assert sorted(set(catchup.__all__)) == sorted(catchup.__all__, key=str)
    for name in catchup.__all__:
        assert getattr(catchup, name).__doc__ if name != "MIXERS" else catchup.MIXERS, name
    assert catchup.__version__ == version("catchup-mix")


def test_citation_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (
        "Catch-Up" in citation["preferred-citation"]["title"]
        and citation["preferred-citation"]["year"] == 2024
    )
    assert citation["license"] == PROJECT["project"]["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
