"""Files: written whole or not at all, JSON and JSON lines read with a sentence for what is
wrong.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# what `temporary_of` calls a file that is being written: .NAME.PROCESS.tmp
TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.tmp")


def write_atomically(path: Path, content: bytes) -> None:
    """`content` in the file `path`: the old content or the new, never a part, also if the machine
    stops meanwhile.

    Raises:
        OSError: of the system's own kind and number, naming the path, the bytes needed and those
            that are free; an older file is then untouched.
    """
    path = Path(path)
    try:
        temporary = temporary_of(path)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)  # the new name itself has to reach the disk
    except OSError as error:
        raise _unwritable(path, len(content), error) from error


def temporary_of(path: Path) -> Path:
    """Where this process writes what is to become `path`; what dead processes left there is
    removed,
    unless it is of this minute: processes of other machines, too, may be at work in the folder.
    """
    remove_abandoned(path.parent, f".{path.name}.*.tmp", age_s=60)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_abandoned(folder: Path, pattern: str = ".*.tmp", age_s: float = 0.0) -> None:
    """Removes the half-written files of dead processes in `folder`, of every name or of one, that
    nobody has written to for `age_s` seconds.
    """
    for path in Path(folder).glob(pattern):
        match = TEMPORARY.fullmatch(path.name)
        with suppress(OSError):  # another process has removed it
            old = not age_s or time.time() - path.stat().st_mtime > age_s
            if match and old and not _alive(int(match[2])):
                path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    """Does another process of that number live on this machine? Our own number was a dead one's, in
    a container.
    """
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _unwritable(path: Path, needed: int, error: OSError) -> OSError:
    """The error with what a reader needs to mend it."""
    try:
        free = f"{shutil.disk_usage(path.parent).free} are free"
    except OSError:
        free = "how many are free is unknown"
    return OSError(
        error.errno,
        f"{error.strerror or error}: {path} needs {needed} bytes, {free}; make room, or see to "
        "the permissions of the folder; a file that was there is as it was",
    )


def check_folder_place(out: Path, use: str) -> None:
    """ValueError if at `out`, where a folder for `use` is wanted, lies a file, or a link that leads
    nowhere or in a circle.
    """
    if out.is_symlink() and not out.exists():
        raise ValueError(
            f"{out} is a link that leads nowhere or in a circle; give a folder for {use}"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder for {use}")


def jsonable(value):
    """Settings as JSON keeps them: paths as text, tuples as lists, dictionaries likewise."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return value


def as_tuples(values: Mapping) -> dict:
    """The values by name, lists made tuples: settings that were written as TOML."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }


def write_json(path: Path, value) -> None:
    """`value` as indented JSON in `path`, atomically."""
    write_atomically(Path(path), (json.dumps(jsonable(value), indent=1) + "\n").encode())


def read_json(path: Path):
    """What the JSON file `path` holds; ValueError naming the file if it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last from brackets thousands deep
        raise ValueError(_unreadable(path, error)) from None


def read_object(path: Path) -> dict:
    """The object in the JSON file `path`; ValueError naming the file also if it holds something
    else.
    """
    held = read_json(path)
    if not isinstance(held, dict):
        raise ValueError(
            f"{path} holds a {type(held).__name__}, not a JSON object: restore a copy, or make it"
            " again"
        )
    return held


def read_lines(path: Path) -> list[dict]:
    """The objects of a file with one JSON object a line; ValueError naming file and line if it is
    something else.
    """
    place, rows = path, []
    try:
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
            place = f"line {number} of {path}"
            rows.append(json.loads(line))
            if not isinstance(rows[-1], dict):
                raise ValueError(
                    f"it holds something else ({type(rows[-1]).__name__}) than a JSON object"
                )
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(_unreadable(place, error)) from None
    return rows


def _unreadable(place: object, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else str(error)[:150]
    return f"cannot read {place}: {reason}; restore a copy, or make it again"
