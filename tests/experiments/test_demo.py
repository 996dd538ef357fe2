"""The demo: small rounds of what `catchup demo` does, and sentences about rows made by hand."""

import json
from dataclasses import replace

import matplotlib
import pytest
import torch

from catchup import plots, training
from catchup.experiments import demo, engines
from catchup.plots.budget import budget_curves

matplotlib.use("Agg")
SMALL = replace(demo.SETTINGS, subset=3, width=4, batch_size=15)


def made(method, seed, epochs, error, kept, learnt=0.0):
    """A row of the demo, its numbers given; both attacks have an error of 2 points more."""
    return {
        "method": method,
        "method_settings": {},
        "seed": seed,
        "data": "digits",
        "subset": 20,
        "model": "resnet18",
        "width": 16,
        "epochs": epochs,
        "n_test": 500,
        "top1_error": error,
        "clean_train_error": learnt,
        "fgsm_error": error + 2,
        "pgd_error": error + 2,
        "feature_drop": {
            "strongest": [[0.0, 100 - error], [0.2, kept]],
            "weakest": [[0.0, 100 - error], [0.2, 90]],
        },
    }


@pytest.fixture
def rows():
    """Two seeds, two budgets; the differences after 100 epochs: errors −0.4 and −0.8, kept 50 and
    52 points.
    """
    return [
        made("baseline", 0, 20, 6.0, 30.0, 1.0),
        made("catchup", 0, 20, 10.0, 50.0, 8.0),
        made("baseline", 1, 20, 8.0, 40.0, 0.0),
        made("catchup", 1, 20, 12.0, 54.0, 6.0),
        made("baseline", 0, 100, 4.0, 40.0),
        made("catchup", 0, 100, 3.6, 90.0, 0.5),
        made("baseline", 1, 100, 4.4, 42.0),
        made("catchup", 1, 100, 3.6, 94.0, 0.0),
    ]


@pytest.mark.slow
def test_demo_trains_compares_draws_and_says_what_is_next(tmp_path):
    out, threads = tmp_path / "demo", torch.get_num_threads()
    results = demo.run_demo(
        out, seeds=(0, 1), budgets=(2, 1), settings=SMALL, engine="local", progress=False
    )
    assert sorted(file.name for file in out.iterdir()) == [
        "budget.png",
        "feature_drop.png",
        "results.json",
    ]
    assert json.loads((out / "results.json").read_text())["rows"] == results["rows"]
    assert [(row["epochs"], row["method"], row["seed"]) for row in results["rows"]] == [
        (epochs, method, seed)
        for epochs in (1, 2)
        for seed in (0, 1)
        for method in ("baseline", "catchup")
    ]
    for row in results["rows"]:
        measured = {
            key
            for key in (
                "top1_error",
                "clean_train_error",
                "feature_drop",
                "fgsm_error",
                "pgd_error",
            )
            if row[key] is not None
        }
        assert measured >= {"top1_error", "clean_train_error", "feature_drop"}
        assert ("fgsm_error" in measured, "pgd_error" in measured) == (row["epochs"] == 2,) * 2
        assert row["hardware"]["threads"] == 1
    said = demo.describe_demo(results, out)
    assert (
        "catchup − baseline" in said
        and "2 paired seeds" in said
        and "notebooks/00_quickstart.ipynb" in said
    )
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path):
    """Also of the order of the rows: the processes begin with the longest runs."""

    def found(engine):
        results = demo.run_demo(
            tmp_path / "demo",
            seeds=(0,),
            budgets=(1, 3),
            settings=SMALL,
            engine=engine,
            progress=False,
        )
        return [{**row, "feature_drop": str(row["feature_drop"])} for row in results["rows"]]

    assert found("pool:jobs=2,threads=1") == found("local")


