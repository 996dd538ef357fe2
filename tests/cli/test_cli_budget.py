"""`catchup budget` as a person uses it: runs that are there are taken as they are."""

import json

import matplotlib
import pytest

from catchup.cli.commands import main

matplotlib.use("Agg")
TINY = ["--subset", "3", "--width", "4", "--batch-size", "15", "--lr", "0.05", "--engine", "local"]
PAIRS = ["--methods", "baseline", "cutmix:alpha=0.5", "--seeds", "0", "1"]


@pytest.mark.slow
def test_finished_comparisons_are_taken_up_and_what_is_missing_is_trained(tmp_path, capsys):
    out = tmp_path / "budget"
    for epochs in ("1", "2"):
        there = ["--epochs", epochs, "--tests", "clean,fgsm,feature-drop"]
        assert main(["compare", *PAIRS, *TINY, *there, "--out", str(out / epochs)]) == 0
    before = {path: path.read_bytes() for path in out.glob("*/*/*") if path.is_file()}
    command = ["budget", *PAIRS, *TINY, "--budgets", "4", "1", "2", "--out", str(out)]
    capsys.readouterr()

    assert main([*command, "--plan"]) == 0
    assert "12 runs: 8 finished, 4 to do" in capsys.readouterr().out
    assert main(command) == 0
    said = capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())
    assert said.count("cutmix:alpha=0.5 against baseline, ") == 3
    assert f"all of it: {out / 'budget.json'}, {out / 'budget.png'}" in said
    assert (out / "budget.png").is_file()
    assert main([*command, "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held == json.loads((out / "budget.json").read_text())
    assert [row["epochs"] for row in held["rows"]] == [1] * 4 + [2] * 4 + [4] * 4

    for bad, words in (
        (["--lr", "0.1"], "other settings (lr was 0.05, now 0.1)"),
        (["--budgets", "2", "2"], "none twice"),
        (["--methods", "catchpu"], "Did you mean 'catchup'?"),
    ):
        assert main([*command, *bad]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    assert main(["budget", *PAIRS, *TINY, "--budgets", "1", "--out", str(tmp_path)]) == 2
    assert "holds notes, which is no budget" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    with pytest.raises(SystemExit):  # budgets stand in place of --epochs
        main(["budget", *TINY, "--epochs", "1", "--out", str(tmp_path)])
