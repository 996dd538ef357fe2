"""Selectivity: a naive loop over pairs of draws, filters whose shares are known by construction,
and no bias at few draws.
"""

import itertools
import math

import pytest
import torch
from torch import nn

from catchup import models
from catchup.data.sets.shapes import KINDS, draw_scenes, render
from catchup.hooks.layers import count_hooks
from catchup.inspection.selectivity import (
    SHARES,
    factorial_scenes,
    filter_selectivity,
    variance_shares,
)

MEAN = STD = (0.5, 0.5, 0.5)


def slow_shares(cells):
    """The definition for one filter, cells[i][s][t]: effects by nested sums, squares as products of
    different draws.
    """
    n, shapes, grounds = len(cells), len(cells[0]), len(cells[0][0])

    def mean(values):
        values = list(values)
        return sum(values) / len(values)

    whole = [mean(y for row in draw for y in row) for draw in cells]
    shape = [[mean(draw[s]) - whole[i] for s in range(shapes)] for i, draw in enumerate(cells)]
    ground = [
        [mean(draw[s][t] for s in range(shapes)) - whole[i] for t in range(grounds)]
        for i, draw in enumerate(cells)
    ]
    both = [
        [
            cells[i][s][t] - whole[i] - shape[i][s] - ground[i][t]
            for s in range(shapes)
            for t in range(grounds)
        ]
        for i in range(n)
    ]
    pairs = list(itertools.permutations(range(n), 2))
    parts = [
        mean(part[i][k] * part[j][k] for i, j in pairs for k in range(len(part[0])))
        for part in (shape, ground, both)
    ]
    rest = mean(
        sum((cells[i][s][t] - mean(draw[s][t] for draw in cells)) ** 2 for i in range(n)) / (n - 1)
        for s in range(shapes)
        for t in range(grounds)
    )
    parts = [max(part, 0) for part in (*parts, rest)]
    return [part / sum(parts) for part in parts]


def made(
    n=400,
    shapes=8,
    grounds=8,
    *,
    shape=0.0,
    ground=0.0,
    both=0.0,
    draw=0.0,
    noise=0.0,
    filters=1,
    seed=0,
):
    """Responses whose true variances are the squares of these numbers."""
    rng = torch.Generator().manual_seed(seed)

    def effect(*size):
        values = torch.randn(*size, filters, generator=rng, dtype=torch.float64)
        for axis, length in enumerate(size):
            if length > 1:
                values = values - values.mean(axis, keepdim=True)
        return values / values.square().mean((0, 1, 2), keepdim=True).sqrt()

    return (
        5
        + shape * effect(1, shapes, 1)
        + ground * effect(1, 1, grounds)
        + both * effect(1, shapes, grounds)
        + draw * torch.randn(n, 1, 1, filters, generator=rng)
        + noise * torch.randn(n, shapes, grounds, filters, generator=rng)
    )


@pytest.mark.parametrize("size", [(2, 2, 2), (3, 4, 2), (5, 2, 3)])
def test_the_shares_equal_the_naive_loop(size):
    responses = torch.rand(*size, 6, generator=torch.Generator().manual_seed(0)) + made(
        size[0], *size[1:], shape=0.5, ground=0.5, both=0.2, filters=6
    )
    found = variance_shares(responses)
    assert tuple(found) == SHARES
    for c in range(6):
        expected = slow_shares(responses[..., c].double().tolist())
        assert [float(found[name][c]) for name in SHARES] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("parts", "shares"),
    [
        ({"shape": 1}, (1, 0, 0, 0)),
        ({"ground": 1}, (0, 1, 0, 0)),
        ({"both": 1}, (0, 0, 1, 0)),
        ({"draw": 1}, (0, 0, 0, 1)),
        ({"noise": 1}, (0, 0, 0, 1)),
        (
            {"shape": 1, "ground": 2, "both": 0.5, "draw": 1, "noise": 1.5},
            tuple(p / 8.5 for p in (1, 4, 0.25, 3.25)),
        ),
    ],
)
def test_filters_that_were_made_for_something_are_found_out(parts, shares):
    found = variance_shares(made(**parts))
    assert [float(found[name]) for name in SHARES] == pytest.approx(shares, abs=0.03)
    assert float(sum(found.values())) == pytest.approx(1)


def test_few_draws_do_not_turn_noise_into_selectivity():
    """The raw variance of the cell means credits the shape with noise; the estimate must not, not
    even on average.
    """
    noise = made(2, noise=1, filters=4000)
    raw = noise.mean((0, 2)).var(0, correction=0) / noise.flatten(0, 2).var(0)
    found = variance_shares(noise)
    assert float(raw.mean()) > 0.05
    assert float(found["shape"].mean()) < 0.02  # zero, but for what cutting off at zero leaves
    weak = variance_shares(made(4, shape=0.5, noise=1, filters=4000))
    assert float(weak["shape"].mean()) == pytest.approx(0.2, abs=0.01)
    # a draw moves all cells
    shared = variance_shares(made(2, shape=0.5, ground=1, draw=3, noise=0.1, filters=4000))
    assert float((shared["shape"] / shared["background"]).mean()) == pytest.approx(0.25, abs=0.01)


