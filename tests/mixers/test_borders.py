"""What means something else than it seems is refused with the reason: one logit, labels that are no
shares, maps without channels in second place.
"""

import math

import pytest
import torch
import torchvision
from torch import nn

from catchup import CatchUpMix, CutMix
from catchup.hooks.blocks import trailing_features
from catchup.mixers import MIXERS, make
from catchup.mixers.checks import check_maps, check_shares
from conftest import TinyNet


@pytest.mark.parametrize("criterion", ["ce", "bce_softmax"])
def test_one_logit_is_refused(criterion, batch):
    images, _ = batch
    with pytest.raises(
        ValueError, match=r"at least 2 classes, got \(7, 1\).*nothing would be learnt"
    ):
        CutMix(criterion=criterion, seed=0).loss(TinyNet(classes=1), images, torch.ones(7, 1))


BAD = {
    "nan": [math.nan, 0.5, 0.5, 0, 0],
    "negative": [-0.5, 0.5, 1, 0, 0],
    "logits": [4.0, -2.0, 1.0, 0.3, 0.0],
    "two labels": [1.0, 1.0, 0, 0, 0],
    "nothing": [0.0] * 5,
    "infinite": [math.inf, 0, 0, 0, 0],
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("method", MIXERS)
def test_soft_labels_that_are_no_shares_are_refused_by_every_method(method, kind, batch):
    images, labels = batch
    shares = nn.functional.one_hot(labels, 5).float()
    shares[3] = torch.tensor(BAD[kind])
    settings = {"block": "layer2"} if method == "automix" else {}
    model, mixer = TinyNet(), make(method, seed=0, **settings)
    mixer.begin_run(model, 5)
    with pytest.raises(ValueError, match="shares of the classes, .*got row 3:"):
        mixer.loss(model, images, shares)


def test_shares_in_half_precision_and_smoothed_pass():
    rows = torch.full((3, 7), 0.1 / 7)
    rows[:, 2] += 0.9
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        check_shares(rows.to(dtype))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "block", "size"),
    [
        ("vit_b_16", "encoder.layers.encoder_layer_3", 224),
        ("swin_t", "features.1", 64),
        ("swin_t", "features.0", 64),
    ],
)
def test_tokens_and_channels_last_maps_are_refused(name, block, size):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=5)
    mixer = CatchUpMix(blocks=(block,), layers=(1,), seed=0)
    with pytest.raises(ValueError, match="must return maps|first block|features"):
        mixer.loss(model, torch.randn(2, 3, size, size), torch.tensor([0, 1]))


def test_a_network_whose_blocks_permute_inside_passes():
    torch.manual_seed(0)
    model = torchvision.models.convnext_tiny(num_classes=5)
    mixer = CatchUpMix(blocks=("features.1",), layers=(1,), seed=0)
    assert mixer.loss(model, torch.randn(2, 3, 64, 64), torch.tensor([0, 1])).isfinite()
    assert mixer.last.keep.shape == (2, 96, 1, 1)


def test_signals_are_refused_and_square_maps_are_not_mistaken():
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises(
        ValueError, match=r"got \(2, 6, 40\) \(tokens of a transformer, or a signal"
    ):
        check_maps(torch.zeros(2, 6, 40), images, "layer1")
    with pytest.raises(ValueError, match=r"got \(2, 3, 4, 4, 4\)"):
        check_maps(torch.zeros(2, 3, 4, 4, 4), images, "layer1")
    check_maps(torch.zeros(2, 3, 4, 4, 4), torch.zeros(2, 1, 8, 8, 8), "layer1")
    check_maps(torch.zeros(2, 8, 8, 8), images, "layer1", 8)
    with pytest.raises(ValueError, match="its 6 channels last"):
        check_maps(torch.zeros(2, 4, 4, 6), images, "layer1", 6)


def test_the_features_a_block_ends_in():
    assert trailing_features(TinyNet().layer2) is None and trailing_features(nn.ReLU()) is None
    assert trailing_features(nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(7), nn.GELU())) == 7
    assert trailing_features(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm2d(3))) is None
