"""Co-Mixup: its objective in loops, every expansion move tried, and masks that are only ever
improved.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup import Draw
from catchup.mixers.comixup import CoMixup, affinity, batch_parts, salient_places
from catchup.mixers.parts.comixup_solver import (
    Problem,
    best_expansion,
    best_labelling,
    counts,
    diversity,
    labelling_energy,
    solve,
)
from conftest import TinyNet


def objective(labels: torch.Tensor, problem: Problem) -> torch.Tensor:
    """What is minimised, (P,), of labels (P, n, g, g) int64; padded outputs do not count."""
    parts, n = problem.real.shape
    cost = problem.cost.repeat_interleave(n, dim=0)
    each = labelling_energy(labels.flatten(0, 1), cost, problem.beta).reshape(parts, n)
    return (each * problem.real).sum(dim=1) + diversity(counts(labels, problem.real), problem)


def problem(parts=3, n=5, side=3, seed=0, tau=5.0, gamma=0.1, sizes=None):
    """A problem with a random cost in [0, 1) and a start of real inputs."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(sizes or [n] * parts)
    cost = torch.rand(parts, n, side, side, generator=generator, dtype=torch.float64)
    pull = torch.rand(parts, n, n, generator=generator, dtype=torch.float32) * 0.1
    start = (
        torch.rand(parts, n, side, side, generator=generator) * sizes[:, None, None, None]
    ).long()
    real = torch.arange(n) < sizes[:, None]
    return Problem(cost.float(), real, torch.eye(n) + pull + pull.mT, 0.1, gamma, tau), start


def naive_energy(labels, cost, beta):
    """One output: labels (g, g), cost (n, g, g)."""
    g, total = len(labels), 0.0
    for y, x in itertools.product(range(g), repeat=2):
        total += float(cost[labels[y][x], y, x])
        total += beta * (y + 1 < g and labels[y][x] != labels[y + 1][x])
        total += beta * (x + 1 < g and labels[y][x] != labels[y][x + 1])
    return total


def naive_objective(labels, problem, part):
    """The module's formula, block by block and pair by pair."""
    n = int(problem.real[part].sum())
    shown = [[int((labels[part, j] == i).sum()) for i in range(n)] for j in range(n)]
    total = sum(
        naive_energy(labels[part, j].tolist(), problem.cost[part], problem.beta) for j in range(n)
    )
    for j in range(n):
        others = [sum(shown[k][i] for k in range(n) if k != j) for i in range(n)]
        for i in range(n):
            used = sum(float(problem.affinity[part, i, k]) * others[k] for k in range(n))
            total += problem.gamma * shown[j][i] * (used if used > problem.tau else 0)
    return total


# -- the solver ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [None, [5, 3, 1]])
@pytest.mark.parametrize("tau", [0.0, 5.0, 12.0])
def test_the_objective_is_the_formula(tau, sizes):
    given, labels = problem(tau=tau, sizes=sizes)
    ours = objective(labels, given)
    for part in range(3):
        assert float(ours[part]) == pytest.approx(naive_objective(labels, given, part), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "n", "beta"), [(2, 4, 0.1), (2, 3, 0.5), (3, 3, 0.1), (3, 3, 1.0), (1, 4, 0.2)]
)
def test_the_best_expansion_is_the_best_of_all_moves(side, n, beta):
    given, start = problem(4, n, side, seed=side)
    moved, energy = best_expansion(start[:, 0], given.cost, beta)
    for part in range(4):
        label = start[part, 0].numpy()
        trials = [
            np.where(np.reshape(move, (side, side)), to, label).tolist()
            for to in range(n)
            for move in itertools.product((False, True), repeat=side * side)
        ]
        least = min(naive_energy(trial, given.cost[part], beta) for trial in trials)
        assert moved[part].tolist() in trials
        assert float(energy[part]) == pytest.approx(least, abs=1e-5)
        assert naive_energy(moved[part].tolist(), given.cost[part], beta) == pytest.approx(
            least, abs=1e-5
        )