def test_shares_do_not_change_with_the_unit_or_the_offset():
    responses = made(4, shape=1, ground=1, noise=1, filters=5)
    once, again = variance_shares(responses), variance_shares(1000 * responses + 7)
    assert all(torch.allclose(once[name], again[name]) for name in SHARES)


def test_a_filter_that_never_varies_has_no_shares():
    responses = torch.cat([torch.full((3, 2, 2, 1), 0.1), made(3, 2, 2, noise=1)], dim=3)
    found = variance_shares(responses)
    assert all(math.isnan(found[name][0]) and not math.isnan(found[name][1]) for name in SHARES)


@pytest.mark.parametrize(
    ("responses", "says"),
    [
        (torch.rand(1, 8, 8, 3), r"\(1, 8, 8, 3\)"),
        (torch.rand(4, 8, 8), r"\(4, 8, 8\)"),
        (torch.ones(2, 2, 2, 1).long(), "int64"),
        (torch.full((2, 2, 2, 1), math.inf), "infinity"),
    ],
)
def test_bad_responses_are_refused(responses, says):
    with pytest.raises(ValueError, match=says):
        variance_shares(responses)


@pytest.mark.parametrize("cue", ["texture", "colour"])
def test_the_factorial_holds_every_shape_on_every_background_all_else_equal(cue):
    scene = draw_scenes(3, 0)
    every = factorial_scenes(scene, cue)
    assert len(every) == 3 * 64
    ground = every.texture if cue == "texture" else every.tint
    for i, s, t in itertools.product(range(3), range(8), range(8)):
        at = (i * 8 + s) * 8 + t
        assert (int(every.shape[at]), int(ground[at])) == (s, t)
        assert torch.equal(every.place[at], scene.place[i]) and torch.equal(
            every.grain[at], scene.grain[i]
        )
    other = every.tint if cue == "texture" else every.texture
    assert torch.equal(
        other, (scene.tint if cue == "texture" else scene.texture).repeat_interleave(64)
    )


class Eyes(nn.Module):
    """Two filters: how bright the image is where it is very dark or very light (the shape), and
    where it is neither.
    """

    def __init__(self):
        super().__init__()
        self.maps, self.unused = nn.Identity(), nn.Linear(1, 1)

    def forward(self, images):
        luma = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
        edges = (luma[:, :, 1:] - luma[:, :, :-1]).abs()[:, 1:] + (
            luma[:, 1:] - luma[:, :-1]
        ).abs()[:, :, 1:]
        # neither dark nor light: the background
        plain = ((luma[:, 1:, 1:] - 0.5).abs() < 0.2).float()
        return self.maps(torch.stack([1 - plain, edges * plain], dim=1))


def test_filters_that_see_one_thing_are_told_apart():
    rows = filter_selectivity(Eyes(), "maps", mean=(0, 0, 0), std=(1, 1, 1), n=8)
    shape, ground = rows
    assert [row["filter"] for row in rows] == [0, 1] and {row["block"] for row in rows} == {"maps"}
    assert shape["shape_share"] > 10 * shape["background_share"]
    assert ground["background_share"] > 10 * ground["shape_share"]
    assert all(sum(row[f"{name}_share"] for name in SHARES) == pytest.approx(1) for row in rows)


def test_rows_of_a_network_and_nothing_left_behind():
    model = models.create("resnet18", num_classes=KINDS, width=4, stem_stride=2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = filter_selectivity(model, mean=MEAN, std=STD, n=2)
    assert {row["block"] for row in rows} == {"layer1", "layer2", "layer3", "layer4"} or len(
        rows
    ) >= 4
    scenes = factorial_scenes(draw_scenes(2, 0, start=2**41))
    model.eval()
    with torch.no_grad():
        maps = model.stem((render(scenes).float() / 255 - 0.5) / 0.5)
    (stem,) = [filter_selectivity(model, ["stem"], mean=MEAN, std=STD, n=2)]
    assert stem[1]["norm"] == pytest.approx(
        float(maps[:, 1].flatten(1).norm(dim=1).mean()), rel=1e-5
    )
    model.train()
    assert model.training and count_hooks(model) == 0
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 1}, "got 1"),
        ({"cue": "color"}, "Did you mean 'colour'"),
        ({"blocks": "stme"}, "Did you mean 'stem'"),
        ({"blocks": ["fc"]}, "must run exactly once and return maps"),
    ],
)
def test_bad_requests_are_refused(options, says):
    model = models.create("resnet18", num_classes=KINDS, width=4)
    with pytest.raises(ValueError, match=says):
        filter_selectivity(model, mean=MEAN, std=STD, **{"n": 2, **options})
