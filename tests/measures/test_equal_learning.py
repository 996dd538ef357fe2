"""Matching at equal learning, on rows made by hand and against a naive search."""

import random

import pytest

from catchup.measures.equal_learning import describe_match, match_learning


def row(method, seed, epochs, train, broken=50.0, **more):
    accuracies = {"train_accuracy": train, "broken_accuracy": broken}
    return {"method": method, "seed": seed, "epochs": epochs, **accuracies, **more}


PLAIN = [row("baseline", 0, *pair) for pair in ((20, 95.0), (40, 98.5), (60, 99.0), (240, 100.0))]


def test_the_shortest_plain_run_within_the_reach_is_taken():
    mixed = [row("catchup", 0, 60, 95.0), row("catchup", 0, 240, 98.8, 61.0)]
    (match,) = match_learning([*reversed(PLAIN), *mixed], "catchup")
    assert match.row["epochs"] == 240 and match.plain["epochs"] == 40
    assert match.tried == ((20, 95.0), (40, 98.5), (60, 99.0), (240, 100.0))
    assert describe_match(match) == (
        "seed 0: catchup at 240 epochs knows 98.8 % of its training images, baseline at 40 98.5 %;"
        " cue broken: 61.0 and 50.0 %, +11.0"
    )


@pytest.mark.parametrize(
    ("learnt", "epochs"), [(98.0, 40), (97.9, None), (95.5, 20), (100.0, 240), (99.6, 240)]
)
def test_half_a_point_is_within_and_more_is_not(learnt, epochs):
    (match,) = match_learning([*PLAIN, row("catchup", 0, 240, learnt)], "catchup")
    assert (match.plain and match.plain["epochs"]) == epochs


def test_where_there_is_none_that_is_said():
    matches = match_learning([*PLAIN, *(row("catchup", s, 240, 97.0) for s in (1, 0))], "catchup")
    assert [match.row["seed"] for match in matches] == [0, 1]
    assert [match.plain for match in matches] == [None, None]
    first, second = map(describe_match, matches)
    assert first.endswith(
        "no plain run knows about as many (95.0 % at 20, 98.5 % at 40, 99.0 % at 60, 100.0 % at"
        " 240)"
    )
    assert second.endswith("no plain run knows about as many (there is none of this seed)")
    assert match_learning(PLAIN, "catchup") == []


def test_pairs_are_of_one_seed_and_a_method_goes_by_its_label():
    rows = [
        *PLAIN,
        row("cutmix", 0, 240, 95.2, label="cutmix:alpha=0.2"),
        row("baseline", 1, 60, 95.2),
    ]
    (match,) = match_learning(rows, "cutmix:alpha=0.2")
    assert match.plain["seed"] == 0 and match.plain["epochs"] == 20
    (other,) = match_learning(rows, "baseline", plain="cutmix:alpha=0.2")[1:]
    assert other.plain is None  # seed 1 has no such run


def test_runs_of_several_settings_are_not_mixed_up():
    with pytest.raises(ValueError, match="two rows of baseline, seed 0, 20 epochs"):
        match_learning([*PLAIN, PLAIN[0]], "catchup")


def test_it_is_what_a_naive_search_finds():
    rng = random.Random(0)
    for _ in range(200):
        budgets = rng.sample([20, 40, 60, 120, 240], 4)
        rows = [row("baseline", 0, epochs, rng.randint(960, 1000) / 10) for epochs in budgets]
        rows.append(row("catchup", 0, 240, rng.randint(960, 1000) / 10))
        best = None
        for epochs in sorted(budgets):
            known = next(one for one in rows if one["epochs"] == epochs)["train_accuracy"]
            tenths = abs(round(10 * known) - round(10 * rows[-1]["train_accuracy"]))
            if tenths <= 5 and best is None:
                best = epochs
        (match,) = match_learning(rows, "catchup")
        assert (match.plain and match.plain["epochs"]) == best
