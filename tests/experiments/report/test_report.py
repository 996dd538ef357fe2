"""The report on records made by hand: what fills which cell, which record is shown, what is said of
it.
"""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scipy import stats

from catchup.cli.commands import main
from catchup.experiments.report import cells as report
from catchup.experiments.report import printed as paper
from catchup.experiments.report import records as report_records
from catchup.experiments.report.html import page
from catchup.experiments.report.text import HEAD, as_report, as_values
from catchup.experiments.report.verdict import RULE, WORDS
from catchup.training.recipes import settings_of
from catchup.training.settings import Settings
from catchup.utils.files import jsonable

ROOT = Path(__file__).parents[3]
FIFTY = "folder:data/cifar100-50"


LEARNING = {"trained": False, "reason": "as it was judged then"}


def row(method, seed, top1, recipe=None, changed=None, **more):
    """An evaluation object of a run by these settings, by a recipe or not; `changed`: of them."""
    chosen = {
        "data": FIFTY,
        "subset": None,
        "model": "preact_resnet18",
        "width": 16,
        "epochs": 30,
        "method_settings": {},
    }
    chosen |= {key: value for key, value in more.items() if key in chosen}
    if recipe:
        own = settings_of(recipe, None, data=chosen["data"], model=chosen["model"]).as_dict()
    else:
        own = Settings().as_dict()
    settings = {**own, **chosen, "method": method, "seed": seed, **(changed or {})}
    return {
        "method": method,
        "seed": seed,
        "settings": jsonable(settings),
        **chosen,
        "finished": True,
        "n_test": 10000,
        "top1_error": top1,
        "clean_train_error": 0.0,
        "hardware": {"processor": "P", "threads": 1, "gpu": None},
        "commit": "abc",
        "training": {"command": "catchup train --lr 0.1", "commit": "def"},
        **more,
    }


def three(method, errors, **more):
    return [row(method, seed, error, **more) for seed, error in enumerate(errors)]


FIRST, SECOND = (80.0, 82.0, 81.0), (75.5, 76.0, 77.0)


def written(tmp_path, rows, name="results.json") -> Path:
    path = tmp_path / name
    path.write_text(json.dumps({"rows": rows, "differences": []}))
    return path


def cell(results, *place, which="catchup"):
    """The cell of (table, row, column)."""
    (found,) = [one for one in results["cells"] if one.printed[:4] == (which, *place)]
    return found


def whole(method, errors, **more):
    """Rows under the paper's own protocol."""
    return three(
        method,
        errors,
        **{"data": "cifar100", "width": None, "epochs": 2000, "recipe": "c100-2000", **more},
    )


def test_a_cell_holds_the_paired_difference_of_scipy(tmp_path):
    results = report.make_report(
        [written(tmp_path, three("baseline", FIRST) + three("catchup", SECOND)[::-1])],
        tables=(1, 4),
    )
    error = cell(results, "Table 1", "Catch-up Mix", "Top-1 Err")
    expected = stats.ttest_rel(SECOND, FIRST).confidence_interval(0.95)
    difference = error.ours.difference
    assert [difference.low, difference.high] == pytest.approx(list(expected)) and difference.n == 3
    assert error.printed_difference == pytest.approx(17.76 - 22.98)
    assert sorted(error.ours.values) == sorted(SECOND)
    assert str(error.verdict) == "same sign (scaled), interval excludes 0"
    said = "; ".join(error.ours.scale)
    for part in (
        "10 % of the training images (50 of 500 per class)",
        "width 16 instead of 64",
        "30 epochs instead of 2000",
        "no recipe named (the paper's: c100-2000)",
    ):
        assert part in said
    accuracy = cell(results, "Table 4", "Catch-up Mix", "CIFAR-100 10 %")
    assert accuracy.ours.difference.mean == pytest.approx(-difference.mean)  # 100 minus the error
    assert accuracy.ours.difference.high == pytest.approx(-difference.low)
    assert sorted(accuracy.ours.values) == sorted(100 - error for error in SECOND)
    assert accuracy.printed_difference == pytest.approx(51.26 - 35.88)
    # 50 of 500 are the row's 10 %
    assert not any("training images" in part for part in accuracy.ours.scale)
    assert cell(results, "Table 1", "Baseline", "Top-1 Err").verdict.word == "reference"
    assert cell(results, "Table 1", "CutMix", "Top-1 Err").verdict.word == "not run"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"clean_train_error": 2.1}, "2.1 % error on its training images"),
        ({"clean_train_error": None}, "its error on training images was not measured"),
        ({"identity": {"shape": [3, 32, 32]}}, "1.5 % of the paper's steps, less than 5 %"),
        ({"learning": LEARNING | {"half_budget_gain": 3}}, ""),  # it knows its images
        ({"clean_train_error": 9, "learning": LEARNING | {"half_budget_gain": 0.3}}, ""),
    ],
)
@pytest.mark.parametrize("which", [0, 3])  # of the reference, of the method
def test_networks_that_still_learn_are_too_short_to_tell(tmp_path, changed, reason, which):
    rows = three("baseline", FIRST) + three("catchup", (83, 84, 84))
    rows[which] |= changed
    results = report.make_report([written(tmp_path, rows)], tables=(1,), which="catchup")
    verdict = cell(results, "Table 1", "Catch-up Mix", "Top-1 Err").verdict
    expected = ("too short to tell", reason) if reason else ("not reproduced (scaled)",)
    assert verdict[: len(expected)] == expected and verdict.agrees is False


