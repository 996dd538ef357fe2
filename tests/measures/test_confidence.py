"""Proper scores, temperature, risk and coverage: scikit-learn and scipy as oracles, naive loops,
and what is known by hand.
"""

import math

import pytest
import torch
from test_calibration import some

from catchup.measures import (
    adaptive_calibration_error,
    brier_score,
    fit_temperature,
    measure_calibration,
    measure_confidence,
    negative_log_likelihood,
    risk_coverage,
)

SCORES = (
    brier_score,
    negative_log_likelihood,
    adaptive_calibration_error,
    fit_temperature,
    risk_coverage,
    measure_confidence,
)


@pytest.mark.parametrize("scale", [0.3, 2.0, 20.0])
def test_proper_scores_are_scikit_learns(scale):
    metrics = pytest.importorskip("sklearn.metrics")
    logits, labels = some(scale=scale)
    chances = logits.double().softmax(1)
    truth = torch.nn.functional.one_hot(labels, 5)
    by_class = sum(metrics.brier_score_loss(truth[:, k], chances[:, k]) for k in range(5))
    assert brier_score(logits, labels) == pytest.approx(by_class, rel=1e-12)
    if scale < 20:  # scikit-learn cuts probabilities off at float32's smallest
        theirs = metrics.log_loss(labels, chances, labels=range(5))
        assert negative_log_likelihood(logits, labels) == pytest.approx(theirs, rel=1e-9)


def test_they_have_the_values_known_by_hand():
    sure = torch.tensor([[100.0, 0, 0, 0], [0, 100.0, 0, 0]])
    assert brier_score(sure, torch.tensor([0, 1])) == pytest.approx(0, abs=1e-12)
    assert brier_score(sure, torch.tensor([1, 0])) == pytest.approx(2)
    assert negative_log_likelihood(sure, torch.tensor([1, 0])) == pytest.approx(100)
    even = torch.zeros(6, 4)
    assert brier_score(even, torch.arange(6) % 4) == pytest.approx(3 / 4)
    assert negative_log_likelihood(even, torch.arange(6) % 4) == pytest.approx(math.log(4))


@pytest.mark.parametrize("n_bins", [1, 7, 15, 1000])
def test_adaptive_bins_are_those_of_the_naive_loop(n_bins):
    logits, labels = some(n=101)
    answers = sorted(
        (max(row.softmax(0).tolist()), float(row.argmax() == label))
        for row, label in zip(logits.double(), labels)
    )
    parts, error = min(n_bins, 101), 0.0
    start = 0
    for part in range(parts):
        size = 101 // parts + (part < 101 % parts)
        held = answers[start : start + size]
        sure, right = (sum(column) / size for column in zip(*held))
        error += size / 101 * abs(sure - right)
        start += size
    assert start == 101
    assert adaptive_calibration_error(logits, labels, n_bins) == pytest.approx(100 * error)


def test_one_bin_is_the_plain_error_of_one_bin():
    logits, labels = some()
    plain = measure_calibration(logits, labels, 1)["ece"]
    assert adaptive_calibration_error(logits, labels, 1) == pytest.approx(plain)


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_the_temperature_is_where_the_likelihood_is_largest(scale):
    optimize = pytest.importorskip("scipy.optimize")
    logits, labels = some(n=600, scale=scale)

    def loss(log_t):
        return negative_log_likelihood(logits.double() / math.exp(log_t), labels)

    best = optimize.minimize_scalar(loss, bounds=(-6.9, 6.9), method="bounded").x
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(math.exp(best), rel=1e-3)
    assert loss(math.log(found)) <= loss(best) + 1e-12


def test_a_temperature_is_found_again_and_ends_where_there_is_none():
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(4000, 6, generator=rng)
    labels = torch.multinomial(logits.softmax(1), 1, generator=rng)[:, 0]
    assert fit_temperature(3.7 * logits, labels) == pytest.approx(3.7, rel=0.05)
    ratio = fit_temperature(3.7 * logits, labels) / fit_temperature(logits, labels)
    assert ratio == pytest.approx(3.7, rel=1e-6)
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(1e-3, rel=1e-6)
    assert fit_temperature(logits, logits.argmin(1)) == pytest.approx(1e3, rel=1e-6)


def test_risk_and_coverage_are_those_of_the_naive_loop():
    logits, labels = some(n=37)
    answers = sorted(
        (-max(row.softmax(0).tolist()), place, int(row.argmax() != label))
        for place, (row, label) in enumerate(zip(logits.double(), labels))
    )
    wrong = [error for *_, error in answers]
    risks = [100 * sum(wrong[:n]) / n for n in range(1, 38)]
    found = risk_coverage(logits, labels)
    assert found["aurc"] == pytest.approx(sum(risks) / 37)
    for coverage, risk in found["curve"]:
        assert risk == pytest.approx(risks[max(round(37 * coverage), 1) - 1])
    assert found["curve"][-1] == [1.0, pytest.approx(100 * sum(wrong) / 37)]


def test_scaling_mends_what_is_too_sure_and_leaves_the_ranking():
    rng = torch.Generator().manual_seed(2)
    logits = torch.randn(4000, 6, generator=rng)
    labels = torch.multinomial(logits.softmax(1), 1, generator=rng)[:, 0]
    plain, sharp = measure_confidence(logits, labels), measure_confidence(5 * logits, labels)
    assert sharp["unscaled"]["ece"] > 20 and sharp["scaled"]["ece"] < 5
    assert sharp["scaled"]["nll"] == pytest.approx(plain["scaled"]["nll"], rel=1e-9)
    assert sharp["temperature"] == pytest.approx(5 * plain["temperature"], rel=1e-9)
    # fitted on the others: labels of the scored half do not move it
    moved = labels.clone()
    moved[1::2] = 0
    assert measure_confidence(logits, moved)["temperature"] == plain["temperature"]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("logits", "labels", "told"),
    [
        (torch.zeros(3), torch.zeros(3).long(), r"\(N, classes\)"),
        (torch.full((2, 3), float("nan")), torch.zeros(2).long(), "NaN"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "3"),
        (torch.zeros(2, 3), torch.zeros(2), "int64"),
    ],
)
def test_what_is_no_answer_is_refused(score, logits, labels, told):
    with pytest.raises(ValueError, match=told):
        score(logits, labels)


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="n_bins.*0"):
        adaptive_calibration_error(torch.zeros(2, 3), torch.zeros(2).long(), 0)
    with pytest.raises(ValueError, match="got 1 image"):
        measure_confidence(torch.zeros(1, 3), torch.zeros(1).long())
