"""A training run one can watch: it works in a thread of its own, and can be paused, stopped, and
taken up again.

For notebooks, whose cells would otherwise be busy for as long as the training lasts. Stopping takes
effect at the next
step and loses nothing: the run is stored there, and `start` goes on to the very weights it would
have had.
"""

import contextvars
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import nn

from ..data import Dataset
from ..inspection.recorder import Record, recording
from ..mixers import Mixer
from ..training.folder import CHECKPOINT
from ..training.loop import Progress
from ..training.settings import Settings
from ..training.trainer import Result, fit

POINTS = 1000  # losses kept; beyond that every second one is let go


class LiveRun:
    """`catchup.fit` in a worker thread.

    Args:
        model, mixer, dataset, settings: as for `catchup.fit`; the model is trained in place.
        out: the run's folder; None takes a temporary one that goes away with this object.
        every: one step in so many is measured filter by filter (see `catchup.recording`); None
            measures none.
        on_change: called as `on_change(run)` when the state changes and at most every `interval_s`
            while it trains; always from the thread that causes the change, mostly the worker. What
            it raises ends up in `error`.
        interval_s: seconds between two such calls, ≥ 0.
    Attributes:
        state: "ready", "running", "paused", "stopped", "finished" or "failed".
        rows: one dictionary per finished epoch. losses: [(step, loss of that step)], thinned out to
            a bounded number.
        step, steps: how many are done, and how many the whole run has; 0 before the first.
        error: what ended a failed run, or what `on_change` raised.
    Raises:
        ValueError: if `out` holds files already.
    """

    def __init__(
        self,
        model: nn.Module,
        mixer: Mixer,
        dataset: Dataset,
        settings: Settings,
        *,
        out: Path | None = None,
        every: int | None = 10,
        on_change: Callable[["LiveRun"], None] | None = None,
        interval_s: float = 0.5,
    ):
        if out is not None and Path(out).exists() and any(Path(out).iterdir()):
            raise ValueError(f"{out} is not empty; give a new or an empty folder")
        self.model, self.mixer, self.dataset, self.settings = model, mixer, dataset, settings
        self._folder = tempfile.TemporaryDirectory(prefix="catchup-live-") if out is None else None
        self.out = Path(self._folder.name if out is None else out)
        self.on_change, self.interval_s, self._every = on_change, interval_s, every
        self.state = "ready"
        self.error: BaseException | None = None
        self.result: Result | None = None
        self.rows: list[dict] = []
        self.losses: list[tuple[int, float]] = []
        self.step, self.steps, self._stride, self._told = 0, 0, 1, 0.0
        self._records: list[Record] = []
        self._go, self._halt, self._lock = threading.Event(), threading.Event(), threading.Lock()
        # and not Thread.join, which an interrupt can make believe that the thread ended
        self._done = threading.Event()
        self._done.set()

    def start(self) -> "LiveRun":
        """Begins, or goes on after a pause or a stop, even one under way; what is running or
        finished is left alone.

        A failed run goes back to the end of its last epoch; if there is none, it begins with the
        weights as they are.
        """
        with self._lock:
            self._halt.clear()
            self._go.set()
            if not self._alive() and self.state != "finished":
                self.error = None
                self.state = "running"
                # A thread with the caller's context: the kernel's messages need it to find their
                # way (ipykernel 7.0).
                context = contextvars.copy_context()
                self._done.clear()
                threading.Thread(
                    target=context.run, args=(self._work,), daemon=True, name="catchup-live"
                ).start()
        return self

    def pause(self) -> None:
        """Holds the run after the step it is in; `start` goes on."""
        self._go.clear()

    def stop(self) -> None:
        """Ends the thread after the step it is in and stores the run; `start` goes on."""
        self._halt.set()
        self._go.set()

    def wait(self, timeout_s: float | None = None) -> Result | None:
        """Waits for the thread to end; an interrupt (Ctrl-C, the kernel's stop button) stops the
        run and then waits.

        Returns:
            The result so far, `finished` or not; None if the time ran out or there was no start.
        Raises:
            What ended a failed run.
        """
        try:
            self._join(timeout_s)
        except KeyboardInterrupt:
            self.stop()
            self._join(None)
        if self.state == "failed":
            raise self.error
        return None if self._alive() else self.result

    async def finished(self) -> Result | None:
        """`wait` for a notebook: `await run.finished()` leaves the kernel free for the buttons of a
        panel meanwhile.
        """
        import asyncio

        try:
            while self._alive():
                await asyncio.sleep(0.05)
        except (KeyboardInterrupt, asyncio.CancelledError):
            self.stop()
        return self.wait()

    def histograms(self) -> list[dict]:
        """Norms against gradients, per epoch and block (`Record.histograms`); of a stopped epoch,
        its longest part.
        """
        return _longest(
            (row for record in self._records for row in record.histograms()), "epoch", "block"
        )

    def filters(self) -> list[dict]:
        """Norm and gradients per epoch, block and filter (`Record.rows`); of a stopped epoch, its
        longest part.
        """
        return _longest(
            (row for record in self._records for row in record.rows()), "epoch", "block", "filter"
        )

    # -- in the worker -----------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._done.is_set():
            try:
                self._tell()
                self.result = self._fit()
                self.state = "finished" if self.result.finished else "stopped"
            except BaseException as error:
                # whatever it is, the notebook has to see it: a thread's traceback is lost
                self.error, self.state = error, "failed"
            self._tell()
            with self._lock:  # a start that came while the run was stopping has taken the stop back
                if self.state == "stopped" and not self._halt.is_set():
                    self.state = "running"
                else:
                    self._done.set()

    def _fit(self) -> Result:
        options = {
            "out": self.out,
            "resume": (self.out / CHECKPOINT).exists(),
            "progress": False,
            "on_step": self._after_step,
            "should_stop": self._halt.is_set,
        }
        if self._every is None:
            return fit(
                self.model,
                self.mixer,
                self.dataset,
                self.settings,
                on_epoch=self.rows.append,
                **options,
            )
        with recording(self.model, every=self._every) as record:
            self._records.append(record)

            def on_epoch(row: dict) -> None:
                record.end_epoch(row)
                self.rows.append(row)

            try:
                return fit(
                    self.model,
                    self.mixer,
                    self.dataset,
                    self.settings,
                    on_epoch=on_epoch,
                    **options,
                )
            finally:
                # what a stop left of an epoch, if anything
                record.end_epoch({"epoch": len(self.rows) + 1})

    def _after_step(self, at: Progress) -> bool:
        if at.step <= self.step:  # back at a checkpoint after a failure
            self.losses = [point for point in self.losses if point[0] < at.step]
        self.step, self.steps = at.step, at.steps
        if at.step % self._stride == 0:
            self.losses.append((at.step, float(at.loss)))
        if len(self.losses) > POINTS:
            self._stride *= 2
            self.losses = [point for point in self.losses if point[0] % self._stride == 0]
        if not self._go.is_set():
            self.state = "paused"
            self._tell()
            self._go.wait()
            self.state = "running"
            if not self._halt.is_set():
                self._tell()
        if time.monotonic() - self._told > self.interval_s:
            self._tell()
        return self._halt.is_set()

    def _tell(self) -> None:
        self._told = time.monotonic()
        if self.on_change is None:
            return
        try:
            self.on_change(self)
        except BaseException as error:
            # a picture that cannot be drawn must not cost the run, nor its waiters
            self.error = error

    # -- waiting -----------------------------------------------------------------------------------

    def _alive(self) -> bool:
        return not self._done.is_set()

    def _join(self, timeout_s: float | None) -> None:
        """In short naps, so that an interrupt is heard on every platform."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self._alive() and (end is None or time.monotonic() < end):
            self._done.wait(0.05)


def _longest(rows: Iterable[dict], *keys: str) -> list[dict]:
    """One row for each combination of the keys: that of most images."""
    found: dict[tuple, dict] = {}
    for row in rows:
        known = found.setdefault(tuple(row[key] for key in keys), row)
        if row["images"] > known["images"]:
            found[tuple(row[key] for key in keys)] = row
    return list(found.values())
