"""The checkpoint file: whole or not at all, and never believed when a byte of it has changed."""

import os
import pickle

import numpy as np
import pytest
import torch

from catchup.training import checkpoint
from catchup.training.checkpoint import CheckpointError

STATE = {
    "model": {"w": torch.arange(6.0).reshape(2, 3)},
    "epoch": 3,
    "rows": [{"loss": 0.5, "none": None}],
    "rng": np.random.default_rng(0).bit_generator.state,
}


@pytest.fixture
def path(tmp_path):
    checkpoint.save(tmp_path / "checkpoint.pt", STATE)
    return tmp_path / "checkpoint.pt"


def test_what_was_saved_comes_back_and_no_other_file_is_left(path):
    state = checkpoint.load(path)
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])
    assert all(state[key] == STATE[key] for key in ("epoch", "rows", "rng"))
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (1, "format 1, of an earlier version of catchup, .* train it again"),
        (3, "format 3, of a newer version"),
        (-1, "format -1, which no version of catchup wrote"),
        (True, "format True, which no version"),
        ("2", "format 2, which no version"),
    ],
)
def test_another_format_is_refused_in_a_sentence(tmp_path, version, words):
    checkpoint.save(tmp_path / "checkpoint.pt", {**STATE, "format": version})
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(tmp_path / "checkpoint.pt")


def test_plain_torch_load_reads_it(path):
    assert torch.load(path, weights_only=True)["epoch"] == 3


def test_every_flipped_bit_is_noticed(path):
    content = bytearray(path.read_bytes())
    for position in np.random.default_rng(0).choice(len(content), 150, replace=False):
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            checkpoint.load(path)
        content[position] ^= 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_file_is_named_with_what_to_do(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        CheckpointError, match="checkpoint.pt .* is cut off or was not written by catchup"
    ):
        checkpoint.load(path)


def test_a_missing_file_and_a_folder(tmp_path):
    for name in ("nothing.pt", "."):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            checkpoint.load(tmp_path / name)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("run-by-the-checkpoint",)


def test_code_in_a_checkpoint_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # a rightful mark around a hostile content
    checkpoint.save(tmp_path / "bad.pt", {"model": Hostile()})
    with pytest.raises(CheckpointError, match="more than plain tensors"):
        checkpoint.load(tmp_path / "bad.pt")
    pickle.dumps(Hostile())
    assert not (tmp_path / "run-by-the-checkpoint").exists()


def test_a_reader_of_the_old_file_never_sees_a_part_of_the_new_one(path):
    """The new file takes the old one's name; the old one is not written over."""
    before = path.read_bytes()
    with open(path, "rb") as reader:
        checkpoint.save(path, {"epoch": 4})
        assert reader.read() == before
    assert checkpoint.load(path) == {"epoch": 4}


def test_when_writing_fails_the_old_file_stays(path, monkeypatch):
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"epoch": 4})
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1
