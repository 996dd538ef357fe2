"""The identity of a data set: the same for the same images, and a phrase for each thing that
differs.
"""

import json
from dataclasses import replace

import pytest
import torch

from catchup.data import Augmentation, Dataset, Images
from catchup.data.identity import DataIdentity, check_same_data, identify


def images(n=6, seed=0, classes=("a", "b")):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(n) % 2, classes)


BASE = Dataset("mine", images(), images(4, 1), (0.5,) * 3, (0.25,) * 3, Augmentation())
CHANGED = {
    "train count was 6, now 8": replace(BASE, train=images(8)),
    "the train images": replace(BASE, train=images(seed=9)),
    "the test images": replace(BASE, test=images(4, 9)),
    "classes was": replace(BASE, train=images(classes=("b", "a")), test=images(4, 1, ("b", "a"))),
    "mean was": replace(BASE, mean=(0.4,) * 3),
    "std was": replace(BASE, std=(0.2,) * 3),
}


@pytest.mark.parametrize("words", CHANGED)
def test_what_differs_is_said(words):
    before, now = identify(BASE), identify(CHANGED[words])
    assert any(phrase.startswith(words) for phrase in before.differences(now))
    with pytest.raises(ValueError, match=f"run of other data .*{words}"):
        check_same_data(before.as_dict(), now.as_dict(), "a run")


def test_the_same_images_are_the_same_data_under_any_name():
    same = replace(BASE, name="other", train=images())
    assert identify(BASE).differences(identify(same)) == []
    stored = json.loads(json.dumps(identify(BASE).as_dict()))
    assert DataIdentity.from_dict(stored) == identify(BASE)


def test_a_label_or_the_order_counts():
    flipped = Images(BASE.train.pixels, BASE.train.labels.flip(0), BASE.train.classes)
    turned = BASE.train.take([1, 0, 2, 3, 4, 5])
    for train in (flipped, turned):
        assert identify(BASE).differences(identify(replace(BASE, train=train)))


@pytest.mark.parametrize("before", [None, 3, {}, {"name": "x"}])
def test_a_record_without_an_identity_is_refused(before):
    with pytest.raises(ValueError, match="does not say which data"):
        check_same_data(before, identify(BASE).as_dict(), "a run")