def test_opposite_sign_and_single_seeds(tmp_path):
    rows = three("baseline", FIRST) + three("catchup", (83, 84, 84)) + [row("cutmix", 1, 80.0)]
    results = report.make_report([written(tmp_path, rows)], tables=(1,), which="catchup")
    assert (
        cell(results, "Table 1", "Catch-up Mix", "Top-1 Err").verdict.word
        == "not reproduced (scaled)"
    )
    single = cell(results, "Table 1", "CutMix", "Top-1 Err")
    assert str(single.verdict) == "same sign (scaled), one seed, no interval"
    assert single.ours.difference[:4] == (-2.0, None, None, 1)  # seed 1 against seed 1
    assert "-2.00 [one seed]" in as_report(results)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "reproduced"),
        ({"width": 64}, "reproduced"),
        ({"width": 32}, "same sign (scaled)"),
        ({"epochs": 200}, "same sign (scaled)"),
        ({"model": "resnet18"}, "same sign (scaled)"),
        ({"n_test": 500}, "same sign (scaled)"),
        ({"subset": 0.5}, "same sign (scaled)"),
        ({"recipe": None}, "same sign (scaled)"),
        ({"recipe": "c100-400"}, "same sign (scaled)"),
        ({"changed": {"scale": "small"}}, "same sign (scaled)"),
        ({"changed": {"weight_decay": 0.3}}, "same sign (scaled)"),
        ({"changed": {"device": "cpu", "data_dir": "there", "workers": 2}}, "reproduced"),
        ({"training": None}, "reproduced"),
    ],
)
def test_reproduced_is_for_the_papers_own_protocol(tmp_path, change, word):
    rows = whole("baseline", (23.0, 23.2, 22.8), **change) + whole(
        "catchup", (17.8, 18.0, 17.5), **change
    )
    results = report.make_report([written(tmp_path, rows)], tables=(1,), which="catchup")
    found = cell(results, "Table 1", "Catch-up Mix", "Top-1 Err")
    assert found.verdict.word == word, found.ours.scale
    assert bool(found.ours.scale) == (word != "reproduced")


def test_a_sample_of_the_test_images_scales_only_what_was_measured_on_it(tmp_path):
    how = {"fgsm": {"sample": 20, "eps_255": 4.0}}
    rows = [
        {**one, "fgsm_error": one["top1_error"] + 60, "measured_with": how}
        for one in whole("baseline", (23.0, 23.2, 22.8)) + whole("catchup", (17.8, 18.0, 17.5))
    ]
    results = report.make_report([written(tmp_path, rows)], tables=(1,), which="catchup")
    assert cell(results, "Table 1", "Catch-up Mix", "Top-1 Err").verdict.word == "reproduced"
    assert cell(results, "Table 1", "Catch-up Mix", "FGSM Err").ours.scale == (
        "a sample of 20 test images per class",
    )


def test_variants_fill_the_ablations(tmp_path):
    rows = (
        three("baseline", FIRST) + three("randomchannel", (81, 83, 82)) + three("catchup", SECOND)
    )
    for number, settings in enumerate(
        (
            {"input_mix": "none"},
            {"input_mix": "mixup"},
            {"alpha": 10},
            {"alpha": 0.5},
            {"layers": [0, 1, 2, 3, 4]},
            {"layers": [1, 2, 3, 4, 5]},
        )
    ):
        rows += three(
            "catchup", (70.0 + number, 71.0 + number, 71.5 + number), method_settings=settings
        )
    results = report.make_report([written(tmp_path, rows)], which="catchup")

    def method(*place):
        return cell(results, *place).ours.method

    assert method("Table 8", "with CutMix", "CIFAR-100") == "catchup"
    assert method("Table 8", "with InputMixup", "CIFAR-100") == "catchup:input_mix=mixup"
    assert method("Table 9", "Catch-up Mix", "CIFAR-100") == "catchup:input_mix=none"
    assert method("Table 9", "RandomChannelMix", "CIFAR-100") == "randomchannel"
    assert method("Table 10", "α = 0.5", "CIFAR-100 PreActResNet18") == "catchup:alpha=0.5"
    assert method("Table 10", "α = 1.0", "CIFAR-100 PreActResNet18") == "catchup"
    assert method("Table 11", "layer set 5 of 5", "Top-1 Acc") == "catchup:layers=[0, 1, 2, 3, 4]"
    assert method("Table 1", "Catch-up Mix", "Top-1 Err") == "catchup"
    mixup = cell(results, "Table 8", "with InputMixup", "CIFAR-100")
    # accuracies 30, then 29
    assert mixup.reference == "No Mixup" and mixup.ours.difference.mean == pytest.approx(-1.0)
    assert cell(results, "Table 10", "α = 10.0", "CIFAR-100 PreActResNet18").reference == "α = 1.0"


