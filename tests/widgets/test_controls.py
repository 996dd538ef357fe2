"""Controls and explorers without a browser: values, redraws, errors, what is left behind.
tests/browser drives them.
"""

import gc
import io
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from PIL import Image

from catchup import widgets
from catchup.widgets import Buttons, Choice, Controls, Explorer, Play, Range, explore
from catchup.widgets.controls import as_png


def square(amount, colour="#0072B2", again=None):
    """A figure filled with one colour, in words; amount 0.9 fails."""
    if amount == 0.9:
        raise RuntimeError("0.9 is not to be drawn")
    figure = Figure(figsize=(2, 1), facecolor=colour)
    return figure, f"a square of {amount}"


@pytest.fixture
def explorer():
    explorer = explore(
        square,
        amount=Range("Amount", 0, 1, 0.1, 0.5, ".1f"),
        colour=Choice("Colour", {"blue": "#0072B2", "orange": "#E69F00"}),
        play=Play("Play", "amount"),
        again=Buttons("Again", ["Draw", "Stop"]),
    )
    yield explorer
    explorer.close()


def colour_of(explorer):
    return Image.open(io.BytesIO(explorer.image.value)).getpixel((3, 3))


def test_it_draws_at_once_and_after_every_move(explorer):
    assert explorer.values == {"amount": 0.5, "colour": "#0072B2", "again": {"Draw": 0, "Stop": 0}}
    assert (colour_of(explorer), explorer.description, explorer.error) == (
        (0, 0x72, 0xB2),
        "a square of 0.5",
        "",
    )
    explorer.set(colour="#E69F00")
    assert colour_of(explorer) == (0xE6, 0x9F, 0)
    explorer.values = {"amount": 0.3, "colour": "blue"}  # a label serves as well
    assert explorer.values["amount"] == 0.3 and colour_of(explorer) == (0, 0x72, 0xB2)
    assert explorer.description == "a square of 0.3"


def test_the_browser_moves_it_by_the_same_road(explorer):
    """As ipywidgets delivers a message: values and turn at once; an empty move is answered too."""
    explorer.controls.set_state({"values": {"amount": 1, "colour": "orange"}, "turn": 7})
    assert explorer.values["amount"] == 1.0 and isinstance(explorer.values["amount"], float)
    assert colour_of(explorer) == (0xE6, 0x9F, 0) and explorer.controls.drawn == 7
    explorer.controls.set_state({"values": {"amount": 1, "colour": "orange"}, "turn": 8})
    assert explorer.controls.drawn == 8


def test_one_message_is_one_redraw():
    calls = []
    explorer = explore(lambda **values: calls.append(values) or Figure(), a=Range("A", 0, 9))
    explorer.controls.set_state({"values": {"a": 3}, "turn": 1})
    assert calls == [{"a": 0}, {"a": 3}] and isinstance(calls[1]["a"], int)
    explorer.redraw()
    assert len(calls) == 3


def test_an_error_is_kept_and_shown_and_the_picture_stays(explorer):
    before = explorer.image.value
    explorer.set(amount=0.9)
    assert explorer.error == explorer.controls.error == "RuntimeError: 0.9 is not to be drawn"
    assert explorer.image.value == before and 'raise RuntimeError("0.9' in explorer.traceback
    explorer.set(amount=0.8)
    assert (explorer.error, explorer.traceback) == ("", "")


@pytest.mark.parametrize(
    "result, sentence",
    [
        (
            None,
            (
                "TypeError: the function must return a matplotlib Figure or (Figure, text), got"
                " NoneType"
            ),
        ),
        ((Figure(), 3), "got Figure with int"),
        (Figure().subplots(), "an Axes has its figure as .figure"),
    ],
)
def test_what_is_no_figure_is_an_error(result, sentence):
    explorer = explore(lambda: result)
    assert sentence in explorer.error and explorer.image.value == b""


def test_presses_are_counted_and_act_before_the_picture():
    pressed = []
    run = Buttons("Run", ("Go", "Stop"), pressed.append)
    explorer = explore(lambda run: (Figure(), f"{run} after {pressed}"), run=run)
    explorer.press("run", "Go")
    explorer.controls._handle_custom_msg({"press": ["run", "Stop"]}, [])  # as the browser does
    assert pressed == ["Go", "Stop"]
    assert explorer.description == "{'Go': 1, 'Stop': 1} after ['Go', 'Stop']"
    with pytest.raises(ValueError, match="Did you mean 'Stop'"):
        explorer.press("run", "stop")


def test_an_error_in_a_press_is_shown():
    def refuse(button):
        raise OSError(f"no {button}")

    explorer = explore(lambda run: Figure(), run=Buttons("Run", ["Go"], refuse))
    explorer.press("run", "Go")
    assert explorer.error == "OSError: no Go"


def test_without_a_text_the_values_describe_the_picture():
    explorer = explore(
        lambda **_: Figure(),
        lam=Range("λ", 0, 1, 0.25, 0.5, "{:.0%}"),
        how=Choice("How", ["a", "b"]),
    )
    assert explorer.description == "λ: 50%, How: a"


