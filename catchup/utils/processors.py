"""How many processors this process may use."""

import os


def count_cores() -> int:
    """Processors that this process may use, ≥ 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
