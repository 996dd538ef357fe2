"""AugMix: its operations image by image against torchvision and Pillow, its mixture against a loop,
its divergence.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as theirs

from catchup.data.augment import normalise, to_float
from catchup.mixers import make
from catchup.mixers.regularisers.augmix import (
    AugMix,
    Chains,
    draw_chains,
    jensen_shannon,
    mix_chains,
    stored_pixels,
)
from catchup.mixers.regularisers.augmix_operations import OPERATIONS, amounts, apply_operations

BILINEAR = InterpolationMode.BILINEAR
MEAN, STD = (0.5, 0.4, 0.45), (0.25, 0.2, 0.3)


def photos(number: int, height: int = 20, width: int = 26) -> torch.Tensor:
    """Smooth uint8 images, each channel with a range of its own; the last one is of a single
    colour.
    """
    noise = torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(number))
    smooth = F.avg_pool2d(noise, 3, 1, 1) * torch.rand(
        number, 3, 1, 1, generator=torch.Generator().manual_seed(1)
    )
    pixels = (255 * smooth).round().to(torch.uint8)
    pixels[-1] = 77
    return pixels


def affine(image, translate=(0, 0), shear=(0.0, 0.0)):
    return theirs.affine(
        image,
        angle=0.0,
        translate=list(translate),
        scale=1.0,
        shear=list(shear),
        interpolation=BILINEAR,
        center=[0, 0],
    )


def slope(value: float) -> float:
    return math.degrees(math.atan(value))


ORACLES = {  # image (C, H, W) uint8 and amount, as torchvision does it
    "autocontrast": lambda image, amount: theirs.autocontrast(image),
    "equalize": lambda image, amount: theirs.equalize(image),
    "posterize": lambda image, amount: theirs.posterize(image, int(amount)),
    "rotate": lambda image, amount: theirs.rotate(image, amount, interpolation=BILINEAR),
    "solarize": lambda image, amount: theirs.solarize(image, amount) if amount < 256 else image,
    "shear_x": lambda image, amount: affine(image, shear=(slope(amount), 0.0)),
    "shear_y": lambda image, amount: affine(image, shear=(0.0, slope(amount))),
    "translate_x": lambda image, amount: affine(image, translate=(-amount, 0)),
    "translate_y": lambda image, amount: affine(image, translate=(0, -amount)),
}


def pillow(image: torch.Tensor, name: str, amount: float) -> torch.Tensor:
    """One operation as Pillow does it, whose definitions the paper's code uses."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    maps = {
        "shear_x": (1, amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, 0),
        "translate_x": (1, 0, amount, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, amount),
    }
    done = {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "posterize": lambda: (
            ImageOps.posterize(picture, int(amount)) if amount else picture.point(lambda _: 0)
        ),
        "solarize": lambda: ImageOps.solarize(picture, int(amount)),
        "rotate": lambda: picture.rotate(amount, resample=Image.Resampling.BILINEAR),
    }
    result = (
        done[name]()
        if name in done
        else picture.transform(
            picture.size, Image.Transform.AFFINE, maps[name], resample=Image.Resampling.BILINEAR
        )
    )
    return torch.from_numpy(np.array(result)).permute(2, 0, 1)


