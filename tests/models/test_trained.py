"""The networks that come with the package: they are there, they are what their cards say, and one
of them comes out of its command again.
"""

import pytest
import torch

from benchmarks import trained_weights
from catchup import accuracy_without, models
from catchup.experiments.evaluation import evaluation_of
from catchup.models.trained_networks import WEIGHTS
from catchup.models.weights import load_weights, save_weights
from catchup.training import Settings, dataset_of
from catchup.utils.provenance import surroundings

# CutMix and random channels on shapes are still to be trained
KEPT = {"digits": trained_weights.METHODS, "shapes95": trained_weights.METHODS}
FINAL = [f"{data}-{method}" for data, methods in KEPT.items() for method in methods]
# these do not know all images whose background disagrees
LEARNING = {f"shapes95-{method}" for method in ("catchup", "cutmix", "randomchannel")}


def test_the_names_are_those_of_the_program_that_makes_them():
    earlier = [
        f"{data}-{method}-epoch{epoch}"
        for data in KEPT
        for method in trained_weights.LOOKED_BACK
        for epoch in trained_weights.EARLIER[data]
    ]
    assert models.trained_names() == sorted([*FINAL, *earlier])


@pytest.mark.parametrize("name", models.trained_names())
def test_a_card_says_all_and_belongs_to_a_clean_checkout(name):
    card = models.trained_card(name)
    settings = Settings(**card["settings"])
    data, method = name.split("-")[:2]
    assert settings.data.startswith(data[:6]) and settings.method == method
    assert settings.width == 8 and settings.precision == "fp32"
    assert card["epoch"] == int(name.partition("-epoch")[2] or settings.epochs)
    assert len(card["commit"]) == 12, "a commit, without the plus of a changed checkout"
    assert card["hardware"]["threads"] == 1 and card["versions"]["torch"]
    assert card["command"].startswith("catchup train --data ")
    for error in ("clean_train_error", "top1_error", "fgsm_error", "without_strongest"):
        assert 0 <= card[error] <= 100


@pytest.mark.parametrize("name", FINAL)
def test_at_the_end_of_its_training_a_network_knows_its_images(name):
    known = models.trained_card(name)["clean_train_error"] <= 2
    assert known == (name not in LEARNING)


def test_a_network_answers_as_its_card_says():
    model, card = models.trained("digits-catchup"), models.trained_card("digits-catchup")
    assert not model.training
    dataset = dataset_of(Settings(**card["settings"]), progress=False)
    found = evaluation_of(model, dataset, ("clean", "feature-drop"))
    assert found["top1_error"] == pytest.approx(card["top1_error"], abs=0.21)  # an image of 500
    kept = accuracy_without(found, trained_weights.SHARE)
    assert kept == pytest.approx(card["without_strongest"], abs=0.41)


def test_an_unknown_name_is_answered_with_those_there_are():
    for ask in (models.trained, models.trained_card):
        with pytest.raises(ValueError, match="'digits-catchap'.*'digits-catchup'.*digits-cutmix"):
            ask("digits-catchap")


def test_a_course_is_the_run_by_epoch():
    course = models.trained_course("digits-baseline")
    assert list(course) == [*trained_weights.EARLIER["digits"], 120]
    finished = models.trained("digits-baseline").state_dict()
    for key, value in course[120].state_dict().items():
        assert torch.equal(value, finished[key])
    with pytest.raises(ValueError, match="unknown trained network 'digits-mixed'"):
        models.trained_course("digits-mixed")


def test_together_they_are_small():
    sizes = [path.stat().st_size for path in WEIGHTS.glob("*.safetensors")]
    assert max(sizes) < 400_000 and sum(sizes) < 8_000_000


@pytest.mark.slow
def test_one_comes_out_of_its_training_again(tmp_path):
    """Bit for bit where processor, torch and threads are the card's; elsewhere as good."""
    card = models.trained_card("digits-baseline")
    ((_, model, dataset),) = trained_weights.train_and_keep(Settings(**card["settings"]))
    digest = trained_weights.digest(model)
    save_weights(model.state_dict(), tmp_path, "again", {})
    state = load_weights(tmp_path, "again")[0]
    here = surroundings()
    same = [here["hardware"][key] == card["hardware"][key] for key in ("processor", "threads")]
    if all(same) and here["versions"]["torch"] == card["versions"]["torch"]:
        assert digest == card["sha256"]
        kept = models.trained("digits-baseline").state_dict()
        assert all(torch.equal(state[key], value) for key, value in kept.items())
    model.load_state_dict(state)
    found = trained_weights.measure(model, dataset)
    assert abs(found["top1_error"] - card["top1_error"]) <= 1
    assert abs(found["without_strongest"] - card["without_strongest"]) <= 5
