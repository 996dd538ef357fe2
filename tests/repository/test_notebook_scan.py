"""The scan for hidden errors: it rejects every faulty notebook, most of which nbmake alone passes,
and no good one.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_scan import WIDGETS, hidden_errors, reader_faults

OUT = "import ipywidgets as w, threading, time\nout = w.Output()\n"
FAIL = "def fail(*_):\n    raise ZeroDivisionError('injected')\n"
SLIDER = "slider = w.IntSlider()\n"
FAULTS = {  # the seven kinds, every one a notebook that shows its reader an error
    "interactive_output": [OUT + FAIL + SLIDER + "w.interactive_output(fail, {'x': slider})"],
    "interact": [OUT + FAIL + "w.interact(lambda x: fail(), x=(0, 3))"],
    "capture": [OUT + FAIL + "out.capture()(fail)()\nout"],
    "with_out": [OUT + FAIL + "with out:\n    fail()", "out"],
    "thread": [OUT + FAIL + "t = threading.Thread(target=fail)\nt.start()\nt.join()"],
    "observe": [OUT + FAIL + SLIDER + "slider.observe(fail, 'value')\nslider.value = 2"],
    "click": [OUT + FAIL + "button = w.Button()\nbutton.on_click(fail)\nbutton.click()"],
}
STRIP = (
    OUT
    + """import anywidget, contextvars, traitlets
class Strip(anywidget.AnyWidget):
    _esm = "export default {}"
    error = traitlets.Unicode().tag(sync=True)
strip = Strip()
"""
)
LATE = """def late():
    time.sleep(0.3)
    strip.error = 'set after its cell'
    fail()
