"""The budget as an axis: every budget a run of its own, taken up again, and what is said of it."""

import json
import math
from dataclasses import replace

import matplotlib
import pytest

from catchup import Settings
from catchup.experiments.budget import describe_budgets, plan_budgets, run_budgets
from catchup.experiments.planning import Comparison
from catchup.measures.crossing import find_crossings

matplotlib.use("Agg")
SMALL = Settings(
    data="digits",
    subset=3,
    width=4,
    batch_size=15,
    lr=0.05,
    precision="fp32",
    device="cpu",
    validate_every=0,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("budget") / "runs"
    comparison = Comparison(out=out, methods=("baseline", "catchup"), seeds=(0, 1), settings=SMALL)
    return comparison, run_budgets(comparison, (4, 1, 2), progress=False)


@pytest.mark.slow
def test_every_budget_is_a_run_whose_schedule_ends_there(done):
    comparison, results = done
    assert [row["epochs"] for row in results["rows"]] == [1] * 4 + [2] * 4 + [4] * 4
    for epochs in (1, 2, 4):
        lines = (comparison.out / f"{epochs}/baseline-0/metrics.jsonl").read_text().splitlines()
        steps = 2 * epochs  # of 15 of 30 images
        last = 0.05 * (1 + math.cos(math.pi * (steps - 1) / steps)) / 2  # of the cosine to 0
        assert len(lines) == epochs and json.loads(lines[-1])["lr"] == pytest.approx(last)
    assert {row["n_train"] for row in results["rows"]} == {30}
    assert all(row["clean_train_error"] is not None for row in results["rows"])


@pytest.mark.slow
def test_what_is_written_is_what_is_returned_and_the_crossings_are_those_of_the_rows(done):
    comparison, results = done
    held = json.loads((comparison.out / "budget.json").read_text())
    assert held == results and (comparison.out / "budget.png").stat().st_size > 1000
    again = find_crossings(results["rows"], ("top1_error", "fgsm_error", "without_strongest"))
    assert [one["measure"] for one in held["crossings"]] == [one.measure for one in again]
    assert held["crossings"][0]["budgets"] == [1, 2, 4] and len(held["sentences"]) == 3
    said = describe_budgets(results)
    assert said.count("catchup against baseline") == 3 and "error on training images" in said


@pytest.mark.slow
def test_every_row_is_judged_beside_that_of_half_its_budget(done):
    _, results = done
    error = {
        (row["method"], row["seed"], row["epochs"]): row["last_error"] for row in results["rows"]
    }
    for row in results["rows"]:
        half = error.get((row["method"], row["seed"], row["epochs"] / 2))
        gain = None if half is None else pytest.approx(half - row["last_error"])
        told = row["learning"]
        assert told["half_budget_gain"] == gain and (half is None) == (row["epochs"] == 1)
        assert told["trained"] == (
            row["clean_train_error"] <= 2 or (half is not None and told["half_budget_gain"] < 1)
        )
    assert results["still_learning"].startswith("still learning, too short to tell: 1 epochs: ")
    assert " trained " in describe_budgets(results).splitlines()[0]


@pytest.mark.slow
def test_a_method_without_a_pair_costs_no_other_its_sentence(done, monkeypatch):
    comparison, results = done
    rows = [
        row
        for row in results["rows"]
        if row["method"] == "baseline" or (row["seed"] == 0) == (row["epochs"] == 1)
    ]
    parts = [{"rows": rows, "failed": []}]
    monkeypatch.setattr("catchup.experiments.budget.sweep", lambda *_, **__: parts)
    again = run_budgets(comparison, (1, 2, 4), progress=False)
    assert again["crossings"] == []
    assert again["sentences"] == [
        "catchup against baseline: not known, catchup and baseline share no seed at all of their"
        " budgets [1, 2, 4]."
    ]


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(done, monkeypatch):
    comparison, results = done
    monkeypatch.setattr(
        "catchup.experiments.compare.train", lambda *_, **__: pytest.fail("it was trained again")
    )
    again = run_budgets(comparison, (1, 4), progress=False)
    assert [row["top1_error"] for row in again["rows"]] == [
        row["top1_error"] for row in results["rows"] if row["epochs"] in (1, 4)
    ]


@pytest.mark.parametrize("budgets", [(), (0, 2), (2, 2), (1.5,), ("4",)])
def test_budgets_that_are_none_are_refused(budgets, tmp_path):
    comparison = Comparison(
        out=tmp_path / "none", methods=("baseline",), seeds=(0,), settings=replace(SMALL, seed=3)
    )
    with pytest.raises(ValueError, match="budgets must be whole numbers of epochs"):
        plan_budgets(comparison, budgets)
    assert not (tmp_path / "none").exists()
