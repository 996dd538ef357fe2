"""What an evaluation says of its run, and what it keeps of an earlier one: values, no run."""

import pytest

from catchup.experiments.evaluation import _completed, describe_training
from catchup.measures.robustness import masking_verdict
from catchup.training.trainer import Result

SETTINGS = {
    **{"method": "catchup", "method_settings": {}, "seed": 3, "data": "digits", "subset": None},
    **{"model": "resnet18", "width": 4, "epochs": 12},
}
SAME = ("checkpoint_sha256", "n_test", "identity")
NOW = {"n_test": 20, "checkpoint_sha256": "a", "identity": {}, "measured_with": {"clean": {}}}


def epochs(errors, losses=None, learnt=None):
    """Rows of a run, one for each validation error."""
    losses, learnt = losses or [0.5] * len(errors), learnt or [1.0] * len(errors)
    return [
        {"val_error_percent": a, "val_loss": b, "clean_train_error_percent": c, "time_s": 2.0}
        for a, b, c in zip(errors, losses, learnt)
    ]


def test_the_summary_is_of_the_last_the_best_and_the_last_ten_epochs():
    errors = [90.0, 80.0, 5.0, 60.0, 50.0, 40.0, None, 30.0, 20.0, 10.0, 11.0, 12.0, 13.0]
    assert Result(None, epochs(errors)).summary == {
        "last_error_percent": 13.0,
        "best_error_percent": 5.0,
        "median10_error_percent": (13 + 20) / 2,  # of 5 60 50 40 30 20 10 11 12 13
        "time_s": 26.0,
    }
    assert Result(None, epochs([None])).summary["best_error_percent"] is None


@pytest.mark.parametrize("done, finished", [(11, False), (12, True)])
def test_the_head_of_an_evaluation_tells_the_last_epochs_that_were_measured(done, finished):
    rows = epochs(
        [50.0] * done, [9.0, *[1.0] * (done - 2), None], [9.0, *[None] * (done - 3), 2.0, None]
    )
    row = describe_training(SETTINGS, rows)
    assert (row["epochs"], row["finished"]) == (done, finished)
    assert (row["last_val_loss"], row["clean_train_error"]) == (1.0, 2.0)
    assert (row["last_error"], row["seed"], row["settings"]) == (50.0, 3, SETTINGS)


@pytest.mark.parametrize("key", SAME)
def test_fields_of_a_file_that_does_not_say_what_it_measured_are_not_kept(key):
    before = {**NOW, "measured_with": {"feature-drop": {}}, "feature_drop": {"strongest": []}}
    assert "feature_drop" in _completed(NOW, ["clean"], before, SAME)
    del before[key]
    assert _completed(NOW, ["clean"], before, SAME) == NOW


def test_what_is_measured_again_takes_the_place_of_what_was():
    now = {**NOW, "measured_with": {"fgsm": {"eps_255": 4.0}}, "fgsm_error": 70.0}
    before = {**NOW, "measured_with": {"fgsm": {"eps_255": 1.0}}, "fgsm_error": 20.0}
    assert _completed(now, ["fgsm"], before, SAME) == now


@pytest.mark.parametrize("pgd, masked", [(49.9, True), (50.0, False), (50.1, False)])
def test_masking_is_where_pgd_errs_less_and_not_where_both_err_alike(pgd, masked):
    said = masking_verdict({"fgsm_error": 50.0, "pgd_error": pgd})
    assert said.startswith("gradient masking") is masked