def test_without_input_mix_two_kinds_of_run_will_do(tmp_path):
    rows = three("baseline", FIRST) + three(
        "catchup", SECOND, method_settings={"layers": [1, 2, 3, 4, 5]}
    )
    found = cell(
        report.make_report([written(tmp_path, rows)], tables=(9,)),
        "Table 9",
        "Catch-up Mix",
        "CIFAR-100",
    )
    assert "catchup:layers=[1, 2, 3, 4, 5] instead of catchup:input_mix=none" in found.ours.scale


def test_the_papers_alpha_goes_first_and_another_is_said(tmp_path):
    tiny = {"data": "tiny-imagenet:data/tiny-imagenet-50", "n_test": 2500}
    rows = three("baseline", FIRST, **tiny) + three("catchup", SECOND, **tiny)
    found = cell(
        report.make_report([written(tmp_path, rows)], tables=(2,)),
        "Table 2",
        "Catch-up Mix",
        "Top-1 Err",
    )
    assert "catchup instead of catchup:alpha=10.0" in found.ours.scale
    assert (
        "50 of 200 classes" in found.ours.scale
        and "2500 instead of 10000 test images" in found.ours.scale
    )
    rows += three("catchup", (60, 61, 62), method_settings={"alpha": 10}, **tiny)
    found = cell(
        report.make_report([written(tmp_path, rows)], tables=(2,)),
        "Table 2",
        "Catch-up Mix",
        "Top-1 Err",
    )
    assert found.ours.method == "catchup:alpha=10.0"
    assert not any("instead of catchup" in one for one in found.ours.scale)


def test_settings_of_older_records_and_the_spelling_of_layers():
    written_as = report_records.as_written
    assert (
        written_as("catchup", {})
        == written_as("catchup", {"alpha": 1, "layers": [0, 1, 2, 3, 4, 5]})
        == "catchup"
    )
    assert written_as("baseline", {"prob": 0.0, "criterion": "ce"}) == "baseline"
    assert (
        written_as("baseline", {"regularisers": ["cutout:size=3"]})
        == 'baseline:regularisers=["cutout"]'
    )
    assert report_records.stands_for(
        'baseline:regularisers=["cutout"]', "baseline:regularisers=[cutout]"
    )
    assert not report_records.stands_for("cutmix:alpha=0.2", "cutmix")
    assert report_records.stands_for("cutmix:alpha=0.2", "cutmix:*")
    assert (
        not report_records.stands_for("cutmix", "mixup:*")
        and written_as("new", {"a": 1}) == "new:a=1.0"
    )


def test_a_share_stands_beside_the_papers_column_of_that_share(tmp_path):
    rows = [
        one
        for subset in (10, 25, None)
        for one in three("baseline", FIRST, subset=subset) + three("catchup", SECOND, subset=subset)
    ]
    results = report.make_report([written(tmp_path, rows)], tables=(4, 1), which="catchup")
    found = cell(results, "Table 4", "Catch-up Mix", "CIFAR-100 10 %")
    assert found.ours.record.per_class == 50 and not found.others  # 50 of 500
    assert not any("training images" in words for words in found.ours.scale)
    for share in (25, 50):
        other = cell(results, "Table 4", "Catch-up Mix", f"CIFAR-100 {share} %")
        assert other.verdict.word == "not run"
    # the most there is
    assert cell(results, "Table 1", "Catch-up Mix", "Top-1 Err").ours.record.per_class == 50
    full = (
        rows
        + three("baseline", FIRST, width=64, data="cifar100", subset=0.1)
        + three("catchup", SECOND, width=64, data="cifar100", subset=0.1)
    )
    found = cell(
        report.make_report([written(tmp_path, full)], tables=(4,)),
        "Table 4",
        "Catch-up Mix",
        "CIFAR-100 10 %",
    )
    assert found.ours.record.width == 64 and len(found.others) == 1


