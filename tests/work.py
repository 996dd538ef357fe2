"""What the processes of an engine do in the tests: small jobs, some of which end their own
process.
"""

import os
import signal
import time
from pathlib import Path


def noted(job: tuple[str, int, float]) -> tuple[int, int]:
    """(the number, the process), after `seconds`; begin and end are noted in the folder."""
    folder, number, seconds = job
    _note(folder, f"begun-{number}")
    time.sleep(seconds)
    _note(folder, f"done-{number}")
    return number, os.getpid()


def dies_once(job: tuple[str, int, float]) -> tuple[int, int]:
    """As `noted`, but its process kills itself where it is called for the first time with an odd
    number.
    """
    folder, number, _ = job
    if number % 2 and not Path(folder, f"begun-{number}").exists():
        _note(folder, f"begun-{number}")
        os.kill(os.getpid(), signal.SIGKILL)
    return noted(job)


def always_dies(job: tuple[str, int, float]) -> None:
    """Ends its process; number 0 does not."""
    folder, number, _ = job
    if not number:
        return number, os.getpid()
    _note(folder, f"begun-{number}")
    os.kill(os.getpid(), signal.SIGKILL)


def surroundings(_job) -> dict:
    """Where it is called."""
    import torch

    return {
        "folder": os.getcwd(),
        "threads": torch.get_num_threads(),
        "pid": os.getpid(),
        "ignores_ctrl_c": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
    }


def _note(folder: str, name: str) -> None:
    with open(Path(folder, name), "a") as file:
        file.write(f"{os.getpid()}\n")
