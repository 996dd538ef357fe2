"""The bias experiment, made tiny: pairing, resuming, refusals, and measures worked out by hand."""

import json
from dataclasses import replace

import pytest
import torch
from kill_and_resume import ended, forked
from torch import nn

import catchup.experiments.follow_filters
from catchup.data import Augmentation, Dataset
from catchup.data.sets import readers
from catchup.data.sets.shapes import KINDS, draw_scenes, images_of, test_sets
from catchup.experiments import background_bias as background
from catchup.experiments.background_bias import (
    describe_background,
    follow_run,
    measure_cues,
    read_rows,
    run_background,
)
from catchup.experiments.follow_filters import growth_and_background, summarise, weak_gradient
from catchup.training import trainer as training
from catchup.training.feed import epoch_order

TINY = replace(background.SETTINGS, subset=2, width=4, epochs=2, batch_size=8)


@pytest.fixture(autouse=True, scope="module")
def _few_images():
    with pytest.MonkeyPatch.context() as patch:
        for module, name, number in (
            (background, "N_TEST", 64),
            (background, "N_WATCHED", 16),
            (readers, "SHAPES_TRAIN", 128),
            (readers, "SHAPES_TEST", 64),
        ):
            patch.setattr(module, name, number)
        yield


def asked(out, **options):
    return run_background(
        out,
        **{
            "methods": ("baseline", "catchup"),
            "rhos": (0.5,),
            "seeds": (0,),
            "settings": TINY,
            "progress": False,
            **options,
        },
    )


@pytest.mark.slow
def test_rows_seed_by_seed_and_in_the_file(tmp_path):
    rows = asked(
        tmp_path / "deep" / "rows.jsonl", rhos=(0.125, 1), seeds=(1, 0), methods=("baseline",)
    )
    assert [(row["seed"], row["rho"]) for row in rows] == [
        (1, 0.125),
        (1, 1.0),
        (0, 0.125),
        (0, 1.0),
    ]
    assert read_rows(tmp_path / "deep" / "rows.jsonl") == rows
    for row in rows:
        assert (row["n_train"], row["n_test"], row["epochs"], row["cue"]) == (16, 64, 2, "texture")
        assert (
            row["settings"]["data"] == f"shapes:{row['rho']}:texture" and row["versions"]["torch"]
        )
        assert all(
            0 <= row[f"{name}_accuracy"] <= 100 for name in ("train", "kept", "broken", "reversed")
        )
        assert 0 <= row["cue_followed"] <= 100


@pytest.mark.slow
def test_finished_runs_are_not_done_again(tmp_path, monkeypatch):
    out, fitted = tmp_path / "rows.jsonl", []
    monkeypatch.setattr(
        background,
        "fit",
        lambda *args, **options: fitted.append(1) or training.fit(*args, **options),
    )
    first, said = asked(out), []
    text = out.read_text()
    assert asked(out, on_row=said.append) == first and len(fitted) == 2 and not said
    more = asked(out, methods=("catchup", "baseline"), rhos=(0.5, 0.9), on_row=said.append)
    assert len(fitted) == 4 and out.read_text().startswith(text) and len(read_rows(out)) == 4
    assert [row["rho"] for row in said] == [0.9, 0.9]
    assert [(row["rho"], row["method"]) for row in more] == [
        (0.5, "catchup"),
        (0.5, "baseline"),
        (0.9, "catchup"),
        (0.9, "baseline"),
    ]