@pytest.mark.slow
def test_every_budget_is_a_run_of_its_own(tmp_path):
    """Row by row what training with so many epochs gives, not an earlier epoch of the longest
    run.
    """
    results = demo.run_demo(
        tmp_path,
        seeds=(1,),
        methods=("baseline",),
        budgets=(1, 2),
        settings=SMALL,
        engine="local",
        progress=False,
    )
    for row in results["rows"]:
        chosen = replace(SMALL, method="baseline", seed=1, epochs=row["epochs"])
        dataset = training.dataset_of(chosen, progress=False)
        alone = training.fit(
            training.model_of(chosen, dataset),
            demo.make("baseline", seed=1),
            dataset,
            chosen,
            progress=False,
        )
        assert (row["top1_error"], row["clean_train_error"]) == (
            alone.rows[-1]["val_error_percent"],
            alone.rows[-1]["clean_train_error_percent"],
        )


def test_two_processes_are_used_where_there_are_two_processors(monkeypatch):
    for processors, engine in (
        (1, engines.Local()),
        (2, engines.Pool(jobs=2, threads=1)),
        (64, engines.Pool(jobs=2, threads=1)),
    ):
        monkeypatch.setattr(
            "os.sched_getaffinity", lambda _, have=processors: range(have), raising=False
        )
        assert demo._usual_engine() == engine


