"""The notebooks as a folder of one's own: they and the records they read, from a checkout or from
an installed package.

DIR/notebooks/       the notebooks, `paper_notes.md`
DIR/data/results/    the recorded runs that they read as `../data/results`
"""

import json
import shutil
from pathlib import Path

from ..utils.files import write_atomically

PARTS = ("notebooks", "data/results")
LEFT_OUT = shutil.ignore_patterns("weights", ".ipynb_checkpoints", "*.pyc")
SOLUTION = "solution"  # the tag of cells that a student does not get


def copy_notebooks(out: Path, *, student: bool = False) -> list[Path]:
    """Copies notebooks and records into a folder.

    Args:
        out: the folder, made if needed; nothing in it is replaced.
        student: leave out the cells that hold the exercises' solutions.
    Returns:
        The notebooks written, in their order.
    Raises:
        FileExistsError: if there are notebooks or records in `out` already; nothing is written.
        FileNotFoundError: if the package came without its notebooks.
    """
    source, out = find_source(), Path(out)
    for part in PARTS:
        if (out / part).exists():
            raise FileExistsError(
                f"{out / part} is there already and may hold your work; give a folder without it"
            )
    for part in PARTS:
        shutil.copytree(source / part, out / part, ignore=LEFT_OUT)
    written = sorted((out / "notebooks").glob("*.ipynb"))
    if student:
        for path in written:
            write_atomically(path, without_solutions(path.read_text("utf-8")).encode())
    return written


def without_solutions(notebook: str) -> str:
    """The text of a notebook without the cells tagged `solution`."""
    read = json.loads(notebook)
    read["cells"] = [
        cell for cell in read["cells"] if SOLUTION not in cell["metadata"].get("tags", ())
    ]
    return json.dumps(read, indent=1, ensure_ascii=False) + "\n"


def find_source() -> Path:
    """The folder that holds `PARTS`: the checkout, or the copy inside an installed package.

    Raises:
        FileNotFoundError: if neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent, package / "course"):
        if all((folder / part).is_dir() for part in PARTS):
            return folder
    raise FileNotFoundError(
        f"neither {package.parent} nor {package / 'course'} holds {' and '.join(PARTS)}: install"
        " the package again, or take a whole checkout"
    )
