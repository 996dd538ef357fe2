"""The code of README and docs runs and prints what stands beneath it; their tables are the recorded
ones.
"""

import contextlib
import io
import json
import re
from math import inf
from pathlib import Path
from statistics import fmean

import address
import figures
import pytest

from catchup.experiments import background_bias as background
from catchup.measures.registry import MEASURES
from catchup.measures.statistics import COLUMNS, by_method, comparison, differences, value_of
from catchup.utils.text import as_markdown

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS, COST, HOWTO, RESULTS, WHERE = (
    (ROOT / "docs" / f"{page}.md").read_text()
    for page in ("commands", "cost", "howto", "results", "where")
)
EXAMPLES = re.findall(r"```python\n(.*?)```\n+(?:```text\n(.*?)```)?", README + HOWTO + WHERE, re.S)


def test_there_are_examples():
    assert len(EXAMPLES) >= 2 and EXAMPLES[0][1], "the first example shows its output"


@pytest.mark.parametrize(("code", "output"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_code_runs_and_prints_what_is_shown(code, output):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue().strip() == output.strip()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=str
)
def test_every_path_a_page_names_exists(page):
    for name in re.findall(r"\]\(((?!http|_static)[^)#]+)\)", page.read_text()):
        assert (page.parent / name).exists(), name


def test_the_readme_is_short_and_leads_to_every_page():
    assert len(README.splitlines()) <= 150
    for page in set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "index.md"}:
        assert f"](docs/{page.name})" in README, page.name


def test_the_address_is_one():
    assert f"git clone {address.read_address()} && cd catchup" in README
    assert all(address.read_address() in (ROOT / name).read_text() for name in address.SHOWN)


def test_another_address_is_written_wherever_it_is_shown(tmp_path, monkeypatch):
    for folder in ("docs", "notebooks"):
        (tmp_path / folder).mkdir()
    for name in address.SHOWN:
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(address, "ROOT", tmp_path)
    old = address.read_address()
    address.move("https://example.org/me/catchup")
    assert address.read_address() == "https://example.org/me/catchup"
    assert not any(old in (tmp_path / name).read_text() for name in address.SHOWN)
    shown = (tmp_path / "notebooks" / "00_quickstart.ipynb").read_text()
    for place in address.ELSEWHERE:
        assert f"{place}me/catchup/" in shown and shown.count(place) == 1
    with pytest.raises(ValueError, match="got 'catchup/'"):
        address.move("catchup/")


def test_the_main_table_is_that_of_the_trained_networks_and_says_what_they_say():
    rows = figures.read_rows()
    columns = {"clean_train_error": "error on its training images", **COLUMNS}
    columns.pop("pgd_error")
    assert f"\n{as_markdown(comparison(rows, columns))}\n" in RESULTS
    plain = " ".join(RESULTS.split())
    assert max(row["clean_train_error"] for row in rows) <= 2  # "know their training images"
    clean = {one["method"]: -one["mean"] for one in differences(rows, ["top1_error"])}
    assert (
        f"Catch-up Mix errs {clean['catchup']:.1f} points less than plain training on clean images"
        in plain
        and f"CutMix {clean['cutmix']:.1f} points less, random channels"
        f" {clean['randomchannel']:.1f}."
        in plain
    )
    kept = {
        method: fmean(value_of(row, "without_strongest") for row in group)
        for method, group in by_method(rows).items()
    }
    assert f"keeps accuracy, {kept.pop('catchup'):.0f} % where" in plain
    assert all(0.5 <= value < 1.5 for value in kept.values())  # "about 1 %"
    assert min(row["fgsm_error"] for row in rows) > 93
    assert min(one["mean"] for one in differences(rows, ["fgsm_error"])) > -2


DISTURBED = {
    "pgd_error": "PGD-10 4/255 error",
    "corruption.mce": "mCE",
    "calibration.ece": "ECE",
    "confidence.scaled.ece": "ECE at a fitted temperature",
    "confidence.nll": "negative log likelihood",
    "confidence.aurc": "AURC",
}
ELSEWHERE = {
    "ood.auroc": "softmax",
    "outside.energy.auroc": "energy",
    "outside.max_logit.auroc": "largest logit",
    "outside.neighbours.auroc": "nearest neighbours",
}
FLAT = ("landscape.top_eigenvalue", "landscape.trace", "landscape.sharpness")


