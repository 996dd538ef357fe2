"""Progress bars: shown or not, the work is the same, and where none is shown tqdm is not even
made.
"""

import sys

import pytest
from tqdm.std import TqdmDefaultWriteLock

from catchup.utils.progress import bar, counter, say


@pytest.mark.parametrize("shown", [True, False])
def test_the_items_come_through_in_order(shown, capsys):
    assert list(bar(iter("abc"), "letters", "letter", shown, total=3)) == ["a", "b", "c"]
    said = capsys.readouterr()
    assert said.out == "" and ("letters" in said.err and "3/3" in said.err) is shown


@pytest.mark.parametrize("shown", [True, False])
def test_a_counter_moves_by_what_it_is_told(shown, capsys):
    with counter(5, "bytes", "B", shown) as update:
        update(2)
        update(3)
        update()
    said = capsys.readouterr()
    assert said.out == "" and ("6B" in said.err) is shown


def test_a_bar_for_terminals_alone_is_no_widget_and_silent_elsewhere(capsys):
    from tqdm.std import tqdm

    shown = bar("abc", "letters", "letter", True, terminal=True)
    assert type(shown) is tqdm and list(shown) == ["a", "b", "c"]
    with counter(3, "bytes", "B", True, terminal=True) as update:
        update(3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shown", [True, False])
def test_a_line_goes_to_standard_error(shown, capsys):
    say("left out: one", shown)
    said = capsys.readouterr()
    assert (said.out, said.err.strip()) == ("", "left out: one")


def test_where_no_bar_is_shown_the_lock_of_tqdm_is_not_touched(monkeypatch):
    """A forked process that is killed with the lock in its hands would stop all others."""

    def refused(*_):
        raise AssertionError("tqdm's lock was asked for")

    monkeypatch.setattr(TqdmDefaultWriteLock, "acquire", refused)
    monkeypatch.delitem(sys.modules, "tqdm.auto", raising=False)
    with counter(None, "bytes", "B", False) as update:
        update(1)
    assert list(bar([1], None, "epoch", False)) == [1]
    say("a line", False)
    assert "tqdm.auto" not in sys.modules
    with pytest.raises(AssertionError, match="tqdm's lock"):
        list(bar([1], None, "epoch", True))
