"""The run folder: who may write to it, and what it says of where a result comes from."""

import json
import os
import signal
import threading
import time

import pytest
from kill_and_resume import ended, forked

from catchup.training.folder import (
    CHECKPOINT,
    EVALUATION,
    METRICS,
    RUN,
    claim,
    read_metrics,
    write_metrics,
)
from catchup.training.lock import LOCK, InUse, is_vacant, lock_folder
from catchup.utils.files import read_json

DATA = {
    "name": "digits",
    "classes": ["0", "1"],
    "train_count": 2,
    "test_count": 2,
    "shape": [1, 8, 8],
    "test_shape": [1, 8, 8],
    "mean": [0.5],
    "std": [0.5],
    "train_fingerprint": "pixels:0",
    "test_fingerprint": "pixels:1",
}


def test_a_new_folder_is_made_and_described(tmp_path):
    out = tmp_path / "a" / "b"
    claim(out, {"seed": 1, "layers": [0, 1]}, data=DATA, resume=False)
    written = json.loads((out / "run.json").read_text())
    assert written["settings"] == {"seed": 1, "layers": [0, 1]}
    assert {"versions", "hardware", "command", "commit"} <= set(written)
    assert written["versions"]["torch"] and written["hardware"]["cores"] >= 1


def test_the_folder_of_another_run_is_refused_untouched(tmp_path):
    claim(tmp_path, {"seed": 1}, data=DATA, resume=False)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match="already holds a run; continue it with --resume"):
        claim(tmp_path, {"seed": 1}, data=DATA, resume=False)
    with pytest.raises(ValueError, match=r"other settings \(seed was 1, now 2\)"):
        claim(tmp_path, {"seed": 2}, data=DATA, resume=True)
    claim(tmp_path, {"seed": 1}, data=DATA, resume=True)
    assert (tmp_path / "run.json").read_bytes() == before


def test_folders_that_are_no_run(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        claim(tmp_path, {}, data=DATA, resume=False)
    with pytest.raises(ValueError, match="is a file; give a folder"):
        claim(tmp_path / "letters.txt", {}, data=DATA, resume=False)
    with pytest.raises(ValueError, match="nothing to resume"):
        claim(tmp_path / "new", {}, data=DATA, resume=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["letters.txt"]


def test_a_broken_run_file_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="cannot read .*run.json"):
        read_json(tmp_path / "run.json")


@pytest.mark.parametrize("content", ["{}", "[]", '{"settings": 3}'])
def test_a_run_file_without_settings_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match="does not hold the settings of a run"):
        claim(tmp_path, {"seed": 1}, data=DATA, resume=True)


def test_metrics_are_one_line_an_epoch(tmp_path):
    write_metrics(tmp_path, [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}])
    assert read_metrics(tmp_path) == [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    write_metrics(tmp_path, [{"epoch": 1}])
    assert read_metrics(tmp_path) == [{"epoch": 1}]


# -- one process at a time -------------------------------------------------------------------------


def holding(folder, release):
    """A child process that has the folder; it lets go when the file `release` appears."""

    def hold():
        with lock_folder(folder):
            (folder / "ready").touch()
            while not release.exists():
                time.sleep(0.005)

    pid = forked(hold)
    while not (folder / "ready").exists():
        time.sleep(0.005)
    return pid


def test_the_second_process_in_a_folder_is_refused_by_the_name_of_the_first(tmp_path):
    folder = tmp_path / "run"
    pid = holding(folder, tmp_path / "release")
    with pytest.raises(
        InUse,
        match=f"run is in use: process {pid} on .* works there; wait for it, stop it, or give",
    ):
        with lock_folder(folder):
            pytest.fail("two at once")
    (tmp_path / "release").touch()
    assert ended(pid) == 0
    with lock_folder(folder):
        assert (folder / LOCK).exists()
    assert not (folder / LOCK).exists()


def test_a_lock_does_not_outlive_a_kill(tmp_path):
    folder = tmp_path / "run"
    pid = holding(folder, tmp_path / "never")
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL and (folder / LOCK).exists()
    with lock_folder(folder):
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["ready"]


def test_a_child_of_the_killed_process_does_not_hold_the_lock_on(tmp_path):
    """As a loader's worker may for a moment."""

    def parent():
        with lock_folder(tmp_path / "run"):
            child = forked(lambda: time.sleep(20))
            (tmp_path / "child").write_text(str(child))
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(parent)) == -signal.SIGKILL
    with lock_folder(tmp_path / "run"):
        pass
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_the_same_process_is_refused_too_and_may_come_again(tmp_path):
    seen = []

    def other():
        try:
            with lock_folder(tmp_path):
                seen.append("two at once")
        except InUse as error:
            seen.append(str(error))

    with lock_folder(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(seen) == 1 and "another run of this very process" in seen[0]
    with lock_folder(tmp_path), lock_folder(tmp_path / "inner"):
        assert (tmp_path / LOCK).exists()
    assert list(tmp_path.iterdir()) == []  # a folder made for nothing goes, too


def test_many_at_once_are_let_in_one_at_a_time(tmp_path):
    def work():
        for _ in range(10):
            while True:
                try:
                    with lock_folder(tmp_path / "run"):
                        number = int((tmp_path / "count").read_text())
                        time.sleep(0.0005)
                        (tmp_path / "count").write_text(str(number + 1))
                        break
                except InUse:
                    time.sleep(0.001)

    (tmp_path / "run").mkdir()
    (tmp_path / "count").write_text("0")
    assert [ended(pid) for pid in [forked(work) for _ in range(4)]] == [0] * 4
    assert (tmp_path / "count").read_text() == "40"


def test_files_of_dead_writers_are_removed_those_of_a_living_one_stay(tmp_path):
    dead = forked(lambda: None)
    ended(dead)
    names = (RUN, METRICS, CHECKPOINT, EVALUATION)
    stale = [f".{name}.{dead}.tmp" for name in names]
    kept = [f".{CHECKPOINT}.{os.getppid()}.tmp", "notes.tmp"]
    for name in (*stale, *kept):
        (tmp_path / name).touch()
    with lock_folder(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_folder_killed_before_its_first_file_can_be_claimed(tmp_path):
    for name in (LOCK, ".run.json.12345.tmp"):
        (tmp_path / name).touch()
    assert is_vacant(tmp_path)
    claim(tmp_path, {"seed": 1}, data=DATA, resume=False)
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == {"seed": 1}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".run.json.tmp").touch()
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        claim(tmp_path / "other", {"seed": 1}, data=DATA, resume=False)


def test_without_locks_in_the_file_system_it_goes_on_with_a_warning(tmp_path, monkeypatch):
    import errno
    import fcntl

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with (
        pytest.warns(UserWarning, match="cannot be locked .*No locks available") as warned,
        lock_folder(tmp_path),
    ):
        pass
    assert warned[0].filename == __file__  # whoever asked for the lock