def test_a_label_that_is_dearer_everywhere_may_still_be_worth_it():
    """The block in the middle would rather have label 1 than 2, by a little less than its four
    neighbours weigh.
    """
    cost, labels = torch.full((1, 3, 3, 3), 9.0), torch.full((1, 3, 3), 2)
    cost[0, 2], cost[0, 1, 1, 1], labels[0, 1, 1] = 0.0, -3.9, 1
    moved, energy = best_expansion(labels, cost, 1.0)
    assert (moved == 2).all() and float(energy[0]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("beta", [0.02, 0.3, 1.0])
def test_a_labelling_is_a_local_minimum_close_to_the_least(beta):
    given, start = problem(12, 4, 2, seed=3)
    labels = best_labelling(start[:, 0], given.cost, beta)
    found = labelling_energy(labels, given.cost, beta)
    assert (found <= labelling_energy(start[:, 0], given.cost, beta) + 1e-6).all()
    assert (best_expansion(labels, given.cost, beta)[1] >= found - 1e-5).all()
    least = [
        min(
            naive_energy(np.reshape(each, (2, 2)).tolist(), given.cost[part], beta)
            for each in itertools.product(range(4), repeat=4)
        )
        for part in range(12)
    ]
    # the bound of Boykov, Veksler & Zabih
    assert (found.numpy() <= 2 * np.array(least) + 1e-6).all()
    assert np.isclose(found.numpy(), least, atol=1e-5).mean() > 0.7


def test_stopped_early_a_labelling_is_the_best_so_far():
    given, start = problem(6, 8, 4, seed=4)
    energies = [
        labelling_energy(best_labelling(start[:, 0], given.cost, 0.4, moves), given.cost, 0.4)
        for moves in (0, 1, 2, 64)
    ]
    first = torch.minimum(
        labelling_energy(start[:, 0], given.cost, 0.4),
        labelling_energy(given.cost.argmin(dim=1), given.cost, 0.4),
    )
    torch.testing.assert_close(energies[0], first)
    assert all((after <= before + 1e-6).all() for before, after in itertools.pairwise(energies))
    assert (energies[1] < energies[0]).any()


def slow_sweeps(given, labels, part, sweeps):
    """One part, output by output: every labelling is taken, and the best of all is kept."""
    n = int(given.real[part].sum())
    now, values = labels[part].clone(), []
    states = []

    def look():
        whole = labels.clone()
        whole[part] = now
        values.append(naive_objective(whole, given, part))
        states.append(now.clone())

    look()
    for _ in range(sweeps):
        for j in range(n):
            others = [sum(int((now[k] == i).sum()) for k in range(n) if k != j) for i in range(n)]
            cost = given.cost[part, :n].clone()
            for i in range(n):
                used = sum(float(given.affinity[part, i, k]) * others[k] for k in range(n))
                cost[i] += 2 * given.gamma * (used if used > given.tau else 0)
            now[j] = best_labelling(now[j][None], cost[None], given.beta)[0]
            look()
    return states[int(np.argmin(values))], values


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.0, 4.0, 8.0])
@pytest.mark.parametrize("gamma", [0.02, 1.0])
def test_every_labelling_is_taken_and_the_best_seen_returned(tau, gamma):
    given, labels = problem(3, 5, 3, seed=5, tau=tau, gamma=gamma, sizes=[5, 4, 2])
    rose = 0
    for sweeps in (0, 1, 3):
        found = solve(given, labels, sweeps)
        for part in range(3):
            best, values = slow_sweeps(given, labels, part, sweeps)
            n = int(given.real[part].sum())
            assert naive_objective(found, given, part) == pytest.approx(min(values), rel=1e-5)
            assert torch.equal(found[part, :n], best[:n])
            rose += sum(after > before + 1e-4 for before, after in itertools.pairwise(values))
    # else nothing would tell this from a solver that refuses such a labelling
    assert rose or (gamma, tau) != (0.02, 8.0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("gamma", [0.0, 0.02, 1.0])
def test_more_sweeps_are_never_worse_and_none_is_worse_than_the_start(seed, gamma):
    given, labels = problem(4, 6, 3, seed=seed, tau=[0.0, 4.0, 8.0][seed % 3], gamma=gamma)
    before = labels.clone()
    values = [objective(solve(given, labels, sweeps), given) for sweeps in range(6)]
    assert torch.equal(labels, before)
    torch.testing.assert_close(values[0], objective(labels, given))
    assert all((after <= before + 1e-4).all() for before, after in itertools.pairwise(values))
    assert (values[-1] < values[0] - 0.1).all()


@pytest.mark.slow
def test_small_problems_come_close_to_the_least_of_all_labellings():
    """Two outputs of two blocks by two from two inputs: all 2^8 labellings."""
    given, labels = problem(12, 2, 2, seed=9, tau=2.0, gamma=0.3)
    found = [naive_objective(solve(given, labels, 8), given, part) for part in range(12)]
    gaps = []
    for part in range(12):
        every = (
            torch.tensor(each).reshape(1, 2, 2, 2).expand(12, -1, -1, -1)
            for each in itertools.product(range(2), repeat=8)
        )
        gaps.append(found[part] - min(naive_objective(each, given, part) for each in every))
    assert min(gaps) > -1e-5 and np.isclose(gaps, 0, atol=1e-5).mean() > 0.8


@pytest.mark.parametrize(
    ("kind", "most", "images"), [("noise", -16.5, 1.05), ("peaky", -25.0, 2.7)]
)
def test_the_level_that_taking_every_move_reaches(kind, most, images):
    """On 32×32 saliency of 20 images, four draws. Noise: −16.8 and one image an output; a solver
    that refuses what raises the objective ends at 52.7 and five.
    """
    mixer, seen = CoMixup(seed=0), []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        saliency = torch.rand(20, 32, 32, generator=generator)
        if kind == "peaky":
            centre = torch.rand(20, 2, 1, 1, generator=generator) * 32
            rows, columns = torch.arange(32.0)[:, None], torch.arange(32.0)
            square = (rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2
            saliency = 0.2 * saliency + (-square / 72).exp()
        draw = Draw(0, range(20), 1.0, seed)
        given, first = mixer._problem(saliency, draw)[:2]
        found = solve(given, first, mixer.sweeps)
        shown = np.mean([len(set(each.flatten().tolist())) for each in found[0]])
        seen.append([naive_objective(found, given, 0), naive_objective(first, given, 0), shown])
    value, began, shown = np.mean(seen, axis=0)
    assert value < most and began > 200 and shown < images


def test_padding_changes_nothing():
    given, labels = problem(2, 6, 3, seed=6, sizes=[6, 4], tau=3.0)
    found = solve(given, labels, 4)
    alone = Problem(
        given.cost[1:, :4], given.real[1:, :4], given.affinity[1:, :4, :4], 0.1, 0.1, 3.0
    )
    assert torch.equal(solve(alone, labels[1:, :4], 4), found[1:, :4])
    assert (found[1, :4] < 4).all()


def test_without_diversity_all_outputs_are_the_best_one_and_with_it_they_differ():
    given, labels = problem(3, 6, 3, seed=7, tau=0.0)
    alike = solve(replace(given, gamma=0.0), labels, 4)
    energies = torch.stack(
        [labelling_energy(alike[:, j], given.cost, given.beta) for j in range(6)]
    )
    torch.testing.assert_close(energies, energies[:1].expand(6, -1), atol=0.35, rtol=0)
    assert len(alike[0].flatten(1).unique(dim=0)) < 4
    apart = solve(given, labels, 6)
    assert all(len(part.flatten(1).unique(dim=0)) == 6 for part in apart)
    assert (
        diversity(counts(apart, given.real), given) < diversity(counts(alike, given.real), given)
    ).all()


# -- the parts, the places, the affinity -----------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 19, 20, 21, 41, 100, 128])
def test_every_image_is_in_one_part_and_the_sizes_differ_by_one_at_most(batch):
    members, real = batch_parts(torch.randperm(batch), 20)
    assert sorted(members[real].tolist()) == list(range(batch))
    sizes = real.sum(dim=1)
    assert sizes.max() <= 20 and sizes.max() - sizes.min() <= 1 and len(sizes) == -(-batch // 20)


def test_salient_places_and_affinity():
    saliency = torch.rand(6, 12, 16, generator=torch.Generator().manual_seed(8))
    places = salient_places(saliency)
    for i in range(6):
        means = {
            (y, x): float(saliency[i, y : y + 3, x : x + 4].mean())
            for y in range(10)
            for x in range(13)
        }
        assert tuple(places[i].tolist()) == max(means, key=means.get)
    given = affinity(
        torch.tensor([[[0.0, 0], [3, 4], [0, 0]]]), torch.tensor([[True, True, False]]), 0.1
    )
    # two real ones, 7 apart: scaled to 1
    expected = torch.tensor([[0.9, 0.1, 0], [0.1, 0.9, 0], [0, 0, 0.9]])
    torch.testing.assert_close(given[0], expected)
    torch.testing.assert_close(
        affinity(torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool), 0.1)[0],
        0.9 * torch.eye(3),
    )


# -- the method ------------------------------------------------------------------------------------


def drawn(mixer, batch, side=16, seed=0, saliency=None):
    """Images, their draw with masks, and the mix."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, side, side, generator=generator)
    if saliency is None:
        saliency = torch.rand(batch, side, side, generator=generator) ** 3
    draw = Draw(0, torch.randperm(batch, generator=generator), 1.0, seed)
    draw = replace(draw, extra=mixer.masks(saliency, draw))
    return images, draw, mixer.mix(images, draw)


@pytest.mark.parametrize(
    ("batch", "block", "part"), [(7, 4, 20), (9, 2, 4), (1, 4, 20), (23, 4, 20), (5, 1, 2)]
)
def test_blocks_come_from_the_part_and_labels_count_the_area(batch, block, part):
    mixer = CoMixup(seed=0, block=block, part=part)
    images, draw, mixed = drawn(mixer, batch)
    labels, k = torch.arange(batch), 16 // block
    soft = mixer.target(labels, draw, mixed).soft(batch)
    parts = [set(row[is_real].tolist()) for row, is_real in zip(*batch_parts(draw.partner, part))]
    for b in range(batch):
        area = np.zeros(batch)
        own = next(members for members in parts if b in members)
        for number, (y, x) in enumerate(itertools.product(range(block), repeat=2)):
            cell = slice(y * k, (y + 1) * k), slice(x * k, (x + 1) * k)
            origin = int(draw.extra["source"][b, number])
            assert origin in own and torch.equal(mixed.maps[b][:, *cell], images[origin][:, *cell])
            area[origin] += 1 / block**2
        assert soft[b].numpy() == pytest.approx(area, abs=1e-6)
        assert float(mixed.own_weight[b]) == pytest.approx(area[b])
    hard = mixer.target(labels, draw, mixed)
    assert torch.equal(
        mixer.target(F.one_hot(labels).float(), draw, mixed).soft(batch), hard.soft(batch)
    )


def test_masks_are_the_solution_of_the_stated_problem():
    """From the saliency to the problem in loops; the masks are what `solve` makes of it."""
    mixer = CoMixup(seed=0, omega=0.2)
    generator = torch.Generator().manual_seed(9)
    saliency = torch.rand(6, 16, 16, generator=generator) ** 3
    draw = Draw(0, [3, 1, 4, 0, 5, 2], 1.0, 11)
    members, real, chances, start = mixer._chances(draw, torch.device("cpu"))
    assert torch.equal(members, draw.partner[None]) and float(chances.exp().sum()) == pytest.approx(
        1
    )
    cost = torch.empty(1, 6, 4, 4)
    for i, image in enumerate(draw.partner.tolist()):
        for y, x in itertools.product(range(4), repeat=2):
            block = (
                saliency[image, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].sum() / saliency[image].sum()
            )
            cost[0, i, y, x] = -block - 0.05 / 16 * chances[0, i]
    given = Problem(
        cost,
        real,
        affinity(salient_places(saliency)[members], real, 0.2),
        0.32 / 16,
        1 / 16,
        0.83 * 16,
    )
    expected = members[0][solve(given, start, 4).flatten(2)[0]]
    assert torch.equal(mixer.masks(saliency, draw)["source"][draw.partner], expected)


def test_outputs_show_several_inputs_and_differ():
    mixer = CoMixup(seed=0)
    _, draw, mixed = drawn(mixer, 20, seed=1)
    inputs = [len(set(row)) for row in draw.extra["source"].tolist()]
    assert 1.5 < np.mean(inputs) < 8 and len(draw.extra["source"].unique(dim=0)) > 15
    assert (draw.extra["weights"].sum(dim=0) > 0.3).all()  # no image of the part is left out


def test_the_same_draw_gives_the_same_masks_and_another_seed_others():
    mixer = CoMixup(seed=0)
    one, again, other = (drawn(mixer, 9, seed=seed)[1].extra["source"] for seed in (2, 2, 3))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_without_a_usable_saliency_all_blocks_count_alike(value):
    mixer, saliency = (
        CoMixup(seed=0),
        torch.rand(6, 16, 16, generator=torch.Generator().manual_seed(4)),
    )
    broken, even = saliency.clone(), saliency.clone()
    broken[0] = 0
    broken[0, 2, 2] = value
    even[0] = 1
    source = [drawn(mixer, 6, saliency=of)[1].extra["source"] for of in (broken, even)]
    assert torch.equal(*source)
    for nothing in (torch.zeros(6, 16, 16), torch.full((6, 16, 16), float("nan"))):
        _, draw, mixed = drawn(mixer, 6, saliency=nothing)
        assert mixed.maps.isfinite().all() and torch.allclose(
            draw.extra["weights"].sum(dim=1), torch.ones(6)
        )


def with_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3), TinyNet())


@pytest.mark.parametrize("criterion", ["ce", "bce_softmax"])
def test_the_clean_loss_is_added_at_no_further_pass(batch, criterion):
    model, mixer, passes = with_norm(), CoMixup(seed=0, criterion=criterion), []
    with_hook = model.register_forward_hook(lambda *_: passes.append(1))
    loss = mixer.loss(model, *batch)
    with_hook.remove()
    assert len(passes) == 2 and model[0].num_batches_tracked == 2
    loss.backward()
    twin, draw = with_norm(), mixer.last.draw
    mixed = mixer.mix(batch[0], draw)
    p, q = twin(mixed.maps).softmax(dim=1), twin(batch[0]).softmax(dim=1)
    soft, clean = mixer.last.target.soft(5), F.one_hot(batch[1], 5).float()
    if criterion == "ce":
        by_hand = -(soft * p.log()).sum(dim=1).mean() - (clean * q.log()).sum(dim=1).mean()
    else:
        # the clean images are learned by cross-entropy, divided by half the number of classes
        by_hand = F.binary_cross_entropy(p, soft) - 2 / 5 * (clean * q.log()).sum(dim=1).mean()
    by_hand.backward()
    torch.testing.assert_close(loss, by_hand)
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_without_the_clean_loss_the_criterion_of_the_mixed_labels_is_all(batch):
    model, mixer = with_norm(), CoMixup(seed=0, clean_lam=0.0)
    loss = mixer.loss(model, *batch)
    soft = mixer.last.target.soft(5)
    torch.testing.assert_close(
        loss, -(soft * mixer.last.logits.log_softmax(dim=1)).sum(dim=1).mean()
    )
    assert model[0].num_batches_tracked == 1  # the saliency pass moved no running statistic
    alone = batch[0][:1], batch[1][:1]
    plain = F.cross_entropy(model(alone[0]), alone[1])
    torch.testing.assert_close(CoMixup(seed=0, clean_lam=0.0).loss(model, *alone), plain)


def test_masks_are_the_same_under_autocast():
    mixer, (model, labels) = CoMixup(seed=0, clean_lam=0.0), (TinyNet(), torch.arange(6) % 5)
    images, draw, _ = drawn(mixer, 6)
    saliency = torch.rand(6, 16, 16)
    expected = mixer.masks(saliency, draw)["source"]
    with torch.autocast("cpu", torch.bfloat16):
        planned = mixer.plan(model, images, labels, draw)
    assert torch.equal(
        mixer.masks(planned.extra["saliency"], draw)["source"], planned.extra["source"]
    )
    assert expected.shape == planned.extra["source"].shape


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"block": 8}, "block must be one of 1 … 7, got 8"),
        ({"part": 0}, "part must be a number ≥ 1, got 0"),
        ({"alpha": 0.0}, "alpha must be a positive number"),
        ({"omega": 1.5}, r"omega must lie in \[0, 1\], got 1.5"),
        ({"tau": -1.0}, "tau"),
        ({"sweeps": -1}, "sweeps"),
        ({"gamma": float("nan")}, "gamma"),
        ({"eta": -1.0}, "eta"),
        ({"beta": -1.0}, "beta"),
        ({"clean_lam": -1.0}, "clean_lam"),
    ],
)
def test_bad_settings_are_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        CoMixup(**setting)


def test_sides_that_do_not_divide_and_a_draw_without_masks_are_refused(tiny):
    with pytest.raises(ValueError, match="block=4 needs images whose sides it divides, got 10×8"):
        CoMixup(seed=0).loss(tiny, torch.randn(2, 3, 10, 8), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="complete the draw with plan"):
        CoMixup(seed=0).mix(torch.randn(2, 3, 8, 8), Draw(0, [1, 0], 0.5))