def leveled(name: str, number: int, height: int, width: int) -> np.ndarray:
    """Amounts of one operation over all strengths and both directions."""
    kinds, levels = np.full(number, OPERATIONS.index(name)), np.linspace(-10, 10, number)
    return amounts(kinds, levels, height, width)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions_image_by_image(name):
    pixels = photos(24)
    amount = leveled(name, 24, 20, 26)
    before = pixels.clone()
    result = apply_operations(pixels, np.full(24, OPERATIONS.index(name)), amount)
    assert result.dtype == torch.uint8 and torch.equal(pixels, before)
    expected = torch.stack(
        [ORACLES[name](image, float(value)) for image, value in zip(pixels, amount)]
    )
    off = (result.int() - expected.int()).abs()
    if name in ("equalize", "posterize", "solarize", "translate_x", "translate_y"):
        assert off.max() == 0
    else:  # float32 rounds a half up or down; torchvision's autocontrast cuts where it should not
        assert off.max() <= 1 and (off > 0).float().mean() < (
            0.1 if name == "autocontrast" else 0.005
        )


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_pillows_but_for_the_border_of_a_warp(name):
    pixels = photos(12)
    amount = leveled(name, 12, 20, 26)
    result = apply_operations(pixels, np.full(12, OPERATIONS.index(name)), amount)
    expected = torch.stack(
        [pillow(image, name, float(value)) for image, value in zip(pixels, amount)]
    )
    off = (result.int() - expected.int()).abs()
    # a pixel on the border is blended with the black around
    if name in ("rotate", "shear_x", "shear_y"):
        inside = torch.stack(
            [
                pillow(torch.full_like(image, 255), name, float(value))
                for image, value in zip(pixels, amount)
            ]
        ).float()
        # two pixels away from black in every direction
        inside = F.max_pool2d(255 - inside, 5, 1, 2) == 0
        edge = torch.zeros_like(inside)
        edge[..., 2:-2, 2:-2] = True
        assert (inside & edge).float().mean() > 0.3 and off[inside & edge].max() <= 1
    elif name == "autocontrast":
        # Pillow cuts a double a little below a whole number
        assert off.max() <= 1 and (off > 0).float().mean() < 0.005
    else:
        assert off.max() == 0


def test_each_image_gets_its_own_operation_and_none_where_none_is_drawn():
    pixels = photos(40)
    rng = np.random.default_rng(0)
    kinds, levels = rng.integers(-1, len(OPERATIONS), 40), rng.uniform(-10, 10, 40)
    amount = amounts(kinds, levels, 20, 26)
    result = apply_operations(pixels, kinds, amount)
    for index, kind in enumerate(kinds):
        alone = apply_operations(
            pixels[index : index + 1], kinds[index : index + 1], amount[index : index + 1]
        )
        assert torch.equal(result[index], alone[0])
        if kind == -1:
            assert torch.equal(result[index], pixels[index])


@pytest.mark.parametrize(
    ("name", "level", "amount"),
    [
        ("posterize", 3.0, 3),
        ("posterize", -2.4, 4),
        ("posterize", 10.0, 0),
        ("solarize", 3.0, 180),
        ("solarize", -0.1, 254),
        ("rotate", 3.0, 9),
        ("rotate", -2.99, -8),
        ("shear_x", 3.0, 0.09),
        ("shear_y", -1.0, -0.03),
        ("translate_x", 3.0, 3),
        ("translate_x", -2.0, -2),
        ("translate_y", 3.0, 6),
        ("autocontrast", 3.0, 0),
        ("equalize", -3.0, 0),
    ],
)
def test_strengths_are_those_of_the_released_code(name, level, amount):
    """int(level · 4 / 10) bits fewer, int(level · 30 / 10) degrees, int(level · side / 3 / 10)
    pixels, and so on.
    """
    found = amounts(np.array([OPERATIONS.index(name)]), np.array([level]), 64, 32)
    assert found[0] == pytest.approx(amount)


def test_what_is_drawn():
    chains = draw_chains(3000, 3, None, 3.0, 1.0, np.random.default_rng(0))
    used = chains.kinds >= 0
    lengths = used.sum(axis=0)
    # ended chains stay ended
    assert chains.kinds.shape == (3, 3, 3000) and (np.sort(~used, axis=0) == ~used).all()
    assert [np.isclose((lengths == length).mean(), 1 / 3, atol=0.02) for length in (1, 2, 3)] == [
        True
    ] * 3
    shares = np.bincount(chains.kinds[used], minlength=9) / used.sum()
    assert np.abs(shares - 1 / 9).max() < 5 * (1 / 9 / used.sum()) ** 0.5
    strength = np.abs(chains.levels)
    assert strength.min() >= 0.1 and strength.max() <= 3 and abs(strength.mean() - 1.55) < 0.02
    assert abs((chains.levels < 0).mean() - 0.5) < 0.02
    assert np.allclose(chains.weights.sum(axis=0), 1) and chains.weights.shape == (3, 3000)
    # Dirichlet(1, 1, 1); of Beta(1, 1) it is 1/12
    assert abs(chains.weights.var() - 1 / 18) < 0.003
    assert abs(chains.own.mean() - 0.5) < 0.02 and abs(chains.own.var() - 1 / 12) < 0.005
    fixed = draw_chains(10, 2, 4, 1.0, 1.0, np.random.default_rng(0))
    assert fixed.kinds.shape == (4, 2, 10) and (fixed.kinds >= 0).all()


