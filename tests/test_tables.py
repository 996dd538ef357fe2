"""The table of a comparison against numbers worked out by hand."""

import pytest

from catchup.tables import accuracy_without, as_markdown, as_text, comparison, method_of


def row(method, seed, top1, dropped, **more):
    curve = {"strongest": [[0, 100], [0.2, dropped]]}
    return {"method": method, "seed": seed, "top1_error": top1, "feature_drop": curve, **more}


COLUMNS = {"top1_error": "error", "without_strongest": "without"}


def test_means_deviations_and_paired_differences():
    rows = [row("baseline", 0, 10.0, 30.0), row("baseline", 1, 14.0, 50.0), row("catchup", 1, 11.0, 70.0),
            row("catchup", 0, 9.0, 40.0)]
    assert comparison(rows, COLUMNS) == [
        ["", "error", "without"],
        ["baseline", "12.00 ± 2.83", "40.00 ± 14.14"],
        ["catchup", "10.00 ± 1.41", "55.00 ± 21.21"],
        ["catchup − baseline", "-2.00 ± 1.41", "+15.00 ± 7.07"],  # −1 and −3; +10 and +20
    ]


def test_single_seeds_have_no_spread_and_unpaired_ones_are_refused():
    assert comparison([row("a", 0, 1.0, 2.0), row("b", 0, 3.0, 5.0)], COLUMNS)[-1] == ["b − a", "+2.00", "+3.00"]
    with pytest.raises(ValueError, match="no seed in common"):
        comparison([row("a", 0, 1.0, 2.0), row("b", 1, 3.0, 5.0)], COLUMNS)
    with pytest.raises(ValueError, match="there are no rows"):
        comparison([], COLUMNS)


def test_rows_of_two_settings_are_never_averaged():
    with pytest.raises(ValueError, match="rows of a differ in epochs"):
        comparison([row("a", 0, 1.0, 2.0, epochs=3), row("a", 1, 3.0, 5.0, epochs=4)], COLUMNS)
    with pytest.raises(ValueError, match="two rows of one seed"):
        comparison([row("a", 0, 1.0, 2.0), row("a", 0, 3.0, 5.0)], COLUMNS)


def test_layer_0_only_is_called_cutmix():
    settings = {"layers": [0], "input_mix": "cutmix"}
    assert method_of({"method": "catchup", "method_settings": settings}) == "cutmix"
    assert method_of({"method": "catchup", "method_settings": {**settings, "input_mix": "mixup"}}) == "catchup"
    assert method_of({"method": "catchup", "method_settings": {**settings, "layers": None}}) == "catchup"
    assert method_of({"method": "catchup", "method_settings": {"layers": (0,)}}) == "cutmix"


def test_a_missing_measure_is_named():
    with pytest.raises(ValueError, match="the row of a, seed 0, has no fgsm_error"):
        comparison([row("a", 0, 1.0, 2.0)], {"fgsm_error": "FGSM"})
    bare = {"method": "a", "seed": 0, "top1_error": 1.0, "feature_drop": None}
    assert comparison([bare], {"top1_error": "error"})[1] == ["a", "1.00"]
    with pytest.raises(ValueError, match="has no feature_drop"):
        comparison([bare])
    with pytest.raises(ValueError, match="measured: 0, 0.2"):
        accuracy_without(row("a", 0, 1.0, 2.0), 0.5)


def test_accuracy_without_reads_the_curve():
    assert accuracy_without(row("a", 0, 1.0, 42.0), 0.2) == 42.0


def test_layouts():
    table = [["", "x"], ["long name", "1"]]
    assert as_text(table) == "           x\nlong name  1"
    assert as_markdown(table) == "|  | x |\n|---|---|\n| long name | 1 |"
