"""The exact label problems: the least energy of all labellings, both ways, and gco where it is
installed.
"""

import itertools

import numpy as np
import pytest
import torch

from catchup.mixers.parts.graphcut import (
    capacity_scale,
    cheapest_rows,
    grid_labels,
    labels_by_cut,
    labels_by_rows,
    row_states,
)


def grid_energy(
    labels: torch.Tensor,
    unary: torch.Tensor,
    down: torch.Tensor,
    right: torch.Tensor,
    power: int = 2,
) -> torch.Tensor:
    """E of these labels, (B,) in the dtype of `unary`; `labels` (B, H, W) int64, the rest as in
    `grid_labels`.
    """
    z = labels.to(unary.dtype) / (unary.shape[-1] - 1)
    total = unary.gather(3, labels[..., None]).sum(dim=(1, 2, 3))
    total = total + (down * (z[:, 1:] - z[:, :-1]).abs() ** power).sum(dim=(1, 2))
    return total + (right * (z[:, :, 1:] - z[:, :, :-1]).abs() ** power).sum(dim=(1, 2))


WAYS = {"rows": labels_by_rows, "cut": labels_by_cut}


def problem(batch, height, width, n_labels, seed, weight=1.0):
    rng = np.random.default_rng(seed)
    unary = torch.from_numpy(rng.normal(size=(batch, height, width, n_labels)))
    down = torch.from_numpy(weight * rng.random((batch, height - 1, width)))
    right = torch.from_numpy(weight * rng.random((batch, height, width - 1)))
    return unary, down, right


def energy(labels, unary, down, right, power):
    """E of one labelling of one image, block by block: unary (H, W, K), labels a nested tuple (H,
    W).
    """
    height, width, n_labels = unary.shape
    total = 0.0
    for y, x in itertools.product(range(height), range(width)):
        total += unary[y, x, labels[y][x]]
        if y + 1 < height:
            total += down[y, x] * abs((labels[y][x] - labels[y + 1][x]) / (n_labels - 1)) ** power
        if x + 1 < width:
            total += right[y, x] * abs((labels[y][x] - labels[y][x + 1]) / (n_labels - 1)) ** power
    return total


def least(unary, down, right, power):
    """The least energy of one image, over all labellings at once (checked against `energy`
    below).
    """
    height, width, n_labels = unary.shape
    every = np.array(list(itertools.product(range(n_labels), repeat=height * width))).reshape(
        -1, height, width
    )
    y, x = np.mgrid[:height, :width]
    total = unary[y, x, every].sum(axis=(1, 2))
    total += (down * np.abs(np.diff(every, axis=1) / (n_labels - 1)) ** power).sum(axis=(1, 2))
    total += (right * np.abs(np.diff(every, axis=2) / (n_labels - 1)) ** power).sum(axis=(1, 2))
    best = total.argmin()
    assert total[best] == pytest.approx(energy(every[best], unary, down, right, power))
    return total[best]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(
    ("shape", "n_labels"),
    [
        ((2, 2), 3),
        ((2, 3), 3),
        ((3, 3), 3),
        ((3, 2), 4),
        ((2, 2), 5),
        ((3, 4), 2),
        ((1, 4), 3),
        ((4, 1), 3),
        ((1, 1), 3),
    ],
)
def test_the_energy_is_the_least_of_all_labellings(way, power, shape, n_labels):
    parts = [
        problem(4, *shape, n_labels, seed, weight) for seed, weight in enumerate((0.2, 1.0, 4.0))
    ]
    unary, down, right = (torch.cat(column) for column in zip(*parts))
    labels = WAYS[way](unary, down, right, power)
    assert labels.shape == unary.shape[:3] and labels.dtype == torch.int64
    found = grid_energy(labels, unary, down, right, power)
    for i in range(len(unary)):
        one = [part[i].numpy() for part in (unary, down, right)]
        assert energy(labels[i].tolist(), *one, power) == pytest.approx(float(found[i]))
        assert float(found[i]) == pytest.approx(least(*one, power), abs=1e-5)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("side", "n_labels"), [(4, 3), (6, 2), (7, 2)])
def test_both_ways_agree_on_larger_grids(power, side, n_labels):
    unary, down, right = problem(6, side, side, n_labels, 5)
    rows, cut = (way(unary, down, right, power) for way in WAYS.values())
    assert torch.equal(rows, cut)  # real numbers have no ties


@pytest.mark.parametrize("power", [1, 2])
def test_no_single_block_and_no_shift_of_a_half_can_better_a_large_grid(power):
    unary, down, right = problem(3, 16, 16, 3, 6)
    labels = grid_labels(unary, down, right, power)
    best = grid_energy(labels, unary, down, right, power) - 1e-5
    rng = np.random.default_rng(0)
    for _ in range(300):
        top, left = rng.integers(16, size=2)
        other = labels.clone()
        block = other[:, top : top + rng.integers(1, 5), left : left + rng.integers(1, 5)]
        block.copy_((block + int(rng.choice([-1, 1]))).clamp(0, 2))
        assert (grid_energy(other, unary, down, right, power) >= best).all()


