"""A table of numbers: what stands in its cells, and what it refuses."""

import xml.etree.ElementTree as ElementTree

import pytest

from catchup.plots import NumberTable


def test_cells_stand_under_their_columns_rounded_and_escaped():
    table = NumberTable({"a<b": {"x": 1.26, "y": "two"}, "c": {"x": -3.0, "y": 4}})
    lines = ElementTree.fromstring(table._repr_html_())
    found = [["".join(cell.itertext()) for cell in line] for line in lines]
    assert found == [["", "x", "y"], ["a<b", "1.3", "two"], ["c", "-3.0", "4"]]


@pytest.mark.parametrize("values", [{}, {"a": {"x": 1.0}, "b": {"y": 1.0}}])
def test_lines_need_the_same_columns(values):
    with pytest.raises(ValueError, match="the same columns"):
        NumberTable(values)
