"""Deformations: torchvision's affine as oracle, exact cases, a naive sampler, what an accuracy
depends on.
"""

import math

import pytest
import torch
from torch import nn

from catchup.data import Images
from catchup.data.augment import to_float
from catchup.hooks.layers import count_hooks
from catchup.measures.deformation import (
    DEFORMATIONS,
    deform_images,
    deformation_accuracies,
    parse_deformation,
    rotate,
    shear,
    zoom,
)
from catchup.models.inference import PixelModel
from catchup.plots.robustness import deformation_bars

BOTH = pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])


def some(batch=3, height=12, width=12, seed=0):
    return torch.rand(
        batch, 2, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def naive(images, inverse):
    """Bilinear sampling a pixel at a time: `inverse` takes (x, y) in pixels from the centre, y
    down, to the input.
    """
    out = torch.zeros_like(images)
    _, _, height, width = images.shape
    for i in range(height):
        for j in range(width):
            x, y = inverse(j - (width - 1) / 2, i - (height - 1) / 2)
            column, row = x + (width - 1) / 2, y + (height - 1) / 2
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    weight = (1 - abs(row - r)) * (1 - abs(column - c))
                    if 0 <= r < height and 0 <= c < width:
                        out[:, :, i, j] += weight * images[:, :, r, c]
    return out


@BOTH
def test_no_deformation_is_the_identity(interpolation):
    images = some(height=9, width=14)
    for same in (
        rotate(images, 0, interpolation),
        shear(images, 0, interpolation),
        zoom(images, 100, interpolation),
        shear(images, 0, interpolation, "sine"),
    ):
        torch.testing.assert_close(same, images, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        zoom(images.float(), 100, interpolation), images.float(), rtol=0, atol=1e-5
    )


@BOTH
@pytest.mark.parametrize("size", [8, 9])
def test_right_angles_are_rot90(interpolation, size):
    images = some(height=size, width=size)
    for turns in (-1, 1, 2, 3):
        torch.testing.assert_close(
            rotate(images, 90.0 * turns, interpolation), images.rot90(turns, (2, 3))
        )


@BOTH
@pytest.mark.parametrize("shape", [(12, 12), (10, 17)])
@pytest.mark.parametrize("degrees", [-40.0, -7.3, 20.0, 57.3])
def test_rotation_and_shear_agree_with_torchvision(interpolation, shape, degrees):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import affine

    images, mode = some(height=shape[0], width=shape[1]), InterpolationMode(interpolation)
    settings = {"translate": [0, 0], "scale": 1.0, "interpolation": mode}
    torch.testing.assert_close(
        rotate(images, degrees, interpolation),
        affine(images, angle=-degrees, shear=[0.0, 0.0], **settings),
        rtol=0,
        atol=1e-5,
    )
    torch.testing.assert_close(
        shear(images, degrees, interpolation),
        affine(images, angle=0.0, shear=[degrees, 0.0], **settings),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("percent", [60, 80, 120, 140])
def test_zoom_agrees_with_torchvision_and_with_the_naive_sampler(percent):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import affine

    images = some(height=10, width=17)
    theirs = affine(
        images,
        angle=0.0,
        shear=[0.0, 0.0],
        translate=[0, 0],
        scale=100 / percent,
        interpolation=InterpolationMode.BILINEAR,
    )
    torch.testing.assert_close(zoom(images, percent), theirs, rtol=0, atol=1e-5)
    share = percent / 100
    torch.testing.assert_close(
        zoom(images, percent), naive(images, lambda x, y: (share * x, share * y))
    )


def test_the_two_shears_follow_their_definitions():
    images, angle = some(height=7, width=10), math.radians(33)
    torch.testing.assert_close(
        shear(images, 33), naive(images, lambda x, y: (x + math.tan(angle) * y, y))
    )
    torch.testing.assert_close(
        shear(images, 33, form="sine"),
        naive(images, lambda x, y: (math.cos(angle) * x, y - math.sin(angle) * x)),
    )


def test_a_zoom_of_half_or_double_is_what_the_words_say():
    images = some(height=8, width=8)
    twice = zoom(images, 50, "nearest")  # the middle 4 x 4 box, every pixel four times
    torch.testing.assert_close(
        twice, images[:, :, 2:6, 2:6].repeat_interleave(2, 2).repeat_interleave(2, 3)
    )
    ones = torch.ones(1, 1, 8, 8)
    small = zoom(ones, 200, "nearest")
    expected = torch.zeros(1, 1, 8, 8)
    expected[:, :, 2:6, 2:6] = 1
    torch.testing.assert_close(small, expected)


def test_every_image_is_turned_by_its_own_angle_and_left_alone():
    images, angles = some(4), torch.tensor([0.0, 90.0, 180.0, 13.0])
    before = images.clone()
    turned = rotate(images, angles)
    for index, angle in enumerate(angles.tolist()):
        torch.testing.assert_close(
            turned[index : index + 1], rotate(images[index : index + 1], angle)
        )
    assert torch.equal(images, before)


@BOTH
@pytest.mark.parametrize("name", DEFORMATIONS)
def test_values_stay_in_the_pixel_range_and_what_comes_in_is_black(name, interpolation):
    images = torch.ones(2, 3, 16, 16)
    out = deform_images(images, torch.tensor([1.0, -1.0]), name, interpolation)
    assert out.min() >= 0 and out.max() <= 1 + 1e-6
    assert (out.min() == 0).item() == (name not in ("zoom 60", "zoom 80"))


def model_of(pixels, classes=4, seed=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(pixels.shape[1:].numel(), classes)
        )
    return PixelModel(net, (0.5,) * 3, (0.25,) * 3)


def resident(n=41, seed=2):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=rng)
    return Images(pixels, torch.randint(0, 4, (n,), generator=rng), tuple("abcd"))


def test_accuracies_are_those_of_the_deformed_images():
    images = resident()
    model = model_of(images.pixels).train()
    found = deformation_accuracies(model, images, seed=5)
    assert list(found) == list(DEFORMATIONS)
    place = 2 * torch.rand(41, generator=torch.Generator().manual_seed(5), dtype=torch.float64) - 1
    by_hand = {
        "rotate 40": rotate(to_float(images.pixels), 40 * place),
        "shear 57.3": shear(to_float(images.pixels), 57.3 * place),
        "zoom 140": zoom(to_float(images.pixels), 140),
    }
    model.eval()
    for name, batch in by_hand.items():
        right = (model(batch).argmax(1) == images.labels).float().mean().item()
        assert found[name] == pytest.approx(100 * right)


def test_neither_the_batch_size_nor_the_others_change_a_number_and_the_seed_does():
    images = resident()
    model = model_of(images.pixels)
    whole = deformation_accuracies(model, images)
    assert deformation_accuracies(model, images, batch_size=7) == whole
    assert deformation_accuracies(model, images, deformations=("shear 28.6", "zoom 120")) == {
        name: whole[name] for name in ("shear 28.6", "zoom 120")
    }
    other = deformation_accuracies(model, images, seed=1)
    assert other != whole and all(
        other[name] == whole[name] for name in whole if name.startswith("zoom")
    )
    assert deformation_accuracies(model, images, shear_form="sine") != whole
    assert deformation_accuracies(model, images, interpolation="nearest") != whole


def test_the_model_is_left_as_it_was():
    images = resident(9)
    model = model_of(images.pixels).train()
    state, chance = (
        torch.get_rng_state(),
        {name: part.clone() for name, part in model.state_dict().items()},
    )
    deformation_accuracies(model, images)
    assert model.training and count_hooks(model) == 0 and torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(chance[name], part) and part.grad is None
        for name, part in model.named_parameters()
    )