def test_wrong_moves_are_refused_before_anything_moves(explorer):
    before = explorer.values
    for move, sentence in (
        ({"amount": 2}, "must lie in 0 … 1, got 2"),
        ({"amont": 0.1}, "Did you mean 'amount'"),
        ({"amount": 0.1, "colour": "green"}, "Choose one of: blue, orange"),
        ({"amount": "0.1"}, "got '0.1'"),
        ({"play": 1}, "unknown control 'play'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            explorer.set(**move)
    assert explorer.values == before and explorer.error == ""


def test_disable_greys_out_exactly_the_named(explorer):
    explorer.disable("amount", "again/Stop")
    assert explorer.controls.disabled == ["amount", "again/Stop"]
    explorer.disable()
    assert explorer.controls.disabled == []
    with pytest.raises(ValueError, match="Did you mean 'again/Stop'"):
        explorer.disable("again/stop")


def test_nothing_is_left_behind():
    figures = []

    def draw(a):
        figures.append(pyplot.figure())  # not as asked, and cleared away all the same
        return figures[-1]

    explorer = explore(draw, a=Range("A", 0, 5))
    explorer.set(a=1)
    assert len(figures) == 2 and not pyplot.get_fignums()
    explorer.close()
    explorer.controls.set_state({"values": {"a": 3}, "turn": 1})
    assert len(figures) == 2, "a closed explorer draws no more"


def test_it_redraws_from_any_thread(explorer):
    explorer.function = lambda **_: (Figure(facecolor="#000000"), "from a thread")
    worker = threading.Thread(target=explorer.redraw)
    worker.start()
    worker.join()
    assert explorer.description == "from a thread" and colour_of(explorer) == (0, 0, 0)


def test_the_png_is_the_figure():
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1])
    expected = io.BytesIO()
    figure.savefig(expected, format="png", dpi=80)
    expected, found = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        for data in (expected.getvalue(), as_png(figure, 80))
    )
    assert np.array_equal(expected, found)


@pytest.mark.slow
def test_the_pixels_of_a_picture_do_not_wait_for_the_garbage_collector():
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], label="line")
    axes.annotate("here", (0, 0), (1, 1), arrowprops={"arrowstyle": "->"})
    axes.legend()
    gc.collect()
    gc.disable()
    try:
        before = sum(type(each) is RendererAgg for each in gc.get_objects())
        as_png(figure)
        assert sum(type(each) is RendererAgg for each in gc.get_objects()) == before
    finally:
        gc.enable()


def test_a_range_has_the_decimal_values_one_expects():
    assert Range("λ", 0, 1, 0.01).grid == tuple(k / 100 for k in range(101))
    assert Range("n", 2, 9, 3).grid == (2, 5, 8) and all(
        isinstance(n, int) for n in Range("n", 2, 9, 3).grid
    )
    assert Range("x", -1, 1, 0.1, 0.33).value == 0.3
    spec = Range("e", 0, 2, format=lambda epoch: f"epoch {epoch}").spec("e")
    assert spec["texts"] == ["epoch 0", "epoch 1", "epoch 2"] and spec["max"] == 2


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: Range("a", 1, 0), "min ≤ max"),
        (lambda: Range("a", 0, 1, 0), "step > 0"),
        (lambda: Range("a", 0, 1, 1e-6), "at most 2000 steps"),
        (lambda: Range("a", 0, float("nan")), "got min 0, max nan"),
        (lambda: Range("a", 0, 1, 0.1, 5), "must lie in 0 … 1, got 5"),
        (lambda: Choice("c", []), "at least one"),
        (lambda: Choice("c", ["a", "a"]), "different labels"),
        (lambda: Choice("c", ["a"], "b"), "unknown c 'b'"),
        (lambda: Buttons("b", []), "at least one"),
        (lambda: Buttons("b", "Go"), "got 'Go'"),
        (lambda: Play("p", "a", 10), "at least 50, got 10"),
        (lambda: Controls(p=Play("p", "a")), "plays 'a', which is no Range"),
        (lambda: explore(square, amount=3), "must be a Range, Choice, Buttons or Play, got 3"),
    ],
)
def test_bad_controls_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_names_are_documented_and_the_browsers_files_are_part_of_the_package():
    assert (
        all(getattr(widgets, name).__doc__ for name in widgets.__all__)
        and Explorer in vars(widgets).values()
    )
    folder = Path(widgets.__file__).parent
    assert {path.name for path in folder.glob("*.[jc]s*")} == {
        "controls.js",
        "controls.css",
        "inspector.js",
        "inspector.css",
    }


@pytest.mark.slow
def test_a_missing_package_is_named_with_the_command_that_installs_it():
    script = (
        "import sys; sys.modules['anywidget'] = None\nimport catchup; print('light')\nimport"
        " catchup.widgets"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "light\n" and "pip install -e '.[notebooks]'" in done.stderr
