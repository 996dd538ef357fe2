"""The checkpoint: one file, written whole or not at all, that notices when a byte of it has
changed.

It is an ordinary `torch.save` archive of plain tensors, numbers, strings, lists and dictionaries
(`torch.load` with `weights_only=True` reads it), followed by a mark and its own SHA-256.
"""

import hashlib
import io
import warnings
import zipfile
from pathlib import Path

import torch

from ..utils.files import write_atomically

MARK = b"catchup1"
FORMAT = 2  # of the state; who changes what it means raises it


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which file, why, and what to do."""


def save(path: Path, state: dict) -> None:
    """Writes `state` (tensors, str, int, float, bool, None, list, tuple, dict) to `path`.

    Raises:
        OSError: if it cannot be written (disk full, read-only folder); an older file is then
            untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(path, content + MARK + hashlib.sha256(content).hexdigest().encode())


def load(path: Path) -> dict:
    """The state in `path`, as `load_with_digest`."""
    return load_with_digest(path)[0]


def load_with_digest(path: Path) -> tuple[dict, str]:
    """The state in `path`, on the CPU, and the SHA-256 of the same bytes, the whole file. No code
    in the file is ever run.

    Raises:
        CheckpointError: if the file is missing, damaged, no checkpoint of this package, or of a
            newer version of it.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a checkpoint" if path.is_dir() else "is not there"
        raise CheckpointError(
            f"no checkpoint at {path}, which {what}: train first, or name the folder of a run"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): see to its permissions"
        ) from None
    body, mark, digest = content[:-72], content[-72:-64], content[-64:]
    if mark != MARK:
        raise CheckpointError(
            f"{path} ({len(content)} bytes) is cut off or was not written by catchup"
            f"{_kind(content)}: train it again, or restore a copy"
        )
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointError(
            f"{path} is damaged (its SHA-256 does not match): restore a copy, or train it again"
        )
    return _check_state(_open(body, path), path), hashlib.sha256(content).hexdigest()


def _kind(content: bytes) -> str:
    """What a file without our mark looks like, to be put behind the sentence that says so."""
    start = content[:512].lstrip().lower()
    if not content:
        return "; it is empty"
    if start.startswith((b"<!doctype", b"<html")):
        return "; it is an HTML page, as a failed download leaves it"
    if start.startswith(b"version https://git-lfs"):
        return "; it is a Git LFS pointer: `git lfs pull` fetches the file itself"
    return (
        "; it is a zip or torch file of something else" if start.startswith(b"pk\x03\x04") else ""
    )


def _open(body: bytes, path: Path) -> object:
    """What the archive holds; a right checksum does not make it friendly, so nothing about it is
    taken for granted.
    """
    try:
        # torch.save never compresses: what does may be a bomb
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("a compressed member")
        with warnings.catch_warnings():
            # of TorchScript archives, which are refused a moment later
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception:
        # PyTorch has no one error for it; its text would advise to let the file run code
        raise CheckpointError(
            f"{path} holds something else or more than plain tensors and numbers and was not"
            " opened: train it again; keep NumPy values and modules out of what is saved"
        ) from None


def _check_state(state: object, path: Path) -> dict:
    """The state, if it is a dictionary of a format that this version knows."""
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} holds a {type(state).__name__}, not the state of a run: train it again"
        )
    version = state.get("format", FORMAT)
    if version == FORMAT and isinstance(version, int):
        return state
    known = isinstance(version, int) and not isinstance(version, bool) and version > 0
    if not known:
        raise CheckpointError(
            f"{path} has the format {str(version)[:20]}, which no version of catchup wrote: restore"
            " a copy, or train it again"
        )
    which = "an earlier" if version < FORMAT else "a newer"
    raise CheckpointError(
        f"{path} has the format {str(version)[:20]}, of {which} version of catchup, and this one"
        f" reads {FORMAT}: go on with the version that wrote it, or train it again"
    )