threading.Thread(target=contextvars.copy_context().run, args=(late,)).start()"""
MORE = {  # beyond the seven
    "late_thread": [STRIP + FAIL + LATE, "time.sleep(1)"],
    "package_widget": [
        "from catchup.widgets import Controls\nstrip = Controls()\nstrip.error = 'not"
        " finite'\nstrip"
    ],
}
GOOD = [
    STRIP
    + SLIDER
    + "seen = []\nslider.observe(seen.append, 'value')\nslider.value = 2\nwith out:\n    print(1)",
    "w.interactive_output(lambda x: print(x), {'x': slider})",
    "strip.error = 'a'\nstrip.error = ''",
    "assert len(seen) == 1",
]
# or it may hang; no scan
AWAKE = """import notebook_scan
notebook_scan.OutputWidget.send = notebook_scan.awake(notebook_scan.OutputWidget.send)"""
SUMMARY = re.compile(r"^(PASSED|FAILED) (?:\S*/)?(\w+)\.ipynb", re.M)


def pytest_run(folder: Path, *options: str) -> subprocess.Popen:
    """A pytest run over the notebooks of the folder, started; none of this project's settings apply
    to it.
    """
    here = Path(__file__).parents[1]
    paths = os.pathsep.join(map(str, [folder, here, here.parent, os.environ.get("PYTHONPATH", "")]))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-p",
        "no:cacheprovider",
        "--nbmake",
        "--nbmake-timeout=60",
        "-rA",
        "--color=no",
        *options,
        str(folder),
    ]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def outcomes(run: subprocess.Popen) -> tuple[dict[str, str], str]:
    """{notebook: "PASSED" or "FAILED"} of a run when it is done, and all it printed."""
    said = run.communicate()[0]
    return {name: outcome for outcome, name in SUMMARY.findall(said)}, said


def write(folder: Path, notebooks: dict[str, list[str]]) -> Path:
    folder.mkdir()
    for name, sources in notebooks.items():
        kernel = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        cells = [
            new_code_cell(source, id=f"cell-{place:02}") for place, source in enumerate(sources)
        ]
        nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")
    return folder


@pytest.mark.slow
def test_every_hidden_error_fails_its_notebook(tmp_path):
    hidden = ("interactive_output", "interact", "capture", "with_out", "thread")
    plain = write(tmp_path / "plain", {name: FAULTS[name] for name in ("with_out", "thread")})
    (plain / "only_awake.py").write_text(AWAKE)
    # side by side
    runs = (
        pytest_run(
            write(tmp_path / "all", {**FAULTS, **MORE, "good": GOOD}), "-p", "notebook_scan"
        ),
        pytest_run(plain, "-p", "only_awake"),
    )
    (found, said), (without, plainly) = map(outcomes, runs)
    assert found == dict.fromkeys([*FAULTS, *MORE], "FAILED") | {"good": "PASSED"}, said
    assert said.count("no cell raised, but the notebook hides errors\n") == len(hidden) + len(
        MORE
    ), said
    for told in (
        "shows the error: not finite",
        "shows the error: set after its cell",
        "cell 0: traceback on standard error: ZeroDivisionError: injected",
    ):
        assert told in said, said
    assert len(without) == 2 and set(without.values()) == {"PASSED"}, (
        f"nbmake sees them by itself: {plainly}"
    )


def notebook(*outputs, state=None, tags=()):
    cell = new_code_cell("1", outputs=list(outputs), metadata={"tags": list(tags)})
    widgets = {
        WIDGETS: {"state": {"0123456789": {"model_name": "SomeModel", "state": state or {}}}}
    }
    return new_notebook(cells=[cell], metadata={"widgets": widgets})


ERROR = new_output("error", ename="ValueError", evalue="too small", traceback=[])
TRACE = new_output(
    "stream", name="stderr", text="x\nTraceback (most recent call last):\n  File\nKeyError: 'a'\n"
)
WARNING = new_output("stream", name="stderr", text="UserWarning: careful\n")


@pytest.mark.parametrize(
    "nb, told",
    [
        (notebook(), []),
        (notebook(WARNING, state={"outputs": [WARNING], "error": ""}), []),
        (notebook(ERROR, TRACE, tags=["raises-exception"]), []),
        (notebook(ERROR), ["cell 0: ValueError: too small"]),
        (notebook(TRACE), ["cell 0: traceback on standard error: KeyError: 'a'"]),
        (
            notebook(state={"outputs": [ERROR, TRACE]}),
            [
                "SomeModel 01234567: ValueError: too small",
                "SomeModel 01234567: traceback on standard error: KeyError: 'a'",
            ],
        ),
        (
            notebook(state={"error": "no such block\n"}),
            ["SomeModel 01234567 shows the error: no such block"],
        ),
        (notebook(state={"error": None, "outputs": None}), []),
        (new_notebook(), []),
    ],
)
def test_reading_an_executed_notebook(nb, told):
    assert hidden_errors(nb) == told


def shown(**data):
    return new_output("display_data", {key.replace("_", "/"): value for key, value in data.items()})


FIGURE = "<Figure size 640x480 with 1 Axes>"
EXERCISE = "def f():\n    return 0      # your turn\nprint(check(f))"


@pytest.mark.parametrize(
    "source, output, told",
    [
        ("1", new_output("stream", text="x" * 100 + "\n" + "y" * 100), None),
        ("1", new_output("stream", text="short\n" + "y" * 101), "a line of 101 characters"),
        ("1", shown(text_plain=FIGURE), "does not appear"),
        ("1", shown(text_plain=FIGURE, image_png="…"), None),
        (EXERCISE, new_output("stream", text="0 of 4 cases are right\n"), None),
        (EXERCISE, new_output("stream", text="10 of 14 cases are right\n"), "scores: 10 of 14"),
        (EXERCISE, new_output("stream", text="right\n"), "scores: right"),
        ("1", new_output("stream", text="1 of 4 cases\n"), None),
    ],
)
def test_outputs_that_no_reader_can_use(source, output, told):
    found = reader_faults(new_notebook(cells=[new_code_cell(source, outputs=[output])]))
    assert len(found) == (told is not None) and all(told in line for line in found), found