def test_an_image_has_the_same_labels_alone_and_among_others():
    unary, down, right = problem(37, 8, 8, 3, 7)  # more than go into one flow
    together = labels_by_cut(unary, down, right)
    for i in (0, 15, 16, 36):
        assert torch.equal(
            labels_by_cut(unary[i : i + 1], down[i : i + 1], right[i : i + 1])[0], together[i]
        )


def test_the_rounding_is_within_the_stated_tolerance():
    """Costs of very different size: one huge block leaves few units to the others, and the bound
    says how few.
    """
    unary, down, right = problem(20, 3, 3, 3, 8)
    unary[:, 0, 0] *= 1e6
    labels = labels_by_cut(unary, down, right)
    found = grid_energy(labels, unary, down, right)
    exact = grid_energy(labels_by_rows(unary, down, right), unary, down, right)
    arcs = 9 * 2 + 12 * 4
    size = (
        np.abs(np.diff(unary.numpy(), axis=-1)).sum(axis=(1, 2, 3)) + 8 * down.sum((1, 2)).numpy()
    )
    scale = capacity_scale(np.repeat(size[:, None] / 18, 18, axis=1), np.zeros((20, 1)))
    assert (found - exact >= -1e-6).all() and ((found - exact).numpy() <= arcs / scale).all()
    assert (arcs / scale < 0.02 * size).all()


def test_without_weights_every_block_takes_its_cheapest_label_and_with_huge_ones_all_the_same():
    unary, down, right = problem(4, 5, 9, 3, 9)
    assert torch.equal(grid_labels(unary, 0 * down, 0 * right), unary.argmin(dim=-1))
    together = unary.sum(dim=(1, 2)).argmin(dim=1)
    assert torch.equal(
        grid_labels(unary, down + 1e3, right + 1e3), together[:, None, None].expand(4, 5, 9)
    )


def test_equal_costs_give_the_lowest_label():
    nothing = torch.zeros(2, 8, 8, 3), torch.zeros(2, 7, 8), torch.zeros(2, 8, 7)
    assert (labels_by_cut(*nothing) == 0).all()


def test_any_pairwise_costs_between_rows():
    rng = np.random.default_rng(10)
    rows, steps = rng.normal(size=(5, 4, 3)), rng.normal(size=(5, 3, 3, 3))
    states, least = cheapest_rows(torch.from_numpy(rows), torch.from_numpy(steps))

    def cost(i, chain):
        return sum(rows[i, y, s] for y, s in enumerate(chain)) + sum(
            steps[i, y, chain[y + 1], chain[y]] for y in range(3)
        )

    for i in range(5):
        best = min(itertools.product(range(3), repeat=4), key=lambda chain: cost(i, chain))
        assert tuple(states[i].tolist()) == best and float(least[i]) == pytest.approx(cost(i, best))


def test_row_states_are_all_labellings():
    assert row_states(3, 2).tolist() == [list(row) for row in itertools.product(range(2), repeat=3)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("width", [3, 6])
def test_low_precision_costs_are_taken_as_they_are(dtype, width):
    unary, down, right = (part.to(dtype) for part in problem(3, 4, width, 3, 11))
    wide = [part.double() for part in (unary, down, right)]
    assert torch.equal(grid_labels(unary, down, right), grid_labels(*wide))


def test_what_does_not_fit_is_refused():
    unary, down, right = problem(2, 3, 6, 3, 12)
    with pytest.raises(
        ValueError, match=r"weights must be \(2, 2, 6\) and \(2, 3, 5\), got \(2, 3, 5\)"
    ):
        grid_labels(unary, right, right)
    with pytest.raises(ValueError, match=r"K ≥ 2.*got \(2, 3, 6, 1\)"):
        grid_labels(unary[..., :1], down, right)
    with pytest.raises(ValueError, match="power must be 1 or 2, got 3"):
        grid_labels(unary, down, right, 3)
    unary[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="must be finite"):
        grid_labels(unary, down, right)


def test_never_worse_than_gco():
    gco = pytest.importorskip(
        "gco", reason="gco-wrapper is not installed: the comparison with its swap moves"
    )
    unary, down, right = problem(20, 8, 8, 3, 13)
    ours = grid_energy(grid_labels(unary, down, right), unary, down, right)
    table = (np.subtract.outer(np.arange(3), np.arange(3)) / 2) ** 2
    for i in range(20):
        theirs = gco.cut_grid_graph(
            unary[i].numpy() - unary[i].numpy().min(),
            table,
            down[i].numpy(),
            right[i].numpy(),
            algorithm="swap",
        ).reshape(8, 8)
        assert (
            ours[i] <= energy(theirs, *(part[i].numpy() for part in (unary, down, right)), 2) + 1e-5
        )