def means(rows, measure):
    """{method: mean over its seeds}."""
    return {
        method: fmean(value_of(row, measure) for row in group)
        for method, group in by_method(rows).items()
    }


def test_what_is_said_of_the_disturbed_networks_is_recorded():
    rows, plain = figures.read_rows(), " ".join(RESULTS.split())
    assert f"\n{as_markdown(comparison(rows, DISTURBED, intervals=True))}\n" in RESULTS
    deformed = list(MEASURES["deformation"].columns)
    found = {
        (one["method"], one["measure"]): one
        for one in differences(rows, ["top1_error", *DISTURBED, *deformed])
    }
    mean = {key: one["mean"] for key, one in found.items()}

    def interval(method, measure):
        return f"[{found[method, measure]['low']:+.1f}, {found[method, measure]['high']:+.1f}]"

    assert (
        f"mCE falls by {-mean['catchup', 'corruption.mce']:.1f} points with Catch-up Mix"
        f" {interval('catchup', 'corruption.mce')} and by"
        f" {-mean['randomchannel', 'corruption.mce']:.1f} with random channels; with CutMix it"
        f" rises by {mean['cutmix', 'corruption.mce']:.1f}." in plain
    )
    better = {
        method: sum(mean[method, name] > 0 for name in deformed)
        for method in ("catchup", "randomchannel", "cutmix")
    }
    assert better["catchup"] == len(deformed) and (
        f"all {better['catchup']} of {len(deformed)} are better with Catch-up Mix than without"
        f" (rotated by up to 20°: {mean['catchup', 'deformation.rotate 20']:+.1f}"
        f" points {interval('catchup', 'deformation.rotate 20')}), {better['randomchannel']} with"
        f" random channels, {better['cutmix']} with CutMix." in plain
    )
    assert min(row["pgd_error"] for row in rows) > 97 and (
        f"all err above 97 %, Catch-up Mix {mean['catchup', 'pgd_error']:.1f} points more"
        f" {interval('catchup', 'pgd_error')}." in plain
    )


def test_what_is_said_of_confidence_flatness_and_other_images_is_recorded():
    rows, plain = figures.read_rows(), " ".join(RESULTS.split())
    ece, scaled = (means(rows, key) for key in ("calibration.ece", "confidence.scaled.ece"))
    assert (
        f"falls from {ece['baseline']:.0f} to {ece['catchup']:.0f} %, and every mixing method does"
        in plain
    )
    assert max(value for method, value in ece.items() if method != "baseline") < 10
    assert (
        f"does it for all: {scaled['baseline']:.1f} % for plain training,"
        f" {scaled['catchup']:.1f} % for Catch-up Mix." in plain
    )
    assert max(scaled.values()) < 3
    aurc, errors = means(rows, "confidence.aurc"), means(rows, "top1_error")
    assert (
        f"(AURC) is {aurc['baseline'] - aurc['catchup']:.0f} points lower, that of all answers"
        f" {errors['baseline'] - errors['catchup']:.0f}." in plain
    )
    top, trace, sharp = (means(rows, measure) for measure in FLAT)
    for method in ("catchup", "cutmix", "randomchannel"):  # "so it is with the other two"
        assert top[method] > top["baseline"] and trace[method] > trace["baseline"]
        assert sharp[method] < sharp["baseline"]
    assert f"({top['baseline']:.0f} → {top['catchup']:.0f})" in plain
    assert f"({sharp['baseline']:.0f} → {sharp['catchup']:.0f})" in plain
    assert f"\n{as_markdown(comparison(rows, ELSEWHERE))}\n" in RESULTS
    softmax, near = (means(rows, key) for key in ("ood.auroc", "outside.neighbours.auroc"))
    assert f"better than chance by more than {max(softmax.values()) - 50:.0f} points" in plain
    assert min(near.values()) > 70  # "by the distance to the nearest training images all are"


