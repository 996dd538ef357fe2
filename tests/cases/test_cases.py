"""Cases from the command line, each for a kind of number that was wrong once with exit code 0:
evaluations that lose each other's results, pairs of unlike measurements, files that lie.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CATCHUP = str(Path(sys.executable).with_name("catchup"))
RUN = "--data digits --subset 10 --width 4 --epochs 1 --precision fp32".split()


def started(folder, *words):
    return subprocess.Popen(
        [CATCHUP, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def called(folder, *words):
    """Exit code and what was said."""
    process = started(folder, *words)
    out, said = process.communicate()
    return process.returncode, out, said


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two runs, of two seeds."""
    folder = tmp_path_factory.mktemp("cases")
    for seed in "01":
        code, _, said = called(folder, "train", *RUN, "--seed", seed, "--out", f"r{seed}")
        assert code == 0, said
    return folder


def evaluated(folder, run="r0"):
    return json.loads((folder / run / "evaluation.json").read_text())


def test_three_evaluations_side_by_side_and_a_killed_one_keep_every_result(trained):
    tests = ("clean", "calibration", "fgsm")
    killed = started(trained, "evaluate", "r0", "--tests", "feature-drop")
    running = [started(trained, "evaluate", "r0", "--tests", test) for test in tests]
    time.sleep(1)  # before, in or behind its measurement: any will do
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    for process in running:
        _, said = process.communicate()
        assert process.returncode == 0, said
    row = evaluated(trained)
    assert set(tests) <= set(row["measured_with"])
    assert None not in (row["top1_error"], row["calibration"], row["fgsm_error"])
    (trained / "r0" / f".evaluation.json.{killed.pid}.tmp").write_text('{"top')
    assert called(trained, "evaluate", "r0", "--tests", "clean")[0] == 0
    assert evaluated(trained)["fgsm_error"] == row["fgsm_error"]
    assert not list((trained / "r0").glob(".*.tmp"))


def test_attacks_of_two_strengths_are_not_paired(trained):
    for run, eps in (("r0", "1"), ("r1", "16")):
        words = ("evaluate", run, "--tests", "clean,fgsm", "--eps-255", eps)
        code, _, said = called(trained, *words)
        assert code == 0, said
    rows = []
    for seed, method in (("0", "baseline"), ("1", "catchup")):
        row = {**evaluated(trained, f"r{seed}"), "seed": 0, "method": method, "method_settings": {}}
        row |= {"settings": {**row["settings"], "seed": 0, "method": method}, "data": "cifar100"}
        rows.append(row)
    (trained / "both.json").write_text(json.dumps({"rows": rows, "differences": []}))
    code, out, said = called(trained, "report", "both.json", "--json")
    assert code == 0, said
    cells = {
        (cell["row"], cell["column"]): cell
        for cell in json.loads(out)["cells"]
        if (cell["paper"], cell["table"]) == ("catchup", "Table 1")
    }
    assert cells["Catch-up Mix", "FGSM Err"]["ours"]["difference"] is None
    assert cells["Catch-up Mix", "Top-1 Err"]["ours"]["difference"]["n"] == 1


@pytest.mark.parametrize(
    "field, value",
    [("top1_error", "44.6"), ("top1_error", float("nan")), ("top1_error", True), ("seed", 1)],
)
def test_an_evaluation_that_lies_ends_the_report_with_a_sentence(trained, field, value):
    path = trained / "r1" / "evaluation.json"
    if not path.is_file():
        called(trained, "evaluate", "r1", "--tests", "clean")
    held = path.read_text()
    changed = {**json.loads(held), field: 0 if field == "seed" else value}
    try:
        path.write_text(json.dumps(changed))
        code, _, said = called(trained, "report", "r1")
    finally:
        path.write_text(held)
    assert code == 2 and "Traceback" not in said and "evaluation.json" in said


def test_a_link_in_a_circle_gets_a_sentence(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    code, _, said = called(tmp_path, "compare", *RUN[:-2], "--out", "circle")
    assert code == 2 and "Traceback" not in said and "circle" in said


def test_a_lost_checkpoint_is_not_trained_again_in_silence(trained):
    (trained / "r1" / "checkpoint.pt").rename(trained / "aside.pt")
    try:
        code, _, said = called(trained, "train", *RUN, "--seed", "1", "--out", "r1", "--resume")
    finally:
        (trained / "aside.pt").rename(trained / "r1" / "checkpoint.pt")
    assert code == 2 and "has lost its checkpoint.pt" in said and "Traceback" not in said