def slow_augmix(image: torch.Tensor, chains: Chains, index: int) -> torch.Tensor:
    """Algorithm 1 for one image (C, H, W) uint8 with what was drawn for it, operation by
    operation.
    """
    height, width = image.shape[1:]
    mixture = torch.zeros(image.shape)
    for chain in range(chains.kinds.shape[1]):
        augmented = image
        for kind, level in zip(chains.kinds[:, chain, index], chains.levels[:, chain, index]):
            if kind == -1:
                break
            amount = amounts(np.array([kind]), np.array([level]), height, width)[0]
            augmented = ORACLES[OPERATIONS[kind]](augmented, float(amount))
        mixture += (
            float(chains.weights[chain, index]) * normalise(to_float(augmented[None]), MEAN, STD)[0]
        )
    clean = normalise(to_float(image[None]), MEAN, STD)[0]
    return float(chains.own[index]) * clean + (1 - float(chains.own[index])) * mixture


def test_the_mixture_is_algorithm_1_image_by_image(monkeypatch):
    pixels = photos(10)
    images = normalise(to_float(pixels), MEAN, STD)
    drawn = []
    monkeypatch.setattr(
        "catchup.mixers.regularisers.augmix.draw_chains",
        lambda *settings: drawn.append(draw_chains(*settings)) or drawn[-1],
    )
    before = images.clone()
    one, two = AugMix(mean=MEAN, std=STD).augment(images, seed=5)
    assert torch.equal(images, before) and not torch.allclose(one, two, atol=0.1)
    for offset, result in ((0, one), (10, two)):
        for index in range(10):
            expected = slow_augmix(pixels[index], drawn[0], offset + index)
            # a value may be off by 1/255 after each operation
            assert (result[index] - expected).abs().mean() < 0.01


def test_weights_of_one_chain_give_that_chain():
    pixels, chains = photos(6), draw_chains(6, 3, None, 3.0, 1.0, np.random.default_rng(1))
    alone = chains._replace(weights=np.eye(3)[:, [1] * 6])
    expected = pixels
    for step in range(3):
        amount = amounts(chains.kinds[step, 1], chains.levels[step, 1], 20, 26)
        expected = apply_operations(expected, chains.kinds[step, 1], amount)
    assert torch.equal(mix_chains(pixels, alone), expected.float())


def test_severity_decides_how_far_images_go():
    images = normalise(to_float(photos(30)), MEAN, STD)
    far = [
        (AugMix(mean=MEAN, std=STD, severity=severity).augment(images, 3)[0] - images).abs().mean()
        for severity in (0.1, 3.0, 10.0)
    ]
    assert far[0] < far[1] < far[2]


# -- the divergence --------------------------------------------------------------------------------


