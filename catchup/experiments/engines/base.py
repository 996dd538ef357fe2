"""What an engine is, and how jobs go through it: handed out, waited for, handed out again where a
process died.
"""

import os
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from ...utils.optional import require

ATTEMPTS = 3  # of a job whose process dies


class Lost(Exception):
    """A job whose process ended without an answer: killed, out of memory, its machine gone."""


@dataclass(frozen=True)
class Task:
    """What a process does with a job: `work(job)`, in the coordinator's folder, on a known number
    of threads.

    Args:
        work: a function of a module, of one job; what it has to say it returns.
        folder: to work in, so that relative paths mean everywhere what they mean here.
        threads: of torch; None leaves them.
    """

    work: Callable[[Any], Any]
    folder: str
    threads: int | None = None

    def __call__(self, job):
        import torch

        os.chdir(self.folder)
        if self.threads:
            torch.set_num_threads(self.threads)
        return self.work(job)

    def checkpoint(self, job):
        """submitit asks for this before SLURM's time is up, or at preemption: the same job once
        more, which goes on.
        """
        return require("submitit", "cluster").helpers.DelayedSubmission(self, job)


class Crew(ABC):
    """Those who do the work. `at_once`: how many jobs it takes at a time."""

    at_once: float = 1

    @abstractmethod
    def start(self, jobs: Sequence) -> Sequence[Hashable]:
        """Begins these jobs; a ticket for each."""

    @abstractmethod
    def finished(self, tickets: Sequence[Hashable]) -> Iterable[Hashable]:
        """Waits until at least one is finished; those that are."""

    @abstractmethod
    def answer(self, ticket: Hashable):
        """What the finished job said. Raises Lost if it said nothing."""


@dataclass(frozen=True, kw_only=True)
class Engine(ABC):
    """A place where jobs can be done; the fields are its settings."""

    about: ClassVar[str]
    elsewhere: ClassVar[bool] = False  # on machines that may have other hardware than this one

    def __post_init__(self):
        for one in fields(self):
            value, kinds = getattr(self, one.name), one.metadata.get("kinds")
            if (
                kinds
                and value is not None
                and not (type(value) in kinds and value >= one.metadata["least"])
            ):
                number = "a whole number" if kinds == (int,) else "a number"
                raise ValueError(
                    f"{one.name} must be {number} of at least {one.metadata['least']}, got"
                    f" {value!r}"
                )

    @property
    def at_once(self) -> int | None:
        """How many jobs are done at the same time; None: the cluster decides."""
        return 1

    def check(self) -> None:
        """Raises ValueError or ImportError, with the remedy, if jobs cannot be done there; starts
        nothing.
        """
        return None

    @abstractmethod
    def crew(self, work: Callable, folder: Path) -> AbstractContextManager[Crew]:
        """Those who do `work` as long as the block lasts; on leaving it, what still runs is ended.

        Args:
            work: as for `Task`. folder: where the engine may keep its own files.
        """


def run_jobs(
    engine: Engine, work: Callable[[Any], Any], jobs: Sequence, folder: Path
) -> Iterator[tuple[int, Any]]:
    """Does every job once and yields (its position in `jobs`, what `work(job)` returned), as they
    finish.

    A job whose process dies is handed out again, ATTEMPTS times in all; then its Lost is yielded in
    place of an answer. Close the iterator (or leave it by an exception, such as Ctrl-C) and
    whatever still runs is ended.

    Args:
        engine: as `make_engine` returns it. work, folder: as for `Engine.crew`. `work` must be
            able to go on where an earlier attempt was cut off.
        jobs: what can be pickled.
    """
    waiting, running, attempts, ready = deque(range(len(jobs))), {}, Counter(), []
    with engine.crew(work, folder) as crew:
        while waiting or running or ready:
            batch = [
                waiting.popleft()
                for _ in range(int(min(len(waiting), crew.at_once - len(running))))
            ]
            running.update(
                zip(crew.start([jobs[number] for number in batch]) if batch else (), batch)
            )
            yield from ready  # only now, so that nobody waits while the caller writes
            ready = []
            for ticket in list(crew.finished(tuple(running))) if running else ():
                number = running.pop(ticket)
                try:
                    ready.append((number, crew.answer(ticket)))
                except Lost as lost:
                    attempts[number] += 1
                    if attempts[number] == ATTEMPTS:
                        ready.append((number, lost))
                    else:
                        waiting.appendleft(number)


def at_least(least: float, default=None, kinds: tuple[type, ...] = (int,)):
    """A field of an engine: a number of one of these kinds, at least `least`, or None."""
    return field(default=default, metadata={"least": least, "kinds": kinds})
