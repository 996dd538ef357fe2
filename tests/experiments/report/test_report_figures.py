"""Figures of the report: a point stands where the cell says, on the side where its verdict says."""

import json
from types import SimpleNamespace

import matplotlib
import pytest

from catchup.experiments.report import cells as report
from catchup.experiments.report.figures import (
    by_column,
    printed_against_ours,
    table_card,
    verdict_bars,
)
from catchup.experiments.report.verdict import NOT_RUN, OPPOSITE, SAME, SCALED

matplotlib.use("Agg")
ERRORS = {
    "baseline": (80.0, 82.0),
    "catchup": (79.0, 80.5),
    "mixup": (84.0, 88.0),
    "manifoldmixup": (79.9, 81.8),
}


def row(method, seed, error):
    return {
        "method": method,
        "method_settings": {},
        "seed": seed,
        "data": "folder:data/cifar100-50",
        "subset": None,
        "model": "preact_resnet18",
        "width": 16,
        "epochs": 30,
        "finished": True,
        "n_test": 10000,
        "top1_error": error,
        "hardware": {},
        "training": {"command": "catchup train"},
    }


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "results.json"
    rows = [
        row(method, seed, error)
        for method, errors in ERRORS.items()
        for seed, error in enumerate(errors)
    ]
    path.write_text(json.dumps({"rows": rows}))
    return report.make_report([path], tables=(1, 4), figures=(4,), which="catchup")["cells"]


def points(ax):
    """{(x, y): filled} of the markers."""
    return {
        (round(line.get_xdata()[0], 2), round(line.get_ydata()[0], 2)): (
            line.get_markerfacecolor() != "white"
        )
        for line in ax.lines
        if line.get_marker() not in ("None", "") and len(line.get_xdata()) == 1
    }


def test_gains_of_errors_and_of_accuracies_have_one_direction(cells):
    found = points(printed_against_ours(cells))
    # Table 1: error 22.98 → 17.76; Table 4: 35.88 → 51.26
    assert (5.22, 1.25) in found and (15.38, 1.25) in found
    assert found[3.72, -5.0] is False, "InputMixup: errors 4 and 6 points higher"
    for cell in cells:
        if cell.ours and cell.ours.difference and cell.printed_difference is not None:
            x, y = (
                cell.printed.better * value
                for value in (cell.printed_difference, cell.ours.difference.mean)
            )
            assert ((x > 0) == (y > 0)) == (cell.verdict.word == SAME + SCALED)


def test_a_marker_is_filled_where_the_interval_excludes_zero(cells):
    one = next(
        cell
        for cell in cells
        if cell.ours and cell.ours.method == "catchup" and cell.printed_difference
    )
    for bounds, filled in (((-2.0, -0.5), True), ((-2.0, 0.5), False), ((None, None), False)):
        difference = one.ours.difference._replace(low=bounds[0], high=bounds[1])
        ax = printed_against_ours([one._replace(ours=one.ours._replace(difference=difference))])
        assert list(points(ax).values()) == [filled]
        whiskers = [line for line in ax.lines if line.get_alpha() == 0.45]
        assert len(whiskers) == (bounds[0] is not None)


def test_times_and_points_are_not_mixed(cells):
    with pytest.raises(ValueError, match="no cell has both differences; got 0"):
        printed_against_ours([])
    error = next(cell for cell in cells if cell.ours and cell.printed_difference)
    time = error._replace(printed=error.printed._replace(column="Time/epoch"))
    with pytest.raises(ValueError, match="draw them apart; got 2"):
        printed_against_ours([error, time])
    assert (
        "%" in printed_against_ours([time]).get_ylabel()
        and "points" in printed_against_ours([error]).get_ylabel()
    )


def test_columns_group_what_can_be_drawn_together(cells):
    found = by_column(cells)
    assert "Table 1, Top-1 Err" in found and "Table 4, CIFAR-100 10 %" in found
    assert "Table 1, FGSM Err" not in found, "nothing of it was run"
    group = found["Table 1, Top-1 Err"]
    assert {cell.printed.column for cell in group} == {"Top-1 Err"} and "Baseline" not in [
        c.printed.row for c in group
    ]


def test_a_card_has_a_line_with_numbers_and_words_for_every_cell(cells):
    group = by_column(cells)["Table 1, Top-1 Err"]
    figure = table_card(group, "head")
    words = [text.get_text() for text in figure.texts]
    assert {cell.printed.row for cell in group} <= set(words) and "head" in words
    mine = next(cell for cell in group if cell.printed.row == "Catch-up Mix")
    assert "-5.22" in words and "-1.25" in words and f"{mine.verdict} (n = 2)" in words
    assert words.count(NOT_RUN) == sum(cell.verdict.word == NOT_RUN for cell in group) > 0
    (ax,) = figure.axes
    assert "less is better" in ax.get_xlabel() and "Baseline" in ax.get_xlabel()
    heights = {round(line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "|"}
    assert len(heights) == len(group)
    arrows = [line.get_marker() for line in ax.lines if line.get_marker() in "<>"]
    assert arrows, "InputMixup's interval of two seeds leaves the frame"
    with pytest.raises(ValueError, match="no cells to draw"):
        table_card([])


def test_a_claim_without_a_number_has_no_bar(cells):
    group = (
        by_column(cells)["Figure 4, top-1 validation accuracy, CIFAR-100, PreActResNet-18"]
        if any(name.startswith("Figure 4") for name in by_column(cells))
        else []
    )
    claimed = [
        cell._replace(printed_difference=None) for cell in by_column(cells)["Table 1, Top-1 Err"]
    ]
    for shown in filter(None, (group, claimed)):
        assert not [line for line in table_card(shown).axes[0].lines if line.get_marker() == "|"]


def test_bars_count_the_verdicts(cells):
    ax = verdict_bars(cells)
    lengths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in ax.containers}
    assert lengths[OPPOSITE + SCALED][0] == sum(
        cell.verdict.word == OPPOSITE + SCALED and cell.printed.table == "Table 1" for cell in cells
    )
    total = sum(map(sum, lengths.values()))
    assert total == sum(cell.verdict.word not in ("reference", "not compared") for cell in cells)
    nothing = SimpleNamespace(verdict=SimpleNamespace(word="reference"))
    with pytest.raises(ValueError, match="nothing to draw"):
        verdict_bars([nothing])
