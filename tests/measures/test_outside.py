"""Scores for images from elsewhere: naive loops, what is known by hand, and the whole measurement
against scikit-learn's.
"""

import math

import pytest
import torch

from catchup.data import load
from catchup.measures import (
    energy_scores,
    max_logit_scores,
    measure_ood,
    measure_outside,
    neighbour_scores,
    pooled_features,
)
from catchup.models import trained
from catchup.models.inference import PixelModel, predict


def test_energy_and_largest_logit_are_those_of_the_naive_loop():
    logits = torch.randn(30, 7, generator=torch.Generator().manual_seed(0)) * 4
    for temperature in (0.5, 1.0, 3.0):
        naive = [
            -temperature * math.log(sum(math.exp(z / temperature) for z in row))
            for row in logits.double().tolist()
        ]
        assert energy_scores(logits, temperature).tolist() == pytest.approx(naive)
    assert max_logit_scores(logits).tolist() == pytest.approx(
        [-max(row) for row in logits.tolist()]
    )
    huge = energy_scores(torch.tensor([[1000.0, 0.0]]))  # exp would overflow
    assert huge.tolist() == [-1000.0]


@pytest.mark.parametrize("k", [1, 3, 20])
def test_neighbours_are_those_of_the_naive_loop(k):
    rng = torch.Generator().manual_seed(0)
    features, bank = torch.randn(9, 5, generator=rng), torch.randn(20, 5, generator=rng)
    features[2] = 0
    unit = [row / row.norm().clamp(min=1e-12) for row in bank.double()]
    naive = []
    for row in features.double():
        row = row / row.norm().clamp(min=1e-12)
        naive.append(sorted((row - other).norm().item() for other in unit)[k - 1])
    found = neighbour_scores(features, bank, k)
    assert found.tolist() == pytest.approx(naive, abs=1e-7)
    assert found[2].item() == pytest.approx(1)
    assert torch.allclose(neighbour_scores(7 * features, bank / 3, k), found, atol=1e-7)


@pytest.fixture(scope="module")
def seen():
    """A trained network, and what it is measured on: (model, inside, outside, training)."""
    digits = load("digits")
    shapes = load("shapes").test.take(range(200))
    size = digits.test.shape[1]
    pixels = torch.nn.functional.interpolate(shapes.pixels.float(), size).byte()
    grey = type(shapes)(pixels, shapes.labels, shapes.classes).with_channels(1)
    return PixelModel.of(trained("digits-catchup"), digits), digits.test, grey, digits.train


@pytest.mark.slow
def test_the_measurement_is_scikit_learns_of_the_scores(seen):
    metrics = pytest.importorskip("sklearn.metrics")
    neighbors = pytest.importorskip("sklearn.neighbors")
    model, inside, outside, training = seen
    found = measure_outside(*seen)
    logits = [predict(model, images).double() for images in (inside, outside)]
    truth = [0] * len(inside) + [1] * len(outside)
    energy = [-each.exp().sum(1).log() for each in logits]
    largest = [-each.max(1).values for each in logits]
    ours, theirs, bank = (
        torch.nn.functional.normalize(pooled_features(model, images).double(), dim=1).numpy()
        for images in (inside, outside, training)
    )
    k = max(round(len(training) / 250), 1)
    tree = neighbors.NearestNeighbors(n_neighbors=k).fit(bank)
    near = [torch.from_numpy(tree.kneighbors(each)[0][:, -1]) for each in (ours, theirs)]
    for name, scores in (("energy", energy), ("max_logit", largest), ("neighbours", near)):
        expected = 100 * metrics.roc_auc_score(truth, torch.cat(scores).numpy())
        assert found[name]["auroc"] == pytest.approx(expected, abs=0.01)
    assert found["msp"] == pytest.approx(measure_ood(model, inside, outside))
    assert found["neighbours"]["k"] == k


def test_images_of_another_size_and_bad_numbers_are_refused(seen):
    model, inside, outside, training = seen
    with pytest.raises(ValueError, match="one shape.*3, 4, 4"):
        other = type(inside)(torch.zeros(2, 3, 4, 4).byte(), torch.zeros(2).long(), ("a",))
        measure_outside(model, inside, other, training)
    with pytest.raises(ValueError, match=r"k must lie in \[1, 4\].*k=5"):
        neighbour_scores(torch.ones(2, 3), torch.ones(4, 3), 5)
    with pytest.raises(ValueError, match="one width"):
        neighbour_scores(torch.ones(2, 3), torch.ones(4, 2), 1)
    for score in (energy_scores, max_logit_scores):
        with pytest.raises(ValueError, match="NaN"):
            score(torch.tensor([[float("nan"), 1.0]]))
    with pytest.raises(ValueError, match="more than 0, got 0"):
        energy_scores(torch.ones(1, 2), 0.0)
