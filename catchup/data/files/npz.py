"""Our own caches of arrays, read back: every byte is checked, no code runs, and nothing larger than
the file is made.

`np.load` alone leaves two gaps. It stops reading where the header of an array says so, and the sum
of a member is only compared once the member was read to its end: a header damaged to a smaller
shape passes. And it unpacks compressed members of any size. Here a member that is compressed, or
longer than its array, is damage like any other.

Where it misleads: the sums tell damage, not forgery. A cache that somebody made with care is
believed.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def read_npz(path: Path, names: Sequence[str]) -> list[np.ndarray] | None:
    """The arrays of these names in a file of `np.savez`, which may hold no others.

    Returns:
        As many arrays as names; None if the file is absent, damaged, compressed, or not such a
        file.
    """
    try:
        if not path.is_file():  # a pipe would never answer
            return None
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sorted(member.filename for member in members) != sorted(
                f"{name}.npy" for name in names
            ):
                return None
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                return None
            return [_array(archive, f"{name}.npy") for name in names]
    except Exception:
        # zipfile and NumPy have no one error for hostile bytes: struct, tokenize, ast, memory, …
        return None


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """The array in a member; ValueError unless it fills the member to its end, where its sum is
    compared.
    """
    with archive.open(name) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            raise ValueError(f"{name} is longer than its array")
    return array
