"""The site, from nothing, by one command and offline: `python docs/build.py OUT`.

1. OUT/source   the pages, laid out as in the repository, so that their links hold; notebooks with
                the outputs of their last test run (`outputs.py`), or run now
2. OUT/source/api   a page for each room: its public names, from their docstrings
3. OUT/source/_static   the widgets, as pages that need neither Python nor a network
4. OUT/html     what Sphinx makes of it, without a warning
"""

import argparse
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import outputs
from address import read_address

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES = ("docs/*.md", "docs/figures/*.png", "data/README.md", "data/results/README.md")
PAGES += ("notebooks/paper_notes.md", "notebooks/previews/*.png", "CONTRIBUTING.md", "CHANGELOG.md")
WIDGET = "application/vnd.jupyter.widget-view+json"
NOTE = "*A widget stands here in JupyterLab; see [the inspector](../_static/inspector.html)*"


def build(out: Path, *, run: bool = True) -> Path:
    """Writes the whole site.

    Args:
        out: folder; what an earlier call left there is replaced.
        run: run the notebooks whose outputs are not at hand; otherwise they come without outputs.
    Returns:
        The folder with index.html.
    Raises:
        subprocess.CalledProcessError: if Sphinx has a warning; it has printed it.
    """
    source, html = out / "source", out / "html"
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    lay_out_pages(source)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = outputs.executed(path, run=run)
        nbformat.write(without_widgets(notebook), source / "notebooks" / path.name)
    write_api(source / "api")
    write_widgets(source / "_static")
    shutil.copy(DOCS / "conf.py", source)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    subprocess.run([*command, source, html], check=True)
    return html


def lay_out_pages(source: Path) -> None:
    """Copies the Markdown pages and their pictures; links to code lead to the repository."""
    for pattern in PAGES:
        for path in ROOT.glob(pattern):
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".md":
                target.write_text(with_links_that_hold(path.read_text(), path))
            else:
                shutil.copy(path, target)
    front = source / "docs" / "index.md"
    at_the_top = front.read_text().replace("](figures/", "](docs/figures/").replace("](../", "](")
    (source / "index.md").write_text(at_the_top)
    front.unlink()


def with_links_that_hold(text: str, page: Path) -> str:
    """A page's text; what the site does not hold is linked at the project's address."""
    held = {path for pattern in (*PAGES, "notebooks/*.ipynb") for path in ROOT.glob(pattern)}

    def link(match: re.Match) -> str:
        target = (page.parent / match[1].partition("#")[0]).resolve()
        if page.name == "index.md" or target in held or not target.is_relative_to(ROOT):
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"]({read_address()}/{kind}/main/{target.relative_to(ROOT)})"

    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", link, text)


def without_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook whose widgets, which need a kernel, are replaced by a word on where they work."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/markdown": NOTE}
    return notebook


def write_api(folder: Path) -> None:
    """A page for each room of the package, with its public names."""
    import catchup

    folder.mkdir(parents=True)
    package = Path(catchup.__file__).parent
    for path in sorted(package.glob("*/__init__.py")):
        room = importlib.import_module(f"catchup.{path.parent.name}")
        head = f"# {path.parent.name}\n\n"
        body = f"```{{eval-rst}}\n.. automodule:: {room.__name__}\n```\n"
        (folder / f"{path.parent.name}.md").write_text(head + body)


def write_widgets(folder: Path) -> None:
    """The playground, and the inspector on the trained networks that come with the package."""
    folder.mkdir(parents=True)
    shutil.copy(DOCS / "playground.html", folder)
    inspect_trained("digits", "digits", folder / "inspector.html")
    inspect_trained("shapes95", "shapes", folder / "inspector-shapes.html")


def inspect_trained(name: str, data: str, path: Path) -> None:
    """Writes the inspector of a plain and a Catch-up network, and of the latter's earlier epochs.

    Args:
        name: how the trained networks' names begin.
        data: the data set whose test images are shown: pairs of unlike classes, all of them
            recognised by the last network.
        path: of the page.
    """
    import torch

    from catchup.data import load, normalise, to_float
    from catchup.models import trained, trained_names
    from catchup.widgets import mask_inspector

    epochs = [one for one in trained_names() if one.startswith(f"{name}-catchup-epoch")]
    order = sorted(epochs, key=lambda one: int(one.rpartition("epoch")[2]))
    models = {one.removeprefix(f"{name}-"): trained(one) for one in order}
    models |= {"baseline": trained(f"{name}-baseline"), "catchup": trained(f"{name}-catchup")}
    loaded = load(data)
    images = normalise(to_float(loaded.test.pixels[:200]), loaded.mean, loaded.std)
    labels = loaded.test.labels[:200]
    with torch.no_grad():
        right = (models["catchup"](images).argmax(1) == labels).nonzero()[:, 0].tolist()
    firsts = {int(labels[place]): place for place in reversed(right)}
    chosen = [place for _, place in sorted(firsts.items())][:8]
    names = [str(one) for one in loaded.train.classes]
    mask_inspector(models, images[chosen], labels[chosen], class_names=names).to_html(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for source and html")
    parser.add_argument(
        "--stored", action="store_true", help="run no notebook: stored outputs alone"
    )
    given = parser.parse_args()
    print(build(given.out, run=not given.stored) / "index.html")


if __name__ == "__main__":
    main()
