"""The copied numbers against the papers' own text, cell by cell; and that what is mapped exists."""

import csv
import re
from pathlib import Path

import pytest

from catchup import models
from catchup.experiments.report import printed as paper
from catchup.experiments.report.printed import Printed, layout, printed, read, selected, table_of
from catchup.mixers import MIXERS, make
from catchup.training import recipes
from catchup.utils.choices import build, parse_spec

ROOT = Path(__file__).parents[3]
SEEDS = ROOT.parent / "shared" / "seeds"
BLANK = {"-", "-*", "N/A"}


def text_of(number: str) -> str:
    found = sorted(SEEDS.glob(f"{number}_*.txt"))
    if not found:
        pytest.skip("the papers' texts are not beside this checkout")
    return found[0].read_text()


def cells(which: str, table: str) -> dict[str, dict[str, Printed]]:
    """{row: {column: the copied number}} in the order of the file."""
    rows: dict[str, dict[str, Printed]] = {}
    for one in printed():
        if (one.paper, one.table) == (which, table):
            rows.setdefault(one.row, {})[one.column] = one
    return rows


def as_it_stands(row: dict[str, Printed], table: str) -> list[str]:
    """The row as the text has it, made from the copy: spreads run into their numbers or stand in
    brackets.
    """
    found = []
    for column, one in row.items():
        if column == "Time/epoch" and one.text:
            found.append(f"{one.text}{one.sd:.1f}")
        elif table == "Table 8":
            found.append(f"{one.text} ({one.sd:.2f})")
        elif column == "gain":
            found[-1] += f" (+{one.text})"
        else:
            found.append(one.text)
    return found


FIRST = {
    "Table 1": "Baseline | 22.98",
    "Table 2": "Baseline | 36.98",
    "Table 3": "Baseline | 63.77",
    "Table 4": "Baseline | 35.88",
    "Table 5": "Baseline | 76.15",
    "Table 6": "Baseline | 77.73",
    "Table 7": "Baseline | 62.71",
    "Table 8": "No Mixup | ",
    "Table 9": "Baseline | 77.02",
    "Table 10": "0.5 | 82.21",
    "Table 11": "Vanilla | 77.01",
    "Table 12": "MobileNetV2 | ",
    "Table 13": "Vanilla | 83.55",
}


def block(text: str, first: str) -> list[list[str]]:
    """The lines of the table that holds a line beginning so, from that line on, cut at the bars."""
    lines = text[text.index("\n" + first) + 1 :].splitlines()
    # another table may follow at once
    end = next(
        index
        for index, line in enumerate([*lines, ""])
        if "|" not in line or line.startswith(("Method |", "Layer Set |"))
    )
    return [
        [part.strip() for part in line.rstrip().removesuffix("|").split("|")]
        for line in lines[:end]
    ]


@pytest.mark.parametrize("table", FIRST)
def test_every_number_of_catch_up_mix_is_the_printed_one(table):
    theirs, ours = block(text_of("000"), FIRST[table]), cells("catchup", table)
    # the labels of the layer sets are lost: their numbers stand alone, below a heading
    if table == "Table 11":
        theirs = [line for line in theirs if line != ["Catch-up Mix", ""]]
        assert [line[-1] or line[0] for line in theirs] == [
            row["Top-1 Acc"].text for row in ours.values()
        ]
        return
    assert len(theirs) == len(ours)
    for line, (name, row) in zip(theirs, ours.items()):
        assert line[0] == name.removeprefix("α = ")
        expected = as_it_stands(row, table)
        assert [("" if part in BLANK else part) for part in line[1:]] == expected, name
        for part, one in zip(line[1:], row.values()):
            assert (part in BLANK) == (one.value is None) and (one.value is None) == (
                "printed as" in one.note
            )


AUTOMIX = {
    "Table 1": "Vanilla\t95.50",
    "Table 2": "CIFAR-100\t80.24",
    "Table 3": "Vanilla\t61.68",
    "Table 4": "R-18\t46.62",
}


@pytest.mark.parametrize("table", AUTOMIX)
def test_every_number_of_automix_is_the_printed_one(table):
    text = text_of("003")
    ours = cells("automix", table)
    theirs = [
        line.split("\t")
        for line in text[text.index("\n" + AUTOMIX[table]) + 1 :].splitlines()[: len(ours) + 1]
    ]
    assert theirs.pop() == [""], "the table ends where the copy ends"
    assert {line[0]: [part.removeprefix("+") for part in line[1:]] for line in theirs} == {
        name: [one.text for one in row.values()] for name, row in ours.items()
    }
    head = text[: text.index("\n" + AUTOMIX[table])].splitlines()[-1].split("\t")
    assert [column.split()[-1] for column in next(iter(ours.values()))] == [
        part for part in head[-len(theirs[0]) + 1 :]
    ]