def test_random_channels_share_the_gains_but_for_error_and_features():
    rows, plain = figures.read_rows(), " ".join(RESULTS.split())
    error = {(row["method"], row["seed"]): row["top1_error"] for row in rows}
    lead = fmean(error["randomchannel", seed] - error["catchup", seed] for seed in (0, 1, 2))
    assert f"What it adds is {lead:.1f} points less error" in plain
    for measure in ("corruption.mce", "calibration.ece"):
        found = means(rows, measure)
        gain = found["baseline"] - found["catchup"]
        assert found["baseline"] - found["randomchannel"] > 0.8 * gain > 0


def test_what_is_said_of_the_budget_is_recorded():
    record, plain = figures.read_budget(), " ".join(RESULTS.split())
    assert all(f"{sentence}\n" in RESULTS for sentence in record["sentences"])
    groups = {
        epochs: [row for row in record["rows"] if row["epochs"] == epochs]
        for epochs in (20, 50, 100, 200)
    }
    mean = {
        epochs: {one["method"]: one["mean"] for one in differences(rows, ["top1_error"])}["catchup"]
        for epochs, rows in groups.items()
    }
    assert f"after 20 epochs Catch-up Mix errs {mean[20]:.1f} points more" in plain
    assert f"after 50 as much ({-mean[50]:.1f} points less)" in plain
    assert f"after 100 it errs {-mean[100]:.1f} points less while" in plain
    learning = [row for row in groups[100] if row["method"] == "catchup"]
    # "still misclassifies a fifth of its training images"
    assert 18 < fmean(row["clean_train_error"] for row in learning) < 22
    assert f"know their training images, {-mean[200]:.1f} points less" in plain
    assert {row["learning"]["trained"] for row in groups[200]} == {True}
    assert {row["method"] for row in groups[200]} == {"baseline", "catchup"}  # "run up to 100"
    without = [value_of(r, "without_strongest") for r in record["rows"] if r["method"] == "cutmix"]
    assert 1 < min(without) and max(without) < 2.5  # "about 2 %"
    for rows in groups.values():
        for some in by_method(rows).values():
            assert {row["seed"] for row in some} == {0, 1, 2}  # "three paired seeds"


def test_what_is_said_of_the_budget_on_digits_is_recorded():
    record = figures.read_budget("budget-digits")
    assert all(f"{sentence}\n" in RESULTS for sentence in record["sentences"])
    last = by_method([row for row in record["rows"] if row["epochs"] == 120])
    assert {len(rows) for rows in last.values()} == {3} and len(last) == 4
    errors = [fmean(row["top1_error"] for row in rows) for rows in last.values()]
    assert f"after 120 epochs, {min(errors):.1f} to {max(errors):.1f} %, lie four images" in (
        " ".join(RESULTS.split())
    )
    assert max(errors) - min(errors) <= 0.8


def test_the_title_of_the_claim_figure_follows_the_numbers():
    rows = figures.read_rows()
    drawn = figures.claim(rows)
    assert "keeps 34 % accuracy, a plainly trained one 6 %" in drawn.get_suptitle()
    plain = " ".join(README.split())
    assert "after 200 epochs, Catch-up Mix keeps 34 % accuracy without the strongest 10 %" in plain
    assert "of the features, plain training 6 % ([three seeds each]" in plain
    assert drawn.axes[0].lines and "200 epochs" in drawn.get_supxlabel()
    swap = {"baseline": "catchup", "catchup": "baseline"}
    turned = [{**row, "method": swap.get(row["method"], row["method"])} for row in rows]
    assert (
        "keeps only 6 % accuracy, a plainly trained one 34 %"
        in figures.claim(turned).get_suptitle()
    )


CAUSAL = {
    "train_accuracy": "own training images",
    "broken_accuracy": "background drawn at random",
    "cue_followed": "misled by a reversed background",
}


