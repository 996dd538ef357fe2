"""The causal test, made tiny: what is planned, trained, measured, taken up again and said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
import torch

from catchup.data.sets import readers
from catchup.experiments import background_bias as background
from catchup.experiments import evaluate
from catchup.experiments.background_bias import (
    describe_background,
    plan_background,
    read_rows,
    read_runs,
    run_background,
)
from catchup.experiments.compare import run_comparison
from catchup.experiments.planning import Comparison
from catchup.training import trainer as training

matplotlib.use("Agg")
TINY = replace(
    background.SETTINGS, subset=2, width=4, epochs=2, batch_size=8, precision="fp32", device="cpu"
)


@pytest.fixture(autouse=True, scope="module")
def _few_images():
    with pytest.MonkeyPatch.context() as patch:
        for module, name, number in ((readers, "SHAPES_TRAIN", 128), (readers, "SHAPES_TEST", 64)):
            patch.setattr(module, name, number)
        yield


def wanted(out, **options):
    given = {"methods": ("baseline", "catchup"), "seeds": (0,), "settings": TINY, **options}
    return Comparison(out=Path(out), **given)


def asked(out, rhos=(0.5,), budgets=(1, 2), cue="texture", **options):
    axes = {"rhos": rhos, "budgets": budgets, "cue": cue}
    return run_background(wanted(out, **options), **axes, progress=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("background") / "runs"
    return out, asked(out, seeds=(1, 0))


@pytest.mark.slow
def test_every_share_and_budget_is_a_comparison_whose_runs_stand_in_one_file(done):
    out, rows = done
    assert read_rows(out / "background.jsonl") == rows
    assert (out / "background.png").stat().st_size > 1000
    places = [(row["rho"], row["epochs"], row["method"], row["seed"]) for row in rows]
    assert places == [
        (0.5, epochs, method, seed)
        for epochs in (1, 2)
        for method in ("baseline", "catchup")
        for seed in (0, 1)
    ]
    for row in rows:
        folder = out / f"0.5/{row['epochs']}/{row['method']}-{row['seed']}"
        assert (folder / "checkpoint.pt").is_file() and row["checkpoint_sha256"]
        assert json.loads((folder / "run.json").read_text())["learning"]["trained"] is False
        assert row["data"] == "shapes:0.5:texture" and row["cue"] == "texture"
        assert (row["n_train"], row["n_test"]) == (16, 64) and row["versions"]["torch"]
        assert "cues" not in row and "ood" not in row
        assert row["identity"]["name"] == "shapes:0.5:texture"
        # the validation images are the test images whose cue is broken
        assert row["broken_accuracy"] == pytest.approx(100 - row["top1_error"])
        assert row["train_accuracy"] == pytest.approx(100 - row["clean_train_error"])
    longer = [row for row in rows if row["epochs"] == 2]
    assert all(row["learning"]["half_budget_gain"] is not None for row in longer)


@pytest.mark.slow
def test_methods_of_a_seed_are_paired_and_over_rho_only_the_backgrounds_change(done):
    out, rows = done
    data = {(row["method"], row["seed"]): row["identity"] for row in rows if row["epochs"] == 1}
    assert data["baseline", 0] == data["catchup", 0] != data["baseline", 1]
    half, whole = (
        training.dataset_of(replace(TINY, data=f"shapes:{rho}:texture"), progress=False).train
        for rho in (0.5, 1.0)
    )
    assert torch.equal(half.labels, whole.labels) and not torch.equal(half.pixels, whole.pixels)


@pytest.mark.slow
def test_what_is_finished_stays_and_what_compare_left_is_taken_as_it_is(tmp_path, done):
    out, rows = done
    before = {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")}
    # asked for less, all that is there is told
    assert asked(out, budgets=(1,), methods=("baseline",)) == rows
    assert {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")} == before
    settings = replace(TINY, data="shapes:0.5:texture", epochs=1)
    run_comparison(
        tmp_path / "0.5" / "1", methods=("baseline",), seeds=(0,), settings=settings, progress=False
    )
    weights = (tmp_path / "0.5/1/baseline-0/checkpoint.pt").read_bytes()
    (row,) = asked(tmp_path, budgets=(1,), methods=("baseline",))
    assert (tmp_path / "0.5/1/baseline-0/checkpoint.pt").read_bytes() == weights
    same = ("broken_accuracy", "kept_accuracy", "train_accuracy", "cue_followed", "identity")
    assert {key: row[key] for key in same} == {key: rows[0][key] for key in same}


@pytest.mark.slow
def test_a_run_that_was_stopped_is_not_among_the_finished(done, tmp_path):
    out, rows = done
    shutil.copytree(out, tmp_path / "copy")
    path = tmp_path / "copy/0.5/2/catchup-0/evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "finished": False}))
    left = read_runs(tmp_path / "copy")
    assert len(left) == len(rows) - 1
    assert (2, "catchup", 0) not in [(r["epochs"], r["method"], r["seed"]) for r in left]


@pytest.mark.slow
def test_a_run_can_be_measured_again_later(done):
    out, rows = done
    found = evaluate(out / "0.5/2/catchup-0", ("cues", "calibration"), progress=False)
    (row,) = [r for r in rows if (r["epochs"], r["method"], r["seed"]) == (2, "catchup", 0)]
    assert found["cues"]["broken_accuracy"] == row["broken_accuracy"]
    assert found["top1_error"] == row["top1_error"] and found["calibration"]["ece"] >= 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": ("baselin",)}, "Did you mean 'baseline'"),
        ({"methods": ()}, "methods must name at least one"),
        ({"rhos": (1.5,)}, r"rhos must lie in \[0, 1\].*got \(1.5,\)"),
        ({"rhos": ()}, "rhos must lie"),
        ({"rhos": (0.5, 0.5)}, "none twice"),
        ({"budgets": (0,)}, r"budgets must be whole numbers.*got \(0,\)"),
        ({"seeds": ()}, "seeds must name at least one"),
        ({"cue": "color"}, "colour"),
        ({"seeds": (-1,)}, "seed must be at least 0, got -1"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(options, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        asked(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("thesis.txt", "holds thesis.txt, which is no share"),
        ("7/1/x", "holds 7, which is no share"),
        ("0.5/old/x", "holds old, which is no budget"),
    ],
)
def test_folders_of_something_else_are_refused_and_left_alone(name, says, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=says):
        asked(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_precision_is_a_setting_like_every_other():
    assert background.SETTINGS.precision == "auto" == background.SETTINGS.device
    parts = plan_background(wanted("x", settings=replace(TINY, precision="bf16")), (0.5, 1), (1, 3))
    assert [(str(one.out), one.settings.data, one.settings.epochs) for one in parts] == [
        (str(Path("x", "0.5", "1")), "shapes:0.5:texture", 1),
        (str(Path("x", "0.5", "3")), "shapes:0.5:texture", 3),
        (str(Path("x", "1.0", "1")), "shapes:1.0:texture", 1),
        (str(Path("x", "1.0", "3")), "shapes:1.0:texture", 3),
    ]
    assert {(one.settings.precision, tuple(one.tests)) for one in parts} == {
        ("bf16", ("clean", "cues"))
    }


def test_nothing_to_report_is_said():
    with pytest.raises(ValueError, match="no rows to report"):
        describe_background([])


def made(method, rho, seed, epochs, train, broken, trained=True):
    return {
        "method": method,
        "rho": rho,
        "seed": seed,
        "cue": "colour",
        "n_train": 16,
        "n_test": 64,
        "epochs": epochs,
        "train_accuracy": train,
        "kept_accuracy": 90.0,
        "broken_accuracy": broken,
        "reversed_accuracy": 5.0,
        "cue_followed": 70.0,
        "learning": {"trained": trained, "reason": "4.0 % error on its training images"},
    }


def test_the_report_has_both_readings_with_their_budgets():
    rows = [
        made("baseline", rho, seed, epochs, 99.0, 40.0 + 3 * seed)
        for rho in (0.125, 0.95)
        for epochs in (60, 240)
        for seed in (0, 1)
    ]
    rows += [
        made("catchup", rho, seed, 240, 98.75, 50.0 + 4 * seed, trained=seed)
        for rho in (0.125, 0.95)
        for seed in (0, 1)
    ]
    # of no pair: the first method has no such seed
    said = describe_background([*rows, made("catchup", 0.95, 2, 240, 98.0, 1.0)])
    for words in ("agrees in 12.5 %", "agrees in 95 %"):
        assert f"{words} of the training images, 240 epochs, 2 paired seeds" in said
    assert said.count("catchup − baseline") == 2 and said.count("+10.50 ± 0.71") == 2
    assert "ρ = 0.95, seed 0: catchup at 240 epochs knows 98.8 %" in said
    assert "baseline at 60 99.0 %; cue broken: 50.0 and 40.0 %, +10.0" in said
    assert "seed 2: catchup at 240 epochs knows 98.0 % of its training images; no plain" in said
    assert "still learning, too short to tell: 240 epochs: catchup (4.0 %" in said
