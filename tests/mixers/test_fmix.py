"""FMix: the mask from its definition, pixel by pixel, and what the mask must be like."""

import cmath
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import label as connected

from catchup import Draw
from catchup.mixers import make
from catchup.mixers.fmix import low_frequency_image, top_mask


def slow_image(height, width, decay, rng):
    """The definition: white noise over frequencies, divided by f^δ, and the sum of waves that it
    describes.
    """
    columns = width // 2 + 1
    noise = rng.standard_normal((2, height, columns))
    image = np.zeros((height, width))
    for v in range(height):
        for u in range(columns):
            frequency = math.hypot(min(v, height - v) / height, u / width)
            z = (
                complex(noise[0, v, u], noise[1, v, u])
                / max(frequency, 1 / max(height, width)) ** decay
            )
            # the wave and its mirror image; a wave without one is as strong as two halves
            both = math.sqrt(2) if u == 0 or 2 * u == width else 2
            for y in range(height):
                for x in range(width):
                    turn = 2j * math.pi * (v * y / height + u * x / width)
                    image[y, x] += both * (z * cmath.exp(turn)).real / (height * width)
    return image


@pytest.mark.parametrize(
    ("height", "width", "decay"),
    [(6, 6, 3), (5, 8, 3), (8, 5, 1.5), (7, 7, 0), (1, 6, 3), (1, 1, 3)],
)
def test_the_image_is_a_sum_of_filtered_waves(height, width, decay):
    image = low_frequency_image(height, width, decay, np.random.default_rng(3))
    np.testing.assert_allclose(
        image, slow_image(height, width, decay, np.random.default_rng(3)), rtol=1e-9, atol=1e-12
    )


def test_amplitudes_fall_with_the_power_of_the_frequency():
    rng, spectra = np.random.default_rng(0), []
    for _ in range(400):
        spectra.append(np.abs(np.fft.fft2(low_frequency_image(32, 32, 3, rng))) ** 2)
    power = np.mean(spectra, axis=0)
    for near, far in ((1, 2), (2, 4), (3, 6)):
        # amplitudes 2³, powers 2⁶
        assert np.log2(power[0, near] / power[0, far]) == pytest.approx(6, abs=0.5)
        assert np.log2(power[near, 0] / power[far, 0]) == pytest.approx(6, abs=0.5)


@pytest.mark.parametrize("size", [16, 15])
def test_vertical_frequencies_are_as_strong_as_horizontal_ones(size):
    """A half spectrum without its correction gives 0.50; whole spectra, drawn here, 1."""
    rng, whole = np.random.default_rng(0), np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    power, defined = np.zeros((2, size, size))
    for _ in range(1500):
        image = low_frequency_image(size, size, 1.0, rng)
        mask = top_mask(image, 0.5, 0.0, rng)
        power += np.abs(np.fft.fft2(mask - mask.mean())) ** 2
        noise = whole.standard_normal((size, size)) + 1j * whole.standard_normal((size, size))
        real = np.fft.ifft2(noise / np.maximum(frequency, 1 / size)).real
        defined += np.abs(np.fft.fft2(top_mask(real, 0.5, 0.0, whole) - 0.5)) ** 2
    for one in (power, defined):
        assert one[1:, 0].sum() / one[0, 1:].sum() == pytest.approx(1, abs=0.1)
    assert power[1:, 0].sum() / power[1:, 1:].sum() == pytest.approx(
        defined[1:, 0].sum() / defined[1:, 1:].sum(), rel=0.1
    )


def test_a_mask_has_the_brightest_pixels_and_k_next_to_lambda_n():
    for number in range(60):
        rng = np.random.default_rng(number)
        image, lam = rng.standard_normal((5, 7)), rng.random()
        mask = top_mask(image, lam, 0.0, rng)
        k = int(mask.sum())
        brightest = sorted(range(35), key=lambda pixel: -image.flat[pixel])[:k]
        assert set(np.unique(mask)) <= {0, 1} and set(np.flatnonzero(mask)) == set(brightest)
        assert k in (math.floor(lam * 35), math.ceil(lam * 35))


def test_the_mean_of_the_mask_is_lambda_on_average():
    rng = np.random.default_rng(0)
    # 3.33 pixels
    counts = [top_mask(rng.standard_normal((3, 3)), 0.37, 0.0, rng).sum() for _ in range(2000)]
    assert np.mean(counts) == pytest.approx(3.33, abs=4 * math.sqrt(0.33 * 0.67 / 2000))