def test_the_numbers_of_the_figures_are_in_the_text():
    text = text_of("000")
    for number in (
        "95.81% at 120 epochs",
        "48.21%, 50.00%, and 51.50% achieved at 60, 120, and 150 epochs",
        "more than 80% of the latent vector",
    ):
        assert number in text
    numbers = [one.text for one in printed() if one.table.startswith("Figure") and one.text]
    assert numbers == ["95.81", "48.21", "50.00", "51.50", "80"]


def test_numbers_typed_from_the_paper_by_another_hand():
    """Without the texts at hand: spot checks from the project's reference notes."""
    held = {(one.paper, one.table, one.row, one.column): one for one in printed()}
    golden = [
        ("Table 1", "Catch-up Mix", "mCE", 43.76),
        ("Table 1", "PuzzleMix", "Time/epoch", 275.8),
        ("Table 2", "Catch-up Mix", "shear ±57.3°", 44.06),
        ("Table 2", "Baseline", "zoom 60 %", 20.41),
        ("Table 4", "AlignMixup", "CIFAR-100 25 %", 67.07),
        ("Table 5", "RecursiveMix", "ImageNet-O AUPR", 16.91),
        ("Table 6", "Catch-up Mix", "Tiny-ImageNet PR50", 72.58),
        ("Table 7", "SnapMix", "Top-1 Loc", 46.46),
        ("Table 9", "RandomChannelMix", "Tiny-ImageNet", 61.21),
        ("Table 12", "VGG-11", "+Catch-up Mix", 67.73),
    ]
    for table, row, column, value in golden:
        assert held["catchup", table, row, column].value == value
    assert held["catchup", "Table 8", "No Mixup", "CIFAR-100"].sd == 0.46
    assert held["catchup", "Table 2", "Co-Mixup", "Time/epoch"][4:7] == (244.7, "244.7", 1.6)
    assert {one.table for one in printed() if one.paper == "catchup"} == {
        *(f"Table {number}" for number in range(1, 14)),
        *(f"Figure {number}" for number in range(1, 9)),
    }
    assert {one.table for one in printed() if one.paper == "automix"} == {
        f"Table {number}" for number in range(1, 5)
    }


def test_errors_fall_and_accuracies_rise():
    for one in printed():
        if one.table.startswith("Table"):
            falls = re.search(r"Err|mCE|Time|FPR95", one.column)
            assert one.better == (-1 if falls else 1) and one.unit == (
                "s" if "Time" in one.column else "points" if "ain" in one.row + one.column else "%"
            ), one
    by_file = {path.name: read(path) for path in paper.folder().glob("*.csv")}
    assert sum(map(len, by_file.values())) == len(printed()) and len(by_file) == 18


def test_every_cell_is_mapped_and_every_mapping_has_a_cell():
    tables = layout()["tables"]
    assert {(one.paper, one.table) for one in printed()} == tables.keys()
    for key, table in tables.items():
        there = [one for one in printed() if (one.paper, one.table) == key]
        axis = {one.column if table.methods == "rows" else one.row for one in there}
        assert set(table.columns) <= axis, key
        if key[1].startswith("Table"):
            assert set(table.columns) == axis, key
        for name in table.columns:
            reference = table.columns[name].reference
            assert reference is None or table.specs(reference), (key, name)
        unmapped = {table.method(one) for one in there if not table.specs(table.method(one))}
        assert unmapped <= {"gain", "Gain", "plain training", "all methods", "λ ~ Beta(α, α)"}, key


def test_mapped_methods_models_and_protocols_exist():
    specs = [
        *layout()["methods"].values(),
        *(rows for table in layout()["tables"].values() for rows in table.rows.values()),
    ]
    for text in {text for group in specs for text in group}:
        assert parse_spec(text.removesuffix(":*"))[0] in MIXERS
        assert build(make, text.removesuffix(":*"), seed=0)
    columns = [column for table in layout()["tables"].values() for column in table.columns.values()]
    of_automix_alone = {"resnet34", "resnet101"}  # on ImageNet
    assert {column.model for column in columns} - {None, *of_automix_alone} <= set(models.OWN)
    assert {name for column in columns for name in (column.data, *column.stand_in)} - {None} <= set(
        layout()["data"]
    )
    assert {one.protocol for one in printed()} - {""} <= set(recipes.load())


