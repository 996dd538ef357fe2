"""Places, records and what a kill leaves behind."""

import json
import os
import time

import pytest

from catchup.cli.commands import main
from catchup.data.files.decode import write_cache
from catchup.utils.files import check_folder_place, remove_abandoned, temporary_of, write_json
from catchup.utils.schema import is_epoch, read_evaluation

DEAD = 2**22 + 7  # no process has this number: Linux stops at 2^22
EPOCH = {"val_error_percent": 5.0, "val_loss": 0.1, "clean_train_error_percent": 1.0, "time_s": 2.0}
ROW = {"method": "baseline", "method_settings": {}, "seed": 0, "model": "m", "top1_error": 44.6}


def test_a_link_in_a_circle_or_to_nowhere_is_no_place_for_a_folder(tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "file").touch()
    for name, words in (
        ("circle", "leads nowhere or in a circle; give a folder for the run"),
        ("nowhere", "leads nowhere or in a circle"),
        ("file", "is a file; give a folder for the run"),
    ):
        with pytest.raises(ValueError, match=words):
            check_folder_place(tmp_path / name, "the run")
    check_folder_place(tmp_path, "the run")
    check_folder_place(tmp_path / "new", "the run")


@pytest.mark.parametrize("below", ["", "/deeper"])
@pytest.mark.parametrize("command", ["compare", "train"])
def test_the_commands_say_in_a_sentence_that_out_is_a_link_in_a_circle(
    tmp_path, capsys, command, below
):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    words = [command, "--data", "digits", "--subset", "3", "--width", "4", "--epochs", "1"]
    assert main([*words, "--out", f"{tmp_path}/circle{below}"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "circle" in said.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


@pytest.mark.parametrize("name", ["evaluation.json", "results.json", "table.md", "page.html"])
def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path, name):
    for pid, age in ((DEAD, 120), (DEAD + 1, 0), (os.getppid(), 120)):
        left = tmp_path / f".{name}.{pid}.tmp"
        left.touch()
        os.utime(left, (time.time() - age,) * 2)
    assert temporary_of(tmp_path / name).name == f".{name}.{os.getpid()}.tmp"
    # of this minute: a process of another machine may be writing it
    kept = {f".{name}.{DEAD + 1}.tmp", f".{name}.{os.getppid()}.tmp"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".{name}.{os.getppid()}.tmp"]


def test_a_killed_decoding_of_a_folder_that_has_changed_leaves_no_half_cache(tmp_path):
    for fingerprint in ("0123456789abcdef", "fedcba9876543210"):
        left = tmp_path / f"..catchup-cache-full-{fingerprint}.npz.{DEAD}.tmp"
        left.touch()
        os.utime(left, (time.time() - 120,) * 2)
    write_cache(tmp_path / ".catchup-cache-full-fedcba9876543210.npz")
    assert [path.name for path in tmp_path.iterdir()] == [
        ".catchup-cache-full-fedcba9876543210.npz"
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("top1_error", value) for value in ("44.6", float("nan"), True, -1, 101)],
        *[("seed", value) for value in ("0", True, 0.5, 2**70)],
        *[("method", value) for value in (None, 3, ["baseline"])],
        ("settings", {"method": "baseline", "seed": 1}),
        ("settings", {"method": "catchup", "seed": 0}),
        ("measured_with", {"clean": 3}),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused_with_its_field(tmp_path, field, value):
    path = tmp_path / "evaluation.json"
    write_json(path, ROW)
    assert read_evaluation(path) == ROW
    write_json(path, {**ROW, field: value})
    with pytest.raises(ValueError, match="evaluation.json") as error:
        read_evaluation(path)
    assert "\n" not in str(error.value)


def test_the_epochs_of_a_run_have_their_form():
    assert is_epoch(EPOCH) and is_epoch({**EPOCH, "val_error_percent": None, "val_loss": None})
    assert is_epoch({**EPOCH, "val_loss": float("inf")})  # a run that is about to diverge
    for key, value in (("time_s", "long"), ("time_s", True), ("val_error_percent", 101)):
        assert not is_epoch({**EPOCH, key: value})
    for key in EPOCH:
        assert not is_epoch({name: value for name, value in EPOCH.items() if name != key})
    assert not is_epoch(json.loads("[1]"))