@pytest.mark.parametrize("rho", [0.8, 0.95])
def test_the_table_of_the_causal_test_is_the_recorded_one(rho):
    rows = [
        row
        for row in background.read_rows(ROOT / "data" / "results" / "shapes-long.jsonl")
        if row["rho"] == rho
    ]
    assert f"ρ = {rho}:\n\n{as_markdown(comparison(rows, CAUSAL))}" in RESULTS


def test_both_readings_of_the_causal_test_at_240_epochs_are_the_recorded_ones():
    folder = ROOT / "data" / "results"
    rows = [
        row
        for name in ("shapes", "shapes-long", "background")
        for row in background.read_rows(folder / f"{name}.jsonl")
        if row["method"] in ("baseline", "catchup")
    ]
    longest = [row for row in rows if (row["epochs"], row["rho"]) == (240, 0.95)]
    assert {row["settings"]["precision"] for row in longest} == {"bf16"}
    assert {(row["method"], row["seed"]) for row in longest} == {("baseline", 0), ("catchup", 0)}
    assert f"one pair:\n\n{as_markdown(comparison(longest, CAUSAL))}\n" in RESULTS
    for rho in (0.8, 0.95):
        said = background.describe_equal_learning([row for row in rows if row["rho"] == rho])
        (line,) = [line for line in said if "at 240 epochs" in line]
        assert f"- {line}\n" in RESULTS


def test_the_demos_table_and_what_is_said_of_it_are_the_recorded_ones():
    rows, plain = (
        json.loads((ROOT / "data" / "results" / "demo.json").read_text())["rows"],
        " ".join(README.split()),
    )
    budgets = {epochs: [row for row in rows if row["epochs"] == epochs] for epochs in (5, 20, 100)}
    columns = {"clean_train_error": "error on its training images", **COLUMNS}
    assert f"mixing has had time:\n\n{as_markdown(comparison(budgets[100], columns))}\n" in README
    assert {row["command"] for row in rows} == {"catchup demo"} and not any(
        row["commit"].endswith("+") for row in rows
    )
    assert sum(map(len, budgets.values())) == len(rows) == 18
    found = {
        (epochs, one["measure"]): one
        for epochs, some in budgets.items()
        for one in differences(some, ["top1_error", "without_strongest"])
    }
    kept = {epochs: found[epochs, "without_strongest"] for epochs in budgets}
    assert (
        f"after 100 epochs {kept[100]['mean']:.1f} points more accuracy survive when the strongest"
        f" features are removed (95 % interval {kept[100]['low']:+.1f} … {kept[100]['high']:+.1f})"
        in plain
    )
    errors = differences(budgets[100], ["top1_error", "fgsm_error", "pgd_error"])
    images = [round(500 / 100 * abs(one["mean"])) for one in errors]
    assert (
        f"they differ by {images[0]} (clean), {images[1]} (FGSM) and {images[2]} (PGD) of 500"
        " images" in plain
    )
    learnt = {
        method: fmean(row["clean_train_error"] for row in budgets[20] if row["method"] == method)
        for method in ("baseline", "catchup")
    }
    assert (
        f"after 20 epochs, when mixing still misclassifies {learnt['catchup']:.1f} % of its own"
        f" training images and plain training {learnt['baseline']:.1f} %, the table would show"
        f" {found[20, 'top1_error']['mean']:.1f} points more error and {kept[20]['mean']:.1f}"
        " points more surviving accuracy; after 5 epochs, when neither has learnt them,"
        f" {-kept[5]['mean']:.1f} points less." in plain
    )
    assert min(row["clean_train_error"] for row in budgets[5]) > 30  # "neither has learnt them"
    # "has learnt its images", "has had time"
    assert max(row["clean_train_error"] for row in budgets[100]) <= 0.5


def missed_goals(record):
    """The methods that cost more than the goal that the page states for them, by their record."""
    own = {"alignmixup": 1.1, "puzzlemix": 2.1, "comixup": 2.5, "snapmix": inf, "baseline": inf}
    found = []
    for row in record["rows"]:
        passes = row["passes_ratio"]
        goal = own.get(row["method"], 1.02 if passes is None else 1.1 * passes)
        found += [row["method"]] if row["ratio"] > goal else []
    return found


