"""ResizeMix against loops written from the paper: one image at a time, one pixel at a time."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from catchup import Draw
from catchup.mixers import make
from catchup.mixers.resizemix import random_corners, small_size


def slow_paste(images, partner, lam, corners):
    """The partner's pixels at evenly spaced places fill the box; nearest means the pixel that holds
    the place.
    """
    height, width = images.shape[-2:]
    h, w = (max(math.floor(math.sqrt(1 - lam) * side + 1e-6), 1) for side in (height, width))
    mixed, keep = images.clone(), torch.ones(len(images), 1, height, width, dtype=torch.bool)
    for i, (j, (top, left)) in enumerate(zip(partner, corners)):
        for y in range(h):
            for x in range(w):
                mixed[i, :, top + y, left + x] = images[j, :, y * height // h, x * width // w]
                keep[i, 0, top + y, left + x] = False
    return mixed, 1 - h * w / (height * width), keep


@pytest.mark.parametrize("seed", range(12))
def test_every_image_gets_its_whole_partner_in_its_own_box(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(4, 14, 2))
    images, partner, lam = (
        torch.randn(6, 3, height, width),
        rng.permutation(6).tolist(),
        1 - rng.uniform(0.1, 0.9) ** 2,
    )
    result = make("resizemix", seed=0).mix(images, Draw(0, partner, lam, seed=seed))
    h, w = small_size(height, width, lam)
    corners = random_corners(
        6, (height - h, width - w), (h, w), np.random.default_rng(seed)
    ).tolist()
    maps, share, keep = slow_paste(images, partner, lam, corners)
    assert (
        torch.equal(result.maps, maps)
        and torch.equal(result.keep, keep)
        and result.own_weight == pytest.approx(share)
    )


def test_boxes_differ_from_image_to_image_and_with_the_seed():
    images, partner = torch.randn(8, 1, 16, 16), list(range(1, 8)) + [0]
    mixer = make("resizemix", seed=0)
    keeps = [mixer.mix(images, Draw(0, partner, 0.75, seed=seed)).keep for seed in (0, 0, 1)]
    assert torch.equal(keeps[0], keeps[1]) and not torch.equal(keeps[0], keeps[2])
    assert len({tuple(keep.flatten().tolist()) for keep in keeps[0]}) > 4
    assert ((~keeps[0]).sum(dim=(1, 2, 3)) == 64).all()  # 8 × 8 each, none clipped


def test_corners_are_centres_over_all_pixels_moved_inside():
    rng, twin = np.random.default_rng(0), np.random.default_rng(0)
    corners = random_corners(4000, (20, 7), (12, 5), rng)
    centres = twin.integers((32, 12), size=(4000, 2))
    for (top, left), (y, x) in zip(corners, centres):  # cut to fit, then moved back to full size
        first, last = max(y - 6, 0), min(max(y - 6, 0) + 12, 32)
        assert top == last - 12 and first >= 0
        first, last = max(x - 2, 0), min(max(x - 2, 0) + 5, 12)
        assert left == last - 5
    assert corners.min(axis=0).tolist() == [0, 0] and corners.max(axis=0).tolist() == [20, 7]
    for side, pixels in ((0, 32), (1, 12)):
        inner = np.bincount(corners[:, side])[1:-1] / 4000
        assert np.abs(inner - 1 / pixels).max() < 5 * math.sqrt(1 / pixels / 4000)


def test_sizes_are_tau_times_the_side_rounded_down_and_never_nothing():
    assert small_size(32, 32, 0.75) == (16, 16) and small_size(10, 20, 1 - 0.3**2) == (3, 6)
    assert small_size(32, 16, 1 - 0.8**2) == (25, 12) and small_size(7, 9, 0.0) == (7, 9)
    assert small_size(8, 8, 1 - 0.1**2) == (1, 1) and small_size(8, 8, 1.0) == (0, 0)
    for side in range(1, 60):  # λ = 1 − τ² loses nothing of a whole number of pixels
        assert all(
            small_size(side, side, 1 - (k / side) ** 2) == (k, k) for k in range(1, side + 1)
        )


def test_tau_is_uniform_over_the_scope():
    mixer, rng = make("resizemix"), np.random.default_rng(0)
    tau = np.sqrt(1 - np.array([mixer.draw_lam(0, rng) for _ in range(4000)]))
    assert 0.1 <= tau.min() < 0.105 and 0.795 < tau.max() <= 0.8
    counts = np.histogram(tau, bins=7, range=(0.1, 0.8))[0] / 4000
    assert np.abs(counts - 1 / 7).max() < 5 * math.sqrt(1 / 7 / 4000)


def test_at_full_size_the_partner_replaces_the_image():
    images = torch.randn(3, 2, 6, 9)
    result = make("resizemix", scope=(1.0, 1.0)).mix(images, Draw(0, [2, 0, 1], 0.0))
    assert (
        torch.equal(result.maps, images[[2, 0, 1]])
        and result.own_weight == 0
        and not result.keep.any()
    )


def test_nothing_of_the_partner_is_cut_off():
    quarters = torch.zeros(1, 4, 16, 16)  # channel k is 1 in the k-th quarter
    for k, (y, x) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
        quarters[0, k, y : y + 8, x : x + 8] = 1
    images = torch.cat([torch.zeros(1, 4, 16, 16), quarters])
    for seed in range(20):
        result = make("resizemix").mix(images, Draw(0, [1, 0], 1 - 0.375**2, seed=seed))  # 6 × 6
        assert result.maps[0].sum(dim=(1, 2)).tolist() == [9, 9, 9, 9]


def test_bilinear_resizes_as_interpolate_does():
    images, partner = torch.randn(4, 3, 12, 8), [3, 2, 0, 1]
    result = make("resizemix", interpolation="bilinear").mix(images, Draw(0, partner, 0.75, seed=3))
    for i, j in enumerate(partner):
        small = F.interpolate(images[j : j + 1], (6, 4), mode="bilinear")[0]
        torch.testing.assert_close(result.maps[i][:, ~result.keep[i, 0]], small.flatten(1))
        assert torch.equal(result.maps[i][:, result.keep[i, 0]], images[i][:, result.keep[i, 0]])


def test_gradients_reach_the_pixels_that_were_used():
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    mixer, draw = make("resizemix"), Draw(0, [1, 0], 0.75, seed=4)
    assert torch.autograd.gradcheck(lambda x: mixer.mix(x, draw).maps, images)
    mixer.mix(images, draw).maps[0].sum().backward()
    own, lent = images.grad[0, 0], images.grad[1, 0]
    assert (
        own.sum() == 48
        and torch.equal(lent[::2, ::2], torch.ones(4, 4, dtype=torch.float64))
        and lent.sum() == 16
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scope": (0.0, 0.8)}, r"0 < low ≤ high ≤ 1, got \(0.0, 0.8\)"),
        ({"scope": (0.5, 0.4)}, "0 < low ≤ high ≤ 1"),
        ({"scope": (0.5, 1.4)}, "0 < low ≤ high ≤ 1"),
        ({"scope": (0.5,)}, "scope must be two shares"),
        ({"interpolation": "bilinaer"}, "Did you mean 'bilinear'"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make("resizemix", **settings)
