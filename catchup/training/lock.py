"""One process at a time in a run's folder, or at a file.

A POSIX record lock on DIR/.lock: the system lets go of it when its process ends, however it ends,
so nothing that a kill leaves behind has to be judged stale; and child processes (a loader's
workers) do not hold it on. The file names its holder, and goes away with it; after a kill it stays,
and the next run takes it over.

Where it misleads: on a network file system without locks (an old NFS) nothing is locked, with a
warning; on Windows nothing is.
"""

import errno
import os
import platform
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..utils.files import TEMPORARY, remove_abandoned

LOCK = ".lock"

# in this process, of which the system's locks know nothing: folder or file to process id
_held: dict[Path, int] = {}
_guard = threading.Lock()


class InUse(ValueError):
    """The folder, or the file, is another run's at the moment."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Inside the block no other run works in `folder`; what dead runs left half-written there is
    removed first.

    Args:
        folder: made if it does not exist.
    Raises:
        InUse: a ValueError that names the process at work there, or says that it is this one.
    """
    folder = Path(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(folder / LOCK, folder):
            remove_abandoned(folder)
            yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty: the run has written
                folder.rmdir()


@contextmanager
def lock_file(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Inside the block no other process that asks for it writes `path`; the lock is beside it, in
    .NAME.lock, and stays there after a kill for the next one to take over.

    Args:
        path: of a file in a folder that is there; it may be missing itself.
        wait_s: seconds to wait for whoever has it, before giving up.
    Raises:
        InUse: as `locked`. OSError: where the folder cannot be written.
    """
    path, until = Path(path), time.monotonic() + wait_s
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_alone(path.with_name(f".{path.name}{LOCK}"), path))
                break
            except InUse:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield


@contextmanager
def _alone(lock: Path, what: Path) -> Iterator[None]:
    """Inside the block the file `lock` is locked, and `what` is this block's; InUse if it is
    another's.
    """
    place = what.resolve()
    with _guard:
        if _held.get(place) == os.getpid():
            raise InUse(
                f"{what} is in use: another run of this very process works there; wait for it, or"
                " stop it"
            )
        _held[place] = os.getpid()
    try:
        handle = _taken(lock, what)
        try:
            yield
        finally:
            if handle is not None:
                lock.unlink(missing_ok=True)  # before it is let go: a later name is another's
                os.close(handle)
    finally:
        with _guard:
            _held.pop(place, None)


def is_vacant(folder: Path) -> bool:
    """Is there nothing in the folder, but for what a run killed at its very start may have left?"""
    return all(
        path.name == LOCK or TEMPORARY.fullmatch(path.name) for path in Path(folder).iterdir()
    )


def _taken(lock: Path, what: Path) -> int | None:
    """The open, locked file; None where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 200).decode(errors="replace").strip()
            os.close(handle)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                warnings.warn(
                    f"{what} cannot be locked ({error.strerror}): see that no other run works"
                    " there",
                    stacklevel=6,
                )
                return None
            raise InUse(
                f"{what} is in use: {holder or 'another process'} works there; wait for it, stop"
                " it, or give another place"
            ) from None
        if _still_there(handle, lock):
            with suppress(OSError):  # a full disk: the lock holds without a name, too
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
            return handle
        os.close(handle)  # its holder removed it between our opening and our locking


def _still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
