"""The section on speed in docs/cost.md is what the records say, every word of it."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import report as performance

ROOT = Path(__file__).parents[2]


def test_the_section_of_the_page_is_written_from_the_records():
    page = (ROOT / "docs" / "cost.md").read_text()
    assert performance.place(page, performance.section()) == page, (
        "run `python -m benchmarks.report docs/cost.md`"
    )


def test_every_number_of_the_table_stands_in_the_record():
    record = json.loads((ROOT / "data" / "results" / "bench-16.json").read_text())
    text = performance.section()
    for row in record["throughput"]["variants"].values():
        assert (
            f"{row['images_per_s']:.0f} ({row['ratio']:.2f}, {row['low']:.2f}–{row['high']:.2f})"
            in text
        )
    missed = [
        name
        for name, goal in record["throughput"]["goals"].items()
        if goal["reached"] < goal.get("at_least", 0) or goal["reached"] > goal.get("at_most", 1e9)
    ]
    width = re.search(r"Width 16: (.*?GFLOP/s)", text, re.DOTALL)[1]
    assert width.count("missed") == len(missed) and width.count("met)") == 3 - len(missed)


def test_without_records_it_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match="run `python -m benchmarks.throughput --out` first"):
        performance.section(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "no marks",
        performance.BEGIN,
        performance.END + performance.BEGIN,
        2 * (performance.BEGIN + performance.END),
    ],
)
def test_a_text_without_its_marks_is_refused(text):
    with pytest.raises(ValueError, match="once each and in this order"):
        performance.place(text, "new")


def test_what_stands_between_the_marks_is_replaced():
    text = f"before {performance.BEGIN} old {performance.END} after"
    assert (
        performance.place(text, "new")
        == f"before {performance.BEGIN}\nnew\n{performance.END} after"
    )


def test_the_command_writes_into_a_file(tmp_path, capsys):
    file = tmp_path / "page.md"
    file.write_text(f"{performance.BEGIN}{performance.END}\n")
    performance.main([str(file)])
    performance.main([])
    assert (
        file.read_text()
        == f"{performance.BEGIN}\n{capsys.readouterr().out.strip()}\n{performance.END}\n"
    )