def test_the_divergence_is_the_mean_of_three_divergences_from_the_mean():
    logits = [torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    total = 0.0
    for row in range(6):
        p = [one[row].double().softmax(dim=0).tolist() for one in logits]
        mean = [sum(values) / 3 for values in zip(*p)]
        total += sum(sum(a * math.log(a / m) for a, m in zip(one, mean)) for one in p) / 3
    assert jensen_shannon(*logits).item() == pytest.approx(total / 6, rel=1e-5)
    assert jensen_shannon(logits[0], logits[0], logits[0]).abs() < 1e-6
    far = torch.eye(3) * 1e4
    # its largest value, without NaN
    assert jensen_shannon(*far[:, None]).item() == pytest.approx(math.log(3))
    assert jensen_shannon(*[one.half() for one in logits]).dtype == torch.float32


# -- in a step -------------------------------------------------------------------------------------


def test_the_loss_is_the_methods_plus_twelve_divergences_of_one_joint_pass(tiny, batch):
    pixels, (_, labels) = photos(7, 8, 8), batch
    images = normalise(to_float(pixels), MEAN, STD)
    plain, mixer = (
        make("cutmix", seed=0, regularisers=found) for found in ((), (AugMix(mean=MEAN, std=STD),))
    )
    with torch.no_grad():
        tiny.fc.weight *= 50  # untrained, it says almost the same of every image
        tiny.fc.bias -= tiny(images).mean(dim=0)
    sizes = []
    tiny.stem.register_forward_hook(lambda _m, _a, maps: sizes.append(len(maps)))
    loss = mixer.loss(tiny, images, labels)
    assert sizes == [7, 21]
    one, two = AugMix(mean=MEAN, std=STD).augment(images, mixer.last.draw.seed)
    divergence = jensen_shannon(tiny(images), tiny(one), tiny(two))
    assert divergence > 1e-3
    expected = plain.loss(tiny, images, labels) + 12 * divergence
    # large logits make rounding large
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)


def test_batch_norm_sees_the_three_batches_together():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(48, 4))
    images = normalise(to_float(photos(5, 4, 4)), MEAN, STD)
    augmix, seen = AugMix(mean=MEAN, std=STD), []
    model[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    augmix.extra_loss(model, images, 3)
    one, two = augmix.augment(images, 3)
    assert torch.equal(seen[0], torch.cat([images, one, two])) and model[0].num_batches_tracked == 1


def test_grey_images_one_number_for_all_channels_and_the_memory_format():
    grey = normalise(to_float(photos(4)[:, :1]), (0.5,), (0.25,))
    one, _ = AugMix(mean=0.5, std=0.25).augment(grey, 0)
    assert one.shape == grey.shape
    colour = normalise(to_float(photos(4)), (0.5,) * 3, (0.25,) * 3)
    several, _ = AugMix(mean=(0.5, 0.5, 0.5), std=0.25).augment(colour, 0)
    assert torch.equal(several, AugMix(mean=0.5, std=0.25).augment(colour, 0)[0])
    last = colour.contiguous(memory_format=torch.channels_last)
    again, _ = AugMix(mean=0.5, std=0.25).augment(last, 0)
    assert torch.equal(again, several) and again.is_contiguous(memory_format=torch.channels_last)
    assert AugMix(mean=0.5, std=0.25).augment(colour.bfloat16(), 0)[0].dtype == torch.bfloat16


def test_pixels_come_back_exactly():
    pixels = photos(6)
    assert torch.equal(stored_pixels(normalise(to_float(pixels), MEAN, STD), MEAN, STD), pixels)


def test_it_must_know_how_the_images_were_normalised(tiny, batch):
    images = normalise(to_float(photos(7, 8, 8)), MEAN, STD)
    with pytest.raises(
        ValueError, match="must know what the images were normalised with: give mean and std"
    ):
        make("cutmix", seed=0, regularisers=("augmix",)).loss(tiny, images, batch[1])
    with pytest.raises(
        ValueError, match="these images reach from .* they were normalised with others"
    ):
        AugMix(mean=0.0, std=1.0).extra_loss(tiny, images, 0)
    with pytest.raises(ValueError, match="a number for each of 3 channels, not 2 and 3"):
        AugMix(mean=(0.5, 0.5), std=STD).extra_loss(tiny, images, 0)
    with pytest.raises(ValueError, match="every std must be greater than 0"):
        AugMix(mean=0.5, std=0.0).extra_loss(tiny, images, 0)
    told = AugMix(weight=3.0).for_data(MEAN, STD)
    assert (
        told == AugMix(weight=3.0, mean=MEAN, std=STD) and told.for_data((0,) * 3, (1,) * 3) == told
    )
