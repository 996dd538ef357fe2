"""Who follows the shape and who the background, told by models that say one or the other."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from catchup.data import Augmentation, Dataset, load
from catchup.data.sets.shapes import KINDS, draw_scenes, images_of, test_sets
from catchup.measures.cues import check_cues, cue_sets, measure_cues
from catchup.measures.registry import MEASURES, measure
from catchup.measures.subject import Options, Subject
from catchup.models.inference import PixelModel

TEST_START = 2**40


class Follower(nn.Module):
    """Knows shape and background of the images that it is going to get, and says one of them."""

    def __init__(self, sets, says):
        super().__init__()
        self.answers = {
            pixels.numpy().tobytes(): answer
            for name, images in sets.items()
            for pixels, answer in zip(images.pixels, says(name, images.labels))
        }

    def forward(self, images):
        stored = (images * 255).round().to(torch.uint8)
        said = torch.stack([self.answers[p.numpy().tobytes()] for p in stored])
        return nn.functional.one_hot(said, KINDS).float()


def small(cue="texture"):
    """The data set, 32 training and 64 test images, with its three test sets."""
    train, sets = images_of(draw_scenes(32, 0, 1.0, cue)), test_sets(64, 0, cue)
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "augmentation": Augmentation()}
    return Dataset(f"shapes:1.0:{cue}", train, sets["broken"], **plain), sets


def follower(sets, dataset, says):
    model = Follower({"train": dataset.train, **sets}, says)
    return PixelModel.of(model, dataset)


def test_a_model_that_follows_the_shape_is_right_everywhere():
    dataset, sets = small()
    found = measure_cues(follower(sets, dataset, lambda _, labels: labels), dataset.train, sets)
    right = ("train_accuracy", "kept_accuracy", "broken_accuracy", "reversed_accuracy")
    assert found == {**dict.fromkeys(right, 100), "cue_followed": 0}


def test_a_model_that_follows_the_background_is_right_where_it_agrees():
    dataset, sets = small()
    told = draw_scenes(64, 0, 1 / KINDS, start=TEST_START).texture
    cues = {"broken": lambda y: told, "reversed": lambda y: (y + 1) % KINDS}
    model = follower(sets, dataset, lambda name, y: cues.get(name, lambda y: y)(y))
    found = measure_cues(model, dataset.train, sets)
    assert (found["train_accuracy"], found["kept_accuracy"]) == (100, 100)
    assert (found["reversed_accuracy"], found["cue_followed"]) == (0, 100)
    by_chance = 100 * float((told == sets["broken"].labels).double().mean())
    assert found["broken_accuracy"] == pytest.approx(by_chance)


@pytest.mark.parametrize("cue", ["texture", "colour"])
def test_the_registry_measures_it_on_the_scenes_of_the_data_set(cue):
    dataset, sets = small(cue)
    model = follower(sets, dataset, lambda _, labels: labels)
    row = measure(Subject(model, dataset, Options()), ["cues"])
    assert row["cues"]["reversed_accuracy"] == 100 and row["measured_with"] == {"cues": {}}
    ours = cue_sets(dataset)
    assert all(torch.equal(ours[name].pixels, sets[name].pixels) for name in sets)
    for column in MEASURES["cues"].columns:
        assert column.partition(".")[2] in row["cues"]


def test_shapes_alone_have_the_texture_for_a_cue():
    dataset, sets = small()
    assert torch.equal(
        cue_sets(replace(dataset, name="shapes"))["kept"].pixels, sets["kept"].pixels
    )


def test_other_images_are_refused_with_a_sentence():
    dataset, _ = small()
    with pytest.raises(ValueError, match="'cues' needs shapes.*digits has images of"):
        check_cues(load("digits"))
    whole = replace(dataset.train, pixels=torch.zeros(32, 3, 48, 48, dtype=torch.uint8))
    large = replace(dataset, train=whole, test=whole)
    with pytest.raises(ValueError, match=r"\(3, 32, 32\), and shapes:1.0:texture has .*48"):
        check_cues(large)
