"""ManifoldMixup: which layers it draws, and that a step is the paper's, written out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup import Draw, models
from catchup.mixers import make


def convolutions(count: int) -> nn.Sequential:
    """A chain of which every convolution is a block."""
    return nn.Sequential(
        *[
            layer
            for k in range(count)
            for layer in (nn.Conv2d(3 if k == 0 else 4, 4, 3), nn.ReLU())
        ],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


@pytest.mark.parametrize(
    ("count", "layers"), [(1, (0, 1)), (2, (0, 2)), (3, (0, 2, 3)), (5, (0, 2, 3))]
)
def test_default_layers_are_the_papers_as_far_as_there_are_blocks(count, layers):
    model, mixer = convolutions(count), make("manifoldmixup", seed=0)
    mixer.check(model)
    assert len(mixer.block_names(model)) == count
    drawn = [mixer.draw(4, count, mixer.rng).layer for _ in range(300)]
    assert set(drawn) == set(layers)
    for layer in layers:  # uniform: five standard errors
        p = 1 / len(layers)
        assert abs(drawn.count(layer) / 300 - p) < 5 * (p * (1 - p) / 300) ** 0.5


def test_in_preact_resnet_these_are_the_input_and_the_first_two_stages():
    """Verma et al., appendix C.1: the input, after the first and after the second residual
    block.
    """
    model, mixer = (
        models.create("preact_resnet18", num_classes=5, width=4),
        make("manifoldmixup", seed=0),
    )
    names = mixer.block_names(model)
    assert [names[layer - 1] for layer in mixer.layer_set(len(names)) if layer] == [
        "layer1",
        "layer2",
    ]


def test_given_layers_are_drawn_and_wrong_ones_refused(tiny):
    mixer = make("manifoldmixup", seed=0, layers=(1,))
    assert {mixer.draw(4, 3, mixer.rng).layer for _ in range(20)} == {1}
    with pytest.raises(ValueError, match="unknown layer 4"):
        make("manifoldmixup", layers=(4,)).check(tiny)
    with pytest.raises(ValueError, match="alpha must be a positive number, got -1"):
        make("manifoldmixup", alpha=-1)


def test_lambda_follows_beta_2_2_by_default():
    mixer = make("manifoldmixup", seed=0)
    lams = np.array([mixer.draw_lam(3, mixer.rng) for _ in range(4000)])
    # Beta(2, 2): variance 1/20
    assert abs(lams.mean() - 0.5) < 0.02 and abs(lams.var() - 1 / 20) < 0.005


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_a_step_is_the_papers(layer, tiny, batch):
    """Section 2: run to layer k, mix the maps image by image, run on, weight the two labels by λ
    and 1 − λ.
    """
    images, labels = batch
    lam, partner = 0.3, [2, 0, 1, 6, 5, 3, 4]
    parts = [nn.Identity(), tiny.stem, tiny.layer1, tiny.layer2]
    maps = images
    for part in parts[: layer + 1]:
        maps = part(maps)
    maps = torch.stack([lam * maps[i] + (1 - lam) * maps[j] for i, j in enumerate(partner)])
    for part in parts[layer + 1 :]:
        maps = part(maps)
    logits = tiny.fc(maps.mean(dim=(2, 3)))
    expected = (
        sum(
            lam * F.cross_entropy(logits[i : i + 1], labels[i : i + 1])
            + (1 - lam) * F.cross_entropy(logits[i : i + 1], labels[j : j + 1])
            for i, j in enumerate(partner)
        )
        / 7
    )

    mixer = make("manifoldmixup", seed=0)
    loss = mixer.loss(tiny, images, labels, draw=Draw(layer, partner, lam))
    torch.testing.assert_close(loss, expected)
    own = torch.autograd.grad(loss, list(tiny.parameters()))
    torch.testing.assert_close(own, torch.autograd.grad(expected, list(tiny.parameters())))
    assert mixer.last.block == (None, "stem", "layer1", "layer2")[layer]
