"""Other machines: SLURM through submitit, and a Ray cluster. All of them need the same files and
the same packages.
"""

import math
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass

from ...utils.choices import pick
from ...utils.optional import require
from .base import Crew, Engine, Lost, Task, at_least

MOST = 1000  # jobs handed to SLURM together, the usual limit of an array
WHERE = ("slurm", "local", "debug")
NUMBERS = (int, float)


@dataclass(frozen=True, kw_only=True)
class Slurm(Engine):
    """Jobs of a SLURM cluster, handed over by submitit as an array; called from a machine that has
    sbatch.

    What is not set here can be told sbatch by its own environment variables (SBATCH_QOS,
    SBATCH_CONSTRAINT, …). submitit's own files, logs among them, are in DIR/.submitit.

    Args:
        partition, account: of the cluster; None: its defaults.
        hours: that a job may take; one that takes longer, or has to make way, is queued again and
            goes on.
        gpus, cpus: of each job. cpus is also the number of torch's threads; None: one, and torch's
            own choice.
        memory_gb: of each job; None: the cluster's default.
        jobs: at once, at most; None: as many as the cluster allows.
        cluster: "slurm"; "local" and "debug" are submitit's own for trying this out, with processes
            of this machine and within this process.
    """

    about = "a SLURM cluster, through submitit: slurm:partition=gpu,hours=2,gpus=1,jobs=20"
    elsewhere = True
    partition: str | None = None
    account: str | None = None
    hours: float = at_least(0.02, 4, NUMBERS)
    gpus: int = at_least(0, 0)
    cpus: int | None = at_least(1)
    memory_gb: float | None = at_least(0.1, None, NUMBERS)
    jobs: int | None = at_least(1)
    cluster: str = "slurm"

    def __post_init__(self):
        super().__post_init__()
        pick("cluster", self.cluster, WHERE)

    @property
    def at_once(self) -> int | None:
        """`jobs`; None leaves it to SLURM."""
        return self.jobs if self.cluster == "slurm" else self.jobs or 1

    def check(self) -> None:
        """ImportError without submitit, ValueError without sbatch."""
        require("submitit", "cluster")
        if self.cluster == "slurm" and shutil.which("sbatch") is None:
            raise ValueError(
                "the engine slurm needs the command sbatch, which is not found here: call it on a"
                " machine of the cluster, or try it out with slurm:cluster=local"
            )

    def parameters(self) -> dict:
        """What submitit is told of each job."""
        known = {
            "name": "catchup",
            "timeout_min": math.ceil(60 * self.hours),
            "gpus_per_node": self.gpus,
            "cpus_per_task": self.cpus,
            "mem_gb": self.memory_gb,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_array_parallelism": self.jobs,
        }
        return {key: value for key, value in known.items() if value is not None}

    @contextmanager
    def crew(self, work, folder):
        """Jobs of submitit, whose logs are in FOLDER/.submitit; those still queued or running are
        cancelled.
        """
        submitit = require("submitit", "cluster")
        executor = submitit.AutoExecutor(folder / ".submitit" / "%j", cluster=self.cluster)
        executor.update_parameters(**self.parameters())
        most = MOST if self.cluster == "slurm" else self.at_once
        crew = _Submitted(
            executor,
            Task(work, os.getcwd(), self.cpus),
            most,
            0.2 if self.cluster == "local" else 5,
        )
        try:
            yield crew
        finally:
            crew.end()


