"""The demo: one small round of what `catchup demo` does."""

import json
from dataclasses import replace

import pytest
import torch

from catchup.experiments import demo
from catchup.training import trainer as training


def test_demo_trains_compares_draws_and_says_what_is_next(tmp_path):
    settings = replace(demo.SETTINGS, subset=3, width=4, epochs=1, batch_size=15)
    threads = torch.get_num_threads()
    results = demo.run(tmp_path / "demo", seeds=(0, 1), settings=settings, progress=False)
    written = sorted(file.name for file in (tmp_path / "demo").iterdir())
    assert written == ["errors.png", "feature_drop.png", "results.json"]
    assert json.loads((tmp_path / "demo" / "results.json").read_text())["rows"] == results["rows"]
    assert [(row["method"], row["seed"]) for row in results["rows"]] == [
        ("baseline", 0),
        ("catchup", 0),
        ("baseline", 1),
        ("catchup", 1),
    ]
    needed = {
        "method",
        "seed",
        "data",
        "model",
        "epochs",
        "top1_error",
        "top5_error",
        "fgsm_error",
        "pgd_error",
        "feature_drop",
    }
    assert all(needed <= set(row) for row in results["rows"])
    said = demo.report(results, tmp_path / "demo")
    assert (
        "catchup − baseline" in said
        and "2 paired seeds" in said
        and "notebooks/00_quickstart.ipynb" in said
    )
    demo.run(
        tmp_path / "demo", seeds=(0,), methods=("baseline",), settings=settings, progress=False
    )  # again is fine
    assert torch.get_num_threads() == threads


def test_pairs_share_their_images_and_first_weights():
    """The baseline and a mixer that never mixes are the same run, seed by seed."""
    settings = replace(demo.SETTINGS, subset=3, width=4, epochs=2, batch_size=15)
    rows = list(demo.trained_rows(("baseline",), (0, 1), settings, ("clean",)))
    again = list(demo.trained_rows(("baseline",), (1, 0), settings, ("clean",)))
    start = [
        training.model_of(
            replace(settings, method=method), training.dataset_of(settings)
        ).state_dict()
        for method in ("baseline", "catchup")
    ]
    assert all(torch.equal(start[0][key], start[1][key]) for key in start[0])
    assert [row["last_error"] for row in rows] == [row["last_error"] for row in again[::-1]]
    assert rows[0]["last_error"] == rows[0]["top1_error"]


def test_other_peoples_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="holds other files than a demo's"):
        demo.run(tmp_path, progress=False)
    with pytest.raises(ValueError, match="is a file"):
        demo.run(tmp_path / "thesis.txt", progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]
