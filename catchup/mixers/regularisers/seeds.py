"""Where a regulariser's chance comes from: the step's seed and a name, so that no two of them throw
the same dice.
"""

from zlib import crc32

import numpy as np
import torch


def numbers(seed: int, name: str) -> np.random.Generator:
    """A NumPy generator that follows from `seed` ≥ 0 and `name` alone."""
    return np.random.default_rng([seed, crc32(name.encode())])


def generator(
    seed: int, name: str, layer: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator on `device` that follows from `seed` ≥ 0, `name` and `layer`; other
    devices, other numbers.
    """
    state = np.random.SeedSequence([seed, crc32(name.encode()), layer]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> 1))
