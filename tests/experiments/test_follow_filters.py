"""Following the filters of one run: what is seen, what is made of it, and that nothing changes."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from catchup.data.sets import readers
from catchup.experiments import background_bias as background
from catchup.experiments import follow_filters
from catchup.experiments.follow_filters import (
    follow_run,
    growth_and_background,
    summarise,
    weak_gradient,
)
from catchup.mixers import make
from catchup.training import trainer as training

TINY = replace(
    background.SETTINGS, subset=2, width=4, epochs=2, batch_size=8, precision="fp32", device="cpu"
)


@pytest.fixture(autouse=True, scope="module")
def _few_images():
    with pytest.MonkeyPatch.context() as patch:
        for module, name, number in (
            (follow_filters, "N_WATCHED", 16),
            (readers, "SHAPES_TRAIN", 128),
            (readers, "SHAPES_TEST", 64),
        ):
            patch.setattr(module, name, number)
        yield


@pytest.fixture(scope="module")
def told():
    settings = replace(
        TINY, subset=4, data="shapes:0.9:texture", method="catchup", seed=1, precision="fp32"
    )
    return settings, *follow_run(settings, every=1, n=2, progress=False)


@pytest.mark.slow
def test_a_story_is_told_whatever_the_interval_of_validations():
    settings = replace(TINY, data="shapes:0.5:colour", validate_every=0, method="baseline")
    told, _ = follow_run(settings, n=2, progress=False)
    assert (
        all(0 <= row["broken_accuracy"] <= 100 for row in told["epochs"])
        and len(told["epochs"]) == TINY.epochs
    )


def test_a_story_has_every_filter_in_every_epoch(told):
    _, found, _ = told
    blocks = {row["block"] for row in found["filters"]}
    assert (
        {row["epoch"] for row in found["filters"]} == {0, 1, 2}
        and "layer4.1" in blocks
        or "layer4" in blocks
    )
    assert [row["epoch"] for row in found["epochs"]] == [1, 2]
    for row in found["filters"]:
        assert ("norm" in row and "map_gradient" in row) == (row["epoch"] > 0) and row[
            "response"
        ] >= 0
    counts = {
        block: [
            sum(row["block"] == block and row["epoch"] == e for row in found["filters"])
            for e in (0, 1, 2)
        ]
        for block in blocks
    }
    assert all(len(set(count)) == 1 for count in counts.values())


def test_being_watched_does_not_change_the_run(told):
    settings, found, watched = told
    dataset = training.dataset_of(settings, progress=False)
    model = training.model_of(settings, dataset)
    alone = training.fit(model, make("catchup", seed=1), dataset, settings, progress=False)
    assert [row["train_loss"] for row in alone.rows] == [
        row["train_loss"] for row in found["epochs"]
    ]
    pairs = zip(alone.model.parameters(), watched.model.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("data", ["digits", "shapes:0.5:hue"])
def test_only_shapes_can_be_followed(data):
    with pytest.raises(ValueError, match="shapes can be followed|unknown cue|colour"):
        follow_run(replace(TINY, data=data))


def filters(epoch, responses, grounds=(), shapes=(), **more):
    rows = [
        {"epoch": epoch, "block": "layer1", "filter": c, "response": r}
        for c, r in enumerate(responses)
    ]
    for key, values in {"background_share": grounds, "shape_share": shapes, **more}.items():
        for row, value in zip(rows, values):
            row[key] = value
    return rows


@pytest.mark.slow
def test_an_epoch_too_short_to_be_recorded_is_left_out_of_the_story():
    settings = replace(TINY, data="shapes:0.5:texture", method="catchup")
    told = summarise(follow_run(settings, n=2, progress=False)[0])  # 1 step in 4
    assert [at["epoch"] for at in told["epochs"]] == [1, 2]
    assert len(told["blocks"]) == 3 * len(told["growth"])
    known = {at["epoch"]: "weak_gradient" in at for at in told["blocks"]}
    assert known == {0: False, 1: True, 2: False}


def test_a_summary_holds_means_over_the_filters_of_a_block(told):
    _, found, _ = told
    told = summarise(found)
    for row in told["blocks"]:
        here = [
            one
            for one in found["filters"]
            if (one["epoch"], one["block"]) == (row["epoch"], row["block"])
        ]
        shares = [
            one["background_share"]
            for one in here
            if one["background_share"] == one["background_share"]
        ]
        assert row["background_share"] == (
            pytest.approx(sum(shares) / len(shares)) if shares else None
        )
        assert row["response"] == pytest.approx(sum(one["response"] for one in here) / len(here))
    for row in told["growth"]:  # early is cut to the last epoch of a run as short as this
        assert row["early"] == 2
        expected = growth_and_background(found["filters"], row["block"], 2, 2)
        assert row["correlation"] == pytest.approx(expected, nan_ok=True)


def test_growth_is_over_the_untrained_response_and_compared_with_the_last_shares():
    grown = [
        *filters(0, [1, 2, 4, 0]),
        *filters(1, [4, 4, 4, 9]),  # grown 4, 2, 1 times; the last from nothing
        *filters(5, [1, 1, 1, 1], [0.4, 0.3, 0.1, 0.9], [0.1, 0.3, 0.9, 0.1]),
    ]
    assert growth_and_background(grown, "layer1", 1, 5) == pytest.approx(1)
    turned = [
        {
            **row,
            "background_share": row.get("shape_share"),
            "shape_share": row.get("background_share"),
        }
        for row in grown
    ]
    assert growth_and_background(turned, "layer1", 1, 5) == pytest.approx(-1)
    with pytest.raises(ValueError, match=r"no filters of block 'layer9' in epoch 0.*\['layer1'\]"):
        growth_and_background(grown, "layer9", 1, 5)


def test_weak_and_strong_halves_by_norm():
    rows = filters(
        1, [0] * 4, norm=[5, 1, 4, 2], map_gradient=[50, 10, 40, 20], weight_gradient=[0] * 4
    )
    assert weak_gradient(
        {"filters": rows, "epochs": [{"epoch": 1, "clean_train_accuracy": 70.0}]}, "layer1"
    ) == [
        {"epoch": 1, "clean_train_accuracy": 70.0, "weak_gradient": 15.0, "strong_gradient": 45.0}
    ]


def test_the_untrained_network_is_measured_with_statistics_of_its_own(told):
    settings, *_ = told
    dataset = training.dataset_of(replace(settings, data="shapes"), progress=False)
    model = training.model_of(settings, dataset)
    before = json.dumps({key: value.tolist() for key, value in model.state_dict().items()})
    settled = follow_filters.settle_batch_norm(model, dataset)
    assert before == json.dumps({key: value.tolist() for key, value in model.state_dict().items()})
    norms = [module for module in settled.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(
        not torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean)) for norm in norms
    )
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), settled.parameters()))
