"""Seeds: torch's global generator for the length of a block, and generators that follow from keys
alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def fork_rng(seed: int) -> Iterator[None]:
    """Inside the block torch's global generator starts from `seed`; afterwards it is where it
    was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def make_generator(*keys: int) -> torch.Generator:
    """A CPU generator that follows from the keys alone."""
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)
    )
