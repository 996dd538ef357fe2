"""Native HTML controls around a plain function that draws: `explore(function, lam=Range("λ", 0, 1,
0.01, 0.5))`.

The picture goes into an `ipywidgets.Image`, never into an `ipywidgets.Output`, which hangs nbclient
and hides errors. The browser sends what changed; ipywidgets keeps only the newest state while an
answer is pending, so every key press takes effect and redraws are left out only where they would
come too late.
"""

import io
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets
import traitlets

from ..utils.choices import pick
from .kinds import Buttons, Choice, Control, Play, Range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
_drawing = threading.RLock()  # matplotlib's text and font caches serve one thread at a time


class Controls(anywidget.AnyWidget):
    """A strip of native controls, a line that describes what is seen, and a line for errors.

    Traits, all synced: `spec` (the controls), `values` ({name: number or label}), `presses` ({name:
    {button: count}}), `disabled` (names, or "name/button"), `description` (spoken politely),
    `error` (an alert while not empty), `busy`, and `turn` and `drawn`, which number the browser's
    changes and the last one answered.

    Args:
        controls: a `Range`, `Choice`, `Buttons` or `Play` by name, in the order in which they
            stand.
    Raises:
        ValueError: if one is none of these, or a `Play` names no `Range`.
    """

    _esm = HERE / "controls.js"
    _css = HERE / "controls.css"
    spec = traitlets.List().tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    presses = traitlets.Dict().tag(sync=True)
    disabled = traitlets.List(traitlets.Unicode()).tag(sync=True)
    description = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    turn = traitlets.Int(0).tag(sync=True)
    drawn = traitlets.Int(0).tag(sync=True)

    def __init__(self, **controls: Control):
        for name, control in controls.items():
            if not isinstance(control, Control):
                raise ValueError(
                    f"{name} must be a Range, Choice, Buttons or Play, got {control!r}"
                )
            if isinstance(control, Play) and not isinstance(controls.get(control.range), Range):
                raise ValueError(
                    f"{name} plays {control.range!r}, which is no Range among {list(controls)}"
                )
        self.controls = controls
        self.traceback = ""
        self._settled: tuple | None = None
        self._on_change: Callable[[], None] = lambda: None
        values, presses = {}, {}
        for name, control in controls.items():
            if isinstance(control, Range | Choice):
                values[name] = control.wire(control.value)
            elif isinstance(control, Buttons):
                presses[name] = dict.fromkeys(control.buttons, 0)
        spec = [control.spec(name) for name, control in controls.items()]
        super().__init__(spec=spec, values=values, presses=presses)
        self.observe(self._settle, ["values", "turn"])
        self.on_msg(self._receive)

    @property
    def current(self) -> dict[str, Any]:
        """{name: what the function gets}, in the order of the controls."""
        values = {name: self.controls[name].python(wired) for name, wired in self.values.items()}
        values |= {name: dict(presses) for name, presses in self.presses.items()}
        return {name: values[name] for name in self.controls if name in values}

    def set(self, **values: Any) -> None:
        """Moves controls from Python, as the user's hand would.

        Raises:
            ValueError: before anything moves, if there is no such control or it cannot take the
                value.
        """
        wired = {
            pick("control", name, self.values): self.controls[name].wire(value)
            for name, value in values.items()
        }
        self.values = {**self.values, **wired}

    def press(self, name: str, button: str) -> None:
        """Presses a button from Python. ValueError if there is none of that name."""
        pick("button", button, self.presses[pick("row of buttons", name, self.presses)])
        counts = self.presses[name]
        self.presses = {**self.presses, name: {**counts, button: counts[button] + 1}}
        self.guarded(lambda: self._act(name, button))

    def on_change(self, callback: Callable[[], None]) -> None:
        """Calls `callback` after every change; there is one, and its errors are shown in the
        strip.
        """
        self._on_change = callback

    def guarded(self, call: Callable[[], None]) -> bool:
        """Runs `call`; True if it went well. An error never leaves: it is shown, and kept in
        `error`, `traceback`.
        """
        try:
            call()
        except Exception as error:
            self.traceback = traceback.format_exc()
            self.error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return False
        self.error = self.traceback = ""
        return True

    def close(self) -> None:
        """Ends the callbacks and the connection to the browser."""
        self._on_change = lambda: None
        super().close()

    def _settle(self, _change: dict) -> None:
        """Answers a change once: values and turn come as two notifications of one message."""
        if self._settled != self.values:
            self._settled = dict(self.values)
            self.guarded(self._on_change)
        self.drawn = self.turn

    def _act(self, name: str, button: str) -> None:
        if self.controls[name].on_press:
            self.controls[name].on_press(button)
        self._on_change()

    def _receive(self, _widget, content: dict, _buffers) -> None:
        """A message of the browser; only presses come this way, since state may be merged and
        messages are not.
        """
        self.guarded(lambda: self.press(*content["press"]))


