"""Reliance on few filters: closed forms, naive loops, scikit-learn, invariances, and what is
refused.
"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import auc
from torch import nn

from catchup import count_hooks, filter_influence, find_blocks
from catchup.inspection.reliance import (
    drop_area,
    effective_filters,
    gini,
    measure_norm_gradient,
    measure_reliance,
    top_share,
)

MEASURES = [lambda x: top_share(x, 2), gini, effective_filters]


def slow_gini(row):
    """The definition: mean absolute difference of all pairs, over twice the mean."""
    n = len(row)
    return sum(abs(a - b) for a in row for b in row) / (2 * n * n * (sum(row) / n))


def slow_top(row, k):
    return sum(sorted(row)[-k:]) / sum(row)


def slow_effective(row):
    return sum(row) ** 2 / sum(value**2 for value in row)


@pytest.fixture
def influence():
    """(4, 5, 9), some filters dead."""
    rng = torch.Generator().manual_seed(0)
    values = torch.rand(4, 5, 9, generator=rng, dtype=torch.float64).exp()
    return values * (torch.rand(4, 5, 9, generator=rng) > 0.2)


def test_measures_equal_their_definitions(influence):
    for image in range(4):
        for place in range(5):
            row = influence[image, place].tolist()
            assert gini(influence)[image, place].item() == pytest.approx(slow_gini(row))
            assert effective_filters(influence)[image, place].item() == pytest.approx(
                slow_effective(row)
            )
            for k in (1, 3, 9):
                assert top_share(influence, k)[image, place].item() == pytest.approx(
                    slow_top(row, k)
                )


def test_gini_is_one_minus_twice_the_area_under_the_lorenz_curve(influence):
    row = influence[0, 0].sort().values.numpy()
    lorenz = np.concatenate([[0], row.cumsum() / row.sum()])
    assert gini(influence)[0, 0].item() == pytest.approx(1 - 2 * auc(np.linspace(0, 1, 10), lorenz))


@pytest.mark.parametrize("alive", [1, 2, 5, 8])
def test_closed_forms_where_some_filters_are_equal_and_the_rest_dead(alive):
    row = torch.zeros(8)
    row[:alive] = 3.0
    assert effective_filters(row).item() == pytest.approx(alive)
    assert gini(row).item() == pytest.approx(1 - alive / 8, abs=1e-6)
    assert top_share(row, 2).item() == pytest.approx(min(1, 2 / alive))


def test_scale_and_order_do_not_matter_and_bounds_hold(influence):
    shuffled = influence[..., torch.randperm(9, generator=torch.Generator().manual_seed(1))]
    for measure in MEASURES:
        torch.testing.assert_close(measure(1000 * influence), measure(influence))
        torch.testing.assert_close(measure(shuffled), measure(influence))
        assert measure(influence).shape == (4, 5)
    assert ((0 <= gini(influence)) & (gini(influence) <= 1 - 1 / 9)).all()
    assert ((1 <= effective_filters(influence)) & (effective_filters(influence) <= 9)).all()
    assert ((2 / 9 <= top_share(influence, 2)) & (top_share(influence, 2) <= 1)).all()


def test_more_concentrated_is_more_reliance_by_every_measure():
    level, steep = torch.ones(6), torch.tensor([9.0, 3, 1, 1, 1, 1])
    assert top_share(steep, 2) > top_share(level, 2) and gini(steep) > gini(level)
    assert effective_filters(steep) < effective_filters(level)


def test_an_image_nothing_answers_to_has_no_measure():
    for measure in MEASURES:
        values = measure(torch.tensor([[0.0, 0, 0], [1, 1, 1]]))
        assert values[0].isnan() and values[1].isfinite()


@pytest.mark.parametrize(
    "bad, sentence",
    [
        (torch.tensor([-1.0, 2]), "≥ 0"),
        (torch.tensor([math.nan, 2]), "finite"),
        (torch.tensor([math.inf, 2]), "finite"),
        (torch.tensor([1, 2]), "int64"),
        (torch.tensor(1.0), r"\(\)"),
        (torch.zeros(3, 0), r"\(3, 0\)"),
    ],
)
def test_bad_influences_are_refused(bad, sentence):
    for measure in MEASURES:
        with pytest.raises(ValueError, match=sentence):
            measure(bad)


@pytest.mark.parametrize("k", [0, 4, 1.0, True])
def test_bad_k_is_refused(k):
    with pytest.raises(ValueError, match=r"in \[1, 3\], got"):
        top_share(torch.ones(3), k)


def test_drop_area_by_hand_and_against_scikit_learn():
    assert drop_area([[0, 80], [0.5, 80], [0.9, 80]]) == pytest.approx(1)
    assert drop_area([[0, 80], [1, 0]]) == pytest.approx(0.5)
    assert drop_area([[0, 50], [0.2, 60], [0.4, 60]]) == pytest.approx(1.15)
    curve = [[0, 91.0], [0.05, 90], [0.1, 72], [0.3, 40], [0.9, 12]]
    expected = auc(*zip(*curve)) / (91 * 0.9)
    assert drop_area(curve) == pytest.approx(expected)
    assert drop_area([[x, y / 100] for x, y in curve]) == pytest.approx(expected), (
        "any unit of accuracy"
    )


@pytest.mark.parametrize(
    "curve, sentence",
    [
        ([], "two points"),
        ([[0, 50]], "two points"),
        ([[0.1, 50], [0.5, 40]], "ascend from 0"),
        ([[0, 50], [0.5, 40], [0.5, 30]], "ascend from 0"),
        ([[0, 0], [0.5, 0]], "above 0"),
        ([[0, 50], [0.5, -1]], "≥ 0"),
        ([[0, 50], [0.5, math.nan]], "finite"),
        ([[0, 1, 2], [1, 2, 3]], "two points"),
    ],
)
def test_bad_curves_are_refused(curve, sentence):
    with pytest.raises(ValueError, match=sentence):
        drop_area(curve)


def test_rows_are_means_over_images_whatever_the_batch_size(tiny, batch):
    images, _ = batch
    tiny.train()
    maps = {}
    with tiny.layer1.register_forward_hook(lambda _m, _a, out: maps.update(layer1=out.detach())):
        tiny(images)
    per_image = filter_influence(maps["layer1"]).tolist()
    for batch_size in (1, 3, 100):
        rows = measure_reliance(tiny, images, batch_size=batch_size)
        assert [row["block"] for row in rows] == find_blocks(tiny)
        row = rows[1]
        assert (row["filters"], row["images"]) == (6, 7)
        assert row["gini"] == pytest.approx(
            np.mean([slow_gini(one) for one in per_image]), rel=1e-5
        )
        assert row["effective_filters"] == pytest.approx(
            np.mean([slow_effective(one) for one in per_image]), rel=1e-5
        )
        assert row["top10_share"] == pytest.approx(
            np.mean([slow_top(one, 1) for one in per_image]), rel=1e-5
        )
    assert tiny.training and count_hooks(tiny) == 0


def test_a_tenth_is_rounded_up_and_silent_images_do_not_count():
    conv = nn.Conv2d(1, 11, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(1.0, 12).reshape(11, 1, 1, 1))
    images = torch.stack([torch.ones(1, 2, 2), torch.zeros(1, 2, 2)])
    (row,) = measure_reliance(nn.Sequential(conv), images, ["0"])
    assert row["top10_share"] == pytest.approx((10 + 11) / 66) and row["images"] == 2
    (silent,) = measure_reliance(nn.Sequential(conv), images[1:], ["0"])
    assert math.isnan(silent["gini"])


def test_reliance_refuses_bad_input(tiny, batch):
    with pytest.raises(ValueError, match="Did you mean 'layer1'"):
        measure_reliance(tiny, batch[0], ["layr1"])
    with pytest.raises(ValueError, match="N at least 1"):
        measure_reliance(tiny, batch[0][:0])
    twice = nn.Sequential(nn.Conv2d(3, 3, 1))
    twice.append(twice[0])
    with pytest.raises(ValueError, match="must run exactly once"):
        measure_reliance(twice, batch[0], ["0"])
    assert count_hooks(twice) == 0


def test_norms_and_gradients_are_those_of_one_image_at_a_time(tiny, batch):
    images, labels = batch
    tiny.train()
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    norms, gradients = [], []
    for image, label in zip(images, labels):
        tiny.eval()
        maps = {}
        with tiny.layer1.register_forward_hook(
            lambda _m, _a, out, maps=maps: maps.update(layer1=out)
        ):
            logits = tiny(image[None])
        (gradient,) = torch.autograd.grad(-logits.log_softmax(1)[0, label], maps["layer1"])
        norms.append([float(channel.norm()) for channel in maps["layer1"][0].detach()])
        gradients.append([float(channel.norm()) for channel in gradient[0]])
    tiny.train()
    for batch_size in (1, 3, 100):
        row = next(
            row
            for row in measure_norm_gradient(tiny, images, labels, batch_size=batch_size)
            if row["block"] == "layer1"
        )
        assert row["norm"] == pytest.approx(np.mean(norms, axis=0), rel=1e-5)
        assert row["gradient"] == pytest.approx(np.mean(gradients, axis=0), rel=1e-4)
        assert row["rank_correlation"] == pytest.approx(
            spearmanr(row["norm"], row["gradient"]).statistic
        )
    assert (
        tiny.training
        and count_hooks(tiny) == 0
        and all(part.grad is None for part in tiny.parameters())
    )
    assert all(torch.equal(before[name], value) for name, value in tiny.state_dict().items())