def test_a_process_that_always_dies_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        engines, "run_jobs", lambda *_: (one for one in [(0, engines.Lost("killed"))])
    )
    with pytest.raises(
        ChildProcessError,
        match="run of baseline, seed 7, 2 epochs was given up .*: killed; .*'local'",
    ):
        demo.run_demo(tmp_path, seeds=(7,), budgets=(2, 1), progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_that_of_the_largest_budget(rows):
    head, baseline, catchup, difference = demo.table({"rows": rows})
    assert head == [
        "",
        "error on its training images",
        "top-1 error",
        "FGSM 4/255 error",
        "PGD-10 4/255 error",
        "accuracy without the strongest 20 %",
    ]
    assert baseline[:3] == ["baseline", "0.00 ± 0.00", "4.20 ± 0.28"]
    assert catchup[1:3] == ["0.25 ± 0.35", "3.60 ± 0.00"] and catchup[-1] == "92.00 ± 2.83"
    assert difference[-1] == "+51.00 ± 1.41"


def test_a_sign_is_claimed_for_the_curve_alone(rows):
    """t of one degree of freedom is 12.706: 51 ± 12.706 · √2 / √2; errors: a mean of 0.6 points, of
    500 images 3.
    """
    kept, errors = demo.claims(rows[4:])
    assert (
        kept == "catchup − baseline, 100 epochs: accuracy without the strongest 20 % +51.0 points "
        "(95 % interval +38.3 … +63.7: a difference)."
    )
    assert (
        errors
        == "Its errors (clean, FGSM, PGD) differ by 3, 3 and 3 of 500 images: no sign is claimed."
    )
    rows[5]["feature_drop"]["strongest"][1][1] = 20.0  # differences −20 and 52
    assert "no difference is shown" in demo.claims(rows[4:])[0]
    assert "unknown: one seed" in demo.claims(rows[4:6])[0]


def test_the_budget_stands_beside_every_number(rows):
    said = demo.describe_demo({"rows": rows}, demo.Path("there")).splitlines()
    assert "resnet18 width 16, 100 epochs; percent on 500 test images" in said[0]
    assert [line for line in said if "epochs: error" in line] == [
        (
            "   20 epochs: error on its training images 0.5 → 7.0, top-1 error 7.0 → 11.0, "
            "accuracy without the strongest 20 % 35.0 → 52.0"
        ),
        (
            "  100 epochs: error on its training images 0.0 → 0.2, top-1 error 4.2 → 3.6, "
            "accuracy without the strongest 20 % 41.0 → 92.0"
        ),
    ]
    assert said[-4:-2] == [
        "results: there/results.json",
        "figures: there/feature_drop.png, there/budget.png",
    ]


def test_the_budget_curves_show_means_and_bands_worked_out_by_hand(rows):
    left, right = budget_curves(rows)
    drawn = [
        [
            (list(line.get_xdata()), list(line.get_ydata()))
            for line in ax.lines
            if len(line.get_xdata())
        ]
        for ax in (left, right)
    ]
    assert drawn == [
        [
            ([20, 100], [7, 4.2]),
            ([20, 100], [0.5, 0]),
            ([20, 100], [11, 3.6]),
            ([20, 100], [7, 0.25]),
        ],
        [([20, 100], [35, 41]), ([20, 100], [52, 92])],
    ]
    heights = sorted(
        {round(y, 6) for x, y in right.collections[0].get_paths()[0].vertices if x == 20}
    )
    assert heights == pytest.approx([35 - 50**0.5, 35 + 50**0.5])  # sample deviation of 30 and 40
    assert (left.get_xscale(), left.get_yscale(), right.get_yscale()) == ("log", "symlog", "linear")
    assert [tick.get_text() for tick in left.get_yticklabels()] == [
        "0",
        "1",
        "3",
        "10",
        "30",
        "100",
    ]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["20", "100"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "baseline",
        "Catch-up Mix",
        "left: test images",
        "left: training images",
    ]
    assert left.lines[0].get_linestyle() == "-" and left.lines[1].get_linestyle() == "--"


def test_large_errors_stand_on_an_axis_that_shows_their_differences(rows):
    large = [
        {**row, "top1_error": 70 + row["seed"], "fgsm_error": 95.0 + row["seed"]} for row in rows
    ]
    top1, fgsm = budget_curves(large, measures=("top1_error", "fgsm_error"))
    assert (top1.get_yscale(), fgsm.get_yscale()) == ("linear", "linear")
    assert top1.get_ylim()[0] == 0  # the errors on training images go down to it
    values = [row["fgsm_error"] for row in large]
    low, high = fgsm.get_ylim()
    assert (
        low < min(values)
        and high > max(values)
        and high - low < 2 * (max(values) - min(values)) + 2
    )


def test_budget_curves_refuse_what_cannot_be_averaged(rows, tmp_path):
    with pytest.raises(ValueError, match="there are no rows"):
        budget_curves([])
    with pytest.raises(ValueError, match="two rows of one seed"):
        budget_curves([*rows, rows[0]])
    with pytest.raises(ValueError, match="catchup, seed 1, has no clean_train_error"):
        plots.save_budgets(
            [*rows[:-1], {**rows[-1], "clean_train_error": None}], tmp_path / "none.png"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_pairs_share_their_images_and_first_weights():
    """The baseline and a mixer that never mixes are the same run, seed by seed."""
    settings = replace(SMALL, epochs=2)
    rows = list(demo.train_rows(("baseline",), (0, 1), settings, ("clean",)))
    again = list(demo.train_rows(("baseline",), (1, 0), settings, ("clean",)))
    start = [
        training.model_of(
            replace(settings, method=method), training.dataset_of(settings)
        ).state_dict()
        for method in ("baseline", "catchup")
    ]
    assert all(torch.equal(start[0][key], start[1][key]) for key in start[0])
    assert [row["last_error"] for row in rows] == [row["last_error"] for row in again[::-1]]
    assert rows[0]["last_error"] == rows[0]["top1_error"]


def test_other_peoples_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="holds other files than a demo's"):
        demo.run_demo(tmp_path, progress=False)
    with pytest.raises(ValueError, match="is a file"):
        demo.run_demo(tmp_path / "thesis.txt", progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_files_of_an_earlier_demo_are_replaced(tmp_path):
    for name in ("results.json", "feature_drop.png"):
        (tmp_path / name).write_text("old")
    demo.run_demo(
        tmp_path,
        seeds=(0,),
        methods=("baseline",),
        budgets=(1,),
        settings=SMALL,
        engine="local",
        progress=False,
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "budget.png",
        "feature_drop.png",
        "results.json",
    ]
    assert all(b"old" != file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"budgets": (1, 0)}, "epochs must be at least 1, got 0"),
        ({"budgets": ()}, r"budgets .* at least one.*got \(\)"),
        ({"budgets": (3, 3)}, r"none of them twice, got \(3, 3\)"),
        ({"seeds": (-1,)}, "seed must be at least 0, got -1"),
        ({"methods": "catchup"}, "methods must be a list .* got 'catchup'"),
        ({"methods": ("cathcup",)}, "'catchup'"),
        ({"engine": "pool:jobs=0"}, "jobs must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(tmp_path, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        demo.run_demo(tmp_path / "demo", progress=False, **given)
    assert not (tmp_path / "demo").exists()
