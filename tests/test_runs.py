"""The run folder: who may write to it, and what it says of where a result comes from."""

import json

import pytest

from catchup import runs


def test_a_new_folder_is_made_and_described(tmp_path):
    out = tmp_path / "a" / "b"
    runs.claim(out, {"seed": 1, "layers": [0, 1]}, resume=False)
    written = json.loads((out / "run.json").read_text())
    assert written["settings"] == {"seed": 1, "layers": [0, 1]}
    assert {"versions", "hardware", "command", "commit"} <= set(written)
    assert written["versions"]["torch"] and written["hardware"]["cores"] >= 1


def test_the_folder_of_another_run_is_refused_untouched(tmp_path):
    runs.claim(tmp_path, {"seed": 1}, resume=False)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match="already holds a run; continue it with --resume"):
        runs.claim(tmp_path, {"seed": 1}, resume=False)
    with pytest.raises(ValueError, match=r"other settings \(seed was 1, now 2\)"):
        runs.claim(tmp_path, {"seed": 2}, resume=True)
    runs.claim(tmp_path, {"seed": 1}, resume=True)
    assert (tmp_path / "run.json").read_bytes() == before


def test_folders_that_are_no_run(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        runs.claim(tmp_path, {}, resume=False)
    with pytest.raises(ValueError, match="is a file; give a folder"):
        runs.claim(tmp_path / "letters.txt", {}, resume=False)
    with pytest.raises(ValueError, match="nothing to resume"):
        runs.claim(tmp_path / "new", {}, resume=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["letters.txt"]


def test_a_broken_run_file_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="cannot read .*run.json"):
        runs.read_json(tmp_path / "run.json")


@pytest.mark.parametrize("content", ["{}", "[]", '{"settings": 3}'])
def test_a_run_file_without_settings_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match="does not hold the settings of a run"):
        runs.claim(tmp_path, {"seed": 1}, resume=True)


def test_evaluations_are_gathered_baseline_first(tmp_path):
    made = [("catchup", None, 1), ("catchup", [0], 0), ("catchup", None, 0), ("baseline", None, 0)]
    for number, (method, layers, seed) in enumerate(made):
        (tmp_path / str(number)).mkdir()
        row = {"method": method, "method_settings": {"layers": layers}, "seed": seed}
        runs.write_json(tmp_path / str(number) / "evaluation.json", row)
    rows = runs.evaluations(tmp_path)
    assert [(row["method"], row["method_settings"]["layers"], row["seed"]) for row in rows] == [
        ("baseline", None, 0), ("catchup", None, 0), ("catchup", None, 1), ("catchup", [0], 0)]
    with pytest.raises(ValueError, match="holds no evaluated runs"):
        runs.evaluations(tmp_path / "0")


def test_metrics_are_one_line_an_epoch(tmp_path):
    runs.append_metrics(tmp_path, {"epoch": 1, "loss": 0.5})
    runs.append_metrics(tmp_path, {"epoch": 2, "loss": None})
    assert runs.read_metrics(tmp_path) == [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    runs.write_metrics(tmp_path, [{"epoch": 1}])
    assert runs.read_metrics(tmp_path) == [{"epoch": 1}]
