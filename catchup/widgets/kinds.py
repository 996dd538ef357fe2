"""The kinds of controls: what each shows, what it takes from Python, and the JSON that controls.js
builds it from.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from ..utils.choices import pick

MOST_STEPS = 2000


@dataclass(frozen=True)
class Range:
    """A slider over the grid min, min + step, …, up to max.

    Args:
        label: the words beside it.
        min, max, step: the grid, at most 2000 steps, step > 0. If all three are integers so are the
            values.
        value: where it starts, rounded to the grid; None is `min`.
        format: how a value is written: a format specification (".2f"), a template ("{:.0f} %") or a
            function of it.
    Raises:
        ValueError: if the grid is empty, too long or not finite, or `value` lies outside it.
    """

    label: str
    min: float
    max: float
    step: float = 1
    value: float | None = None
    format: str | Callable[[float], str] = ""
    grid: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self):
        finite = all(math.isfinite(number) for number in (self.min, self.max, self.step))
        steps = (self.max - self.min) / self.step if finite and self.step > 0 else -1
        if not 0 <= steps <= MOST_STEPS:
            raise ValueError(
                f"{self.label!r} needs min ≤ max, step > 0 and at most {MOST_STEPS} steps, "
                f"got min {self.min}, max {self.max}, step {self.step}"
            )
        grid = [self.min + place * self.step for place in range(int(steps + 1e-9) + 1)]
        whole = all(isinstance(number, Integral) for number in (self.min, self.max, self.step))
        grid = grid if whole else [round(float(value), 12) for value in grid]
        object.__setattr__(self, "grid", tuple(grid))
        object.__setattr__(self, "value", self.wire(self.min if self.value is None else self.value))

    def wire(self, value: float) -> float:
        """The nearest value of the grid; ValueError outside [min, max]."""
        if not isinstance(value, Real) or not self.min <= value <= self.max:
            raise ValueError(f"{self.label!r} must lie in {self.min} … {self.max}, got {value!r}")
        return self.grid[min(len(self.grid) - 1, round((value - self.min) / self.step))]

    def python(self, wired: float) -> float:
        """What the function gets; JSON makes no difference between 1 and 1.0, the grid does."""
        return self.wire(wired)

    def say(self, value: float) -> str:
        """The value in words."""
        if callable(self.format):
            return str(self.format(value))
        return self.format.format(value) if "{" in self.format else format(value, self.format)

    def spec(self, name: str) -> dict:
        """The JSON that controls.js builds from."""
        return {
            "kind": "range",
            "name": name,
            "label": self.label,
            "min": self.grid[0],
            "max": self.grid[-1],
            "step": self.step,
            "grid": list(self.grid),
            "texts": [self.say(value) for value in self.grid],
        }


@dataclass(frozen=True)
class Choice:
    """A drop-down list.

    Args:
        label: the words above it.
        options: {label: value}, or values whose `str` is the label. The labels must differ.
        value: the value it starts with; None is the first.
    Raises:
        ValueError: if there is no option, two share a label, or `value` is none of them.
    """

    label: str
    options: Mapping[str, Any] | Sequence[Any]
    value: Any = None

    def __post_init__(self):
        given = self.options
        pairs = given if isinstance(given, Mapping) else ((str(option), option) for option in given)
        options = dict(pairs)
        if not options or len(options) < len(given):
            raise ValueError(
                f"{self.label!r} needs options with different labels, at least one, got"
                f" {list(given)}"
            )
        object.__setattr__(self, "options", options)
        value = next(iter(options.values()))
        if self.value is not None:
            value = self.python(self.wire(self.value))
        object.__setattr__(self, "value", value)

    def wire(self, value: Any) -> str:
        """The label of a value (or the label itself)."""
        for label, option in self.options.items():
            if option is value or type(option) is type(value) and bool(option == value):
                return label
        return pick(self.label, value, self.options)

    def python(self, wired: str) -> Any:
        """The value behind a label."""
        return self.options[pick(self.label, wired, self.options)]

    def say(self, value: Any) -> str:
        """The value's label."""
        return self.wire(value)

    def spec(self, name: str) -> dict:
        """The JSON that controls.js builds from."""
        return {"kind": "select", "name": name, "label": self.label, "options": list(self.options)}


@dataclass(frozen=True)
class Buttons:
    """A row of buttons. The function gets {button: how often it was pressed}; no press is lost or
    merged.

    Args:
        label: the words above them.
        buttons: their names, all different.
        on_press: called with the button's name before the function is; an error in it is shown like
            any other.
    Raises:
        ValueError: if there is no button or two share a name.
    """

    label: str
    buttons: Sequence[str]
    on_press: Callable[[str], None] | None = None

    def __post_init__(self):
        names = () if isinstance(self.buttons, str) else self.buttons
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"{self.label!r} needs different button names, at least one, got {self.buttons!r}"
            )

    def spec(self, name: str) -> dict:
        """The JSON that controls.js builds from."""
        return {"kind": "buttons", "name": name, "label": self.label, "buttons": list(self.buttons)}


@dataclass(frozen=True)
class Play:
    """A play and pause button that moves a `Range` step by step to its end, one step per picture.

    Args:
        label: the words above it.
        range: the name of the control it moves.
        interval_ms: time between steps, ≥ 50; longer where a picture takes longer.
    Raises:
        ValueError: if the interval is shorter.
    """

    label: str
    range: str
    interval_ms: int = 500

    def __post_init__(self):
        if not self.interval_ms >= 50:
            raise ValueError(f"interval_ms must be at least 50, got {self.interval_ms}")

    def spec(self, name: str) -> dict:
        """The JSON that controls.js builds from."""
        head = {"kind": "play", "name": name, "label": self.label}
        return {**head, "range": self.range, "interval": self.interval_ms}


Control = Range | Choice | Buttons | Play