def test_records_of_one_setting_that_disagree_are_shown_together(tmp_path):
    four = three("baseline", (80, 80, 80)) + three("catchup", (79, 79, 78.5))
    two = three("baseline", (80, 80)) + three("catchup", (81, 80.5))
    places = [written(tmp_path, four, "four.json"), written(tmp_path, two, "two.json")]
    said = as_report(report.make_report(places, tables=(1,), which="catchup"))
    assert "records of one setting disagree: -1.17 (3 pairs, " in said
    assert f"; +0.75 (2 pairs, {places[1]})" in said
    longer = [{**one, "epochs": 40} for one in two]
    places[1] = written(tmp_path, longer, "two.json")
    assert "disagree" not in as_report(report.make_report(places, tables=(1,), which="catchup"))


def test_errors_on_other_numbers_of_test_images_are_not_paired(tmp_path):
    rows = three("baseline", FIRST) + three("catchup", SECOND, n_test=500)
    results = report.make_report([written(tmp_path, rows)], tables=(1,), which="catchup")
    found = cell(results, "Table 1", "Catch-up Mix", "Top-1 Err")
    assert found.ours.difference is None and found.ours.beside == ()


@pytest.mark.parametrize("subset, said", [(0.99, False), (0.9, True), (475, True)])
def test_a_tenth_less_data_is_said(tmp_path, subset, said):
    rows = whole("baseline", FIRST, subset=subset) + whole("catchup", SECOND, subset=subset)
    results = report.make_report([written(tmp_path, rows)], tables=(1,), which="catchup")
    scale = cell(results, "Table 1", "Catch-up Mix", "Top-1 Err").ours.scale
    assert any("% of the training images" in words for words in scale) is said


def test_more_epochs_than_the_papers_are_said_too(tmp_path):
    rows = whole("baseline", FIRST, epochs=4000) + whole("catchup", SECOND, epochs=4000)
    results = report.make_report([written(tmp_path, rows)], tables=(1,), which="catchup")
    found = cell(results, "Table 1", "Catch-up Mix", "Top-1 Err")
    assert "4000 epochs instead of 2000" in found.ours.scale
    assert found.verdict.word.endswith("(scaled)")


def test_a_run_folder_with_the_evaluation_of_another_seed_is_refused(tmp_path):
    first, second = three("baseline", FIRST)[:2]
    for name, mine, evaluated in (("a", first, second), ("b", first, first)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"settings": mine["settings"]}))
        (tmp_path / name / "evaluation.json").write_text(json.dumps(evaluated))
    with pytest.raises(
        ValueError, match="of another run than run.json beside it .baseline, seed 1"
    ):
        report.make_report([tmp_path / "a"])
    report.make_report([tmp_path / "b"])
    (tmp_path / "b" / "evaluation.json").write_text(json.dumps({**first, "seed": 7}))
    with pytest.raises(ValueError, match="seed 7, and 0 in its settings"):
        report.make_report([tmp_path / "b"])


def test_two_equal_differences_are_known_to_one_test_image(tmp_path):
    rows = three("baseline", (80, 81, 82)) + three("catchup", (79, 80, 81))
    for images, how, step in (
        (10000, {}, 0.01),
        (500, {}, 0.2),
        (
            500,
            {"measured_with": {"clean": {"sample": 1}}, "identity": {"classes": list("abcd")}},
            25,
        ),
    ):
        found = cell(
            report.make_report(
                [written(tmp_path, [{**one, "n_test": images, **how} for one in rows])], tables=(1,)
            ),
            "Table 1",
            "Catch-up Mix",
            "Top-1 Err",
        )
        assert found.ours.difference.high - found.ours.difference.low == pytest.approx(
            2 * 4.302652730 * step / (12 * 3) ** 0.5
        )


def test_the_p_values_of_a_table_are_corrected_together(tmp_path):
    rng_rows = three("baseline", FIRST)
    for method, errors in (
        ("catchup", (75, 78, 77)),
        ("cutmix", (79, 82, 80)),
        ("mixup", (70, 71, 72)),
    ):
        rng_rows += three(method, errors)
    results = report.make_report([written(tmp_path, rng_rows)], tables=(1,), which="catchup")
    found = [one for one in results["cells"] if one.verdict.agrees is not None]
    plain = [one.ours.difference.p for one in found]
    for one in found:
        expected = stats.ttest_rel(one.ours.values, one.ours.beside).pvalue
        assert one.ours.difference.p == pytest.approx(expected)
    order = sorted(plain)  # by the definition, one after the other
    steps = [
        max(min(1, (len(plain) - j) * order[j]) for j in range(i + 1)) for i in range(len(plain))
    ]
    assert [one.p_holm for one in found] == pytest.approx([steps[order.index(p)] for p in plain])