class Explorer(ipywidgets.VBox):
    """Controls above the picture that a plain function draws.

    Args:
        function: called as function(**values); returns a matplotlib `Figure`, made without pyplot,
            or (Figure, text). The text describes the picture to those who cannot see it; without
            one it names the values.
        dpi: pixels per inch of the PNG.
        controls: as for `Controls`; their names are the function's arguments (a `Play` has none).
    Raises:
        ValueError: as `Controls`. An error of the function is no exception here: it stands in the
            error line, in `error` and in `traceback`, and the last picture stays.
    """

    def __init__(
        self,
        function: Callable[..., "Figure | tuple[Figure, str]"],
        /,
        *,
        dpi: int = 110,
        **controls: Control,
    ):
        self.function, self.dpi = function, dpi
        self.controls = Controls(**controls)
        self.image = ipywidgets.Image(
            format="png", layout={"max_width": "100%", "align_self": "flex-start"}
        )
        super().__init__([self.controls, self.image])
        self.controls.on_change(self._draw)
        self.redraw()

    @property
    def values(self) -> dict[str, Any]:
        """{name: value}, as the function gets them; assign a mapping to move the controls."""
        return self.controls.current

    @values.setter
    def values(self, values: Mapping[str, Any]) -> None:
        self.set(**values)

    @property
    def error(self) -> str:
        """Type and message of what went wrong in the last redraw; empty if nothing did."""
        return self.controls.error

    @property
    def traceback(self) -> str:
        """Where it went wrong; empty if nothing did."""
        return self.controls.traceback

    @property
    def description(self) -> str:
        """What the picture shows, in words."""
        return self.controls.description

    def set(self, **values: Any) -> None:
        """Moves controls from Python and redraws; ValueError as `Controls.set`."""
        self.controls.set(**values)

    def press(self, name: str, button: str) -> None:
        """Presses a button from Python and redraws; ValueError as `Controls.press`."""
        self.controls.press(name, button)

    def disable(self, *names: str) -> None:
        """Greys out exactly these controls: "name", or "name/button" for one button. None enables
        all.
        """
        known = list(self.controls.controls)
        for name, presses in self.controls.presses.items():
            known += [f"{name}/{button}" for button in presses]
        self.controls.disabled = [pick("control", name, known) for name in names]

    def redraw(self) -> None:
        """Draws again with the values as they are; from any thread. Errors are shown, not
        raised.
        """
        self.controls.guarded(self._draw)

    def close(self) -> None:
        """Ends the callbacks and takes the widget away."""
        for child in self.children:
            child.close()
        super().close()

    def _draw(self) -> None:
        with _drawing:
            values = self.values
            figure, text = _figure_and_text(self.function(**values))
            self.image.value = as_png(figure, self.dpi)
            self.controls.description = text or self._say(values)

    def _say(self, values: Mapping[str, Any]) -> str:
        named = {name: self.controls.controls[name] for name in self.controls.values}
        return ", ".join(
            f"{control.label}: {control.say(values[name])}" for name, control in named.items()
        )


def explore(function: Callable, /, *, dpi: int = 110, **controls: Control) -> Explorer:
    """`Explorer(function, **controls)`: the picture of a plain function, with controls for its
    arguments.
    """
    return Explorer(function, dpi=dpi, **controls)


def as_png(figure: "Figure", dpi: int = 110) -> bytes:
    """The figure as PNG, drawn by Agg; a figure that pyplot holds is released.

    Args:
        figure: a matplotlib figure.
        dpi: pixels per inch.
    Returns:
        The bytes of an opaque RGB PNG, lightly compressed: for a screen, quickly.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text
    from PIL import Image

    figure.set_dpi(dpi)
    earlier, buffer = figure.canvas, io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    size, pixels = canvas.get_width_height(), canvas.buffer_rgba()
    drawn = Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1)
    drawn.convert("RGB").save(buffer, "png", compress_level=1)
    figure.set_canvas(earlier)
    # each holds on to the pixels, and a figure waits long for the garbage collector
    for text in figure.findobj(Text):
        text._renderer = None  # type: ignore[attr-defined]
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    return buffer.getvalue()


def _figure_and_text(result: Any) -> tuple["Figure", str]:
    """What the function returned, taken apart; TypeError if it is neither a figure nor (figure,
    text).
    """
    from matplotlib.figure import Figure

    figure, text = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
    if not isinstance(figure, Figure) or not isinstance(text, str):
        hint = (
            f" with {type(text).__name__}" if text != "" else "; an Axes has its figure as .figure"
        )
        raise TypeError(
            "the function must return a matplotlib Figure or (Figure, text), got"
            f" {type(figure).__name__}{hint}"
        )
    return figure, text
