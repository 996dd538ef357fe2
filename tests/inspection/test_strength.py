"""Weak and strong filters, against sorting by hand and SciPy's rank correlation."""

import math

import numpy as np
import pytest
import torch

from catchup.inspection.strength import order_correlation, rank_correlation, weak_and_strong

RNG = np.random.default_rng(0)
ROWS = [
    {
        "epoch": epoch,
        "block": block,
        "filter": c,
        "norm": float(RNG.random()),
        "map_gradient": float(RNG.random()),
        "weight_gradient": float(RNG.random()),
    }
    for epoch in (3, 1, 2)
    for block in ("a", "b")
    for c in range(9)
]


def of(block, epoch):
    return [row for row in ROWS if (row["block"], row["epoch"]) == (block, epoch)]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.01])
def test_each_epoch_ranked_anew_or_as_in_one_epoch(share):
    count = {0.25: 2, 0.5: 4, 0.01: 1}[share]
    for ranked_at in (None, 2):
        found = weak_and_strong(ROWS, "b", share, ranked_at)
        assert [row["epoch"] for row in found] == [1, 2, 3] and {
            row["filters"] for row in found
        } == {count}
        for row in found:
            who = [
                other["filter"]
                for other in sorted(of("b", ranked_at or row["epoch"]), key=lambda r: r["norm"])
            ]
            for side, chosen in (("weak", who[:count]), ("strong", who[-count:])):
                for key in ("norm", "map_gradient", "weight_gradient"):
                    mean = np.mean(
                        [other[key] for other in of("b", row["epoch"]) if other["filter"] in chosen]
                    )
                    assert row[f"{side}_{key}"] == pytest.approx(mean)


def test_rank_correlation_is_scipys_ties_included():
    from scipy.stats import spearmanr

    for seed in range(20):
        rng = np.random.default_rng(seed)
        a, b = rng.integers(0, 6, 12), rng.integers(0, 6, 12)
        assert rank_correlation(torch.tensor(a), torch.tensor(b)) == pytest.approx(
            spearmanr(a, b).statistic
        )
    assert rank_correlation(torch.arange(5), torch.arange(5).exp()) == pytest.approx(1)
    assert math.isnan(rank_correlation(torch.ones(4), torch.arange(4))) and math.isnan(
        rank_correlation(torch.ones(1), torch.ones(1))
    )


def test_order_kept_compares_the_norms_of_two_epochs():
    norms = [[row["norm"] for row in of("a", epoch)] for epoch in (1, 3)]
    assert order_correlation(ROWS, "a", 1, 3) == pytest.approx(
        rank_correlation(*map(torch.tensor, norms))
    )
    assert order_correlation(ROWS, "a", 2, 2) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: weak_and_strong(ROWS, "a", 0.6), "share must lie in \\(0, 0.5\\], got 0.6"),
        (lambda: weak_and_strong(ROWS, "c"), "no rows of block 'c'; there are \\['a', 'b'\\]"),
        (
            lambda: weak_and_strong(ROWS, "a", ranked_at=7),
            "no epoch 7 of block 'a'; there are 1, 2, 3",
        ),
        (lambda: order_correlation(ROWS, "a", 1, 9), "no epoch 9"),
        (lambda: rank_correlation(torch.ones(3), torch.ones(4)), "got \\(3,\\) and \\(4,\\)"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