def test_the_table_of_costs_is_the_recorded_one_and_says_which_goals_are_missed():
    results, wide = (
        json.loads((ROOT / "data" / "results" / name).read_text())
        for name in ("overhead.json", "overhead-64.json")
    )
    beside = {row["method"]: row for row in wide["rows"]}
    for row in results["rows"]:
        shown = [
            row["method"],
            f"{row['ratio']:.2f}",
            f"{row['low']:.2f}–{row['high']:.2f}",
            f"{row['forward']:g}/{row['backward']:g}",
        ]
        other = beside[row["method"]]
        line = next(
            line for line in COST.splitlines() if line.startswith(f"| {' | '.join(shown)} |")
        )
        assert f" | {other['ratio']:.2f} ({other['low']:.2f}–{other['high']:.2f}) | " in line
    assert missed_goals(results) == ["guidedmixup", "saliencymix", "moex"]
    assert missed_goals(wide) == ["automix", "moex"]
    ratio = {row["method"]: row["ratio"] for row in results["rows"]}
    assert f"MoEx ({ratio['moex']:.2f} and {beside['moex']['ratio']:.2f})" in COST
    assert f"GuidedMixup ({ratio['guidedmixup']:.3f}) and" in COST
    assert f" SaliencyMix ({ratio['saliencymix']:.3f})," in " ".join(COST.split())
    assert results["bench"]["width"] == 16 and (
        wide["bench"]["width"],
        wide["bench"]["precision"],
    ) == (64, "bf16")
    for record in (results, wide):
        command = record["command"].partition(" --out")[0]
        assert command in " ".join(COST.split())


def test_the_table_of_the_scaled_runs_is_the_recorded_one_and_says_what_the_prose_says():
    rows = json.loads((ROOT / "data" / "results" / "scaled" / "table1-c100-50.json").read_text())[
        "rows"
    ]
    columns = {
        "top1_error": "top-1 error",
        "fgsm_error": "FGSM error",
        "pgd_error": "PGD error",
        "corruption.mce": "mCE",
        "without_strongest": "accuracy without the strongest 20 %",
        "ood.auroc": "AUROC against textures",
    }
    assert f"{as_markdown(comparison(rows, columns, intervals=True))}\n" in RESULTS
    deformed = list(MEASURES["deformation"].columns)
    found = {
        (one["method"], one["measure"]): one["mean"]
        for one in differences(rows, [*columns, *deformed])
    }
    smallest = min(one["p_holm"] for one in differences(rows, columns))
    assert f"after Holm's correction for all 24 of the table the smallest p is {smallest:.2f}" in (
        " ".join(RESULTS.split())
    )
    assert {row["seed"] for row in rows} == {0, 1}
    for (_, measure), mean in found.items():
        if measure in ("top1_error", "corruption.mce"):
            assert mean > 0  # "errs more on clean and on corrupted images"
        elif measure in ("fgsm_error", "pgd_error"):
            assert mean < 0  # "less under FGSM and PGD"
    better = [mean > 0 for (_, measure), mean in found.items() if measure in deformed]
    assert (sum(better), len(better)) == (1, 32)  # accuracies: "all but one of 32"
    assert min(row[key] for row in rows for key in ("fgsm_error", "pgd_error")) > 93
    kept = {
        method: mean for (method, measure), mean in found.items() if measure == "without_strongest"
    }
    assert kept.pop("catchup") > 3 and max(kept.values()) < 1  # "Catch-up Mix alone keeps accuracy"


def test_the_worked_example_of_500_runs_is_computed_from_the_record():
    record = json.loads((ROOT / "data" / "results" / "bench-16.json").read_text())
    speed = record["throughput"]["variants"]["catchup"]["images_per_s"]
    hours = 500 * 40 * 5000 / speed / 3600
    assert f"({speed:.0f} images/s," in COMMANDS
    assert f"come to {hours:.0f} hours, or {hours / 20:.1f} on twenty such machines" in COMMANDS


