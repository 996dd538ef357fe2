"""The batched crop and flip against one image at a time in NumPy, fed with the same offsets."""

import numpy as np
import pytest
import torch

from catchup.data.augment import Augmentation, crop_and_flip, crops, draw_crops, normalise, to_float


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def some_pixels(batch=5, channels=3, height=6, width=7, seed=1):
    return torch.randint(
        0, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator(seed)
    )


def slow_crops(pixels, pad, mode, top, left, flipped):
    """The definition with np.pad, image by image."""
    out = []
    for image, y, x, mirror in zip(pixels, top, left, flipped, strict=True):
        wide = np.pad(
            image,
            ((0, 0), (pad, pad), (pad, pad)),
            mode={"zero": "constant", "reflect": "reflect"}[mode],
        )
        window = wide[:, y : y + image.shape[1], x : x + image.shape[2]]
        out.append(window[:, :, ::-1] if mirror else window)
    return np.stack(out)


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("batch", "channels", "pad"), [(1, 1, 0), (1, 3, 5), (64, 3, 4), (9, 1, 1)]
)
def test_crops_equal_the_naive_loop(batch, channels, pad, flip, mode):
    pixels, augmentation = some_pixels(batch, channels), Augmentation(pad, mode, flip)
    before = pixels.clone()
    draw = draw_crops(batch, augmentation, generator(2))
    expected = slow_crops(pixels.numpy(), pad, mode, *(part.tolist() for part in draw))
    np.testing.assert_array_equal(crops(pixels, augmentation, draw).numpy(), expected)
    np.testing.assert_array_equal(
        crop_and_flip(pixels, augmentation, generator(2)).numpy(), expected
    )
    assert torch.equal(pixels, before)


def test_offsets_and_flips_cover_their_range_evenly():
    draw = draw_crops(20_000, Augmentation(pad=2, flip=True), generator())
    for offset in (draw.top, draw.left):
        share = torch.bincount(offset, minlength=5) / 20_000
        assert share.shape == (5,) and (share - 0.2).abs().max() < 0.015  # 5 standard deviations
    assert abs(draw.flipped.float().mean() - 0.5) < 0.018
    assert abs(np.corrcoef(draw.top, draw.left)[0, 1]) < 0.036


def test_same_seed_same_crops_and_the_global_generator_is_left_alone():
    pixels, augmentation = some_pixels(32), Augmentation(3, flip=True)
    state = torch.get_rng_state()
    first, again, other = (
        crop_and_flip(pixels, augmentation, generator(seed)) for seed in (4, 4, 5)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_consecutive_batches_differ():
    chance, pixels = generator(), some_pixels(32)
    first, second = (crop_and_flip(pixels, Augmentation(3), chance) for _ in range(2))
    assert not torch.equal(first, second)


def test_every_value_comes_from_its_own_image():
    pixels = torch.arange(1, 9, dtype=torch.uint8)[:, None, None, None].expand(8, 3, 6, 6)
    cut = crop_and_flip(pixels, Augmentation(2, "reflect", True), generator())
    assert torch.equal(cut, pixels)


@pytest.mark.parametrize("arguments", [{"pad": -1}, {"pad": 1.5}, {"pad": True}, {"flip": 1}])
def test_bad_settings_are_refused(arguments):
    with pytest.raises(
        ValueError,
        match=f"^{next(iter(arguments))} must be .* got {next(iter(arguments.values()))}",
    ):
        Augmentation(**arguments)


def test_an_unknown_pad_mode_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown pad_mode 'reflekt'\. Did you mean 'reflect'\?"):
        Augmentation(pad_mode="reflekt")


def test_reflected_border_as_wide_as_the_image_is_refused():
    with pytest.raises(ValueError, match="smaller than the image, got pad 6 for 6 x 7$"):
        crop_and_flip(some_pixels(), Augmentation(6, "reflect"), generator())


@pytest.mark.parametrize(
    "pixels", [torch.zeros(3, 6, 6, dtype=torch.uint8), torch.zeros(2, 3, 6, 6)]
)
def test_other_pixels_are_refused(pixels):
    with pytest.raises(ValueError, match=r"pixels must be uint8 \(B, C, H, W\)"):
        crop_and_flip(pixels, Augmentation(1), generator())


def test_a_draw_for_another_batch_is_refused():
    with pytest.raises(ValueError, match="the draw is for 4 images, got 5"):
        crops(some_pixels(5), Augmentation(1), draw_crops(4, Augmentation(1), generator()))


def test_to_float_divides_by_255():
    assert torch.equal(
        to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)), torch.tensor([0.0, 0.2, 1.0])
    )
    with pytest.raises(ValueError, match="must be uint8, got torch.float32"):
        to_float(torch.zeros(2))


def test_normalise_equals_torchvision():
    from torchvision.transforms.functional import normalize

    images, mean, std = to_float(some_pixels()), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    torch.testing.assert_close(normalise(images, mean, std), normalize(images, mean, std))
    assert normalise(images.double(), mean, std).dtype == torch.float64


def test_normalise_passes_the_gradient_on():
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True, generator=generator())
    assert torch.autograd.gradcheck(
        lambda x: normalise(x, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)), images
    )


@pytest.mark.parametrize(
    ("images", "mean", "std", "says"),
    [
        (torch.zeros(2, 3, 4, 4), (0.5,), (0.5,), "3 channels, not 1 and 1"),
        (torch.zeros(2, 1, 4, 4), (0.5,), (0.0,), "std must be greater than 0"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), (0.5,), (0.5,), "must be floating"),
        (torch.zeros(1, 4, 4), (0.5,), (0.5,), "must be floating"),
    ],
)
def test_normalise_refuses(images, mean, std, says):
    with pytest.raises(ValueError, match=says):
        normalise(images, mean, std)