def test_mapped_measures_are_those_of_the_evaluation():
    measures = pytest.importorskip("catchup.measures")
    known = set(measures.columns(tuple(measures.MEASURES))) | {
        "last_error",
        "last_val_loss",
        "localization.top1_accuracy",
    }
    mapped = {
        column.measure for table in layout()["tables"].values() for column in table.columns.values()
    }
    assert mapped - {None} <= known


def test_alpha_of_the_papers_runs_is_looked_for_first():
    table = layout()["tables"]["catchup", "Table 8"]
    # layer 0 is a plain step, or is never drawn
    plain = ("catchup:input_mix=none", "catchup:layers=[1,2,3,4,5]")
    assert table.specs("No Mixup", 10.0) == (
        "catchup:input_mix=none,alpha=10.0",
        "catchup:layers=[1,2,3,4,5],alpha=10.0",
        *plain,
    )
    assert table.specs("No Mixup") == plain
    small = layout()["tables"]["catchup", "Table 4"]
    assert (
        small.specs("CutMix", 10.0) == ("cutmix", "catchup:layers=[0]", "cutmix:*")
        and small.specs("nobody") == ()
    )
    assert table_of(printed()[0]).column(printed()[0]).data == "cifar100"


def test_what_the_notes_say_of_the_tables_is_so():
    number = {(one.paper, one.table, one.row, one.column): one.value for one in printed()}

    def column(table, name, which="catchup", sign=1):
        """[(value, row), …], the best first."""
        found = [
            (value, row)
            for (a, b, row, c), value in number.items()
            if (a, b, c) == (which, table, name)
        ]
        return sorted(
            ((value, row) for value, row in found if value is not None and row != "Gain"),
            key=lambda pair: sign * pair[0],
        )

    notes = (ROOT / "notebooks" / "paper_notes.md").read_text()
    stated = {}
    for table, name, sign in (
        ("Table 1", "Top-1 Err", 1),
        ("Table 2", "Top-1 Err", 1),
        ("Table 3", "CUB R18", -1),
        ("Table 3", "Cars R18", -1),
        ("Table 3", "Aircraft R18", -1),
        ("Table 5", "ImageNet-O FPR95", 1),
    ):
        (best, first), (second, runner_up) = column(table, name, sign=sign)[:2]
        assert first == "Catch-up Mix"
        stated[table, name] = f"{abs(best - second):.2f}", runner_up
    assert stated["Table 1", "Top-1 Err"] == ("0.79", "PuzzleMix") and stated[
        "Table 2", "Top-1 Err"
    ] == ("2.25", "PuzzleMix")
    assert [stated["Table 3", f"{data} R18"][0] for data in ("CUB", "Cars", "Aircraft")] == [
        "0.62",
        "0.16",
        "1.32",
    ]
    assert stated["Table 5", "ImageNet-O FPR95"][0] == "6.62"
    assert all(f"{gap}" in notes for gap, _ in stated.values())
    sets = [
        row["Top-1 Acc"].value
        for name, row in cells("catchup", "Table 11").items()
        if name.startswith("layer")
    ]
    assert (len(sets), max(sets)) == (5, 82.36)
    assert [round(edge - 77.01, 2) for edge in (min(sets), max(sets))] == [4.34, 5.35]
    assert [row for value, row in column("Table 13", "Top-1 Acc") if value == 83.86] == [
        "ShakeDrop",
        "ManifoldMixup",
    ]
    chance = column("Table 5", "ImageNet-O AUPR")
    assert (chance[0][0], *chance[-1]) == (15.81, 16.91, "RecursiveMix")
    for place, difference in (
        (("Table 9", "RandomChannelMix", "CIFAR-100"), 0.28),
        (("Table 9", "RandomChannelMix", "Tiny-ImageNet"), -1.81),
        (("Table 4", "Catch-up Mix", "CIFAR-100 10 %"), 15.38),
        (("Table 4", "Catch-up Mix", "Tiny-ImageNet 10 %"), 8.18),
    ):
        baseline = number["catchup", place[0], "Baseline", place[2]]
        assert (
            round(number["catchup", *place] - baseline, 2) == difference
            and f"{abs(difference)}" in notes
        )
    align = number["catchup", "Table 6", "AlignMixup", "CIFAR-100 R18*"]
    assert align == pytest.approx(100 - number["catchup", "Table 1", "AlignMixup", "Top-1 Err"])
    for table, name, printed_gain, gain in (
        ("Table 1", "CIFAR-100 R-18", 1.66, 1.61),
        ("Table 3", "Tiny ImageNet R-18", 2.30, 1.70),
    ):
        (best, _), (second, _) = column(table, name, "automix", -1)[:2]
        assert (
            number["automix", table, "Gain", name] == printed_gain
            and round(best - second, 2) == gain
        )
    # the others agree
    for name in ("CIFAR-10 R-18", "CIFAR-100 RX-50", "CUB-200 R-18", "CUB-200 RX-50"):
        (best, _), (second, _) = column("Table 1", name, "automix", -1)[:2]
        assert number["automix", "Table 1", "Gain", name] == pytest.approx(best - second)


