"""Feature drop: a naive loop for the zeroing, a curve worked out by hand, the whole model run with
edited features.
"""

import math

import pytest
import torch
from torch import nn

from catchup import models
from catchup.data import Images
from catchup.data.augment import to_float
from catchup.hooks.classifier import find_classifier
from catchup.hooks.layers import count_hooks, evaluating
from catchup.measures.feature_drop import (
    FRACTIONS,
    drop_features,
    feature_drop_curve,
    pooled_features,
)
from catchup.models.inference import PixelModel, predict, top_k_error


def slow_drop(features, fraction, which):
    """The definition, one image at a time: Python lists, sorted(), rounding by hand (halves to
    even).
    """
    rows = []
    for row in features.tolist():
        exact = fraction * len(row)
        below = math.floor(exact)
        count = below + (exact - below > 0.5 or (exact - below == 0.5 and below % 2 == 1))
        sign = -1 if which == "strongest" else 1
        ranked = sorted(range(len(row)), key=lambda i: (sign * abs(row[i]), i))
        rows.append([0.0 if i in ranked[:count] else row[i] for i in range(len(row))])
    return torch.tensor(rows, dtype=features.dtype)


def as_images(n=20, channels=3, size=8, classes=10, seed=0):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=rng)
    return Images(
        pixels, torch.randint(0, classes, (n,), generator=rng), tuple(map(str, range(classes)))
    )


def in_pixels(model, channels=3):
    return PixelModel(model, (0.5,) * channels, (0.25,) * channels)


def own(name="resnet18", **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return in_pixels(models.create(name, num_classes=10, width=8, **settings))


@pytest.mark.parametrize("which", ["strongest", "weakest"])
def test_drop_equals_the_naive_loop(which):
    rng = torch.Generator().manual_seed(0)
    for dimension in (1, 2, 5, 10, 16):
        signed = torch.randn(7, dimension, generator=rng)
        many_ties = torch.randint(-2, 3, (7, dimension), generator=rng).float()
        for features in (signed, signed.relu(), many_ties, many_ties.double()):
            kept = features.clone()
            for fraction in (*FRACTIONS, 0.25, 0.33, 0.5, 0.95, 1):
                assert torch.equal(
                    drop_features(features, fraction, which), slow_drop(features, fraction, which)
                )
            assert torch.equal(features, kept)


def test_ties_go_to_the_lower_index_and_magnitude_decides():
    features = torch.tensor([[1.0, -1.0, 1.0, -1.0], [-3.0, 2.0, 2.0, 1.0]])
    assert drop_features(features, 0.5, "strongest").tolist() == [[0, 0, 1, -1], [0, 0, 2, 1]]
    assert drop_features(features, 0.5, "weakest").tolist() == [[0, 0, 1, -1], [-3, 0, 2, 0]]


@pytest.mark.parametrize("which", ["strongest", "weakest"])
def test_nothing_and_everything_dropped(which):
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drop_features(features, 0, which), features)
    assert torch.equal(drop_features(features, 1, which), torch.zeros(4, 6))
    assert drop_features(features, 0, which).data_ptr() != features.data_ptr()


@pytest.mark.parametrize(
    "features, fraction, which, sentence",
    [
        (torch.ones(2, 4), -0.1, "weakest", "got -0.1"),
        (torch.ones(2, 4), 1.1, "weakest", "got 1.1"),
        (torch.ones(2, 4), math.nan, "weakest", "got nan"),
        (torch.full((2, 4), math.nan), 0.5, "weakest", "NaN"),
        (torch.ones(2, 4, 4), 0.5, "weakest", r"\(2, 4, 4\)"),
        (torch.ones(2, 4).long(), 0.5, "weakest", "int64"),
        (torch.ones(2, 4), 0.5, "stronges", "Did you mean 'strongest'"),
    ],
)
def test_drop_refuses_bad_input(features, fraction, which, sentence):
    with pytest.raises(ValueError, match=sentence):
        drop_features(features, fraction, which)


def test_the_curve_of_a_handmade_model_is_the_one_worked_out_on_paper():
    """Features are the pixels of a 1x10 image; class 1 wins as long as any of them is above zero
    (bias -0.5 / 255).

    Image k of ten has k + 1 pixels that are not black: dropping the strongest n leaves it right
    while k + 1 > n; dropping the weakest n leaves it right while n < 10, because its strongest
    pixel goes last.
    """
    pixels = torch.zeros(10, 1, 1, 10, dtype=torch.uint8)
    for k in range(10):
        pixels[k, 0, 0, 10 - k - 1 :] = torch.arange(k + 1) + 1
    head = nn.Linear(10, 2)
    with torch.no_grad():
        head.weight.copy_(torch.stack([torch.zeros(10), torch.ones(10)]))
        head.bias.copy_(torch.tensor([0.0, -0.5 / 255]))
    model = PixelModel(nn.Sequential(nn.Flatten(), head), (0.0,), (1.0,))
    images = Images(pixels, torch.ones(10, dtype=torch.int64), ("dark", "lit"))
    fractions = [n / 10 for n in range(11)]
    curve = feature_drop_curve(model, images, fractions)
    assert curve["strongest"] == [[n / 10, 100.0 - 10 * n] for n in range(11)]
    assert curve["weakest"] == [[n / 10, 100.0 if n < 10 else 0.0] for n in range(11)]


