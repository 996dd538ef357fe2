"""The checkpoint: one file, written whole or not at all, that notices when a byte of it has changed.

It is an ordinary `torch.save` archive of plain tensors, numbers, strings, lists and dictionaries (`torch.load` with
`weights_only=True` reads it), followed by a mark and its own SHA-256.
"""

import hashlib
import io
import os
import pickle
from pathlib import Path

import torch

MARK = b"catchup1"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which file, why, and what to do."""


def write_atomically(path: Path, content: bytes) -> None:
    """`content` in the file `path`: the old content or the new, never a part, also if the machine stops meanwhile."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself has to reach the disk
    finally:
        os.close(folder)


def save(path: Path, state: dict) -> None:
    """Writes `state` (tensors, str, int, float, bool, None, list, tuple, dict) to `path`.

    Raises:
        OSError: if it cannot be written (disk full, read-only folder); an older file is then untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(path, content + MARK + hashlib.sha256(content).hexdigest().encode())


def load(path: Path) -> dict:
    """The state in `path`, on the CPU. No code in the file is ever run.

    Raises:
        CheckpointError: if the file is missing, damaged, or no checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: train first, or name the folder of a run")
    content = path.read_bytes()
    body, mark, digest = content[:-72], content[-72:-64], content[-64:]
    if mark != MARK:
        raise CheckpointError(f"{path} ({len(content)} bytes) is cut off or was not written by catchup: train it again")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointError(f"{path} is damaged (its SHA-256 does not match): restore a copy, or train it again")
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} holds more than plain tensors and numbers and was not opened") from error
