"""The command line as a person uses it: what it prints, leaves behind, and how it refuses."""

import json
import os
import subprocess
import sys
from dataclasses import fields

import pytest

from catchup import MIXERS, __version__
from catchup.cli import commands as cli
from catchup.cli.commands import main
from catchup.data.sets import readers
from catchup.measures.registry import MEASURES
from catchup.mixers.regularisers import REGULARISERS
from catchup.training.recipes import label_of, settings_of

TINY = ["--subset", "3", "--width", "4", "--epochs", "2", "--batch-size", "15", "--lr", "0.05"]
HERE = ["--engine", "local"]


@pytest.fixture
def few_shapes(monkeypatch):
    """`shapes` of 128 training images instead of 10 240, and 64 of each test set."""
    for module, name, number in ((readers, "SHAPES_TRAIN", 128), (readers, "SHAPES_TEST", 64)):
        monkeypatch.setattr(module, name, number)


def out_of(capsys) -> str:
    return capsys.readouterr().out


@pytest.mark.slow
def test_train_then_evaluate_and_the_files_they_leave(tmp_path, capsys):
    run = tmp_path / "run"
    command = [
        "train",
        "--method",
        "catchup",
        "--alpha",
        "10",
        "--layers",
        "0",
        "1",
        "2",
        "--label-rule",
        "kept",
        "--seed",
        "3",
        *TINY,
        "--out",
        str(run),
    ]
    assert main(command) == 0
    said = out_of(capsys)
    assert "top-1 error: last" in said and f"next: catchup evaluate {run}" in said
    assert said.count("still learning: ") == 1 and "% error on its training images" in said
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert (settings["method"], settings["seed"], settings["subset"], settings["epochs"]) == (
        "catchup",
        3,
        3,
        2,
    )
    assert settings["method_settings"]["alpha"] == 10 and settings["method_settings"]["layers"] == [
        0,
        1,
        2,
    ]
    assert settings["method_settings"]["label_rule"] == "kept"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2

    assert main(command) == 2
    assert "already holds a run; continue it with --resume" in capsys.readouterr().err
    assert main([*command, "--resume", "--json"]) == 0
    summary = json.loads(out_of(capsys))
    assert {"out", "last_error_percent", "best_error_percent", "median10_error_percent"} <= set(
        summary
    )

    assert main(["evaluate", str(run), "--tests", "clean,fgsm,pgd,feature-drop", "--json"]) == 0
    row = json.loads(out_of(capsys))
    assert row == json.loads((run / "evaluation.json").read_text())
    described = [row[key] for key in ("method", "seed", "data", "model", "epochs")]
    assert described == ["catchup", 3, "digits", "resnet18", 2]
    assert all(
        0 <= row[name] <= 100 for name in ("top1_error", "top5_error", "fgsm_error", "pgd_error")
    )
    fractions = [0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for which in ("strongest", "weakest"):
        assert [point[0] for point in row["feature_drop"][which]] == fractions
        assert row["feature_drop"][which][0][1] == pytest.approx(100 - row["top1_error"])
    assert main(["evaluate", str(run), "--tests", "clean"]) == 0
    assert "top-1 error, last epoch" in out_of(capsys)


@pytest.mark.slow
def test_regularisers_are_a_setting_of_every_method(tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", "--method", "cutmix", *TINY, "--out", str(run), "--regularisers"]
    assert main([*command, "cutout:size=3", "labelsmoothing"]) == 0
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert settings["method_settings"]["regularisers"] == ["cutout:size=3", "labelsmoothing"]
    capsys.readouterr()
    assert all(
        "regularisers" in {field.name for field in fields(mixer)} for mixer in MIXERS.values()
    )
    with pytest.raises(SystemExit):
        main(["train", "--method", "automix", "--help"])
    assert "--regularisers [STR [STR ...]]" in out_of(capsys)
    command[command.index(str(run))] = str(tmp_path / "other")
    for bad, words in (
        (["cutuot"], "unknown regulariser 'cutuot'. Did you mean 'cutout'?"),
        (["cutout:sise=3"], "unknown setting of cutout 'sise'. Did you mean 'size'?"),
        (["cutout:size"], "a regulariser is written name or name:setting=value"),
        (["cutout", "cutout:size=3"], "a regulariser may be named once"),
    ):
        assert main([*command, *bad]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.mark.slow
def test_compare_prints_a_table_with_intervals_and_does_nothing_twice(
    tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    command = [
        "compare",
        *HERE,
        "--methods",
        "baseline",
        "cutmix:alpha=0.2,prob=0.5",
        "--seeds",
        "0",
        "1",
        *TINY,
        "--tests",
        "clean,fgsm",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    said = out_of(capsys)
    assert "cutmix:alpha=0.2,prob=0.5 − baseline  2" in said and "95 % interval" in said
    assert f"all of it: {out / 'results.json'}" in said and "FGSM error" in said
    assert said.count("still learning, too short to tell: 2 epochs: baseline, ") == 1
    settings = json.loads((out / "cutmix_alpha=0.2_prob=0.5-1" / "run.json").read_text())[
        "settings"
    ]
    assert (settings["seed"], settings["epochs"], settings["lr"], settings["width"]) == (
        1,
        2,
        0.05,
        4,
    )
    assert (settings["method_settings"]["alpha"], settings["method_settings"]["prob"]) == (0.2, 0.5)
    monkeypatch.setattr("catchup.experiments.compare.train", None)
    assert main([*command, "--json"]) == 0
    results = json.loads(out_of(capsys))
    assert results == json.loads((out / "results.json").read_text()) and len(results["rows"]) == 4
    for bad, words in (
        (["--epochs", "3"], "other settings (epochs was 2, now 3)"),
        (["--seeds"], "seeds must name"),
        (["--methods", "catchpu"], "Did you mean 'catchup'?"),
        (["--tests", "clean,x"], "unknown test"),
    ):
        assert main([*command, *bad]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_compare_over_several_data_sets_and_its_plan(tmp_path, capsys, few_shapes):
    out, data = tmp_path / "out", ["--data", "digits", "shapes:0.5"]
    command = [
        "compare",
        *HERE,
        "--methods",
        "baseline",
        "--seeds",
        "0",
        *TINY,
        "--epochs",
        "1",
        "--out",
        str(out),
    ]
    assert main([*command, *data, "--plan"]) == 0
    said = out_of(capsys)
    assert (
        "2 runs: 0 finished, 2 to do" in said
        and "benchmarks.throughput" in said
        and not out.exists()
    )
    assert main([*command, *data]) == 0
    said = out_of(capsys)
    assert (
        "== digits\n" in said
        and "== shapes_0.5\n" in said
        and f"all of it: {out / 'shapes_0.5'}" in said
    )
    record = json.loads((out / "shapes_0.5" / "baseline-0" / "run.json").read_text())
    assert record["settings"]["data"] == "shapes:0.5" and record["settings"]["subset"] == 3
    assert main([*command, *data, "--plan", "--json", "--epochs", "1"]) == 0
    plan = json.loads(out_of(capsys))
    assert [(name, *(row["state"] for row in rows)) for name, rows in plan.items()] == [
        ("digits", "finished"),
        ("shapes_0.5", "finished"),
    ]
    assert main([*command, *data, "--json"]) == 0
    assert list(json.loads(out_of(capsys))) == ["digits", "shapes_0.5"]
    for bad, words in (
        (["--data", "digits", "digits"], "may be named once, got 'digits' twice"),
        ([*data, "--engine", "pol"], "unknown engine 'pol'. Did you mean 'pool'?"),
        (["--data", "digits", "digitz"], "unknown data set 'digitz'"),
    ):
        assert main([*command[:-1], str(tmp_path / "bad"), *bad]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "bad").exists()


@pytest.mark.slow
def test_several_recipes_have_each_their_own_settings(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "catchup.experiments.compare.sweep",
        lambda comparisons, engine: (
            asked.extend([*comparisons, engine])
            or [{"rows": [], "tests": ["clean"], "failed": []} for _ in comparisons]
        ),
    )
    assert (
        main(
            [
                "compare",
                "--recipe",
                "c100-400",
                "tiny-400",
                "--scale",
                "small",
                "--lr",
                "0.3",
                "--out",
                str(tmp_path),
                "--engine",
                "pool:jobs=2",
                "--methods",
                "baseline",
                "cutmix",
            ]
        )
        == 0
    )
    first, second, engine = asked
    for name, one in (("c100-400", first), ("tiny-400", second)):
        expected = settings_of(name, None, "small", lr=0.3)
        assert one.settings.as_dict() == expected.as_dict() and one.out == tmp_path / name
        assert one.methods == tuple(label_of(name, label) for label in ("baseline", "cutmix"))
    assert first.settings.as_dict() != second.settings.as_dict() and engine == "pool:jobs=2"
    said = capsys.readouterr().err
    assert "recipe c100-400:" in said and "recipe tiny-400:" in said


@pytest.mark.slow
def test_compare_ends_with_1_where_a_run_diverged(tmp_path, capsys):
    command = [
        "compare",
        *HERE,
        "--methods",
        "baseline",
        "--seeds",
        "0",
        *TINY,
        "--lr",
        "1e30",
        "--out",
        str(tmp_path),
    ]
    assert main(command) == 1
    assert "left out: baseline, seed 0: the loss is not finite at step" in out_of(capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train", "--method", "catchpu"], "unknown method 'catchpu'. Did you mean 'catchup'?"),
        (["train", "--method=catchpu"], "Did you mean 'catchup'?"),
        (["train", "--data", "cifar1000"], "cifar100"),
        (["train", "--model", "resnet81"], "resnet18"),
        (
            ["train", "--method", "catchup", "--alpha", "0"],
            "alpha must be a positive number, got 0.0",
        ),
        (["train", "--method", "catchup", "--layers", "7"], "unknown layer 7"),
        (
            ["train", "--method", "catchup", "--blocks", "layer9"],
            "unknown layer 'layer9'. Did you mean 'layer",
        ),
        (["train", "--epochs", "0"], "epochs must be at least 1, got 0"),
        (["train", "--data", "folder:nowhere"], "nowhere"),
        (["train", "--subset", "0"], "got 0"),
        (["train", "--resume"], "nothing to resume"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(command, words, tmp_path, capsys):
    out = tmp_path / "run"
    assert (
        main([*command, *(["--width", "4"] if "--model" not in command else []), "--out", str(out)])
        == 2
    )
    said = capsys.readouterr().err.strip()
    assert words in said and said.startswith("catchup: ") and "Traceback" not in said
    assert not out.exists()


@pytest.mark.slow
def test_options_that_do_not_exist_are_refused_with_the_nearest(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--epoch", "3", "--out", str(tmp_path / "run")])
    assert exit_.value.code == 2 and "--epochs" in capsys.readouterr().err
    # a setting of another method is no setting of this one
    assert main(["train", "--method", "cutmix", "--layers", "1", "--out", str(tmp_path / "a")]) == 2
    assert "cutmix has no setting --layers" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_evaluate_refuses_what_is_no_run(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_diverging_run_stops_with_exit_code_1(tmp_path, capsys):
    command = [
        "train",
        "--method",
        "baseline",
        *TINY,
        "--lr",
        "1e30",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(command) == 1
    assert "the loss is not finite at step" in capsys.readouterr().err


@pytest.mark.slow
def test_background_trains_what_is_missing_and_prints_both_readings(tmp_path, capsys, few_shapes):
    out = tmp_path / "runs"
    small = "--subset 2 --width 4 --rhos 0.5 --precision fp32 --engine local".split()
    command = ["background", "--out", str(out), *small]
    assert main([*command, "--seeds", "0", "--budgets", "1", "--plan"]) == 0
    assert "2 runs: 0 finished, 2 to do" in out_of(capsys) and not out.exists()
    assert main([*command, "--seeds", "0", "--budgets", "1"]) == 0
    said = out_of(capsys)
    assert "texture agrees in 50 % of the training images, 1 epochs, 1 paired seed;" in said
    assert "catchup − baseline" in said and "cue reversed" in said
    assert "seed 0: catchup at 1 epochs knows" in said and "background.jsonl" in said
    kept = (out / "0.5/1/catchup-0/checkpoint.pt").stat().st_mtime_ns
    assert (
        main([*command, "--methods", "baseline", "--seeds", "0", "--budgets", "2", "--json"]) == 0
    )
    rows = json.loads(out_of(capsys))
    assert [(row["epochs"], row["method"]) for row in rows] == [
        (1, "baseline"),
        (1, "catchup"),
        (2, "baseline"),
    ]
    assert (out / "0.5/1/catchup-0/checkpoint.pt").stat().st_mtime_ns == kept
    assert len((out / "background.jsonl").read_text().splitlines()) == 3
    assert main([*command, "--seeds", "0", "--budgets", "1", "--lr", "0.3"]) == 2
    assert "other settings (lr was 0.05, now 0.3)" in capsys.readouterr().err
    for bad, words in (
        (["--rhos", "1.5"], "got (1.5,)"),
        (["--methods", "catchpu"], "Did you mean 'catchup'?"),
    ):
        assert main(["background", "--out", str(tmp_path / "none"), *bad]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.slow
def test_methods_and_datasets_list_what_there_is(tmp_path, capsys):
    assert main(["methods"]) == 0
    said = out_of(capsys)
    assert all(name in said for name in (*MIXERS, *REGULARISERS)) and "--alpha 1.0" in said
    assert (
        said.index("cutout") > said.index("catchup") and "epsilon=0.1" in said and "(4/3)" in said
    )
    assert main(["methods", "--json"]) == 0
    listed = json.loads(out_of(capsys))
    assert [row["method"] for row in listed["methods"]] == list(MIXERS)
    assert [row["regulariser"] for row in listed["regularisers"]] == list(REGULARISERS)
    assert all(
        {"about", "passes", "settings"} <= row.keys() for rows in listed.values() for row in rows
    )
    assert {row["method"]: row["passes"] for row in listed["methods"]}["automix"] == [4, 3]
    assert main(["datasets", "--data-dir", str(tmp_path), "--json"]) == 0
    rows = json.loads(out_of(capsys))
    assert {"digits", "shapes", "cifar10", "cifar100", "tiny-imagenet", "folder"} <= {
        row["name"].split(":")[0] for row in rows
    }
    assert main(["datasets", "--data-dir", str(tmp_path)]) == 0
    assert "digits" in out_of(capsys)


@pytest.mark.slow
def test_the_help_of_evaluate_names_every_test(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    said = " ".join(out_of(capsys).replace("│", " ").split())
    assert all(f" {test}" in said for test in MEASURES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [],
        ["demo"],
        ["train"],
        ["evaluate"],
        ["methods"],
        ["datasets"],
        ["background"],
        ["compare"],
        ["budget"],
        ["recipes"],
        ["report"],
    ],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    said = out_of(capsys)
    assert "usage: catchup" in said and len(said) > 200


@pytest.mark.slow
def test_help_of_train_shows_the_settings_of_the_named_method(capsys):
    said = {}
    for method in ("catchup", "cutmix"):
        with pytest.raises(SystemExit):
            main(["train", "--method", method, "--help"])
        said[method] = out_of(capsys)
    assert "--input-mix" in said["catchup"] and "--input-mix" not in said["cutmix"]
    assert "Beta(alpha, alpha)" in said["catchup"] and "--alpha" in said["cutmix"]


@pytest.mark.slow
def test_the_console_script_prints_its_version():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from catchup.cli.commands import main; raise SystemExit(main(['--version']))",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes of a shell")
def test_when_nobody_reads_on_the_end_is_quiet():
    """As in `catchup recipes | head`, where it comes late."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "catchup.cli", "recipes"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert done.returncode == 141 and done.stderr == ""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a shell closes it")
def test_without_an_output_a_command_still_ends_well():
    command = f"{sys.executable} -m catchup.cli recipes >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.slow
def test_another_broken_pipe_is_an_error(monkeypatch, capsys):
    def broken():
        raise BrokenPipeError("worker")

    monkeypatch.setattr(cli, "methods", broken)
    assert cli.main(["methods"]) == 2 and "worker" in capsys.readouterr().err
