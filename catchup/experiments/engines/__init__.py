"""Where many runs are done: here one by one, in a pool of processes, on SLURM through submitit, or
on Ray.

An engine says what it needs (`Engine.check`) and gives a crew for as long as there is work;
`run_jobs` hands the jobs to the crew and their answers on, and a job whose process died is handed
out again. Moving jobs about is the work of
others: concurrent.futures, submitit, Ray.

Where it misleads: results depend on the number of threads in their last digits. A process of a pool
uses `Pool.threads`, so a pool gives exactly what "local" gives on as many threads
(OMP_NUM_THREADS), not on others. "auto" computes every run on one thread, so that its numbers do
not depend on how many processors there are.
"""

from dataclasses import fields

from ...utils.choices import build, misfit, pick
from ...utils.processors import count_cores
from .base import ATTEMPTS, Crew, Engine, Lost, Task, run_jobs
from .cluster import Ray, Slurm
from .here import Local, Pool

ENGINES: dict[str, type[Engine]] = {"local": Local, "pool": Pool, "slurm": Slurm, "ray": Ray}

__all__ = [
    "ATTEMPTS",
    "ENGINES",
    "Crew",
    "Engine",
    "Lost",
    "Task",
    "make_engine",
    "run_jobs",
    "usual_engine",
]


def make_engine(text: str) -> Engine:
    """The engine that a text like "pool", "pool:jobs=4" or "slurm:partition=gpu,hours=2,gpus=1"
    names; "auto" is `usual_engine`.

    Raises:
        ValueError: for an unknown engine or setting, or a value that does not fit; the message says
            which there are.
    """
    return usual_engine() if text == "auto" else build(_make, text, "engine")


def usual_engine() -> Engine:
    """A process of one thread for each processor; this process alone where there is a GPU, or one
    processor.
    """
    import torch

    cores = count_cores()
    if cores < 2 or torch.accelerator.is_available():
        return Local()
    return Pool(jobs=cores, threads=1)


def _make(name: str, **settings) -> Engine:
    kind = ENGINES[pick("engine", name, ENGINES)]
    known = [field.name for field in fields(kind)]
    for key in settings:
        if not known:
            raise ValueError(f"the engine {name} has no settings, got {key!r}")
        if key not in known:
            raise ValueError(misfit(f"setting of {name}", key, known))
    return kind(**settings)
