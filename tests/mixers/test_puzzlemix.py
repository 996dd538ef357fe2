"""PuzzleMix against the paper written down image by image: every labelling tried, its Algorithm 1
as matrices.
"""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup import Draw
from catchup.mixers.puzzlemix import (
    PuzzleMix,
    block_numbers,
    block_saliency,
    border_distance,
    cell_distances,
    label_prior,
    mask_problem,
    masked_transport,
    move_cells,
)
from conftest import TinyNet


def seed_for(n_blocks, side):
    """A draw's seed that gives this number of blocks."""
    numbers = block_numbers(side, side)
    return next(
        seed for seed in range(999) if np.random.default_rng(seed).choice(numbers) == n_blocks
    )


def pictures(batch=5, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, side, side, generator=generator)
    return images, torch.rand(batch, side, side, generator=generator) ** 3


# -- the paper, one image at a time ----------------------------------------------------------------


def naive_mask(own, other, s, t, n, lam, beta=1.2, gamma=0.5, eta=0.2, reach=4, std=0.25):
    """Eq. 3 by trying all 3^(n·n) masks: images (3, S, S) NumPy, saliency s, t (n, n) of sum 1.

    For shares 0 and 1 the terms of a pair sum to weight · γ · φ(z, z') + const; between them as the
    release does it.
    """
    side = own.shape[1] // n
    reach = math.gcd(reach, side)
    images, weight = {1: own * std, 0: other * std}, beta / (16 * n)

    # mean over the border of |means of `reach` pixels on either side|
    def distance(x, y, cell, step):
        (r, c), down = cell, step == (1, 0)
        steps = []
        for k in range(side // reach):
            if down:
                a = images[x][
                    :,
                    (r + 1) * side - reach : (r + 1) * side,
                    c * side + k * reach : c * side + (k + 1) * reach,
                ]
                b = images[y][
                    :,
                    (r + 1) * side : (r + 1) * side + reach,
                    c * side + k * reach : c * side + (k + 1) * reach,
                ]
            else:
                a = images[x][
                    :,
                    r * side + k * reach : r * side + (k + 1) * reach,
                    (c + 1) * side - reach : (c + 1) * side,
                ]
                b = images[y][
                    :,
                    r * side + k * reach : r * side + (k + 1) * reach,
                    (c + 1) * side : (c + 1) * side + reach,
                ]
            steps.append(np.abs(a.mean(axis=(1, 2)) - b.mean(axis=(1, 2))).mean())
        return np.mean(steps)

    pairs = [
        ((r, c), step)
        for r in range(n)
        for c in range(n)
        for step in ((1, 0), (0, 1))
        if r + step[0] < n and c + step[1] < n
    ]
    phi = {(pair, x, y): distance(x, y, *pair) for pair in pairs for x in (0, 1) for y in (0, 1)}

    def energy(z):
        total = -sum(z[i] * s[i] + (1 - z[i]) * t[i] for i in np.ndindex(n, n))
        for i, step in pairs:
            a, b = z[i], z[i[0] + step[0], i[1] + step[1]]
            # each block pays the mean over what its neighbour may show, half a block half of both
            for x, share in ((1, a), (0, 1 - a)):
                total += weight * gamma * share * np.mean([phi[(i, step), x, y] for y in (0, 1)])
            for y, share in ((1, b), (0, 1 - b)):
                total += weight * gamma * share * np.mean([phi[(i, step), x, y] for x in (0, 1)])
            unlike = sum(
                (1 if x != y else -1) * phi[(i, step), x, y] for x in (0, 1) for y in (0, 1)
            )
            total += weight * (1 + gamma * unlike / 2) * (a - b) ** 2
        p = {0: (1 - lam) ** 2, 0.5: 2 * lam * (1 - lam), 1: lam**2}
        return total - eta / n**2 * sum(math.log(p[value]) for value in z.flat)

    masks = [np.array(z).reshape(n, n) for z in itertools.product((0, 0.5, 1), repeat=n * n)]
    return min(masks, key=energy), energy


def naive_transport(shown, saliency, distance, eps):
    """Algorithm 1 with its matrices, until no cell loses: the place of each cell, as cells by
    place.
    """
    n, v = len(shown), 1e6
    cost = eps * distance - np.outer(saliency, shown)
    while True:
        plan = np.zeros((n, n))
        plan[np.arange(n), cost.argmin(axis=1)] = 1
        conflict = cost * plan + v * v * (1 - plan)
        win = np.zeros((n, n))
        win[conflict.argmin(axis=0), np.arange(n)] = 1
        win *= plan
        lose = (1 - win) * plan
        if not lose.any():
            return win.argmax(axis=0)
        cost = cost + v * lose


def naive_mix(own, other, s, t, n, lam, cells, eps=0.8):
    """The mixed image and the mask, images and saliency (S, S) as NumPy, cells × cells of which are
    moved.
    """
    side = own.shape[1]

    def pooled(saliency, cells):
        k = side // cells
        sums = np.array(
            [
                [saliency[r * k : (r + 1) * k, c * k : (c + 1) * k].sum() for c in range(cells)]
                for r in range(cells)
            ]
        )
        return sums / sums.sum()

    mask, _ = naive_mask(own, other, pooled(s, n), pooled(t, n), n, lam)
    k = side // cells
    fine = np.kron(mask, np.ones((cells // n, cells // n)))
    places = [(r, c) for r in range(cells) for c in range(cells)]
    distance = np.array(
        [[((a - x) ** 2 + (b - y) ** 2) / (cells - 1) ** 2 for x, y in places] for a, b in places]
    )
    shown = []
    for image, saliency, seen in ((own, s, fine > 0), (other, t, fine < 1)):
        source = naive_transport(seen.ravel(), pooled(saliency, cells).ravel(), distance, eps)
        new = np.empty_like(image)
        for place, cell in enumerate(source):
            (r, c), (x, y) = places[place], places[cell]
            new[:, r * k : (r + 1) * k, c * k : (c + 1) * k] = image[
                :, x * k : (x + 1) * k, y * k : (y + 1) * k
            ]
        shown.append(new)
    z = np.kron(mask, np.ones((side // n, side // n)))
    return z * shown[0] + (1 - z) * shown[1], mask


@pytest.mark.parametrize(
    ("side", "cells", "lam"), [(8, 2, 0.3), (16, 4, 0.5), (16, 4, 0.4), (12, 2, 0.62)]
)
def test_the_mixed_image_is_the_papers(side, cells, lam):
    images, saliency = pictures(6, side, seed=side)
    # where two are salient the more salient shows it, and the other's has to move
    saliency[0, 4:8, 4:8] += 1
    saliency[1, 4:8, 4:8] += 4
    partner = torch.tensor([1, 2, 3, 4, 5, 0])
    draw = Draw(0, partner, lam, seed_for(2, side), {"saliency": saliency})
    mixed = PuzzleMix(seed=0).mix(images, draw)
    halves = moves = 0
    for i, j in enumerate(partner.tolist()):
        expected, mask = naive_mix(
            images[i].double().numpy(),
            images[j].double().numpy(),
            saliency[i].double().numpy(),
            saliency[j].double().numpy(),
            2,
            lam,
            cells,
        )
        torch.testing.assert_close(
            mixed.maps[i].double(), torch.from_numpy(expected), atol=1e-6, rtol=0
        )
        assert mixed.own_weight[i] == pytest.approx(mask.mean())
        halves += (mask == 0.5).any()
        z = torch.from_numpy(np.kron(mask, np.ones((side // 2, side // 2))))
        moves += not torch.allclose(
            mixed.maps[i].double(), (z * images[i] + (1 - z) * images[j]).double(), atol=1e-6
        )
    assert halves and (moves or cells == 2)  # two cells are too far apart to move


def test_the_energy_is_eq_3():
    """The problem handed to the solver, at every mask, is the naive energy up to a constant."""
    images, saliency = pictures(2, 8, seed=3)
    s = block_saliency(saliency, 2)
    unary, down, right = mask_problem(
        images[:1] * 0.25,
        images[1:] * 0.25,
        s[:1],
        s[1:],
        0.4,
        n_labels=3,
        beta=1.2,
        gamma=0.5,
        eta=0.2,
        reach=4,
    )
    _, energy = naive_mask(
        *(image.double().numpy() for image in images), *s.double().numpy(), 2, 0.4
    )
    gaps = []
    for labels in itertools.product(range(3), repeat=4):
        z = np.array(labels).reshape(2, 2) / 2
        ours = sum(unary[0, r, c, int(2 * z[r, c])].item() for r, c in np.ndindex(2, 2))
        ours += (down[0].numpy() * (z[1:] - z[:1]) ** 2).sum() + (
            right[0].numpy() * (z[:, 1:] - z[:, :1]) ** 2
        ).sum()
        gaps.append(ours - energy(z))
    assert np.ptp(gaps) < 1e-6


@pytest.mark.parametrize("n", [4, 9, 16])
def test_the_transport_is_the_papers_algorithm(n):
    rng, g = np.random.default_rng(n), math.isqrt(n)
    shown = rng.random((40, n)) < 0.5
    saliency = rng.dirichlet(np.full(n, 0.3), size=40)
    distance = cell_distances(g)
    for eps in (0.0, 0.2, 0.8):
        source = masked_transport(
            torch.from_numpy(shown), torch.from_numpy(saliency), distance.double(), eps
        )
        assert torch.equal(source.sort(dim=1).values, torch.arange(n).expand(40, n))
        for i in range(40):
            assert (
                source[i].tolist()
                == naive_transport(shown[i], saliency[i], distance.numpy(), eps).tolist()
            )


def test_the_transport_is_stable_and_never_hides_saliency_that_was_shown():
    rng = np.random.default_rng(1)
    shown, saliency = (
        torch.from_numpy(rng.random((30, 64)) < 0.4),
        torch.from_numpy(rng.dirichlet(np.ones(64), 30)),
    )
    distance = cell_distances(8).double()
    source = masked_transport(shown, saliency, distance, 0.8)
    seen = (saliency.gather(1, source) * shown).sum(dim=1)
    assert (seen >= (saliency * shown).sum(dim=1) - 1e-12).all() and (
        seen > (saliency * shown).sum(dim=1)
    ).any()
    cost = 0.8 * distance - saliency[:, :, None] * shown[:, None]
    paid = cost.gather(1, source[:, None])[:, 0]  # by place
    by_cell = torch.empty_like(paid).scatter_(1, source, paid)
    assert not ((cost < paid[:, None] - 1e-12) & (cost < by_cell[:, :, None] - 1e-12)).any()


def test_a_worst_case_of_the_transport_ends():
    """All cells want one place, all of them equally much."""
    shown = torch.zeros(2, 64, dtype=torch.bool)
    shown[:, 0] = True
    for saliency in (torch.full((2, 64), 1 / 64), torch.full((2, 64), float("nan"))):
        source = masked_transport(shown, saliency, torch.zeros(64, 64), 0.8)
        assert torch.equal(source.sort(dim=1).values, torch.arange(64).expand(2, 64))


def test_moved_cells():
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    turned = move_cells(images, torch.tensor([[1, 0, 3, 2]]))
    assert turned[0, 0].tolist() == [[2, 3, 0, 1], [6, 7, 4, 5], [10, 11, 8, 9], [14, 15, 12, 13]]
    oblong = torch.randn(2, 3, 4, 8)
    assert torch.equal(move_cells(oblong, torch.arange(4).expand(2, 4)), oblong)


def test_prior_and_distances():
    assert np.exp(-np.array(label_prior(0.3, 3))) == pytest.approx([0.49, 0.42, 0.09])
    assert np.exp(-np.array(label_prior(0.3, 2))) == pytest.approx([0.7, 0.3])
    distance = cell_distances(3)
    assert distance[0].tolist() == [0, 0.25, 1, 0.25, 0.5, 1.25, 1, 1.25, 2] and cell_distances(
        1
    ).tolist() == [[0]]
    flat = torch.zeros(1, 1, 4, 4)
    flat[:, :, 2:] = 1
    assert border_distance(flat, flat, 2, 2).tolist() == [[[1, 1]]]
    assert border_distance(flat, flat.mT, 2, 2).tolist() == [[[0, 1]]]


@pytest.mark.slow
def test_all_blocks_of_the_sides_are_drawn():
    assert block_numbers(32, 32) == (2, 4, 8, 16) and block_numbers(28, 28) == (2, 4)
    assert block_numbers(96, 24) == (2, 4, 8)
    mixer, (images, saliency) = (
        PuzzleMix(beta=0.0, eta=0.0, transport=False),
        pictures(2, 32, seed=2),
    )
    shares = {
        mixer.mix(images, Draw(0, [1, 0], 0.5, seed, {"saliency": saliency})).own_weight[0].item()
        for seed in range(40)
    }
    expected = {
        (block_saliency(saliency, n)[0] > block_saliency(saliency, n)[1]).float().mean().item()
        for n in (2, 4, 8, 16)
    }
    assert shares == expected and len(expected) == 4


def test_cells_of_the_transport():
    mixer = PuzzleMix(seed=0)
    assert [mixer.cells(n, 32, 32) for n in (2, 4, 8, 16)] == [8, 8, 8, 16]
    assert [mixer.cells(n, 224, 224) for n in (2, 4, 8, 16)] == [16, 16, 16, 16]
    assert [PuzzleMix(t_size=-1).cells(n, 64, 64) for n in (2, 4, 8, 16)] == [2, 4, 8, 16]
    assert mixer.cells(2, 12, 24) == 2 and PuzzleMix(t_size=3).cells(2, 12, 24) == 4


def test_a_higher_prior_draws_the_shares_to_lambda_and_smoothness_makes_them_equal():
    images, saliency = pictures(5, 16, seed=4)
    draw = Draw(0, [1, 2, 3, 4, 0], 0.5, seed_for(4, 16), {"saliency": saliency})
    assert (PuzzleMix(eta=1e3).mix(images, draw).own_weight == 0.5).all()
    smooth = PuzzleMix(beta=1e4, gamma=0.0).mask(images, draw, 4)
    assert (smooth == smooth[:, :1, :1]).all()
    free = PuzzleMix(beta=0.0, eta=0.0).mask(images, draw, 4)
    s = block_saliency(saliency, 4)
    # each block goes to the image that is salient there
    assert torch.equal(free, (s > s[draw.partner]).float())


def test_salient_blocks_survive():
    """An image whose saliency is all in one cell shows that cell, whoever it is mixed with."""
    images, saliency = pictures(2, 8, seed=5)
    saliency = torch.zeros_like(saliency)
    saliency[0, :4, :4] = saliency[1, :4, 4:] = 1
    mask = PuzzleMix(seed=0).mask(images, Draw(0, [1, 0], 0.5, 0, {"saliency": saliency}), 2)
    assert mask[0, 0, 0] == mask[1, 0, 1] == 1 and mask[0, 0, 1] == mask[1, 0, 0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_without_a_usable_saliency_all_blocks_count_alike(value):
    images, saliency = pictures(4, 8, seed=6)
    broken = saliency.clone()
    broken[0] = 0
    broken[0, 0, 0] = value
    even = saliency.clone()
    even[0] = 1
    for seed in range(8):
        results = [
            PuzzleMix().mix(images, Draw(0, [1, 2, 3, 0], 0.4, seed, {"saliency": s}))
            for s in (broken, even)
        ]
        assert torch.equal(results[0].maps, results[1].maps) and torch.equal(
            results[0].own_weight, results[1].own_weight
        )
        assert results[0].maps.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), 1e30])
def test_pixels_that_are_no_use_do_not_stop_the_solver(value):
    images, saliency = pictures(4, 32, seed=7)
    images[0, 0, 3, 3] = value
    for n_blocks in (2, 4, 8, 16):
        draw = Draw(0, [1, 2, 3, 0], 0.4, seed_for(n_blocks, 32), {"saliency": saliency})
        share = PuzzleMix().mix(images, draw).own_weight
        assert ((share >= 0) & (share <= 1)).all()


def test_an_odd_side_is_refused_and_so_is_a_draw_without_saliency(tiny):
    with pytest.raises(ValueError, match="even height and width, got 9×8"):
        PuzzleMix(seed=0).loss(tiny, torch.randn(2, 3, 9, 8), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="complete the draw with plan"):
        PuzzleMix(seed=0).mix(torch.randn(2, 3, 8, 8), Draw(0, [1, 0], 0.5))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"n_labels": 1}, "n_labels must be a number ≥ 2, got 1"),
        ({"beta": -1.0}, "beta must be a number ≥ 0, got -1.0"),
        ({"eta": math.nan}, "eta must be a number ≥ 0, got nan"),
        ({"t_size": 0}, "t_size must be ≥ 1, or -1"),
        ({"pixel_std": 0.0}, "pixel_std must be a positive number, got 0.0"),
        ({"alpha": 0.0}, "alpha"),
        ({"clean_lam": -0.1}, "clean_lam"),
        ({"neighbour": 0}, "neighbour"),
        ({"t_eps": math.inf}, "t_eps"),
    ],
)
def test_bad_settings_are_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        PuzzleMix(**setting)


def test_without_transport_values_stay_in_their_place():
    images, saliency = pictures(4, 16, seed=8)
    draw = Draw(0, [1, 2, 3, 0], 0.4, seed_for(4, 16), {"saliency": saliency})
    mixer = PuzzleMix(transport=False)
    z = mixer.mask(images, draw, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    torch.testing.assert_close(
        mixer.mix(images, draw).maps, z * images + (1 - z) * images[draw.partner]
    )


def with_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3), TinyNet())


@pytest.mark.parametrize("criterion", ["ce", "bce_softmax"])
def test_the_saliency_pass_leaves_running_statistics_and_gradients_alone(batch, criterion):
    """And it is cross-entropy's, whatever the mixed images are trained with."""
    model, mixer = with_norm(), PuzzleMix(seed=0, criterion=criterion)
    draw = mixer.draw(7, 0, mixer.rng)
    planned = mixer.plan(model, *batch, draw)
    assert (
        model.training
        and model[0].num_batches_tracked == 0
        and all(p.grad is None for p in model.parameters())
    )
    images = batch[0].clone().requires_grad_()
    F.cross_entropy(model.eval()(images), batch[1], reduction="sum").backward()
    torch.testing.assert_close(planned.extra["saliency"], images.grad.square().sum(dim=1).sqrt())


@pytest.mark.parametrize("criterion", ["ce", "bce_softmax"])
def test_the_clean_loss_is_added_at_no_further_pass(batch, criterion):
    """Value and gradients are those of mixed + clean_lam × clean loss, from two forward passes in
    all.
    """
    model, mixer, passes = with_norm(), PuzzleMix(seed=0, clean_lam=0.7, criterion=criterion), []
    model[1].fc.bias.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    loss = mixer.loss(model, *batch)
    assert len(passes) == 2
    handle.remove()
    (3 * loss).backward()
    draw = mixer.last.draw
    mixed = mixer.mix(batch[0], draw)
    twin = with_norm()
    by_hand = mixer.target(batch[1], draw, mixed).loss(twin(mixed.maps), criterion)
    clean = F.cross_entropy(twin(batch[0]), batch[1])
    clean = clean if criterion == "ce" else 2 * clean / 5  # five classes
    (3 * (by_hand + 0.7 * clean)).backward()
    torch.testing.assert_close(loss, by_hand + 0.7 * clean)
    for (name, ours), theirs in zip(model[1].named_parameters(), twin[1].parameters()):
        if name != "fc.bias":
            torch.testing.assert_close(ours.grad, theirs.grad)
    assert model[1].fc.bias.grad is None and (model.unused.grad == 0).all()
    assert model[0].num_batches_tracked == 2  # the model learns from both


def test_mixing_under_autocast_is_the_same(batch):
    images, saliency = pictures(4, 16, seed=9)
    for n_blocks in (2, 4, 8):
        draw = Draw(0, [1, 2, 3, 0], 0.4, seed_for(n_blocks, 16), {"saliency": saliency})
        plain = PuzzleMix().mix(images, draw)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(PuzzleMix().mix(images, draw).maps, plain.maps)
