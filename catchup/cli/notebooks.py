"""`catchup notebooks`: the notebooks and their records into a folder."""

from pathlib import Path

import tyro


def notebooks(out: tyro.conf.Positional[Path], student: bool = False) -> None:
    """Copy the notebooks, and the recorded runs they read, into a folder of your own.

    Args:
        out: The folder; nothing in it is replaced.
        student: Leave out the solutions of the exercises.
    """
    from ..experiments.course import copy_notebooks

    written = copy_notebooks(out, student=student)
    print(f"{len(written)} notebooks in {written[0].parent}")
    print(f"next:    jupyter lab {written[0]}")
