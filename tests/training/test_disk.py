"""A disk that is full, a folder that may not be written: the old file stays, and the error says
what to do.
"""

import os
import resource
import tempfile
from pathlib import Path

import pytest
import torch
from kill_and_resume import ended, forked

from catchup.training import checkpoint


@pytest.fixture
def place():
    """A folder with a checkpoint that another user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        checkpoint.save(folder / "checkpoint.pt", {"epoch": 1})
        yield folder


def in_child(work) -> None:
    assert ended(forked(work)) == 0  # a traceback is on standard error


def said_of(path: Path, kinds, words) -> None:
    """Saving something larger at `path` fails in the right words and leaves everything as it
    was.
    """
    before = path.read_bytes()
    with pytest.raises(kinds) as error:
        checkpoint.save(path, {"weights": torch.zeros(100_000)})
    for part in (*words, str(path), "needs 4", "are free"):
        assert part in str(error.value), str(error.value)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [
        path.name
    ]


def test_a_file_that_may_not_grow(place):
    """RLIMIT_FSIZE stands for a disk that fills up in the middle of the file."""

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        said_of(place / "checkpoint.pt", OSError, ("File too large",))

    in_child(work)
    assert checkpoint.load(place / "checkpoint.pt") == {"epoch": 1}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk(place, monkeypatch):
    import builtins

    real = builtins.open

    def full(file, *arguments, **options):
        if str(file).endswith(".tmp"):
            real(file, "wb").close()
            file = "/dev/full"
        return real(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", full)
    with monkeypatch.context():
        said_of(place / "checkpoint.pt", OSError, ("No space left on device",))


def test_a_folder_that_may_not_be_written(place):
    def work():
        if os.geteuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)  # root may write anywhere
        said_of(
            place / "checkpoint.pt",
            PermissionError,
            ("Permission denied", "permissions of the folder"),
        )

    place.chmod(0o555)
    try:
        in_child(work)
    finally:
        place.chmod(0o755)
