"""GuidedMixup against its definition: saliency with NumPy's FFT and plain loops, pairs one after
the other, masks.
"""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from catchup import Draw, count_hooks, models
from catchup.mixers import make
from catchup.mixers.guidedmixup import GuidedMixup, greedy_cycle, greedy_partners, saliency_mask
from catchup.mixers.parts.saliency import blur, spectral_residual, sum_to_one
from conftest import TinyNet

# -- the definition, nothing imported from the package ---------------------------------------------


def slow_spectral_residual(grey: np.ndarray) -> np.ndarray:
    """Hou & Zhang's Eqs., without their square and blur, of one grey image (H, W) in double
    precision.
    """
    height, width = grey.shape
    spectrum = np.fft.fft2(grey)
    log, phase, residual = np.log(np.abs(spectrum)), np.angle(spectrum), np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            near = [
                log[min(max(row + down, 0), height - 1), min(max(column + across, 0), width - 1)]
                for down in (-1, 0, 1)
                for across in (-1, 0, 1)
            ]
            residual[row, column] = log[row, column] - sum(near) / 9
    return np.abs(np.fft.ifft2(np.exp(residual + 1j * phase)))


def slow_blur(saliency: np.ndarray, size: int = 7, sigma: float = 3.0) -> np.ndarray:
    """A Gaussian of size × size pixels; beyond the border the map is mirrored without repeating its
    edge.
    """

    def inside(place, length):
        return -place if place < 0 else 2 * (length - 1) - place if place >= length else place

    half, (height, width), result = size // 2, saliency.shape, np.zeros(saliency.shape)
    weights = {
        (a, b): np.exp(-(a * a + b * b) / (2 * sigma**2))
        for a in range(-half, half + 1)
        for b in range(-half, half + 1)
    }
    for row in range(height):
        for column in range(width):
            result[row, column] = sum(
                weight * saliency[inside(row + a, height), inside(column + b, width)]
                for (a, b), weight in weights.items()
            ) / sum(weights.values())
    return result


def slow_cycle(maps: list[np.ndarray]) -> list[int]:
    """From one of the two farthest apart to the farthest not yet visited, and so on; the last gets
    the first.
    """
    everyone = range(len(maps))
    distance = {
        (i, j): np.sqrt(((maps[i] - maps[j]) ** 2).sum())
        for i in everyone
        for j in everyone
        if i != j
    }
    if not distance:
        return [0]
    first = max(distance, key=lambda pair: (distance[pair], -pair[0]))[0]
    partner, now, left = {}, first, [i for i in everyone if i != first]
    while left:
        partner[now] = max(left, key=lambda j: (distance[now, j], -j))
        now = partner[now]
        left.remove(now)
    partner[now] = first
    return [partner[i] for i in everyone]


def luma(image: torch.Tensor) -> np.ndarray:
    red, green, blue = image.double().numpy()
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize("number", range(12))
def test_equals_the_definition(number):
    rng = np.random.default_rng(number)
    torch.manual_seed(number)
    batch, height, width = (
        int(rng.integers(1, 7)),
        int(rng.integers(5, 13)),
        int(rng.integers(5, 13)),
    )
    images = torch.randn(batch, 3, height, width, dtype=torch.float64)
    mixer = GuidedMixup(seed=0)
    draw = mixer.plan(
        TinyNet(), images, torch.arange(batch) % 5, Draw(0, rng.permutation(batch), 0.3)
    )
    mixed = mixer.mix(images, draw)

    maps = [slow_blur(slow_blur(slow_spectral_residual(luma(image)))) for image in images]
    maps = [saliency / saliency.sum() for saliency in maps]
    partner = slow_cycle(maps)
    assert draw.partner.tolist() == partner
    for i, j in enumerate(partner):
        mask = maps[i] / (maps[i] + maps[j])
        expected = images[i].numpy() * mask + images[j].numpy() * (1 - mask)
        np.testing.assert_allclose(mixed.maps[i].numpy(), expected, atol=1e-9)
        assert mixed.own_weight[i].item() == pytest.approx(mask.mean(), abs=1e-9)
    assert mixed.partner_weight is None and mixed.keep is None