def test_measures_inside_fields_and_data_that_stands_in(tmp_path):
    def more(value):
        return {
            "corruption": {"mce": 50 + value},
            "ood": {"fpr95": 90 - value, "auroc": 50.0, "aupr": 20.0},
            "deformation": {"shear 28.6": 40 + value},
            "landscape": {"top_eigenvalue": 9 - value},
            "localization": {"gt_known_loc": 30 + value},
            "feature_drop": {"strongest": [[0.2, 20 + value]]},
        }

    tiny = {"data": "tiny-imagenet:data/tiny-imagenet-50", "n_test": 2500}
    rows = []
    for method, base in (("baseline", 0), ("cutmix", 1), ("manifoldmixup", 1), ("catchup", 3)):
        for data in (tiny, {}):
            rows += [
                row(method, seed, 60.0, **more(base + seed / 10), **data) for seed in (0, 1, 2)
            ]
    results = report.make_report([written(tmp_path, rows)], which="catchup")
    for place, mean in (
        (("Table 1", "Catch-up Mix", "mCE"), 3),
        (("Table 2", "Catch-up Mix", "shear ±28.6°"), 3),
        (("Table 5", "Catch-up Mix", "ImageNet-O FPR95"), -2),  # from CutMix
        (("Table 7", "Catch-up Mix", "GT-known Loc"), 3),
        (("Figure 3", "Catch-up Mix", "sharpness against ManifoldMixup"), -2),
        (("Figure 5", "Catch-up Mix", "accuracy without the strongest 20 % of the features"), 3),
    ):
        assert cell(results, *place).ours.difference.mean == pytest.approx(mean), place
    assert cell(results, "Table 1", "Catch-up Mix", "mCE").verdict.word == "not reproduced (scaled)"
    assert (
        cell(results, "Figure 3", "Catch-up Mix", "sharpness against Baseline").verdict.word
        == "same sign (scaled)"
    )
    assert {"Tiny-ImageNet instead of CUB-200-2011", "the paper states no protocol"} <= set(
        cell(results, "Table 7", "Catch-up Mix", "GT-known Loc").ours.scale
    )
    # nothing stands in for accuracy on CUB
    assert cell(results, "Table 3", "Catch-up Mix", "CUB R18").ours is None
    # another network
    assert cell(results, "Table 6", "Catch-up Mix", "CIFAR-100 R18*").ours is None


def test_records_of_several_places_are_never_paired_and_the_choice_is_blind(tmp_path):
    few = written(tmp_path, three("baseline", FIRST)[:1] + three("catchup", (10.0,)), "few.json")
    many = written(tmp_path, three("baseline", FIRST) + three("catchup", SECOND), "many.json")
    alone = written(tmp_path, three("mixup", SECOND), "alone.json")
    results = report.make_report([few, alone, many], tables=(1,), which="catchup")
    found = cell(results, "Table 1", "Catch-up Mix", "Top-1 Err")
    assert found.ours.record.source == str(many) and [
        one.record.source for one in found.others
    ] == [str(few)]
    lonely = cell(results, "Table 1", "InputMixup", "Top-1 Err")
    assert (
        str(lonely.verdict) == "not run, no Baseline beside it" and lonely.ours.difference is None
    )


def test_step_costs_stand_for_times(tmp_path):
    cost = tmp_path / "overhead.json"
    bench = {"model": "resnet18", "width": 16, "batch": 100, "rounds": 5}
    cost.write_text(
        json.dumps(
            {
                "bench": bench,
                "device": "cpu",
                "rows": [{"method": "catchup", "ratio": 1.06, "low": 1.02, "high": 1.1}],
            }
        )
    )
    results = report.make_report([cost], tables=(1,), which="catchup")
    found = cell(results, "Table 1", "Catch-up Mix", "Time/epoch")
    assert found.printed_difference == pytest.approx(100 * (107.8 / 103.8 - 1))
    assert found.ours.difference[:4] == (pytest.approx(6), pytest.approx(2), pytest.approx(10), 5)
    assert str(found.verdict) == "same sign (scaled), quartile range excludes 0"
    assert "×1.06" in as_report(results) and "one training step: model resnet18" in as_report(
        results
    )
    assert cell(results, "Table 1", "Catch-up Mix", "Top-1 Err").verdict.word == "not run"


def test_run_folders_pair_up_by_their_settings(tmp_path):
    for method, errors in (("baseline", FIRST), ("catchup", SECOND)):
        for place, lr in (("a", 0.1), ("b", 0.2)):
            for one in three(method, errors, changed={"lr": lr}):
                folder = tmp_path / "runs" / f"{place}-{method}-{one['seed']}"
                folder.mkdir(parents=True)
                (folder / "evaluation.json").write_text(json.dumps({**one, "commit": place}))
    every = report.make_report([tmp_path / "runs"], tables=(1,), which="catchup")
    found = cell(every, "Table 1", "Catch-up Mix", "Top-1 Err")
    assert found.ours.difference.n == 3 and len(found.others) == 1 and len(every["records"]) == 2
    named = report.make_report(
        sorted((tmp_path / "runs").glob("a-*")), tables=(1,), which="catchup"
    )
    assert (
        cell(named, "Table 1", "Catch-up Mix", "Top-1 Err").ours.difference == found.ours.difference
    )


