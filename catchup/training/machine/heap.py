"""Memory that one training step frees is kept for the next, instead of being given back and asked
for again.

PyTorch takes the memory of tensors on a CPU from the C library. glibc gives large blocks back to
the system as soon as they are free, so that the next step gets new pages: the kernel clears each of
them and stops the program once per page. `python -m benchmarks.throughput` shows what that costs
(its variant "returned" is our loop without this file).

Where it misleads: the limits are the process's, not the loop's. What else the process frees
meanwhile is kept too, and it holds its largest moment until the block ends. And it is the main
thread that gains: other threads have heaps of 64 MiB each, and large blocks beside them.
"""

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext

from .process_wide import shared

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
# no trimming; blocks up to 1 GiB come from the heap, before glibc 2.35 32 MiB
NEVER, LARGEST = (-1, (2**30, 2**25))
# bytes; what glibc's own adaptation comes to at the most
ADAPTED = {M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26}


def kept() -> AbstractContextManager[None]:
    """Inside the block freed memory stays with the process; afterwards what is free goes back to
    the system.

    Blocks may be nested, in several threads too; the last one to end gives back. Nothing happens
    where the C library is not glibc, or where whoever started the process has set these limits
    (MALLOC_…_THRESHOLD_, GLIBC_TUNABLES). Results are the same with and without, to the last bit.
    Differs: glibc does not adapt its limits any more once they were set; afterwards they are the
    highest to which it would have adapted them (see mallopt(3)).
    """
    return nullcontext() if _glibc() is None else _keeping()


def _keep() -> None:
    if (libc := _glibc()) is None:
        return
    any(libc.mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST)  # the first that it takes
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)


def _give_back() -> None:
    if (libc := _glibc()) is None:  # somebody set the limits meanwhile
        return
    for limit, size in ADAPTED.items():
        libc.mallopt(limit, size)
    libc.malloc_trim(0)


_keeping = shared(_keep, _give_back)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is one whose limits are ours to set."""
    chosen = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & set(os.environ)
    if (
        not sys.platform.startswith("linux")
        or chosen
        or "_threshold" in os.environ.get("GLIBC_TUNABLES", "")
    ):
        return None
    libc = ctypes.CDLL(None)
    return (
        libc
        if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim"))
        else None
    )
