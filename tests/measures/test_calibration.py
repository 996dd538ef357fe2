"""Calibration: a naive loop over the bins, torchmetrics as oracle, edges, empty bins, cases known
by hand.
"""

import pytest
import torch

from catchup.measures.calibration import measure_calibration
from catchup.plots.robustness import plot_reliability


def some(n=400, classes=5, scale=2.0, seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=rng)
    return logits, torch.where(
        torch.rand(n, generator=rng) < 0.6,
        logits.argmax(1),
        torch.randint(0, classes, (n,), generator=rng),
    )


def naive(logits, labels, n_bins):
    """(ECE, bins) by asking every image of every bin."""
    error, bins = 0.0, []
    for m in range(n_bins):
        held = []
        for row, label in zip(logits.double(), labels.tolist()):
            share = (row.exp() / row.exp().sum()).tolist()
            if m / n_bins < max(share) <= (m + 1) / n_bins:
                held.append((max(share), float(share.index(max(share)) == label)))
        sure, right = (sum(column) / len(held) for column in zip(*held)) if held else (None, None)
        bins.append([m / n_bins, sure, right, len(held) / len(logits)])
        error += len(held) / len(logits) * abs(sure - right) if held else 0
    return 100 * error, bins


@pytest.mark.slow
@pytest.mark.parametrize("n_bins", [1, 4, 15])
@pytest.mark.parametrize("scale", [0.3, 2.0, 20.0])
def test_error_and_bins_are_those_of_the_naive_loop(n_bins, scale):
    logits, labels = some(scale=scale)
    found, (error, bins) = (
        measure_calibration(logits, labels, n_bins),
        naive(logits, labels, n_bins),
    )
    assert found["ece"] == pytest.approx(error)
    assert len(found["bins"]) == n_bins
    for ours, theirs in zip(found["bins"], bins):
        assert ours == [pytest.approx(value) if value is not None else None for value in theirs]
    assert sum(share for *_, share in found["bins"]) == pytest.approx(1)


@pytest.mark.slow
def test_torchmetrics_agrees():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    logits, labels = some()
    theirs = classification.multiclass_calibration_error(
        logits.softmax(1), labels, 5, n_bins=15, norm="l1"
    )
    assert measure_calibration(logits, labels)["ece"] == pytest.approx(
        100 * theirs.item(), abs=1e-3
    )


@pytest.mark.parametrize(("n_bins", "place"), [(1, 0), (2, 0), (4, 0), (8, 1), (3, 0)])
def test_a_confidence_on_an_edge_belongs_to_the_lower_bin(n_bins, place):
    # each exactly 1/4 sure
    found = measure_calibration(torch.zeros(6, 4), torch.zeros(6, dtype=torch.int64), n_bins)
    assert [number for number, row in enumerate(found["bins"]) if row[3]] == [place]


def test_empty_bins_hold_nothing_and_cost_nothing():
    found = measure_calibration(torch.tensor([[50.0, 0.0], [0.0, 50.0]]), torch.tensor([0, 0]), 10)
    assert found["bins"][:9] == [[number / 10, None, None, 0.0] for number in range(9)]
    assert found["bins"][9] == [0.9, pytest.approx(1), 0.5, 1.0]
    assert found["ece"] == pytest.approx(50)


def test_a_model_that_knows_how_sure_to_be_has_no_error_and_a_louder_one_has():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 3, generator=rng, dtype=torch.float64)
    # truth drawn from what the model says
    labels = logits.softmax(1).multinomial(1, generator=rng)[:, 0]
    assert measure_calibration(logits, labels)["ece"] < 1.5
    assert measure_calibration(5 * logits, labels)["ece"] > 10
    assert measure_calibration(0.1 * logits, labels)["ece"] > 10


def test_images_may_come_in_any_order():
    logits, labels = some()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    assert measure_calibration(logits[order], labels[order])["ece"] == pytest.approx(
        measure_calibration(logits, labels)["ece"]
    )


@pytest.mark.parametrize(
    ("logits", "labels", "n_bins", "message"),
    [
        (
            torch.zeros(3),
            torch.zeros(3).long(),
            15,
            r"floating \(N, classes\), N >= 1, got torch.float32 \(3,\)",
        ),
        (torch.zeros(0, 3), torch.zeros(0).long(), 15, r"N >= 1, got torch.float32 \(0, 3\)"),
        (torch.full((2, 3), float("nan")), torch.zeros(2).long(), 15, "must be finite"),
        (torch.zeros(2, 3).long(), torch.zeros(2).long(), 15, "floating.*got torch.int64"),
        (
            torch.zeros(2, 3),
            torch.zeros(3).long(),
            15,
            r"labels must be int64 \(2,\), got torch.int64 \(3,\)",
        ),
        (torch.zeros(2, 3), torch.zeros(2), 15, "labels must be int64.*got torch.float32"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), 15, r"labels must lie in \[0, 2\], got 0 to 3"),
        (
            torch.zeros(2, 3),
            torch.zeros(2).long(),
            0,
            "n_bins must be a whole number of at least 1, got 0",
        ),
        (
            torch.zeros(2, 3),
            torch.zeros(2).long(),
            2.5,
            "n_bins must be a whole number of at least 1, got 2.5",
        ),
    ],
)
def test_bad_input_gets_a_sentence(logits, labels, n_bins, message):
    with pytest.raises(ValueError, match=message):
        measure_calibration(logits, labels, n_bins)


def test_the_diagram_shows_the_bins_that_hold_images():
    from matplotlib.figure import Figure

    logits, labels = some()
    found, ax = measure_calibration(logits, labels, 10), Figure().subplots()
    plot_reliability(found, ax)
    held = [row for row in found["bins"] if row[3]]
    assert 2 < len(held) < 10
    accuracies, shares = ax.containers[:2]
    assert [bar.get_height() for bar in accuracies] == pytest.approx([100 * row[2] for row in held])
    assert [bar.get_x() for bar in accuracies] == pytest.approx([100 * row[0] for row in held])
    assert sum(bar.get_height() for bar in shares) == pytest.approx(100)
    assert list(ax.lines[1].get_xdata()) == pytest.approx([100 * row[1] for row in held])
    assert f"{found['ece']:.1f} %" in ax.get_title()
    with pytest.raises(ValueError, match="none of 1 bins holds an image"):
        plot_reliability({"ece": 0.0, "bins": [[0.0, None, None, 0.0]]})
