"""Packages that only some functions need, blocked in turn: the rest works, and the sentence names
the extra to install.

In a process of its own, because a module that was imported once stays.
"""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from catchup.utils.optional import require

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = (
    "anywidget",
    "ipywidgets",
    "captum",
    "seaborn",
    "timm",
    "lightning",
    "submitit",
    "ray",
    "pandas",
    "IPython",
)
BLOCK = '''
import sys
from importlib.machinery import PathFinder

blocked, usual = set(), PathFinder.find_spec

def find_spec(name, path=None, target=None):
    """As where the package is not installed: found by nobody."""
    return None if name.partition(".")[0] in blocked else usual(name, path, target)

PathFinder.find_spec = find_spec

def block(*names):
    """From now on, with everything of catchup forgotten."""
    blocked.clear()
    blocked.update(names)
    for name in list(sys.modules):
        if name.partition(".")[0] in (*names, "catchup"):
            del sys.modules[name]
'''
TRY = (
    BLOCK
    + """
import tempfile
from pathlib import Path
import torch

images, labels = torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])

def one_run():
    from catchup import CatchUpMix, Settings, fit, models
    from catchup.data import Augmentation, Dataset, Images
    part = Images((images + 7).byte() + torch.arange(8, dtype=torch.uint8), labels, ("a", "b"))
    made = Dataset("made", part, part, (0.5,) * 3, (0.25,) * 3, Augmentation())
    with tempfile.TemporaryDirectory() as folder:
        result = fit(models.create("resnet18", num_classes=2, width=2), CatchUpMix(seed=0), made,
                     Settings(epochs=1, batch_size=4, lr=0.01, device="cpu", precision="fp32"),
                     out=Path(folder), progress=False)
        assert len(result.rows) == 1 and (Path(folder) / "checkpoint.pt").is_file()

for name in sys.argv[1:]:  # in turn
    block(name)
    import catchup
    model = catchup.models.create("resnet18", num_classes=2, width=2)
    catchup.CatchUpMix(seed=0).loss(model, images, labels).backward()
block(*sys.argv[1:])  # and all at once
one_run()
from catchup.cli.commands import main
assert main(["methods"]) == 0
print("worked without", *sys.argv[1:])

import catchup
from catchup.inspection.attribution import grad_cam, saliency
from catchup.plots.filters import norm_gradient
calls = {"widgets": lambda: __import__("catchup.widgets"),
         "saliency": lambda: saliency(model, images, labels),
         "grad_cam": lambda: grad_cam(model, images, labels, "layer1"),
         "histograms": lambda: norm_gradient([]),
         "timm": lambda: catchup.models.create("timm.resnet18", num_classes=2)}
for name, call in calls.items():
    try:
        call()
    except (ImportError, ValueError) as error:
        print(name, type(error).__name__, error)
"""
)


@pytest.mark.slow
def test_without_any_of_them_the_core_works_and_what_needs_one_says_how_to_get_it():
    done = subprocess.run(
        [sys.executable, "-c", TRY, *BLOCKED], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    before, worked, said = done.stdout.partition("worked without " + " ".join(BLOCKED) + "\n")
    assert worked and "catchup " in before
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == [
        "widgets",
        "saliency",
        "grad_cam",
        "histograms",
        "timm",
    ]
    for line in lines[:4]:
        assert (
            " ImportError this needs the package " in line
            and "pip install -e '.[notebooks]'" in line
        )
    assert "pip install -e '.[timm]'" in lines[4]


def asked_for() -> list[tuple[str, str]]:
    """(package, extra) of every call of `require` in the package."""
    found = []
    for path in sorted((ROOT / "catchup").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "require"
            ):
                words = [one.value for one in node.args if isinstance(one, ast.Constant)]
                found.append(
                    (words[0].partition(".")[0], words[1] if len(words) > 1 else "notebooks")
                )
    return sorted(set(found))


@pytest.mark.slow
def test_every_package_asked_for_is_in_the_extra_that_is_named():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert {package for package, _ in asked_for()} >= {
        "anywidget",
        "ipywidgets",
        "captum",
        "seaborn",
    }
    for package, extra in asked_for():
        assert any(line.startswith(package) for line in extras[extra]), (package, extra)


def test_a_package_that_is_there_but_broken_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "halfthere.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        require("halfthere")
    with pytest.raises(
        ImportError,
        match=r"this needs the package notthere: from a clone, pip install -e '\.\[ray\]'",
    ):
        require("notthere.deep", "ray")
