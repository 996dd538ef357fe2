"""Standard output that nobody reads any more, as in `catchup report | head`."""

import select
from typing import TextIO


def unread(output: TextIO | None) -> bool:
    """Has the reader of a pipe gone?

    False where nobody can tell: if `output` is None or no file of the system, or the system has no `poll`.
    """
    try:
        number, watch = output.fileno(), select.poll()
    except (AttributeError, OSError):
        return False
    watch.register(number, 0)  # errors are told of without being asked for
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))