@pytest.mark.parametrize("criterion", ["ce", "bce_softmax"])
def test_gradient_saliency_guides_the_other_variant(criterion):
    """Cross-entropy's, whatever the mixed images are trained with."""
    torch.manual_seed(0)
    model, images, labels = TinyNet(), torch.randn(5, 3, 8, 8), torch.arange(5)
    mixer = GuidedMixup(saliency="ap", criterion=criterion, seed=0)
    draw = mixer.plan(model, images, labels, Draw(0, range(5), 0.3))
    maps = []
    for image, label in zip(images, labels):
        image = image[None].clone().requires_grad_()
        F.cross_entropy(model(image), label[None]).backward()
        saliency = slow_blur(image.grad[0].square().sum(dim=0).sqrt().double().numpy())
        maps.append(saliency / saliency.sum())
    assert draw.partner.tolist() == slow_cycle(maps)
    np.testing.assert_allclose(draw.extra["saliency"].numpy(), np.stack(maps), rtol=1e-4)


# -- spectral residual -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 32), (7, 12), (1, 5), (2, 2)])
def test_spectral_residual_equals_numpys(shape):
    grey = torch.rand(2, 1, *shape, dtype=torch.float64)
    for image, found in zip(grey, spectral_residual(grey)):
        np.testing.assert_allclose(
            found.numpy(), slow_spectral_residual(image[0].numpy()), rtol=1e-8, atol=1e-10
        )
    torch.testing.assert_close(
        spectral_residual(grey.float()).double(), spectral_residual(grey), rtol=1e-3, atol=1e-4
    )


def test_what_differs_from_the_rest_pops_out():
    """Hou & Zhang's claim: what is like the rest is suppressed; here a patch of a grating that runs
    the other way.
    """
    wave = torch.sin(2 * torch.pi * torch.arange(64.0) / 8.3).expand(64, 64)
    image = wave.clone()
    image[28:36, 30:38] = wave.T[28:36, 30:38]
    found = blur(spectral_residual(image[None, None]))[0]
    top, left = divmod(int(found.argmax()), 64)
    assert 28 <= top < 36 and 30 <= left < 38 and found.max() > 5 * found.median()


def test_spectral_residual_knows_no_unit_and_no_gradient():
    images = torch.rand(3, 3, 16, 16, requires_grad=True)
    found = spectral_residual(images)
    for scale in (1 / 255, 255.0, 1e4):
        torch.testing.assert_close(spectral_residual(images * scale), found, rtol=2e-3, atol=1e-5)
    assert not found.requires_grad and (found >= 0).all()


@pytest.mark.parametrize("side", [11, 12, 32])
@pytest.mark.parametrize("colour", [0.1, 1.0, -2.7])
def test_an_image_of_one_colour_is_flat_and_one_of_zeros_zero(side, colour):
    found = spectral_residual(torch.full((1, 3, side, side), colour))
    torch.testing.assert_close(found, found.mean().expand_as(found), rtol=2e-2, atol=0)
    assert found.mean() > 0 and (spectral_residual(torch.zeros(1, 3, side, side)) == 0).all()


