"""A block that changes something of the whole process, for as long as anyone is inside."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


def shared(
    enter: Callable[[], object], leave: Callable[[], object]
) -> Callable[[], AbstractContextManager[None]]:
    """A block that may be nested, in several threads too: the first to come in calls `enter`, the
    last to go `leave`.

    What `enter` raises reaches who wanted to come in; the next one tries again.
    """
    lock, inside = threading.Lock(), 0

    @contextmanager
    def block() -> Iterator[None]:
        nonlocal inside
        with lock:
            if inside == 0:
                enter()
            inside += 1
        try:
            yield
        finally:
            with lock:
                inside -= 1
                if inside == 0:
                    leave()

    return block