class _Submitted(Crew):
    """Jobs of submitit; they are asked in turn, every `pause` seconds, whether they are
    finished.
    """

    def __init__(self, executor, task: Task, at_once: int, pause: float):
        self.at_once, self._executor, self._task, self._pause, self._open = (
            at_once,
            executor,
            task,
            pause,
            set(),
        )

    def start(self, jobs):
        """One array of SLURM for all of them."""
        with self._executor.batch():
            tickets = [self._executor.submit(self._task, job) for job in jobs]
        self._open.update(tickets)
        return tickets

    def finished(self, tickets):
        """Asked again and again until one is."""
        while not (found := [ticket for ticket in tickets if ticket.done()]):
            time.sleep(self._pause)
        return found

    def answer(self, ticket):
        """What the job said; Lost, with the place of its log, if it ended without a word."""
        errors = require("submitit", "cluster").core.utils
        self._open.discard(ticket)
        try:
            return ticket.result()
        except (errors.UncompletedJobError, errors.FailedJobError) as error:
            said = [line for line in str(error).splitlines() if line.strip(" -")]
            raise Lost(
                f"job {ticket.job_id} ended without an answer"
                f" ({said[-1].strip()[:200] if said else ''}); its log is {ticket.paths.stderr}"
            ) from None

    def end(self) -> None:
        """Takes back what has not answered."""
        for ticket in self._open:
            ticket.cancel(check=False)


@dataclass(frozen=True, kw_only=True)
class Ray(Engine):
    """Tasks of a Ray cluster.

    Args:
        address: of the cluster: auto (the one that this machine is part of), ray://HOST:10001;
            None: what RAY_ADDRESS says, and without it an instance on this machine, for the time of
            the call.
        gpus: of each job; parts of one are allowed (0.5: two jobs on a GPU). cpus: of each job, and
            torch's threads.
        jobs: at once, at most; None: as many as the cluster has room for.
    """

    about = "a Ray cluster: ray:address=auto,gpus=1"
    elsewhere = True
    address: str | None = None
    gpus: float = at_least(0, 0, NUMBERS)
    cpus: int = at_least(1, 1)
    jobs: int | None = at_least(1)

    @property
    def at_once(self) -> int | None:
        """`jobs`; None leaves it to the cluster."""
        return self.jobs

    def check(self) -> None:
        """ImportError without Ray."""
        require("ray", "ray")

    @contextmanager
    def crew(self, work, folder):
        """Tasks of a cluster, or of an instance that lives as long as the block."""
        ray = require("ray", "ray")
        ours = not ray.is_initialized()
        if ours:
            ray.init(address=self.address, **self._instance())
        crew = _Tasks(ray, self, Task(work, os.getcwd(), self.cpus))
        try:
            yield crew
        finally:
            crew.end()
            if ours:
                ray.shutdown()

    def _instance(self) -> dict:
        """How to start an instance of our own, where none is named."""
        named = self.address or os.environ.get("RAY_ADDRESS")
        room = {} if named or self.jobs is None else {"num_cpus": self.jobs * self.cpus}
        return {"include_dashboard": None if named else False, "log_to_driver": True, **room}


class _Tasks(Crew):
    """Tasks of Ray, which has its own queue; it is told not to repeat any, as that is counted
    here.
    """

    def __init__(self, ray, engine: Ray, task: Task):
        self.at_once, self._ray, self._open = engine.jobs or math.inf, ray, set()
        self._task, self._remote = (
            task,
            ray.remote(num_cpus=engine.cpus, num_gpus=engine.gpus, max_retries=0)(_done),
        )

    def start(self, jobs):
        """All of them: Ray has a queue of its own."""
        tickets = [self._remote.remote(self._task, job) for job in jobs]
        self._open.update(tickets)
        return tickets

    def finished(self, tickets):
        """The first that is."""
        return self._ray.wait(list(tickets), num_returns=1)[0]

    def answer(self, ticket):
        """What the task said; Lost if its worker died."""
        self._open.discard(ticket)
        try:
            return self._ray.get(ticket)
        except self._ray.exceptions.RayError as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise Lost(f"its worker ended without an answer ({said[0][:200]})") from None

    def end(self) -> None:
        """Ends what has not answered."""
        for ticket in self._open:
            self._ray.cancel(ticket, force=True)


def _done(task: Task, job):
    return task(job)
