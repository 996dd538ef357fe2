"""Ctrl-C and SIGTERM put off to the end of a step, so that what they stop is whole.

Python raises KeyboardInterrupt between any two instructions: between a layer's hook and its
removal, or after half of the weights have taken their step. Inside `defer_signals` a signal is only
noted; the loop asks between two steps.

Where it misleads: signal handlers belong to the main thread. In any other thread nothing is put
off, and nothing needs
to be: Python delivers Ctrl-C to the main thread alone.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .distributed import all_reduce_max

TERMINATED = 128 + signal.SIGTERM  # 143: what a shell reports of a process that SIGTERM ended


class StopRequest:
    """What has been asked for: `signal` is None, SIGINT or SIGTERM; true once there is one."""

    def __init__(self, patient: bool = False):
        self.signal: int | None = None
        self.saved = ""  # what the loop has to say of what is kept, for the message
        self._patient = patient

    def __bool__(self) -> bool:
        return self.signal is not None

    def note(self, signum: int, _frame: object = None) -> None:
        """The handler. A second Ctrl-C breaks through at once; SIGTERM may come often, as launchers
        repeat it.
        """
        if signum == signal.SIGINT and self.signal == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt("stopped by a second Ctrl-C, in the middle of a step")
        if self.signal != signal.SIGTERM:  # which outweighs a Ctrl-C: the process has to end
            self.signal = signum

    def agree(self, saved: str) -> None:
        """At the end of a run: what any of its processes was asked for, all are. `saved`: said to
        whoever asked.
        """
        self.saved, self.signal = saved, int(all_reduce_max(self.signal or 0)[0]) or None

    def leave(self) -> None:
        """Raises what the signal asks for, once: KeyboardInterrupt, or SystemExit(143); nothing if
        there was none.
        """
        signum, self.signal = self.signal, None
        if signum == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt(self.saved or "stopped between two steps")


@contextmanager
def defer_signals(patient: bool = False) -> Iterator[StopRequest]:
    """Inside the block Ctrl-C and SIGTERM are noted; on leaving it they take effect, and the
    earlier handlers are back.

    A signal outweighs an error of the block (which becomes its context): after SIGTERM nothing may
    go on. Blocks may be
    nested: an inner one shares what the outer was asked.

    Args:
        patient: a second Ctrl-C does not break through either: under torchrun the launcher repeats
            the first.
    Yields:
        StopRequest: to be looked at between steps.
    Raises:
        KeyboardInterrupt: on leaving after SIGINT; at once at the second. SystemExit: 143, on
            leaving after SIGTERM.
    """
    asked, earlier = StopRequest(patient), {}
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    if (outer := _outer()) is not None:
        yield outer
        outer.leave()
        return
    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            if _ours(signum):
                earlier[signum] = signal.signal(signum, asked.note)
        yield asked
    except BaseException as error:
        _restore(earlier)
        if not isinstance(error, (KeyboardInterrupt, SystemExit)):
            asked.leave()
        raise
    _restore(earlier)
    asked.leave()


def _ours(signum: int) -> bool:
    """May the signal be put off? Not where it is ignored (nohup), or handled outside Python, or for
    its own purpose.
    """
    handler = signal.getsignal(signum)
    if handler is None or handler is signal.SIG_IGN:
        return False
    # another's plan for SIGTERM, as submitit's, stands
    return signum == signal.SIGINT or handler is signal.SIG_DFL


def _outer() -> StopRequest | None:
    """What an outer block notes its signals in."""
    notes = (
        getattr(signal.getsignal(signum), "__self__", None)
        for signum in (signal.SIGINT, signal.SIGTERM)
    )
    return next((note for note in notes if isinstance(note, StopRequest)), None)


def _restore(earlier: dict) -> None:
    while earlier:
        signum, handler = earlier.popitem()
        signal.signal(signum, handler)