def test_small_differences_that_the_notes_name_are_so():
    number = {(one.paper, one.table, one.row, one.column): one.value for one in printed()}
    notes = (ROOT / "notebooks" / "paper_notes.md").read_text()
    alpha = {
        row: number["catchup", "Table 10", row, "CIFAR-100 PreActResNet18"]
        for row in ("α = 0.5", "α = 1.0", "α = 5.0")
    }
    errors = {
        row: number["catchup", "Table 1", row, "Top-1 Err"]
        for row in ("AlignMixup", "Catch-up Mix")
    }
    for gap, here in (
        (0.03, alpha["α = 1.0"] - alpha["α = 0.5"]),
        (0.05, alpha["α = 1.0"] - alpha["α = 5.0"]),
        (1.44, errors["AlignMixup"] - errors["Catch-up Mix"]),
        (0.17, number["catchup", "Table 11", "full set (Ours)", "Top-1 Acc"] - alpha["α = 1.0"]),
        (
            0.36,
            number["catchup", "Table 13", "Catch-up Mix", "Top-1 Acc"]
            - number["catchup", "Table 13", "CutMix", "Top-1 Acc"],
        ),
    ):
        assert round(here, 2) == gap and f"{gap}" in notes


def test_the_folder_is_found_in_a_checkout_and_in_a_wheel(tmp_path, monkeypatch):
    assert paper.folder() == ROOT / "data" / "paper"
    monkeypatch.setattr(
        paper, "__file__", str(tmp_path / "catchup" / "experiments" / "report" / "printed.py")
    )
    with pytest.raises(FileNotFoundError, match="cells.toml; install"):
        paper.folder()
    inside = tmp_path / "catchup" / "paper_data"
    inside.mkdir(parents=True)
    (inside / "cells.toml").write_text("")
    assert paper.folder() == inside


def test_the_wheel_and_the_source_archive_carry_the_numbers():
    held = (ROOT / "pyproject.toml").read_text()
    assert '"data/paper" = "catchup/paper_data"' in held and re.search(
        r'^include = .*"data/paper"', held, re.M
    )


GOOD = dict(
    zip(paper.FIELDS, ["catchup", "Table 1", "a", "b", "1.50", "0.1", "%", "lower", "", ""])
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": "1,5"}, "line 2: could not convert"),
        ({"sd": "±1"}, "line 2: could not convert"),
        ({"direction": "up"}, "unknown direction 'up'"),
        ({"paper": "cutmix"}, "unknown paper 'cutmix'"),
        ({"table": "Table one"}, "line 2"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, change, said):
    path = tmp_path / "numbers.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, paper.FIELDS)
        writer.writeheader()
        writer.writerow(GOOD | change)
    with pytest.raises(ValueError, match=said) as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_a_cell_stands_once_and_columns_are_checked(tmp_path):
    path = tmp_path / "numbers.csv"
    head, line = ",".join(paper.FIELDS), ",".join(GOOD.values())
    path.write_text(f"{head}\n{line}\n")
    assert read(path) == [
        Printed("catchup", "Table 1", "a", "b", 1.5, "1.50", 0.1, "%", "lower", "", "")
    ]
    path.write_text(f"{head}\n{line}\n{line}\n")
    with pytest.raises(ValueError, match="the cell catchup, Table 1, a, b stands twice"):
        read(path)
    path.write_text("table,row\nTable 1,a\n")
    with pytest.raises(ValueError, match="must have the columns paper, table"):
        read(path)


def test_selection():
    assert {one.table for one in selected(tables=(2,), figures=(5,))} == {"Table 2", "Figure 5"}
    assert {one.paper for one in selected(tables=(2,))} == {"catchup", "automix"}
    assert {one.paper for one in selected(paper="automix")} == {
        "automix"
    } and selected() == printed()
    assert [one.table for one in printed()][::629] == ["Table 1", "Table 4"]
    wrong = [
        ({"tables": (14,)}, "no Table 14"),
        ({"figures": (0,)}, "no Figure 0"),
        ({"figures": (1,), "paper": "automix"}, "choose of none"),
        ({"paper": "mixup"}, "unknown paper"),
    ]
    for chosen, said in wrong:
        with pytest.raises(ValueError, match=said):
            selected(**chosen)
