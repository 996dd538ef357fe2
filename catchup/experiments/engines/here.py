"""This machine: one job after the other in this process, or several processes at once."""

import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from .base import Crew, Engine, Lost, Task, at_least

START = "spawn"  # a process that begins anew: a forked one would share this one's GPU and threads
GRACE = 30  # seconds that a process has to store its run when it is to end


@dataclass(frozen=True, kw_only=True)
class Local(Engine):
    """In this process, one job after the other."""

    about = "in this process, one run after the other"

    @contextmanager
    def crew(self, work, folder):
        """This process."""
        yield _Alone(work)


class _Alone(Crew):
    """This process: a ticket is a job's number, the work is done when its answer is asked for."""

    def __init__(self, work):
        self._work, self._jobs = work, {}

    def start(self, jobs):
        """Notes them."""
        self._jobs = dict(enumerate(jobs))
        return list(self._jobs)

    def finished(self, tickets):
        """All: each is done when it is asked for."""
        return tickets

    def answer(self, ticket):
        """Does the job."""
        return self._work(self._jobs.pop(ticket))


@dataclass(frozen=True, kw_only=True)
class Pool(Engine):
    """Several processes on this machine. A script that calls it needs `if __name__ == "__main__":`
    around the call.

    Args:
        jobs: processes; None: as many as there are GPUs, or else as torch would use threads.
        threads: of torch in each process; None: the threads of this process, divided among them, at
            least one.
    """

    about = "several processes on this machine: pool:jobs=4"
    jobs: int | None = at_least(1)
    threads: int | None = at_least(1)

    @property
    def at_once(self) -> int:
        """`jobs`, or one for each GPU, or for each thread of torch."""
        import torch

        return self.jobs or torch.cuda.device_count() or torch.get_num_threads()

    @contextmanager
    def crew(self, work, folder):
        """Processes that end with the block."""
        import torch

        threads = self.threads or max(1, torch.get_num_threads() // self.at_once)
        crew = _Processes(
            Task(work, os.getcwd(), threads), self.at_once, _gpus(torch.cuda.device_count())
        )
        try:
            yield crew
        finally:
            crew.end()


class _Processes(Crew):
    """Executors of one process each, so that a death concerns one job and no other.

    Every process watches a pipe whose other end is here alone: it closes when the processes are to
    end, and also if this process is killed, so that none is left behind.
    """

    def __init__(self, task: Task, at_once: int, gpus: list[str]):
        self.at_once, self._task, self._gpus = at_once, task, gpus
        self._context = get_context(START)
        self._reader, self._writer = self._context.Pipe(duplex=False)
        self._idle: deque[tuple[int, ProcessPoolExecutor | None]] = deque(
            (place, None) for place in range(at_once)
        )
        self._busy: dict[Future, tuple[int, ProcessPoolExecutor]] = {}

    def start(self, jobs):
        """One process each, an idle one if there is any."""
        return [self._begun(job) for job in jobs]

    def finished(self, tickets):
        """Those whose process has answered or died."""
        return wait(tickets, return_when=FIRST_COMPLETED).done

    def answer(self, ticket):
        """What the process said; Lost if it died, and the next job in its place gets a new one."""
        place, executor = self._busy.pop(ticket)
        try:
            answer = ticket.result()
        except BrokenProcessPool as error:
            executor.shutdown(wait=False)
            self._idle.append((place, None))
            raise Lost(f"its process ended without an answer ({error})") from None
        # the processes that there are come before new ones
        self._idle.appendleft((place, executor))
        return answer

    def end(self) -> None:
        """Ends all processes: idle ones at once, busy ones when they have stored what they are
        at.
        """
        if self._busy:
            self._writer.close()
        for _, executor in (*self._idle, *self._busy.values()):
            if executor is not None:
                executor.shutdown(wait=True, cancel_futures=True)
        self._writer.close()
        self._reader.close()

    def _begun(self, job) -> Future:
        place, executor = self._idle.popleft()
        if executor is None:
            gpu = self._gpus[place % len(self._gpus)] if self._gpus else None
            executor = ProcessPoolExecutor(1, self._context, _begin, (self._reader, gpu))
        future = executor.submit(_done, self._task, job)
        self._busy[future] = place, executor
        return future


def _gpus(count: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES has to be for each of this process's GPUs; nothing to choose among
    fewer than two.
    """
    given = [
        name.strip()
        for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if name.strip()
    ]
    return (given or [str(number) for number in range(count)])[:count] if count > 1 else []


def _begin(reader: Connection, gpu: str | None) -> None:
    """First of all in a new process: Ctrl-C is the coordinator's matter, and one GPU is this
    process's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is used first
    threading.Thread(target=_end_with, args=(reader,), daemon=True).start()


def _end_with(reader: Connection) -> None:
    """Ends this process when the other end of the pipe is gone; training stores its run on
    SIGTERM.
    """
    with suppress(EOFError, OSError):
        reader.recv_bytes()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)


def _done(task: Task, job):
    """The job's answer. The executor would take SystemExit for one, and keep the process."""
    try:
        return task(job)
    except (SystemExit, KeyboardInterrupt):
        os._exit(128 + signal.SIGTERM)