def test_a_model_of_nan_is_an_error_and_no_zero():
    images = resident(3)
    model = model_of(images.pixels)
    nn.init.constant_(model.model[-1].bias, float("nan"))
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        deformation_accuracies(model, images)


@pytest.mark.parametrize(
    "name", ["rotate", "rotate x", "rotate 0", "shear -3", "rotate 181", "zoom inf", "zoom nan"]
)
def test_a_deformation_written_wrong_gets_a_sentence(name):
    with pytest.raises(ValueError, match=rf"rotate DEGREES.*got '{name}'"):
        parse_deformation(name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda images: rotate(images, 10, "cubic"), "unknown interpolation 'cubic'"),
        (lambda images: shear(images, 10, form="cosine"), "unknown form of the shear 'cosine'"),
        (lambda images: shear(images, 90), "below 90 degrees, got 90; form='sine'"),
        (lambda images: zoom(images, 0), "percent must be a finite number greater than 0, got 0"),
        (
            lambda images: rotate(images[0], 10),
            r"floating \(B, C, H, W\), got torch.float64 \(2, 12, 12\)",
        ),
        (lambda images: rotate((255 * images).byte(), 10), "got torch.uint8"),
        (
            lambda images: rotate(images, torch.tensor([1.0, 2.0])),
            r"one for each of 3 images, got \(2,\)",
        ),
        (lambda images: rotate(images, math.inf), "one finite number.*got inf"),
        (
            lambda images: deformation_accuracies(None, None, deformations=["turn 20"]),
            "unknown deformation 'turn'",
        ),
        (
            lambda images: deformation_accuracies(None, None, interpolation="area"),
            "unknown interpolation 'area'",
        ),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(some())


def test_bars_are_means_over_seeds_beside_each_other():
    from matplotlib.figure import Figure

    rows = [
        {
            "method": method,
            "seed": seed,
            "deformation": {"rotate 20": high + seed, "zoom 60": high / 2},
        }
        for method, high in (("baseline", 50.0), ("catchup", 60.0))
        for seed in (0, 1)
    ]
    ax = deformation_bars(rows, Figure().subplots())
    bars = [container for container in ax.containers if hasattr(container, "patches")]
    assert [[bar.get_height() for bar in group] for group in bars] == [[50.5, 25.0], [60.5, 30.0]]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["rotate\n±20°", "zoom\n60 %"]
    # both beside their tick
    assert max(bar.get_x() for bar in (bars[0][0], bars[1][0])) + 0.4 <= 0.5
    with pytest.raises(ValueError, match="same deformations, got rotate 20, zoom 60 and zoom 60"):
        deformation_bars([*rows, {"method": "cutmix", "seed": 0, "deformation": {"zoom 60": 1.0}}])
    with pytest.raises(ValueError, match="no deformation: evaluate it first"):
        deformation_bars([{"method": "cutmix", "seed": 0}])
