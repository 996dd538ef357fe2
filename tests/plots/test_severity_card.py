"""The severity card: what it asks the networks against asking them directly, and what it shows."""

import pytest
import torch

from catchup.data.sets.shapes import draw_scenes, images_of
from catchup.measures.corruption import corrupt
from catchup.models.inference import PixelModel
from catchup.plots.cards.severity import ask_networks, severity_card
from conftest import TinyNet

KINDS = ("impulse_noise", "contrast")


@pytest.fixture(scope="module")
def scene():
    torch.manual_seed(0)
    models = {
        method: PixelModel(TinyNet(classes=8), (0.4,) * 3, (0.3,) * 3)
        for method in ("baseline", "catchup")
    }
    return models, images_of(draw_scenes(4, 0))


@pytest.fixture(scope="module")
def store(scene):
    return ask_networks(*scene, 2, KINDS, seed=3)


def test_the_networks_are_asked_about_the_corrupted_image(scene, store):
    models, images = scene
    assert tuple(store.pixels) == KINDS and store.label == images.labels[2]
    for name in KINDS:
        for severity in range(6):
            one = (
                images.pixels[2:3]
                if severity == 0
                else corrupt(images.pixels[2:3], name, severity, seed=3)
            )
            assert torch.equal(store.pixels[name][severity], one[0])
            for method, model in models.items():
                with torch.no_grad():
                    share = model.eval()(one / 255).softmax(dim=1)[0]
                assert torch.allclose(store.shares[method][name][severity], share, atol=1e-5)
                assert store.answer(method, name, severity) == images.classes[int(share.argmax())]


@pytest.mark.slow
def test_the_card_shows_the_image_and_the_line_of_every_network(store):
    clean, hurt, lines = severity_card(store, "contrast", 4).axes[:3]
    assert (
        "contrast, severity 4" in hurt.get_title()
        and store.classes[store.label] in clean.get_title()
    )
    assert torch.equal(
        torch.as_tensor(hurt.images[0].get_array())
        .float()
        .round()
        .permute(2, 0, 1)
        .to(torch.uint8),
        store.pixels["contrast"][4],
    )
    drawn = [line.get_ydata() for line in lines.lines if len(line.get_ydata()) == 6]
    expected = [
        100 * store.shares[method]["contrast"][:, store.label] for method in ("baseline", "catchup")
    ]
    assert (
        all(torch.allclose(torch.as_tensor(ys), true) for ys, true in zip(drawn, expected))
        and len(drawn) == 2
    )
    marked = [line.get_xdata()[0] for line in lines.lines if len(line.get_ydata()) == 2]
    assert marked == [4]


def test_what_cannot_be_shown_is_named(scene, store):
    models, images = scene
    for wrong in (-1, 6, True, 2.0):
        with pytest.raises(ValueError, match="severity must be a number from 0 to 5, got"):
            severity_card(store, "contrast", wrong)
    with pytest.raises(ValueError, match="corruption"):
        severity_card(store, "snow", 1)
    with pytest.raises(ValueError, match="image must be a number from 0 to 3, got 4"):
        ask_networks(models, images, 4, KINDS)
    with pytest.raises(ValueError, match="at least one network"):
        ask_networks({}, images, 0, KINDS)
