"""Two processes that torch.distributed joins (gloo), forked from this one, so that nothing has to
be imported anew.
"""

import os
import signal
import socket
from collections.abc import Callable

from kill_and_resume import ended, forked


def together(work: Callable[[int], object], n: int = 2) -> list[int]:
    """`work(rank)` in n processes, where accelerate and torch.distributed find what torchrun would
    have told them.

    Returns:
        Their exit codes; what they raise is on standard error.
    """
    port = free_port()

    def one(rank):
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(n),
            LOCAL_WORLD_SIZE=str(n),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        work(rank)

    children = [forked(lambda rank=rank: one(rank)) for rank in range(n)]
    codes = []
    try:
        for child in children:
            codes.append(ended(child, 300))
    finally:
        # one hangs, and has been killed: the others wait for it
        for child in children[len(codes) + 1 :]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return codes


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
