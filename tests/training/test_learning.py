"""The rule that tells trained networks from those that are still learning, case by case."""

import json
import re
from pathlib import Path

import pytest

from catchup.mixers import make
from catchup.training import Settings, dataset_of, fit, model_of
from catchup.training.learning import (
    assess_record,
    describe_learning,
    judge_learning,
    share_of_paper,
)

RESULTS = Path(__file__).parents[2] / "data" / "results"
SCALED = sorted((RESULTS / "scaled").glob("*.json"))


@pytest.mark.parametrize(
    ("numbers", "trained", "reason"),
    [
        ((0.0, None, None), True, "0.0 % error on its training images"),
        ((2.0, 0.05, None), True, "2.0 % error"),
        ((2.1, 0.5, None), False, "2.1 % error on its training images"),
        ((2.1, 0.5, 0.9), True, r"\+0.9 points since half the budget"),
        ((2.1, 0.5, -0.4), True, r"-0.4 points since half"),
        ((30.0, 0.5, 1.0), False, r"30.0 % error on its training images, \+1.0 points since half"),
        ((0.0, 0.049, 0.0), False, r"4.9 % of the paper's steps, less than 5 %"),
        ((None, 0.5, None), False, "was not measured"),
        ((None, 0.5, 0.2), True, r"\+0.2 points"),
    ],
)
def test_the_rule(numbers, trained, reason):
    verdict = judge_learning(*numbers)
    assert verdict.trained is trained
    assert re.search(reason, verdict.reason)


def test_the_papers_steps():
    assert share_of_paper(2000, 128, 32) == 1 == share_of_paper(1200, 256, 64)
    assert share_of_paper(200, 100, 32) == pytest.approx(200 / 100 / (2000 / 128))
    assert share_of_paper(100, 50, 8) is None  # digits


@pytest.mark.parametrize("path", SCALED, ids=lambda path: path.stem)
def test_no_network_of_the_scaled_records_had_the_steps(path):
    """Their runs of 20 and 30 epochs are 4 and 2 % of the paper's steps."""
    verdicts = [assess_record(row) for row in json.loads(path.read_text())["rows"]]
    assert verdicts and not any(one["trained"] for one in verdicts)
    assert all(0.019 < one["share_of_steps"] < 0.045 for one in verdicts)
    assert all(one["reason"].endswith("of the paper's steps, less than 5 %") for one in verdicts)


def test_the_networks_of_the_main_table_are_trained():
    lines = (RESULTS / "main.jsonl").read_text().splitlines()
    verdicts = [assess_record(json.loads(line)) for line in lines]
    assert verdicts and all(one["trained"] for one in verdicts)
    assert all(one["share_of_steps"] == pytest.approx(0.128) for one in verdicts)
    assert max(one["clean_train_error"] for one in verdicts) <= 1


def row(epochs, error, learnt, seed=0, **more):
    settings = {"batch_size": 100, "window": None}
    shape = {"shape": [3, 32, 32]}
    return {
        "method": "catchup",
        "seed": seed,
        "epochs": epochs,
        "last_error": error,
        "clean_train_error": learnt,
        "settings": settings,
        "identity": shape,
        **more,
    }


def test_a_run_is_judged_beside_that_of_half_its_budget():
    own, half = row(200, 60.0, 5.0), row(100, 60.9, 30.0)
    assert not assess_record(own)["trained"]
    beside = assess_record(own, half)
    assert beside["trained"] and beside["half_budget_gain"] == pytest.approx(0.9)
    assert assess_record({**own, "learning": beside}) == beside  # what is known stays known
    assert not assess_record(own, row(100, 61.0, 30.0))["trained"]
    assert assess_record(own, row(100, None, 30.0))["half_budget_gain"] is None


def test_the_window_is_the_side_of_the_images_and_a_pretrained_network_has_no_verdict():
    large = row(100, 60.0, 0.0, settings={"batch_size": 100, "window": 224})
    assert assess_record(large)["share_of_steps"] is None
    assert assess_record({**large, "settings": None, "epochs": None}) is None


def test_the_line_names_the_methods_that_still_learn():
    rows = [row(20, 80.0, 49.31), row(20, 80.0, 48.0, seed=1), row(200, 60.0, 0.0)]
    rows += [row(20, 80.0, 50.0, label="catchup:alpha=2"), row(150, 60.0, 2.5)]
    rows = [{**one, "learning": assess_record(one)} for one in rows]
    assert describe_learning(rows) == (
        "still learning, too short to tell: 20 epochs: catchup, catchup:alpha=2 (1.3 % of the"
        " paper's steps, less than 5 %); 150 epochs: catchup (2.5 % error on its training images)"
    )
    assert describe_learning(rows[2:3]) == ""


@pytest.mark.parametrize(("progress", "epochs", "said"), [(True, 1, 1), (False, 1, 0)])
def test_fit_says_in_one_line_that_a_network_is_still_learning(progress, epochs, said, capsys):
    settings = Settings(
        data="digits", subset=3, width=4, epochs=epochs, batch_size=15, device="cpu"
    )
    dataset = dataset_of(settings, progress=False)
    result = fit(
        model_of(settings, dataset), make("baseline"), dataset, settings, progress=progress
    )
    lines = capsys.readouterr().err.splitlines()
    assert not result.learning.trained
    assert (
        sum("still learning: " in line and result.learning.reason in line for line in lines) == said
    )
