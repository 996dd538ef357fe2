"""Notebooks with their outputs: what a test run printed is kept, so that the site runs none twice.

Also a pytest plugin (`-p outputs`), which keeps every notebook of this project that passes.

.outputs/NAME.ipynb   as the last test run left it, with the digest of what was run
"""

import hashlib
import json
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, KEPT = ROOT / "notebooks", ROOT / ".outputs"
DIGEST = "catchup_source"


def digest_of(notebook: NotebookNode) -> str:
    """Of the cells' kinds and sources: what decides the outputs, as far as the notebook does."""
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def keep(notebook: NotebookNode, name: str) -> None:
    """Stores an executed notebook.

    Args:
        notebook: with its outputs; it is not changed.
        name: of its file.
    """
    KEPT.mkdir(exist_ok=True)
    copy = nbformat.from_dict(notebook)
    copy.metadata[DIGEST] = digest_of(notebook)
    nbformat.write(copy, KEPT / name)


def executed(path: Path, *, run: bool = True) -> NotebookNode:
    """A notebook with its outputs.

    Args:
        path: of the notebook.
        run: run it, and keep what it printed, if no outputs of this very text are kept.
    Returns:
        With outputs; without, if none are kept and `run` is False.
    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook, kept = nbformat.read(path, 4), KEPT / path.name
    if kept.is_file():
        stored = nbformat.read(kept, 4)
        if stored.metadata.pop(DIGEST, None) == digest_of(notebook):
            return stored
    if run:
        from nbclient import NotebookClient

        place = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
        keep(notebook, path.name)
    return notebook


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the notebooks that this run executes without an error."""
    from nbmake.nb_run import NotebookRun

    execute = NotebookRun.execute

    def execute_and_keep(self):
        result = execute(self)
        if result.error is None and Path(self.filename).resolve().parent == NOTEBOOKS:
            keep(result.nb, Path(self.filename).name)
        return result

    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr(NotebookRun, "execute", execute_and_keep)