def test_long_sides_are_shrunk():
    images = torch.rand(2, 1, 40, 24)
    small = F.interpolate(images, size=(16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(spectral_residual(images, side=16), spectral_residual(small))
    assert torch.equal(spectral_residual(images, side=40), spectral_residual(images))
    with pytest.raises(
        ValueError, match=r"images must be \(B, C, H, W\) floating, got \(2, 40, 24\)"
    ):
        spectral_residual(images[:, 0])


def slow_enlarge(saliency: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, pixels as areas: the centre of pixel i of n lies at (i + 1/2) / n."""
    result = np.zeros(size)
    for row, column in np.ndindex(size):
        places = []
        for place, large, small in zip((row, column), size, saliency.shape):
            at = min(max((place + 0.5) * small / large - 0.5, 0), small - 1)
            low = min(int(at), small - 2)
            places.append(((low, 1 - (at - low)), (low + 1, at - low)))
        result[row, column] = sum(
            saliency[r, c] * weight * other for r, weight in places[0] for c, other in places[1]
        )
    return result


@pytest.mark.slow
def test_large_images_are_blurred_small_enlarged_and_blurred_again():
    """In this order, as in the release; 136 × 130 pixels are looked at as 128 × 128."""
    images = torch.rand(2, 3, 136, 130, dtype=torch.float64)
    _, draw = planned(images)
    small = F.interpolate(images, size=(128, 128), mode="bilinear", antialias=True)
    for image, found in zip(small, draw.extra["saliency"]):
        expected = slow_blur(slow_spectral_residual(luma(image)))
        expected = slow_blur(slow_enlarge(expected, (136, 130)))
        np.testing.assert_allclose(found.numpy(), expected / expected.sum(), rtol=1e-9)


def test_autocast_rounds_nothing():
    images = torch.randn(30, 3, 12, 12)
    mixer, draw = GuidedMixup(seed=0), Draw(0, range(30), 0.5)
    plain = mixer.plan(TinyNet(), images, torch.zeros(30).long(), draw)
    with torch.autocast("cpu", torch.bfloat16):
        cast = mixer.plan(TinyNet(), images, torch.zeros(30).long(), draw)
    assert torch.equal(cast.extra["saliency"], plain.extra["saliency"])
    assert torch.equal(cast.partner, plain.partner)


# -- blur and normalisation ------------------------------------------------------------------------


def test_blur_equals_torchvisions():
    from torchvision.transforms.v2.functional import gaussian_blur

    maps = torch.rand(3, 9, 14)
    once = gaussian_blur(maps, [7, 7], [3.0, 3.0])
    torch.testing.assert_close(blur(maps), once)
    torch.testing.assert_close(blur(maps, (9, 14)), gaussian_blur(once, [7, 7], [3.0, 3.0]))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 9), (4, 4)])
def test_blur_of_small_maps_keeps_a_constant(shape):
    torch.testing.assert_close(blur(torch.full((2, *shape), 0.3)), torch.full((2, *shape), 0.3))


def test_maps_sum_to_one_and_those_that_say_nothing_are_uniform():
    maps = torch.rand(4, 3, 5)
    maps[1], maps[2, 0, 0], maps[3, 1, 2] = 0.0, torch.nan, torch.inf
    found = sum_to_one(maps)
    torch.testing.assert_close(found[0], maps[0] / maps[0].sum())
    assert torch.equal(found[1:], torch.full((3, 3, 5), 1 / 15))


# -- pairs -----------------------------------------------------------------------------------------


def length(distance, partner):
    return sum(distance[i, j] for i, j in enumerate(partner))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 8, 30, 100])
def test_greedy_pairs_are_the_definitions_and_one_cycle(size):
    maps = torch.rand(
        size, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(size)
    )
    before = maps.clone()
    partner = greedy_partners(maps)
    assert partner.tolist() == slow_cycle(list(maps.numpy())) and torch.equal(maps, before)
    now, visited = 0, []
    for _ in range(size):
        visited.append(now)
        now = int(partner[now])
    assert now == 0 and sorted(visited) == list(range(size))


def test_greedy_pairs_are_farther_apart_than_random_ones():
    rng = np.random.default_rng(0)
    points = rng.random((40, 6))
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    random = [length(distance, rng.permutation(40)) for _ in range(200)]
    before = distance.copy()
    assert length(distance, greedy_cycle(distance)) > max(random)
    assert np.array_equal(distance, before)


def test_a_cycle_by_hand():
    """On a line at 0, 1, 4, 10: the ends are farthest apart; from 0 to 10, from there to 1, then 4,
    and back.
    """
    places = np.array([1.0, 10.0, 0.0, 4.0])  # in mixed order
    distance = np.abs(places[:, None] - places)
    partner = greedy_cycle(distance)
    # the first of the farthest pair is image 1 (at 10): 10 → 0 → 4 → 1 → 10
    assert [places[partner[list(places).index(place)]] for place in (10.0, 0.0, 4.0, 1.0)] == [
        0.0,
        4.0,
        1.0,
        10.0,
    ]
    # all alike: still one cycle, lower index first
    assert greedy_cycle(np.zeros((3, 3))).tolist() == [1, 2, 0]


def test_relabelling_the_images_relabels_the_greedy_pairs_up_to_the_direction():
    maps, order = torch.rand(7, 6, 6, dtype=torch.float64), torch.tensor([3, 1, 6, 0, 2, 5, 4])
    pairs = {frozenset((i, int(j))) for i, j in enumerate(greedy_partners(maps))}
    renamed = greedy_partners(maps[order])
    start = {frozenset((int(order[i]), int(order[j]))) for i, j in enumerate(renamed)}
    distance = torch.cdist(maps.flatten(1), maps.flatten(1))
    first, second = divmod(int(distance.argmax()), 7)
    # whichever end it starts from, the farthest are paired
    assert frozenset((first, second)) in pairs & start


# -- the mix ---------------------------------------------------------------------------------------


def planned(images, **settings):
    torch.manual_seed(0)
    mixer = GuidedMixup(seed=0, **settings)
    labels = torch.arange(len(images)) % 5
    return mixer, mixer.plan(TinyNet(), images, labels, Draw(0, range(len(images)), 0.3))


@pytest.mark.parametrize("saliency", ["sr", "ap"])
def test_greedy_mixes_lie_between_the_pair_and_give_both_gradient(saliency):
    images = torch.randn(6, 3, 8, 8, requires_grad=True)
    mixer, draw = planned(images, saliency=saliency)
    mixed = mixer.mix(images, draw)
    assert (draw.partner != torch.arange(6)).all()
    other = images[draw.partner]
    assert (mixed.maps >= images.minimum(other) - 1e-6).all() and (
        mixed.maps <= images.maximum(other) + 1e-6
    ).all()
    assert ((mixed.own_weight > 0) & (mixed.own_weight < 1)).all() and len(
        set(mixed.own_weight.tolist())
    ) == 6
    pair = [(i, int(j)) for i, j in enumerate(draw.partner)]
    for i, j in pair[:2]:
        reached = (
            torch.autograd.grad(mixed.maps[i].sum(), images, retain_graph=True)[0]
            .abs()
            .sum(dim=(1, 2, 3))
            > 0
        )
        assert reached.nonzero().flatten().tolist() == sorted((i, j))


def test_the_two_weights_of_a_cycle_are_one_whole():
    """s_a / (s_a + s_b) of a pair and of its reverse add up to one in every pixel."""
    own, other = sum_to_one(torch.rand(4, 5, 5)), sum_to_one(torch.rand(4, 5, 5))
    torch.testing.assert_close(
        saliency_mask(own, other) + saliency_mask(other, own), torch.ones(4, 5, 5)
    )


def test_pixels_that_say_nothing_are_halved():
    own, other = torch.zeros(1, 2, 2), torch.tensor([[[0.0, 0.3], [0.0, 0.7]]])
    assert saliency_mask(own, other).tolist() == [[[0.5, 0.0], [0.5, 0.0]]]
    assert saliency_mask(other, own).tolist() == [[[0.5, 1.0], [0.5, 1.0]]]


def test_images_that_say_nothing_mix_evenly_with_each_other():
    images = torch.zeros(4, 3, 8, 8)
    images[1], images[2, 0, 3, 3] = 1.0, torch.nan
    mixer, draw = planned(images[:3])
    torch.testing.assert_close(
        draw.extra["saliency"], torch.full((3, 8, 8), 1 / 64), rtol=2e-2, atol=0
    )
    mixed = mixer.mix(images[:3], draw)
    torch.testing.assert_close(mixed.own_weight, torch.full((3,), 0.5), rtol=1e-2, atol=0)
    mixer, draw = planned(torch.stack([images[0], torch.randn(3, 8, 8)]))
    share = mixer.mix(images[:2], draw).own_weight
    # an empty image counts as equally salient everywhere, not as nothing
    assert ((share > 0.1) & (share < 0.9)).all()


def test_a_batch_of_copies_stays_as_it_is():
    images = torch.randn(1, 3, 8, 8).expand(5, 3, 8, 8)
    mixer, draw = planned(images)
    torch.testing.assert_close(mixer.mix(images, draw).maps, images)
    torch.testing.assert_close(mixer.mix(images, draw).own_weight, torch.full((5,), 0.5))


def test_random_pairs_are_the_draws_and_lambda_is_not_used():
    images, partner = torch.randn(5, 3, 8, 8), [2, 0, 1, 4, 3]
    mixer = GuidedMixup(pairing="random", seed=0)
    results = [
        mixer.mix(
            images, mixer.plan(TinyNet(), images, torch.arange(5), Draw(0, partner, lam, seed))
        )
        for lam, seed in ((0.1, 0), (0.9, 7))
    ]
    assert torch.equal(results[0].maps, results[1].maps) and torch.equal(
        results[0].own_weight, results[1].own_weight
    )
    assert planned(images, pairing="random")[1].partner.tolist() == list(range(5))


def test_the_step_labels_with_the_partners_it_found():
    torch.manual_seed(0)
    model, images, labels = TinyNet(), torch.randn(6, 3, 8, 8), torch.arange(6) % 5
    mixer = GuidedMixup(prob=1.0, seed=0)
    loss = mixer.loss(model, images, labels)
    step = mixer.last
    soft = torch.zeros(6, 5)
    for i, j in enumerate(step.draw.partner.tolist()):
        soft[i, labels[i]] += step.own_weight[i]
        soft[i, labels[j]] += 1 - step.own_weight[i]
    torch.testing.assert_close(loss, -(soft * step.logits.log_softmax(dim=1)).sum(dim=1).mean())
    replayed = mixer.loss(model, images, labels, draw=Draw(**step.draw.as_dict()))
    assert torch.equal(replayed, loss) and torch.equal(mixer.last.draw.partner, step.draw.partner)
    assert torch.equal(mixer.loss(model, images, labels, draw=replace(step.draw, extra={})), loss)


# -- cost, statistics, settings --------------------------------------------------------------------


@pytest.mark.parametrize("saliency", ["sr", "ap"])
def test_passes_statistics_and_gradients_of_a_step(saliency):
    torch.manual_seed(0)
    model, forward, backward = models.create("resnet18", num_classes=5, width=4).train(), [], []
    model.stem.register_forward_hook(lambda *_: forward.append(1))
    model.fc.register_full_backward_hook(lambda *_: backward.append(1))
    mixer = GuidedMixup(saliency=saliency, prob=1.0, seed=0)
    loss = mixer.loss(model, torch.randn(4, 3, 16, 16), torch.arange(4))
    assert all(parameter.grad is None for parameter in model.parameters())
    loss.backward()
    assert (len(forward), len(backward)) == mixer.passes == {"sr": (1, 1), "ap": (2, 2)}[saliency]
    assert (
        int(model.stem[1].num_batches_tracked) == 1 and model.training and count_hooks(model) == 2
    )
    assert GuidedMixup.passes == (1, 1)
    for twin in (copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer)), replace(mixer, prob=0.3)):
        assert twin.passes == mixer.passes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"saliency": "ab"}, "unknown saliency 'ab'. Did you mean 'ap'"),
        ({"prob": -0.1}, "got -0.1"),
        ({"pairing": "greed"}, "unknown pairing 'greed'. Did you mean 'greedy'"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError) as error:
        make("guidedmixup", **settings)
    assert words in str(error.value)


def test_mixing_without_the_look_up_says_so():
    with pytest.raises(ValueError, match=r"complete it with plan\(\) first"):
        GuidedMixup().mix(torch.randn(2, 3, 8, 8), Draw(0, [1, 0], 0.5))
