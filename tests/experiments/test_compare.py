"""Comparisons on a few digits: what they write, that they go on where they stopped, and what they
refuse.
"""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

from catchup import Settings
from catchup.experiments import compare, planning
from catchup.experiments.engines import here
from catchup.experiments.evaluation import evaluate
from catchup.training import checkpoint, loop
from catchup.training.folder import read_metrics, write_metrics
from catchup.training.lock import lock_folder
from catchup.training.trainer import train
from catchup.utils.files import read_json

pytestmark = pytest.mark.slow

SETTINGS = Settings(subset=2, width=4, epochs=2, batch_size=10, lr=0.05, device="cpu")
METHODS, SEEDS = ("baseline", "catchup", "catchup:alpha=0.2,layers=[1,2]"), (0, 1, 2)
NAMES = ("baseline", "catchup", "catchup_alpha=0.2_layers=_1_2")


def compared(out, methods=METHODS, seeds=SEEDS, **more):
    return compare.run_comparison(
        out, methods=methods, seeds=seeds, progress=False, **{"settings": SETTINGS, **more}
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished comparison: (its folder, its results). Not to be written to."""
    out = tmp_path_factory.mktemp("compare") / "new" / "whole"
    return out, compared(out, tests=("clean", "feature-drop"))


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")


@pytest.fixture
def no_training(monkeypatch):
    """Whoever trains or evaluates now fails, and so does the test."""
    called = []

    def refused(*_, **__):
        called.append(True)
        raise AssertionError("nothing is to be trained or evaluated here")

    monkeypatch.setattr(compare, "train", refused)
    monkeypatch.setattr(compare, "evaluate", refused)
    yield
    assert not called


def test_every_method_and_seed_is_a_run_with_its_evaluation(whole):
    out, results = whole
    assert {path.name for path in out.iterdir()} == {
        "results.json",
        "table.md",
        *(f"{name}-{seed}" for name in NAMES for seed in SEEDS),
    }
    assert json.loads((out / "results.json").read_text()) == results
    assert results["methods"] == list(METHODS) and results["seeds"] == [0, 1, 2]
    assert results["tests"] == ["clean", "feature-drop"] and results["failed"] == []
    assert {"versions", "hardware", "command", "commit"} <= results.keys()
    assert [(row["label"], row["seed"]) for row in results["rows"]] == [
        (label, seed) for seed in SEEDS for label in METHODS
    ]
    for row in results["rows"]:
        folder = out / f"{NAMES[METHODS.index(row['label'])]}-{row['seed']}"
        assert row == {"label": row["label"], **read_json(folder / "evaluation.json")}
        assert row["finished"] and row["top1_error"] is not None and row["fgsm_error"] is None
        assert {"versions", "hardware", "command", "commit"} <= row.keys()
    settings = read_json(out / "catchup_alpha=0.2_layers=_1_2-1" / "run.json")["settings"]
    assert (settings["method"], settings["seed"], settings["subset"], settings["epochs"]) == (
        "catchup",
        1,
        2,
        2,
    )
    assert settings["method_settings"]["alpha"] == 0.2 and settings["method_settings"][
        "layers"
    ] == [1, 2]
    # what was not said is recorded as well
    assert settings["method_settings"]["input_mix"] == "cutmix"


@pytest.mark.slow
def test_a_run_is_the_one_that_train_and_evaluate_make(whole, tmp_path):
    settings = read_json(whole[0] / "catchup-1" / "run.json")["settings"]
    train(Settings.from_dict(settings), tmp_path / "alone", progress=False)
    evaluate(tmp_path / "alone", ("clean", "feature-drop"), device="cpu", progress=False)
    ours, theirs = (
        read_json(path / "evaluation.json") for path in (whole[0] / "catchup-1", tmp_path / "alone")
    )
    for key in (
        "top1_error",
        "best_error",
        "median10_error",
        "feature_drop",
        "epochs",
        "method_settings",
    ):
        assert ours[key] == theirs[key]


def test_differences_are_paired_and_their_intervals_are_scipys(whole):
    out, results = whole
    values = {(row["label"], row["seed"]): row for row in results["rows"]}
    found = {(row["method"], row["measure"]): row for row in results["differences"]}
    assert set(found) == {
        (label, measure)
        for label in METHODS[1:]
        for measure in ("top1_error", "best_error", "median10_error", "without_strongest")
    }
    for (label, measure), row in found.items():
        if measure == "without_strongest":
            continue
        ours, theirs = (
            [values[name, seed][measure] for seed in SEEDS] for name in (label, "baseline")
        )
        expected = ttest_rel(ours, theirs).confidence_interval(0.95)
        np.testing.assert_allclose([row["low"], row["high"]], expected, rtol=1e-9)
        assert row["mean"] == pytest.approx(np.mean(ours) - np.mean(theirs))
        assert (row["n"], row["seeds"], row["minus"]) == (3, [0, 1, 2], "baseline")
        assert (
            f"{row['mean']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
            in (out / "table.md").read_text()
        )


def test_the_table_says_what_was_compared(whole):
    out, results = whole
    said, table = compare.describe_comparison(results), (out / "table.md").read_text()
    for text in (said, table):
        assert (
            "digits, 2 training images per class, resnet18 width 4, 2 epochs; 500 test images"
            in text
        )
        assert "catchup − baseline" in text and "catchup:alpha=0.2,layers=[1,2] − baseline" in text
        assert "Student t, n − 1 degrees of freedom" in text and "chosen on the test images" in text
    head, rule, first, *_ = [line for line in table.splitlines() if line.startswith("|")]
    assert head.split(" | ")[1:4] == ["n", "top-1 error, last epoch", "best epoch"] and set(
        rule
    ) == set("|-")
    assert first.startswith("| baseline | 3 | ")


def test_what_is_finished_is_not_done_again(whole, copied, no_training):
    before = {path: path.read_bytes() for path in copied.glob("*/*")}
    again = compared(copied, tests=("clean", "feature-drop"))
    assert again["rows"] == whole[1]["rows"] and again["differences"] == whole[1]["differences"]
    # less is asked for; the rest stays in its folder
    fewer = compared(copied, METHODS[1::-1], SEEDS[1:])
    assert [(row["label"], row["seed"]) for row in fewer["rows"]] == [
        ("catchup", 1),
        ("baseline", 1),
        ("catchup", 2),
        ("baseline", 2),
    ]
    assert {row["minus"] for row in fewer["differences"]} == {"catchup"}
    assert {row["measure"] for row in fewer["differences"]} == {
        "top1_error",
        "best_error",
        "median10_error",
    }
    assert {path: path.read_bytes() for path in copied.glob("*/*")} == before


@pytest.mark.slow
def test_more_seeds_methods_and_tests_do_what_is_missing(whole, copied, monkeypatch):
    trained, evaluated = _watched(monkeypatch)
    results = compared(copied, ("baseline", "cutmix"), (0, 3), tests=("clean",))
    assert trained == evaluated == ["cutmix-0", "baseline-3", "cutmix-3"]
    assert [row["n"] for row in results["differences"]] == [2, 2, 2]
    trained.clear(), evaluated.clear()
    compared(copied, ("baseline",), (0,), tests=("clean", "fgsm"))
    assert (trained, evaluated) == ([], ["baseline-0"])
    row = read_json(copied / "baseline-0" / "evaluation.json")
    # the earlier measurement is kept
    assert row["fgsm_error"] is not None and row["feature_drop"] is not None


def _watched(monkeypatch) -> tuple[list, list]:
    trained, evaluated = [], []
    monkeypatch.setattr(
        compare,
        "train",
        lambda settings, out, **kw: (trained.append(out.name), train(settings, out, **kw)),
    )
    monkeypatch.setattr(
        compare,
        "evaluate",
        lambda out, *args, **kw: (evaluated.append(out.name), evaluate(out, *args, **kw))[1],
    )
    return trained, evaluated


@pytest.mark.slow
def test_after_an_interruption_it_goes_on_inside_the_run(whole, tmp_path, monkeypatch):
    """Stopped as by Ctrl-C after the first epoch of the second run: everything comes out as without
    it.
    """
    keep, kept = loop.TrainingRun.keep, []

    def interrupted(run, row):
        keep(run, row)
        kept.append(row["epoch"])
        if len(kept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.TrainingRun, "keep", interrupted)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        compared(out, METHODS[:2], (0, 1))
    assert kept == [1, 2, 1]
    assert [row["label"] for row in read_json(out / "results.json")["rows"]] == ["baseline"]
    assert "| baseline | 1 |" in (out / "table.md").read_text()
    results = compared(out, METHODS[:2], (0, 1))
    assert kept == [1, 2, 1, 2, 1, 2, 1, 2]  # the second epoch of that run, and the other seed
    expected = {(row["label"], row["seed"]): row["top1_error"] for row in whole[1]["rows"]}
    for row in results["rows"]:
        assert row["top1_error"] == expected[row["label"], row["seed"]]
    states = [
        checkpoint.load(folder / "catchup-0" / "checkpoint.pt")["model"]
        for folder in (out, whole[0])
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_checkpoint_that_changed_is_evaluated_again(copied, monkeypatch):
    own, other = (copied / name / "checkpoint.pt" for name in ("catchup-1", "catchup-0"))
    state = checkpoint.load(own)
    checkpoint.save(own, {**state, "model": checkpoint.load(other)["model"]})
    trained, evaluated = _watched(monkeypatch)
    results = compared(copied, METHODS[:2])
    assert (trained, evaluated) == ([], ["catchup-1"])
    errors = {(row["label"], row["seed"]): row["top1_error"] for row in results["rows"]}
    assert errors["catchup", 1] == errors["catchup", 0]
    # to save room: what was measured of it still stands
    other.unlink()
    compared(copied, METHODS[:2])
    assert evaluated == ["catchup-1"]


def test_the_checkpoint_of_another_seed_is_left_out(copied):
    """Also if its evaluation was copied along: both are of another run than run.json."""
    for name in ("checkpoint.pt", "evaluation.json"):
        shutil.copy(copied / "catchup-0" / name, copied / "catchup-1" / name)
    results = compared(copied, METHODS[:2])
    assert [(one["label"], one["seed"]) for one in results["failed"]] == [("catchup", 1)]
    assert (
        "of another run than run.json beside it (seed 0 there, 1" in results["failed"][0]["error"]
    )


def test_a_single_seed_has_no_interval(whole, copied, no_training):
    results = compared(copied, METHODS[:2], (1,))
    assert {(row["n"], row["sd"], row["low"], row["high"]) for row in results["differences"]} == {
        (1, None, None, None)
    }
    assert "[unknown]" in compare.describe_comparison(
        results
    ) and "unknown for a single seed" in compare.describe_comparison(results)


@pytest.mark.slow
def test_a_run_that_diverges_is_left_out_and_named(copied, monkeypatch):
    def diverging(settings, out, **more):
        if settings.seed == 3:
            raise FloatingPointError("the loss is not finite at step 1")
        return train(settings, out, **more)

    monkeypatch.setattr(compare, "train", diverging)
    results = compared(copied, METHODS[:2], (0, 3, 4))
    assert results["failed"] == [
        {"label": label, "seed": 3, "error": "the loss is not finite at step 1"}
        for label in METHODS[:2]
    ]
    assert [(row["label"], row["seed"]) for row in results["rows"]] == [
        ("baseline", 0),
        ("catchup", 0),
        ("baseline", 4),
        ("catchup", 4),
    ]
    assert "left out: catchup, seed 3: the loss is not finite" in (copied / "table.md").read_text()
    alone = compared(copied, ("baseline",), (3,))
    assert alone["rows"] == [] and compare.describe_comparison(alone).startswith(
        "left out: baseline, seed 3"
    )


def test_pairs_need_the_first_methods_run(copied, no_training, monkeypatch):
    """Where only the other method has a seed, the seed waits."""
    shutil.rmtree(copied / "baseline-0")
    monkeypatch.setattr(
        compare, "train", lambda *_, **__: (_ for _ in ()).throw(FloatingPointError("no"))
    )
    results = compared(copied, METHODS[:2])
    assert [(row["label"], row["seed"]) for row in results["rows"]] == [
        ("baseline", 1),
        ("catchup", 1),
        ("baseline", 2),
        ("catchup", 2),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ["baseline", "catchpu"]}, "unknown method 'catchpu'. Did you mean 'catchup'?"),
        (
            {"methods": ["catchup:aplha=1"]},
            "unknown setting of catchup 'aplha'. Did you mean 'alpha'?",
        ),
        (
            {"methods": ["catchup:alpha=high"]},
            "a value in 'catchup:alpha=high' does not fit its setting",
        ),
        ({"methods": ["catchup:alpha"]}, "a method is written name or name:setting=value"),
        ({"methods": ["cutmix:seed=1"]}, "seed cannot be set in 'cutmix:seed=1'"),
        (
            {"methods": ["baseline", "baseline"]},
            "'baseline' and 'baseline' are one method with the same settings",
        ),
        (
            {"methods": ["cutmix", "mixup", "cutmix:alpha=1.0"]},
            "'cutmix' and 'cutmix:alpha=1.0' are one method",
        ),
        ({"methods": ["baseline", "catchup:layers=[7]"]}, "unknown layer 7"),
        ({"methods": []}, "methods must name at least one"),
        ({"methods": "cutmix"}, "got 'cutmix'"),
        ({"seeds": []}, "seeds must name at least one"),
        ({"seeds": [1, 2, 1]}, "a seed may be named once, got 1, 2, 1"),
        ({"seeds": [0, -1]}, "seed must be at least 0, got -1"),
        ({"tests": ("clean", "fsgm")}, "unknown test 'fsgm'. Did you mean 'fgsm'?"),
        ({"tests": ()}, "no test was named"),
        ({"settings": Settings(data="digit")}, "digits"),
        ({"settings": Settings(width=0)}, "width"),
        ({"settings": Settings(width=4, precision="fp16", device="cpu")}, "fp16 needs a GPU"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(change, words, tmp_path, no_training):
    with pytest.raises(ValueError) as error:
        compared(tmp_path / "out", **{"methods": ["baseline", "cutmix"], "seeds": [0], **change})
    assert words in str(error.value) and list(tmp_path.iterdir()) == []


def test_other_settings_than_the_folders_are_refused(copied, no_training):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    longer = Settings(**{**SETTINGS.as_dict(), "epochs": 3})
    # also where no run of these is there yet
    for methods, seeds in ((METHODS[:2], (0,)), (("cutmix",), (9,))):
        with pytest.raises(
            ValueError, match=r"holds a run with other settings \(epochs was 2, now 3\)"
        ):
            compared(copied, methods, seeds, settings=longer)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thesis.txt", "years"),
        ("results.json", '{"rows": []}'),
        ("table.md", "mine"),
        ("baseline-0/notes.txt", "mine"),
        ("other/run.json", "[]"),
        ("other/run.json", '{"settings": 3}'),
    ],
)
def test_other_peoples_files_are_left_alone(name, content, tmp_path, no_training):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=name.split("/")[0].split(".")[0]):
        compared(tmp_path)
    assert (tmp_path / name).read_text() == content and len(list(tmp_path.rglob("*.*"))) == 1
    with pytest.raises(ValueError, match="is a file; give a folder"):
        compared(tmp_path / name)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process, not under torchrun"):
        compared(tmp_path)


# Engines: the same runs, by other processes


@pytest.fixture
def forked(monkeypatch):
    """Processes that start from one which has imported everything: the same, without the seconds of
    every import.
    """
    monkeypatch.setattr(here, "START", "forkserver")
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["catchup.experiments.compare", "accelerate"]
    )


def same(ours, theirs):
    """Equal but for what cannot be: times, hashes of files that hold times, and how the process was
    called.
    """
    apart = {"checkpoint_sha256", "command", "training", "commit"}
    return [
        {key: value for key, value in row.items() if key not in apart} for row in ours["rows"]
    ] == [{key: value for key, value in row.items() if key not in apart} for row in theirs["rows"]]


@pytest.mark.slow
def test_a_pool_whose_processes_are_killed_gives_the_rows_of_one_process(
    whole, tmp_path, forked, monkeypatch
):
    """Two processes, one killed in the middle of each of two runs: what the undisturbed one has,
    each run once.
    """
    out, stop, killed = tmp_path / "out", threading.Event(), []

    def kill():
        while not stop.wait(0.01):
            for folder in {path.parent for path in out.glob("*/metrics.jsonl")} - {
                one for one, _ in killed
            }:
                lock = folder / ".lock"
                begun = len((folder / "metrics.jsonl").read_text().splitlines()) == 1
                if (
                    len(killed) < 2
                    and begun
                    and lock.exists()
                    and (said := lock.read_text().split())
                ):
                    os.kill(int(said[1]), signal.SIGKILL)
                    killed.append((folder, int(said[1])))

    hunter = threading.Thread(target=kill)
    hunter.start()
    results = compared(
        out, METHODS[:2], SEEDS[:2], tests=("clean", "feature-drop"), engine="pool:jobs=2"
    )
    stop.set()
    hunter.join()
    expected = {
        "rows": [row for row in whole[1]["rows"] if row["label"] in METHODS[:2] and row["seed"] < 2]
    }
    assert len(killed) == 2 and results["failed"] == [] and same(results, expected)
    for row in results["rows"]:
        folder = out / f"{row['label']}-{row['seed']}"
        assert [line["epoch"] for line in read_metrics(folder)] == [1, 2]
        ours, theirs = (
            checkpoint.load(path / folder.name / "checkpoint.pt")["model"]
            for path in (out, whole[0])
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert json.loads((out / "results.json").read_text()) == results
    assert {path.name for path in out.iterdir()} == {
        "results.json",
        "table.md",
        *(f"{label}-{seed}" for label in METHODS[:2] for seed in SEEDS[:2]),
    }


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_the_next_call_goes_on(
    whole, tmp_path, forked, monkeypatch
):
    written, write = [], compare._write

    def interrupted(out, results):
        written.append(write(out, results))
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared(tmp_path, METHODS[:1], engine="pool:jobs=1")
    assert multiprocessing.active_children() == [] and len(written[0]["rows"]) == 1
    monkeypatch.setattr(compare, "_write", write)
    before = (tmp_path / "baseline-0" / "evaluation.json").read_bytes()
    results = compared(tmp_path, METHODS[:1], tests=("clean",))
    assert (tmp_path / "baseline-0" / "evaluation.json").read_bytes() == before
    errors = {
        row["seed"]: row["top1_error"] for row in whole[1]["rows"] if row["label"] == "baseline"
    }
    assert {row["seed"]: row["top1_error"] for row in results["rows"]} == errors


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["debug", "local"])
def test_submitit_does_the_runs(whole, tmp_path, cluster):
    pytest.importorskip("submitit")
    results = compared(
        tmp_path,
        METHODS[:1],
        (0,),
        tests=("clean", "feature-drop"),
        engine=f"slurm:cluster={cluster}",
    )
    assert same(results, {"rows": [whole[1]["rows"][0]]}) and results["failed"] == []
    assert (
        compared(tmp_path, METHODS[:1], (0,), engine="slurm:cluster=debug")["rows"]
        == results["rows"]
    )


def test_a_run_that_fails_is_reported_and_the_others_go_on(copied, monkeypatch, capsys):
    def failing(settings, out, **more):
        if settings.seed == 3:
            raise OSError(28, "No space left on device")
        if settings.seed == 4:
            raise KeyError("a defect")
        return train(settings, out, **more)

    monkeypatch.setattr(compare, "train", failing)
    results = compared(copied, METHODS[:1], (0, 3, 4, 5))
    assert [(one["seed"], one["error"]) for one in results["failed"]] == [
        (3, "OSError: [Errno 28] No space left on device"),
        (4, "KeyError: 'a defect'"),
    ]
    assert [row["seed"] for row in results["rows"]] == [0, 5]
    assert "Traceback" in capsys.readouterr().err  # of the defect


def test_a_run_whose_process_dies_again_and_again_is_reported(copied, monkeypatch):
    def run_jobs(engine, work, jobs, folder):
        yield 1, compare.engines.Lost("its process ended")
        yield 0, work(jobs[0])

    monkeypatch.setattr(compare.engines, "run_jobs", run_jobs)
    results = compared(copied, METHODS[:1], (0, 6, 7))
    assert results["failed"] == [
        {"label": "baseline", "seed": 7, "error": "given up after 3 attempts: its process ended"}
    ]
    assert [row["seed"] for row in results["rows"]] == [0, 6]


def test_one_call_at_a_time_in_a_folder(whole, copied, no_training):
    with lock_folder(copied), pytest.raises(ValueError, match="in use"):
        compared(copied, METHODS[:1])
    assert compared(copied, METHODS[:1])["rows"] and not (copied / ".lock").exists()


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("pol", "Did you mean 'pool'?"),
        ("pool:jobs=0", "jobs must be a whole number of at least 1, got 0"),
        ("slurm", "needs the command sbatch"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_before_anything_is_written(
    engine, words, tmp_path, monkeypatch
):
    if engine == "slurm":
        pytest.importorskip("submitit")
        monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=words):
        compared(tmp_path / "out", engine=engine)
    assert list(tmp_path.iterdir()) == []


# Several comparisons, and what is still to be done


@pytest.mark.slow
def test_a_sweep_is_several_comparisons_with_one_engine(tmp_path, monkeypatch):
    asked, run_jobs = [], compare.engines.run_jobs
    monkeypatch.setattr(
        compare.engines,
        "run_jobs",
        lambda engine, work, jobs, folder: (
            asked.append([job.planned.folder for job in jobs]),
            run_jobs(engine, work, jobs, folder),
        )[1],
    )
    parts = [
        compare.Comparison(
            out=tmp_path / name, methods=METHODS[:1], seeds=(0, 1), settings=settings
        )
        for name, settings in (("a", SETTINGS), ("b", replace(SETTINGS, lr=0.02)))
    ]
    both = compare.sweep(parts, progress=False)
    assert asked == [[tmp_path / name / f"baseline-{seed}" for name in "ab" for seed in (0, 1)]]
    alone = compared(tmp_path / "alone", METHODS[:1], (0, 1), settings=replace(SETTINGS, lr=0.02))
    assert same(both[1], alone) and not same(both[0], alone)
    assert json.loads((tmp_path / "b" / "results.json").read_text()) == both[1]
    with pytest.raises(ValueError, match="a folder of its own"):
        compare.sweep([parts[0], parts[0]])
    (tmp_path / "new").mkdir()
    bad = replace(parts[1], out=tmp_path / "new" / "c", methods=["catchpu"])
    with pytest.raises(ValueError, match="Did you mean 'catchup'"):
        compare.sweep([replace(parts[0], out=tmp_path / "new" / "d"), bad], progress=False)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("seconds", [{}, {"time_s": "long"}, {"time_s": None}])
def test_an_epoch_without_its_seconds_is_named(copied, seconds, no_training):
    write_metrics(copied / "baseline-1", [{"epoch": 1, "time_s": 3.0}, {"epoch": 2, **seconds}])
    asked = compare.Comparison(out=copied, methods=["baseline"], seeds=(1,), settings=SETTINGS)
    with pytest.raises(ValueError, match="line 2 of .*metrics.jsonl has no time_s"):
        planning.assess_runs(asked)


def test_what_is_still_to_be_done_and_how_long_it_takes(copied, no_training):
    rows = [{"epoch": epoch, "time_s": time} for epoch, time in ((1, 10.0), (2, 20.0))]
    for seed in SEEDS:
        write_metrics(copied / f"baseline-{seed}", rows)
        write_metrics(
            copied / f"catchup-{seed}", [{**row, "time_s": 2 * row["time_s"]} for row in rows]
        )
    write_metrics(copied / "catchup-2", rows[:1])
    (copied / "catchup-2" / "evaluation.json").unlink()
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    names = ("baseline", "catchup", "cutmix")
    asked = compare.Comparison(out=copied, methods=names, seeds=(1, 2, 3), settings=SETTINGS)
    stands = planning.assess_runs(asked)
    assert [(one.label, one.seed, one.state, one.epochs) for one in stands] == [
        ("baseline", 1, "finished", 2),
        ("catchup", 1, "finished", 2),
        ("cutmix", 1, "missing", 0),
        ("baseline", 2, "finished", 2),
        ("catchup", 2, "begun", 1),
        ("cutmix", 2, "missing", 0),
        ("baseline", 3, "missing", 0),
        ("catchup", 3, "missing", 0),
        ("cutmix", 3, "missing", 0),
    ]
    # an epoch's seconds
    catchup, every = ((20 + 40 + 10) / 3, (10 + 20 + 10 + 20 + 20 + 40 + 10) / 7)
    assert [one.time_s for one in stands] == pytest.approx(
        [0, 0, 2 * every, 0, catchup, 2 * every, 2 * 15, 2 * catchup, 2 * every]
    )
    said = planning.outlook(stands, 4)
    hours = sum(one.time_s for one in stands) / 3600
    assert (
        "9 runs: 3 finished, 6 to do" in said
        and f"about {hours:.2f} h" in said
        and "with 4 at once" in said
    )
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    fresh = planning.assess_runs(replace(asked, out=copied / "new"))
    assert {(one.state, one.time_s) for one in fresh} == {("missing", None)}
    assert "their time is not known" in planning.outlook(fresh) and not (copied / "new").exists()
