"""Standard output that nobody reads any more, as in `catchup report | head`."""

import os
import select
from typing import TextIO


def unread(output: TextIO | None) -> bool:
    """Has the reader of a pipe gone? If so, what is still written to `output` is dropped without an error.

    False where nobody can tell: if `output` is None or no file of the system, or the system has no `poll`.
    """
    try:
        number, watch = output.fileno(), select.poll()
    except (AttributeError, OSError):
        return False
    watch.register(number, 0)  # errors are told of without being asked for
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
    return True