def test_what_the_readme_says_of_tiny_imagenet_is_recorded():
    record = json.loads(
        (ROOT / "data" / "results" / "scaled" / "tiny-50-four-seeds.json").read_text()
    )
    # the others have fewer measurements
    rows = [row for row in record["rows"] if row["fgsm_error"] is not None]
    plain, deformed = " ".join(RESULTS.split()), list(MEASURES["deformation"].columns)
    attacks = ["fgsm_error", "pgd_error"]
    found = {
        (one["method"], one["measure"]): one
        for one in differences(
            rows, ["top1_error", *attacks, "without_strongest", "corruption.mce", *deformed]
        )
    }
    mean = {key: one["mean"] for key, one in found.items()}
    assert {one["n"] for one in found.values()} == {4} and len({method for method, _ in found}) == 4

    def of(*measures):
        return {key: one for key, one in found.items() if key[1] in measures}

    assert all(one["mean"] > 0 for one in of("top1_error", "corruption.mce").values())
    # "every mixing method" is every one of the record, and the intervals over zero are counted
    every = differences(record["rows"], ["top1_error"])
    sure = [one["method"] for one in every if one["low"] > 0]
    assert all(one["mean"] > 0 for one in every) and len(every) == 7
    assert f"mean ({len(sure)} of {len(every)} intervals without zero)" in plain
    assert "catchup:alpha=10" in sure and not {"cutmix", "mixup", "manifoldmixup"} & set(sure)
    corrected = min(one["p_holm"] for one in every)
    assert f"smallest p after Holm's correction {corrected:.2f}" in plain
    assert all(one["high"] < 0 for one in of(*attacks).values())  # no interval with zero
    for measure, words in (
        ("fgsm_error", "FGSM by 2.2 to 2.7"),
        ("pgd_error", "PGD by 1.8 to 2.9"),
    ):
        gains = sorted(-one["mean"] for one in of(measure).values())
        assert (
            words == f"{measure[:-6].upper()} by {gains[0]:.1f} to {gains[-1]:.1f}"
            and words in plain
        )
    clean, kept = (
        found["catchup:alpha=10", measure] for measure in ("top1_error", "without_strongest")
    )
    assert f"by {clean['mean']:.1f} points [{clean['low']:+.1f}, {clean['high']:+.1f}]" in RESULTS
    assert (
        f"{-kept['mean']:.1f} points *less* than plain training [−{-kept['low']:.1f},"
        f" {kept['high']:+.1f}]" in plain
    )
    older = json.loads((ROOT / "data" / "results" / "scaled" / "tiny-50.json").read_text())["rows"]
    (other,) = [
        one for one in differences(older, ["without_strongest"]) if one["method"] == "catchup"
    ]
    assert (
        other["n"] == 2 and f"(with α = 1 and two seeds {other['mean']:.1f} points more)" in plain
    )
    better = [mean[key] > 0 for key in of(*deformed)]
    assert f"{sum(better)} of {len(better)} deformations favour mixing" in plain

    def means(measure):
        values = {}
        for row in rows:
            values.setdefault(row["label"], []).append(value_of(row, measure))
        return {label: sum(some) / len(some) for label, some in values.items()}

    flat = means("landscape.top_eigenvalue")
    first, ours, *others = (
        flat.pop(label)
        for label in (
            "baseline",
            "catchup:alpha=10",
            *sorted(set(flat) - {"baseline", "catchup:alpha=10"}),
        )
    )
    assert (
        f"from {first:.0f} to {ours:.0f} with" in RESULTS
        and f"to {min(others):.0f}–{max(others):.0f} with" in RESULTS
    )
    error = means("calibration.ece")
    assert f"calibration error from {error.pop('baseline'):.1f} to about 2" in RESULTS
    assert all(1.5 < value < 2.5 for value in error.values())
    # no network finds the objects as well as a box in the middle
    for measure in ("gt_known_loc", "maxboxacc_v2"):
        blind = means(f"localization.baselines.centre.{measure}")
        assert all(
            value < blind[label] for label, value in means(f"localization.{measure}").items()
        )
