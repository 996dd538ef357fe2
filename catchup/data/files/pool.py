"""Work done ahead by other processes, its results in order: a thin shell around the standard
library's pool.

Why not torch's DataLoader: it draws from the global generator, its SIGCHLD handler raises in the
middle of a step when a worker dies, and Ctrl-C or a cluster's SIGTERM, which reach every process of
a run, end its workers before the run has come to the step at which it stops.

Here a worker leaves both signals to the run, and goes when the run is gone, however that ended. A
worker that is killed
costs time and no results: the rest is done in the process that asked.

Where it misleads: on Linux workers are forked. They inherit whatever the run holds open, locks made
with `flock` among it, for up to `WATCH_S` after the run was killed; and they may only do what is
safe where other threads were left behind
by the fork: NumPy and Pillow, not torch.
"""

import gc
import math
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import numpy as np

from ...utils.processors import count_cores

AHEAD = 2  # tasks for each worker that are under way, or done and not yet asked for
MOST = 16  # workers, where nobody says how many
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that a worker leaves to the run
WATCH_S = 0.2  # seconds between two looks of a worker at its parent


def usual_workers() -> int:
    """As many as this process has processors, but one, which trains; at most `MOST`, and 0 where
    there is only one.

    Under torchrun the processes of one machine share its processors.
    """
    return max(0, min(MOST, count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))


def can_share(workers: int) -> bool:
    """Whether so many workers see the `shared_memory` that was made before them: those that are
    forked do.
    """
    return not workers or _context().get_start_method() == "fork"


def shared_memory(shape: tuple[int, ...]) -> np.ndarray:
    """An array of uint8 on pages of its own, zeros, that workers made later can write to; it has no
    name and leaves
    no trace: the pages go back to the system with the last who has the array.

    What a pipe would take instead is copied four times on its way, which costs a good part of the
    decoding again.
    """
    return np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)


def map_ahead(work: Callable[[Any], Any], tasks: Iterable, workers: int) -> Iterator:
    """`map(work, tasks)`, at most `AHEAD` times `workers` tasks ahead of what was asked for.

    Args:
        work: a function that can be pickled, of one argument; it may not use torch.
        tasks: taken up one by one as results are asked for.
        workers: processes, >= 0; with 0, and inside a process that may have none, the work is done
            here.
    Yields:
        work(task), in the order of the tasks. Close the iterator (`contextlib.closing`) to end the
        workers early.
    Raises:
        Exception: what `work` raised, in its turn.
    """
    tasks, waiting, broken = iter(tasks), deque(), False
    if workers and not multiprocessing.current_process().daemon:
        pool = ProcessPoolExecutor(workers, _context(), _begin, (work, os.getpid()))
        try:
            with _block_signals():  # a worker is not to be met by a signal before it has begun
                pool.submit(os.getpid)  # starts them all
            yield from _results(pool, tasks, waiting, AHEAD * workers)
        except BrokenProcessPool:
            broken = True
            warnings.warn(
                "a process that decodes images was killed (was there too little memory?); the rest"
                " of this pass is done without such processes",
                RuntimeWarning,
                stacklevel=2,
            )
        finally:
            _end(pool, broken)
    yield from map(work, chain(waiting, tasks))


def _results(pool: ProcessPoolExecutor, tasks: Iterator, waiting: deque, ahead: int) -> Iterator:
    """The pool's results in order; `waiting` holds the tasks whose results were not yet given
    out.
    """
    futures = deque()
    while True:
        for task in islice(tasks, ahead - len(waiting)):
            waiting.append(task)
            futures.append(pool.submit(_do, task))
        if not futures:
            return
        result = futures[0].result()
        futures.popleft()
        waiting.popleft()
        yield result


def _end(pool: ProcessPoolExecutor, broken: bool) -> None:
    """Waits until every worker has gone; each finishes the task it has in hand."""
    if broken:  # the pool sends a signal that the others ignore, and would wait for them
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _block_signals() -> Iterator[None]:
    """Inside the block signals wait, in this thread and in the processes that it starts."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _context() -> multiprocessing.context.BaseContext:
    """Forked on Linux, where that starts at once and needs no guard in the user's script."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else None)


_work: Callable[[Any], Any] | None = None  # of this worker


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    """Makes a process a worker."""
    global _work
    _work = work
    # a collection would write to every object of the run, and so make a copy of all its memory
    gc.freeze()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    """Ends this process once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


def _do(task: Any) -> Any:
    return _work(task)