@pytest.mark.slow
def test_the_curve_equals_the_whole_model_run_with_edited_features():
    model, images = own(), as_images(40)
    curve = feature_drop_curve(model, images)
    head = model.model.fc
    for which in ("strongest", "weakest"):
        assert [fraction for fraction, _ in curve[which]] == list(FRACTIONS)
        for fraction, accuracy in curve[which]:
            edit = lambda _m, args, f=fraction, w=which: (slow_drop(args[0], f, w),)  # noqa: E731
            with head.register_forward_pre_hook(edit):
                assert accuracy == pytest.approx(
                    100 - top_k_error(predict(model, images), images.labels)
                )
    assert len({accuracy for _, accuracy in curve["strongest"]}) > 2, (
        "a flat curve would compare nothing"
    )
    assert curve["strongest"][0][1] == 100 - top_k_error(predict(model, images), images.labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, head, size",
    [
        ("resnet18", "fc", 32),
        ("preact_resnet18", "fc", 32),
        ("torchvision.resnet18", "fc", 512),
        ("torchvision.vgg11", "classifier.6", 4096),
        ("torchvision.mobilenet_v2", "classifier.1", 1280),
        ("torchvision.densenet121", "classifier", 1024),
        ("torchvision.googlenet", "fc", 1024),
        ("timm.resnet18", "fc", 512),
        ("timm.regnety_002", "head.fc", 368),
        ("timm.convnext_tiny", "head.fc", 768),
    ],
)
def test_the_head_is_found_in_known_models(name, head, size):
    with torch.device("cpu" if "regnety" in name else "meta"):
        options = (
            {"width": 4}
            if "." not in name
            else {"init_weights": False}
            if "googlenet" in name
            else {}
        )
        model = models.create(name, num_classes=10, **options)
    found, module = find_classifier(in_pixels(model))
    assert found == f"model.{head}" and module is model.get_submodule(head)
    assert (module.in_features, module.out_features) == (size, 10)


def test_where_two_heads_could_be_meant_none_is_guessed():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.age, self.kind = nn.Linear(8, 5), nn.Linear(8, 3)

    with pytest.raises(ValueError, match="'kind' or 'age'"):
        find_classifier(TwoHeads())


@pytest.mark.slow
def test_library_models_give_the_vector_their_head_reads():
    for name, size in (("torchvision.mobilenet_v2", 1280), ("timm.regnety_002", 368)):
        model, images = in_pixels(models.create(name, num_classes=10)), as_images(3, size=32)
        features = pooled_features(model, images)
        assert features.shape == (3, size)
        with evaluating(model), torch.no_grad():
            expected = find_classifier(model)[1](features)
        torch.testing.assert_close(expected, predict(model, images), rtol=1e-4, atol=1e-5)


def test_pooled_features_are_the_mean_of_the_last_maps_for_every_batch_size():
    model, images = own(), as_images(7)
    seen = []
    with model.model.layer4.register_forward_hook(
        lambda _m, _a, output: seen.append(output.detach())
    ):
        with evaluating(model), torch.no_grad():
            model(to_float(images.pixels))
    for batch_size in (1, 3, 500):
        torch.testing.assert_close(
            pooled_features(model, images, batch_size), seen[0].mean(dim=(2, 3))
        )


def test_modes_weights_hooks_and_gradients_are_as_before():
    model, images = own().train(), as_images()
    model.model.stem.eval()
    modes = [part.training for part in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    feature_drop_curve(model, images, [0.5])
    assert [part.training for part in model.modules()] == modes and count_hooks(model) == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not pooled_features(model, images).requires_grad
    with pytest.raises(ValueError):
        # refused inside the forward pass: the hook is gone all the same
        pooled_features(model, as_images(channels=1))
    assert count_hooks(model) == 0 and [part.training for part in model.modules()] == modes


class Tokens(nn.Module):
    """A linear layer on every pixel: not one vector per image."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 10)

    def forward(self, images):
        return self.fc(images.flatten(2).mT).mean(dim=1)


class Unused(Tokens):
    """A linear layer that never runs."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


@pytest.mark.parametrize(
    "model, sentence",
    [
        (
            lambda: nn.Sequential(nn.Conv2d(3, 10, 8), nn.Flatten()),
            "ends in a linear layer.*without any",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.Softmax(dim=1)),
            "something comes after it",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.Linear(20, 10), nn.GLU()),
            "something comes after it",
        ),
        (Tokens, r"on one vector per image.*\(20, 64, 3\)"),
        (Unused, "nothing"),
    ],
)
def test_models_that_do_not_end_in_a_linear_layer_are_refused(model, sentence):
    model = in_pixels(model())
    with pytest.raises(ValueError, match=sentence):
        feature_drop_curve(model, as_images())
    assert count_hooks(model) == 0