def test_a_folder_of_a_comparison_is_read_by_its_results(tmp_path):
    rows = three("baseline", FIRST) + three("catchup", SECOND)
    (tmp_path / "one" / "baseline-0").mkdir(parents=True)
    (tmp_path / "one" / "baseline-0" / "evaluation.json").write_text(json.dumps(rows[0]))
    written(tmp_path / "one", rows)
    for place in (tmp_path / "one", tmp_path):
        found = cell(
            report.make_report([place], tables=(1,)), "Table 1", "Catch-up Mix", "Top-1 Err"
        )
        assert found.ours.difference.n == 3 and not found.others


def test_what_cannot_stand_anywhere_is_said(tmp_path):
    rows = (
        three("baseline", FIRST, data="digits")
        + three("baseline", FIRST, finished=False)
        + three("baseline", FIRST, data="folder:mine")
    )
    results = report.make_report([written(tmp_path, rows)])
    assert any("digits is in none of the papers' tables" in line for line in results["unused"])
    assert any("seed 1, is not finished" in line for line in results["unused"])
    assert (
        set(results["counts"]) == {"not run", "reference", "not compared"}
        and not results["records"]
    )


def test_bad_places_are_refused(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text.json"
    text.write_text("{")
    other = tmp_path / "other.json"
    other.write_text('{"rows": [1]}')
    twice = written(tmp_path, three("baseline", FIRST) * 2)
    for path, said in (
        (empty, "holds no evaluated run"),
        (tmp_path / "none", "holds no evaluated run"),
        (text, "cannot read"),
        (other, "holds no evaluation objects"),
        (twice, "two rows of baseline, seed 0"),
    ):
        with pytest.raises(ValueError, match=said):
            report.make_report([path])


class Reader(HTMLParser):
    """Tags in order, checked to be closed in order; the text; the anchors."""

    def __init__(self):
        super().__init__()
        self.open, self.tables, self.ids, self.links, self.text, self.rows = [], 0, [], [], [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        assert tag not in ("script", "img", "link") and "src" not in given
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1
        self.tables += tag == "table"
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_parses_and_leads_somewhere(tmp_path):
    results = report.make_report(
        [written(tmp_path, three("baseline", FIRST) + three("catchup", SECOND))]
    )
    reader = Reader()
    reader.feed(page(results))
    reader.close()
    assert not reader.open and reader.tables == len(paper.layout()["tables"]) == 25
    assert len(reader.rows) == len(results["cells"]) + 25 and set(reader.rows) == {len(HEAD)}
    assert len(set(reader.ids)) == len(reader.ids)
    assert reader.links and all(
        link.startswith("#") and link[1:] in reader.ids for link in reader.links
    )
    text = "".join(reader.text)
    assert RULE in text and "same sign (scaled), interval excludes 0" in text and "17.76" in text


def test_the_page_escapes_everything(tmp_path):
    nasty = "<script>alert('&\"')</script>"
    more = {
        "training": {"command": nasty, "commit": nasty},
        "versions": {nasty: nasty},
        "hardware": {"gpu": nasty},
    }
    rows = [{**one, **more} for one in three("baseline", FIRST) + three("catchup", SECOND)]
    rows += three("catchup", SECOND, method_settings={"label": nasty}) + three(
        "baseline", FIRST, data=nasty
    )
    results = report.make_report([written(tmp_path, rows, "a<b>&.json")])
    first = results["cells"][0]
    results["cells"][0] = first._replace(
        printed=first.printed._replace(row=nasty, note=nasty, protocol=nasty)
    )
    html = page(results)
    assert "<script" not in html and "&lt;script&gt;" in html and "a&lt;b&gt;&amp;.json" in html
    Reader().feed(html)


def test_the_text_has_a_table_for_every_table(tmp_path):
    results = report.make_report(
        [written(tmp_path, three("baseline", FIRST) + three("catchup", SECOND))],
        tables=(1,),
        which="catchup",
    )
    lines = as_report(results).splitlines()
    assert (
        lines[0]
        == "Catch-up Mix, Table 1: CIFAR-100, PreActResNet-18; protocol c100-2000; compared with"
        " Baseline"
    )
    assert lines[1].split() == " ".join(HEAD).split()
    body = lines[2:46]
    assert len(body) == 44 and len({len(line) for line in lines[1:46]}) == 1  # aligned
    ours = next(line for line in body if "Catch-up Mix" in line and "Top-1" in line)
    assert "17.76" in ours and "76.17 ± 0.76   81.00 ± 1.00  3" in ours and "-5.22" in ours
    assert ours.rstrip().endswith(" a")
    assert lines[46].startswith("a: 10 % of the training images")
    assert lines[-1] == "44 cells: 1 same sign (scaled); 37 not run; 4 reference; 2 not compared"
    short = as_report(results, everything=False)
    assert "without a record, not shown: 42 cells" in short and "PuzzleMix" not in short


def test_beside_ours_stands_the_reference_of_the_same_record(tmp_path):
    """The reference's own cell shows the record of more seeds, which may have trained longer or on
    more images.
    """
    long = written(
        tmp_path,
        [{**one, "epochs": 60} for one in three("baseline", (60.0, 61.0, 62.0))],
        "long.json",
    )
    short = written(tmp_path, three("baseline", FIRST[:2]) + three("catchup", SECOND[:2]))
    found = cell(
        report.make_report([long, short], tables=(1,)), "Table 1", "Catch-up Mix", "Top-1 Err"
    )
    assert found.ours.values == SECOND[:2] and found.ours.beside == FIRST[:2]
    assert found.ours.difference.mean == pytest.approx(-5.25)


def scale_of(tmp_path, rows, *place, table=1):
    """The words that say in what the run of a cell differs from the paper's."""
    found = cell(
        report.make_report([written(tmp_path, rows)], tables=(table,)), f"Table {table}", *place
    )
    return found.ours.scale, found.verdict.word


def test_a_test_that_is_not_the_papers_is_no_reproduction(tmp_path):
    def attacked(eps):
        return [
            {
                **one,
                "fgsm_error": one["top1_error"],
                "measured_with": {"fgsm": {"sample": None, "eps_255": eps}},
            }
            for one in whole("baseline", FIRST) + whole("catchup", SECOND)
        ]

    place = ("Catch-up Mix", "FGSM Err")
    assert not any("eps" in words for words in scale_of(tmp_path, attacked(4.0), *place)[0])
    scale, word = scale_of(tmp_path, attacked(1.0), *place)
    assert "eps 255 1.0 instead of 4.0" in scale and word.endswith("(scaled)")


def test_images_from_elsewhere_are_named_where_they_are_not_the_papers(tmp_path):
    rows = [
        {
            **one,
            "ood": {"aupr": 20.0, "aupr_chance": 10.0},
            "measured_with": {"ood": {"ood": "folder:dtd"}},
        }
        for one in three("baseline", FIRST) + three("cutmix", SECOND)
    ]
    results = report.make_report([written(tmp_path, rows)], tables=(5,))
    found = cell(results, "Table 5", "CutMix", "ImageNet-O AUPR")
    assert "ood folder:dtd instead of imagenet-o" in found.ours.scale
    assert "beside ours: AUPR by chance 10.00" in as_report(results)


def test_a_recipe_followed_with_the_network_of_the_column_is_the_papers_protocol(tmp_path):
    def rows(**changed):
        return [
            one
            for method, errors in (("baseline", FIRST), ("catchup", SECOND))
            for one in whole(
                method,
                errors,
                model="resnext50_32x4d",
                epochs=400,
                recipe="c100-400",
                changed={"loader": "stream", "workers": 2, **changed},
            )
        ]

    place = ("Catch-up Mix", "CIFAR-100 RX50*")
    assert scale_of(tmp_path, rows(), *place, table=6)[0] == ()
    assert scale_of(tmp_path, rows(lr=0.3), *place, table=6)[0] == ("lr not the recipe's",)


@pytest.mark.parametrize(("min_lr", "left_out"), [(0.0, True), (0.05, False)])
def test_a_rule_that_a_comparison_left_out_is_told(tmp_path, min_lr, left_out):
    rows = [
        one
        for method, errors in (("baseline", FIRST), ("automix", SECOND))
        for one in three(
            method,
            errors,
            data="cifar100",
            model="resnet18",
            width=None,
            epochs=800,
            recipe="c100-800",
            changed={"min_lr": min_lr},
        )
    ]
    results = report.make_report([written(tmp_path, rows)], tables=(1,), which="automix")
    found = next(
        one
        for one in results["cells"]
        if one.ours
        and one.ours.method.startswith("automix")
        and "CIFAR-100" in "".join(one.printed[2:4])
    )
    assert ("automix: the recipe's min lr 0.05 left out" in found.ours.scale) is left_out


def test_the_stride_of_the_stem_is_told(tmp_path):
    rows = three("baseline", FIRST, changed={"stem_stride": 2}) + three(
        "catchup", SECOND, changed={"stem_stride": 2}
    )
    assert "stem stride 2" in scale_of(tmp_path, rows, "Catch-up Mix", "Top-1 Err")[0]


def test_only_what_was_measured_alike_is_paired(tmp_path):
    """FGSM of another radius, or on a sample, is another measurement; each row's options count."""

    def attacked(method, errors, hows):
        return [
            {**one, "fgsm_error": one["top1_error"], "measured_with": {"fgsm": how}}
            for one, how in zip(three(method, errors), hows)
        ]

    whole_set, sampled = {"sample": None, "eps_255": 4.0}, {"sample": 10, "eps_255": 16.0}
    place = ("Table 1", "Catch-up Mix", "FGSM Err")
    for second, seeds in (((whole_set,) * 3, (0, 1, 2)), ((whole_set, whole_set, sampled), (0, 1))):
        rows = attacked("baseline", FIRST, (whole_set,) * 3) + attacked("catchup", SECOND, second)
        found = cell(report.make_report([written(tmp_path, rows)], tables=(1,)), *place)
        assert found.ours.seeds == seeds and found.ours.difference.n == len(seeds)
    rows = attacked("baseline", FIRST, (whole_set,) * 3) + attacked(
        "catchup", SECOND, (sampled,) * 3
    )
    found = cell(report.make_report([written(tmp_path, rows)], tables=(1,)), *place)
    assert found.ours.difference is None and "eps 255 16.0 instead of 4.0" in found.ours.scale


def test_remarks_tell_the_epoch_and_the_check_of_the_attacks(tmp_path):
    rows = [
        {**one, "fgsm_error": 50.0, "pgd_error": pgd}
        for one, pgd in zip(
            three("baseline", FIRST) + three("catchup", SECOND), (60, 60, 60, 60, 40, 60)
        )
    ]
    said = as_report(report.make_report([written(tmp_path, rows)], tables=(1,)))
    assert "ours after the last epoch; c100-2000 prints the best epoch" in said
    assert "(Catch-up Mix, FGSM Err): gradient masking: the PGD error (40.00 %)" in said
    assert (
        "(Baseline, FGSM Err): no sign of gradient masking: PGD errs as often as FGSM, or more"
        in said
    )


def test_values_for_json(tmp_path):
    results = report.make_report(
        [written(tmp_path, three("baseline", FIRST) + three("catchup", SECOND))], tables=(1,)
    )
    values = json.loads(json.dumps(as_values(results)))
    found = next(
        one
        for one in values["cells"]
        if (one["row"], one["column"]) == ("Catch-up Mix", "Top-1 Err")
    )
    assert (found["text"], found["ours"]["difference"]["n"], found["word"]) == (
        "17.76",
        3,
        "same sign (scaled)",
    )
    assert found["ours"]["values"] == list(SECOND) and found["ours"]["reference_values"] == list(
        FIRST
    )
    assert (
        found["ours"]["hardware"] == "P, threads: 1"
        and found["ours"]["record"] in values["records"]
    )
    assert (
        values["records"]["a"]["commit"] == "def"
        and values["records"]["a"]["command"] == "catchup train --lr 0.1"
    )


@pytest.mark.slow
def test_the_command(tmp_path, capsys, monkeypatch):
    path, html = (
        written(tmp_path, three("baseline", FIRST) + three("catchup", SECOND)),
        tmp_path / "report.html",
    )
    assert (
        main(["report", str(path), "--table", "1", "4", "--paper", "catchup", "--html", str(html)])
        == 0
    )
    said = capsys.readouterr().out
    assert (
        "Catch-up Mix, Table 4" in said and "Table 2" not in said and f"all of it: {html}" in said
    )
    assert html.read_text().startswith("<!DOCTYPE html>")
    assert main(["report", str(path), "--figure", "5", "--json"]) == 0
    assert {one["table"] for one in json.loads(capsys.readouterr().out)["cells"]} == {"Figure 5"}
    for wrong, message in (
        (["--table", "99"], "there is no Table 99"),
        (["--html", str(tmp_path)], "--html needs"),
        (["--html", str(tmp_path / "no" / "a.html")], "--html needs"),
        (["--paper", "automix", "--figure", "1"], "there is no Figure 1"),
    ):
        assert main(["report", str(path), *wrong]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)  # no data/results here: the checkout's own records
    assert main(["report"]) == 0
    assert "main.jsonl" in capsys.readouterr().out


@pytest.mark.slow
def test_the_recorded_runs_are_read():
    results = report.make_report()
    assert {"main.jsonl", "table1-c100-50.json"} <= {
        record.source for record in results["records"].values()
    }
    assert len(results["cells"]) == len(paper.printed()) and set(results["counts"]) <= set(WORDS)
    # the page says what the report says of today's records
    assert f"{report.counts_text(results)}." in (ROOT / "docs" / "results.md").read_text()
    assert not any(one.verdict.word == "reproduced" and one.ours.scale for one in results["cells"])