def test_ties_go_to_the_pixel_that_is_read_first():
    assert top_mask(np.zeros((2, 3)), 0.5, 0.0, np.random.default_rng(0)).tolist() == [
        [1, 1, 1],
        [0, 0, 0],
    ]


@pytest.mark.parametrize("lam", [0.0, 0.03, 0.2, 0.5, 0.77, 0.99, 1.0])
@pytest.mark.parametrize("max_soft", [0.0, 0.1, 0.3, 0.5])
def test_a_soft_edge_keeps_the_mean_and_falls_with_the_brightness(lam, max_soft):
    image = np.random.default_rng(1).standard_normal((10, 10))
    mask = top_mask(image, lam, max_soft, np.random.default_rng(2))
    hard = top_mask(image, lam, 0.0, np.random.default_rng(2))
    assert mask.sum() == pytest.approx(hard.sum()) and mask.min() >= 0 and mask.max() <= 1
    by_brightness = mask.flat[(-image).argsort(axis=None)]
    assert (np.diff(by_brightness) <= 1e-12).all()
    soft = int(100 * min(max_soft, lam, 1 - lam))
    # a straight line from 1 to 0, both ends included
    assert ((mask > 0) & (mask < 1)).sum() == max(2 * soft - 2, 0)


def test_masks_of_decay_3_hang_together_and_those_of_white_noise_do_not():
    def pieces(decay):
        rng = np.random.default_rng(0)
        masks = [
            top_mask(low_frequency_image(32, 32, decay, rng), 0.5, 0.0, rng) for _ in range(20)
        ]
        return np.mean([connected(mask)[1] for mask in masks])

    assert pieces(3) < 10 < 50 < pieces(0)


@pytest.mark.parametrize("rule", ["kept", "lam"])
def test_images_are_mixed_by_one_mask_and_weighted_by_the_rule(rule):
    images, partner = torch.randn(4, 3, 9, 6), [2, 0, 3, 1]
    mixer = make("fmix", seed=0, label_rule=rule)
    result = mixer.mix(images, Draw(0, partner, 0.41, seed=5))
    rng = np.random.default_rng(5)
    mask = top_mask(low_frequency_image(9, 6, 3, rng), 0.41, 0.0, rng)
    assert result.keep.shape == (1, 1, 9, 6) and result.keep.dtype == torch.bool
    for i, j in enumerate(partner):
        for y in range(9):
            for x in range(6):
                assert torch.equal(result.maps[i, :, y, x], images[i if mask[y, x] else j, :, y, x])
    assert (
        result.own_weight == (0.41 if rule == "lam" else mask.mean())
        and abs(result.own_weight - 0.41) < 1 / 54
    )
    assert mask.mean() != 0.41


def test_a_soft_mask_blends_and_has_no_keep():
    images, partner = torch.randn(3, 2, 8, 8), [1, 2, 0]
    result = make("fmix", seed=0, max_soft=0.4).mix(images, Draw(0, partner, 0.5, seed=1))
    rng = np.random.default_rng(1)
    mask = torch.from_numpy(top_mask(low_frequency_image(8, 8, 3, rng), 0.5, 0.4, rng)).float()
    torch.testing.assert_close(result.maps, mask * images + (1 - mask) * images[partner])
    assert (
        result.keep is None
        and result.own_weight == pytest.approx(float(mask.mean()))
        and (mask % 1 > 0).sum() > 40
    )
    identity = make("fmix", seed=0, max_soft=0.4).mix(images, Draw(0, partner, 1.0, seed=1))
    assert torch.equal(identity.maps, images) and identity.own_weight == 1


def test_lambda_zero_is_the_partner_and_seeds_decide_the_mask():
    images, mixer = torch.randn(3, 2, 8, 8), make("fmix", seed=0)
    assert torch.equal(mixer.mix(images, Draw(0, [1, 2, 0], 0.0, seed=1)).maps, images[[1, 2, 0]])
    keeps = [mixer.mix(images, Draw(0, [1, 2, 0], 0.5, seed=seed)).keep for seed in (1, 1, 2)]
    assert torch.equal(keeps[0], keeps[1]) and not torch.equal(keeps[0], keeps[2])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0}, "alpha must be a positive number, got 0"),
        ({"decay": -1}, "decay must be a number ≥ 0, got -1"),
        ({"decay": math.nan}, "decay must be a number ≥ 0, got nan"),
        ({"max_soft": 0.6}, r"max_soft must lie in \[0, 0.5\], got 0.6"),
        ({"label_rule": "kep"}, "Did you mean 'kept'"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make("fmix", **settings)