@pytest.mark.slow
def test_two_processes_do_not_fill_one_file(tmp_path):
    """Each would write the rows it knows of, and lose the other's."""
    out = tmp_path / "rows.jsonl"
    found, said = [], {}

    def meanwhile(row):
        with pytest.raises(
            ValueError, match="rows.jsonl is in use: another run of this very process"
        ):
            asked(out, seeds=(1,))
        child = forked(lambda: told(asked, out))
        said[child] = ended(child)
        found.append(asked(out, methods=("baseline",)))  # what is there already can be read

    def told(work, *given):
        with pytest.raises(ValueError, match="rows.jsonl is in use: process"):
            work(*given)

    rows = asked(out, on_row=lambda row: found or meanwhile(row))
    assert list(said.values()) == [0] and found == [rows[:1]] and read_rows(out) == rows
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    def same(row):
        return {key: value for key, value in row.items() if key != "time_s"}

    def stop(row):
        raise KeyboardInterrupt

    whole = asked(tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        asked(tmp_path / "cut.jsonl", on_row=stop)
    assert len(read_rows(tmp_path / "cut.jsonl")) == 1
    assert [*map(same, asked(tmp_path / "cut.jsonl"))] == [*map(same, whole)]


@pytest.mark.slow
def test_methods_of_a_seed_get_the_same_images_weights_and_order(tmp_path, monkeypatch):
    seen = {}

    def watched(model, mixer, dataset, settings, **options):
        seen[settings.method, settings.seed, settings.data] = (
            [value.clone() for value in model.state_dict().values()],
            dataset.train,
            torch.cat(epoch_order(len(dataset.train), settings.batch_size, settings.seed, 0)),
        )
        return training.fit(model, mixer, dataset, settings, **options)

    monkeypatch.setattr(background, "fit", watched)
    asked(tmp_path / "rows.jsonl", rhos=(0.5, 1.0), seeds=(0, 1))
    half, whole = "shapes:0.5:texture", "shapes:1.0:texture"
    (weights, images, order), (others, same_images, same_order) = (
        seen[m, 0, half] for m in ("baseline", "catchup")
    )
    assert all(torch.equal(a, b) for a, b in zip(weights, others))
    assert torch.equal(images.pixels, same_images.pixels) and torch.equal(order, same_order)
    weights_1, images_1, _ = seen["baseline", 1, half]
    assert not all(torch.equal(a, b) for a, b in zip(weights, weights_1))
    assert not torch.equal(images.pixels, images_1.pixels)
    _, biased, _ = seen["baseline", 0, whole]
    assert torch.equal(biased.labels, images.labels) and not torch.equal(
        biased.pixels, images.pixels
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": ("baselin",)}, "Did you mean 'baseline'"),
        ({"methods": ()}, "methods must name at least one"),
        ({"rhos": (1.5,)}, "got 1.5"),
        ({"seeds": ()}, "seeds must name at least one"),
        ({"cue": "color"}, "colour"),
        ({"seeds": (-1,)}, "seed must be at least 0, got -1"),
        ({"settings": replace(TINY, method_settings={"alhpa": 1})}, "setting of baseline 'alhpa'"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(options, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        asked(tmp_path / "new" / "rows.jsonl", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_files_of_something_else_are_refused_and_left_alone(tmp_path):
    out = tmp_path / "rows.jsonl"
    asked(out, methods=("baseline",))
    kept = out.read_text()
    with pytest.raises(ValueError, match="other settings"):
        asked(out, settings=replace(TINY, lr=0.1))
    for text, says in (
        ('{"a": 1}\n', "something else"),
        ("[1]\n", "something else"),
        ("thesis\n", "cannot read"),
    ):
        out.write_text(text)
        with pytest.raises(ValueError, match=says):
            asked(out)
        assert out.read_text() == text
    out.write_text(kept)
    assert len(asked(out)) == 2


class Follower(nn.Module):
    """Knows shape and background of the images that it is going to get, and says one of them."""

    def __init__(self, sets, says):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.answers = {
            pixels.numpy().tobytes(): answer
            for name, images in sets.items()
            for pixels, answer in zip(images.pixels, says(name, images.labels))
        }

    def forward(self, images):
        stored = (images * 255).round().to(torch.uint8)
        return nn.functional.one_hot(
            torch.stack([self.answers[p.numpy().tobytes()] for p in stored]), KINDS
        ).float()


def test_who_follows_the_shape_and_who_the_background():
    sets, train = test_sets(64, 0), images_of(draw_scenes(32, 0, 1.0))
    dataset = Dataset("shapes", train, sets["broken"], (0.0,) * 3, (1.0,) * 3, Augmentation())
    every = {"train": train, **sets}
    told = draw_scenes(64, 0, 1 / 8, start=2**40).texture
    by_shape = measure_cues(Follower(every, lambda _, labels: labels), dataset, sets)
    assert by_shape == {
        "train_accuracy": 100,
        "kept_accuracy": 100,
        "broken_accuracy": 100,
        "reversed_accuracy": 100,
        "cue_followed": 0,
    }
    cues = {
        "train": lambda y: y,
        "kept": lambda y: y,
        "broken": lambda y: told,
        "reversed": lambda y: (y + 1) % KINDS,
    }
    by_ground = measure_cues(
        Follower(every, lambda name, labels: cues[name](labels)), dataset, sets
    )
    assert (
        by_ground["kept_accuracy"],
        by_ground["reversed_accuracy"],
        by_ground["cue_followed"],
    ) == (100, 0, 100)
    assert by_ground["broken_accuracy"] == 100 * float(
        (told == sets["broken"].labels).double().mean()
    )


def test_nothing_to_report_is_said():
    with pytest.raises(ValueError, match="no rows to report"):
        describe_background([])


def test_the_report_has_a_table_for_each_share_and_paired_differences():
    def row(method, rho, seed, broken):
        return {
            "method": method,
            "rho": rho,
            "seed": seed,
            "cue": "colour",
            "n_train": 16,
            "n_test": 64,
            "epochs": 2,
            "train_accuracy": 99.0,
            "kept_accuracy": 90.0,
            "broken_accuracy": broken,
            "reversed_accuracy": 5.0,
            "cue_followed": 70.0,
        }

    rows = [
        row(method, rho, seed, 40 + 3 * seed + (10 + seed) * (method == "catchup"))
        for rho in (0.125, 0.95)
        for seed in (0, 1)
        for method in ("baseline", "catchup")
    ]
    said = describe_background(rows)
    assert (
        "colour agrees in 12.5 %" in said
        and "colour agrees in 95 %" in said
        and "2 paired seeds" in said
    )
    assert said.count("catchup − baseline") == 2 and said.count("+10.50 ± 0.71") == 2


# The story


@pytest.fixture(scope="module")
def told():
    settings = replace(TINY, subset=4)
    return settings, follow_run("catchup", 0.9, 1, settings=settings, every=1, n=2, progress=False)


@pytest.mark.slow
def test_a_story_is_told_whatever_the_interval_of_validations(tmp_path):
    told = follow_run("baseline", 0.5, settings=replace(TINY, validate_every=0), progress=False)
    assert (
        all(0 <= row["broken_accuracy"] <= 100 for row in told["epochs"])
        and len(told["epochs"]) == TINY.epochs
    )


def test_a_story_has_every_filter_in_every_epoch(told):
    _, found = told
    blocks = {row["block"] for row in found["filters"]}
    assert (
        {row["epoch"] for row in found["filters"]} == {0, 1, 2}
        and "layer4.1" in blocks
        or "layer4" in blocks
    )
    assert [row["epoch"] for row in found["epochs"]] == [1, 2]
    for row in found["filters"]:
        assert (row["method"], row["rho"], row["seed"], row["cue"]) == (
            "catchup",
            0.9,
            1,
            "texture",
        )
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
    settings, found = told
    alone = replace(settings, data="shapes:0.9:texture", method="catchup", seed=1)
    dataset = training.dataset_of(alone, progress=False)
    dataset = replace(dataset, test=dataset.test.take(range(16)))
    rows = training.fit(
        training.model_of(alone, dataset),
        background.make("catchup", seed=1),
        dataset,
        alone,
        progress=False,
    ).rows
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in found["epochs"]]


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
def test_a_followed_run_has_its_story_in_few_numbers_and_is_the_same_run(tmp_path, told):
    settings, found = told
    options = {"methods": ("catchup",), "rhos": (0.9,), "seeds": (1,), "settings": settings}
    (plain,), (row,) = (
        asked(tmp_path / "a", **options),
        asked(tmp_path / "b", follow_filters=True, **options),
    )
    assert all(
        row[key] == plain[key] for key in plain if key.endswith("accuracy") or key == "cue_followed"
    )
    blocks, growth, epochs = (row["story"][key] for key in ("blocks", "growth", "epochs"))
    assert [at["epoch"] for at in epochs] == [1, 2] and len(blocks) == 3 * len(growth)
    assert "weak_gradient" not in blocks[0] and blocks[-1]["weak_gradient"] > 0


@pytest.mark.slow
def test_an_epoch_too_short_to_be_recorded_is_left_out_of_the_story(tmp_path):
    # 1 step in 4
    (row,) = asked(tmp_path / "rows.jsonl", methods=("catchup",), follow_filters=True)
    known = {at["epoch"]: "weak_gradient" in at for at in row["story"]["blocks"]}
    assert known == {0: False, 1: True, 2: False}


def test_a_summary_holds_means_over_the_filters_of_a_block(told):
    _, found = told
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
    settings, _ = told
    dataset = training.dataset_of(replace(settings, data="shapes"), progress=False)
    model = training.model_of(settings, dataset)
    before = json.dumps({key: value.tolist() for key, value in model.state_dict().items()})
    settled = catchup.experiments.follow_filters.settle_batch_norm(model, dataset)
    assert before == json.dumps({key: value.tolist() for key, value in model.state_dict().items()})
    norms = [module for module in settled.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(
        not torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean)) for norm in norms
    )
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), settled.parameters()))
