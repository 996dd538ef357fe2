"""How figures look: a method has one colour and one marker everywhere, and so has everything else
that comes back.

The colours are those of Okabe & Ito (2008), without the yellow, so that colour-blind readers can
tell them apart; the markers and line styles do it in grey print.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from ..measures.statistics import deviation
from ..mixers import MIXERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#000000", "#CC79A7", "#E69F00", "#0072B2", "#D55E00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">", "*")
LINES = ("-", "--", "-.", "-")
NEUTRAL = ("#7F7F7F", "X", ":")  # a method that is not in the registry
INK, FAINT = "#4D4D4D", "#BDBDBD"  # lines that explain; what stands behind
# the strongest and the weakest filters; what the background and the shape drive
STRONG, WEAK = ("#D55E00", "#0072B2")
BRIGHTEST = 0.75  # of cividis, for lines and points: the yellow above it is lost on white


def style(method: str) -> tuple[str, str, str]:
    """Colour, marker and line style of a method; methods without their own share a neutral grey.

    With settings behind its name ("catchup:alpha=10", a label of `catchup.experiments.compare`) a
    method keeps its colour and gets a marker and a line of that spelling.
    """
    name, _, settings = method.partition(":")
    if name not in MIXERS:
        return NEUTRAL
    # by place in the registry: a new method gets its own without an edit here
    place = list(MIXERS).index(name)
    other = place + crc32(settings.encode()) % (len(MARKERS) - 1) + 1 if settings else place
    return COLOURS[place % len(COLOURS)], MARKERS[other % len(MARKERS)], LINES[other % len(LINES)]


def title(method: str) -> str:
    """The method's name as the papers print it, with its settings; a name unknown here stays as it
    is.
    """
    name, _, settings = method.partition(":")
    if name not in MIXERS:
        return method
    return MIXERS[name].title + (f" ({settings})" if settings else "")


def look_of(method: str) -> dict[str, str]:
    """Style and title of a method, as matplotlib's artists take them."""
    colour, marker, line = style(method)
    return {"color": colour, "marker": marker, "linestyle": line, "label": title(method)}


def get_axes(ax: "Axes | None", size: tuple[float, float] = (7.2, 4.2)) -> "Axes":
    """`ax`, or the axes of a new figure of `size` inches."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1]


def get_panels(
    axes: "Iterable[Axes] | None",
    count: int,
    head: str,
    size: tuple[float, float] = (4.2, 4.0),
    **options,
) -> np.ndarray:
    """(count,) Axes: the given ones, or those of a new figure in one row, `size` inches each, with
    `head` above.
    """
    if axes is not None:
        given = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        if len(given) != count:
            raise ValueError(f"this figure needs {count} Axes, got {len(given)}")
        return given
    from matplotlib import pyplot

    figure, made = pyplot.subplots(
        1, count, figsize=(size[0] * count, size[1]), layout="constrained", squeeze=False, **options
    )
    figure.suptitle(head)
    return made[0]


def draw_box(
    ax: "Axes",
    edges: Sequence[float],
    colour: str,
    line: str | tuple,
    *,
    width: float = 2.0,
    rim: str = INK,
    rim_width: float = 3.4,
) -> None:
    """The outline of a box (left, top, right, bottom, in pixels of a picture), on a rim so that it
    shows on any picture.
    """
    from matplotlib.patches import Rectangle

    left, top, right, bottom = (float(edge) for edge in edges)
    corner, sides = (left - 0.5, top - 0.5), (right - left, bottom - top)
    for ink, thick, dashes in ((rim, rim_width, "-"), (colour, width, line)):
        look = {"edgecolor": ink, "linewidth": thick, "linestyle": dashes}
        ax.add_patch(Rectangle(corner, *sides, fill=False, **look))


def draw_means(
    ax: "Axes",
    places: Sequence[float],
    values: Sequence[Sequence[float]],
    *,
    color: str,
    alpha: float = 1.0,
    **look,
) -> None:
    """The means over several seeds as a line, and a band of one sample standard deviation each way
    where there is more than one.

    Args:
        places: x of every point, (n,).
        values: the seeds' values at every place, n lists; a gap wherever one of them is NaN.
        color, alpha, look: of the line; the band is a fifth as strong.
    """
    middle = [mean(of_place) for of_place in values]
    ax.plot(places, middle, color=color, alpha=alpha, **look)
    if any(len(of_place) > 1 for of_place in values):
        spread = [deviation(of_place) if len(of_place) > 1 else 0.0 for of_place in values]
        low, high = np.subtract(middle, spread), np.add(middle, spread)
        ax.fill_between(places, low, high, color=color, alpha=0.2 * alpha, linewidth=0)


def draw_dots(ax: "Axes", places: float | Sequence[float], values: Sequence[float], **look) -> None:
    """Markers alone: `values` over `places`, or all over one place."""
    ax.plot(np.broadcast_to(places, len(values)), values, **{**look, "linestyle": "none"})


def write_cells(ax: "Axes", values: np.ndarray, dark: np.ndarray, form: str, size: float) -> None:
    """The numbers of a table drawn with `imshow`, white where the cell is `dark`; no frame."""
    for (down, right), value in np.ndenumerate(values):
        words = "?" if np.isnan(value) else format(value, form)
        colour = "white" if dark[down, right] else "black"
        ax.text(right, down, words, ha="center", va="center", size=size, color=colour)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def save_figure(
    path: Path, draw: "Callable[[Figure], None]", size: tuple[float, float], words: str
) -> None:
    """What `draw` puts on a figure of `size` inches, with `words` below it, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")  # no pyplot: nothing global, no window
    draw(figure)
    figure.supxlabel(words, fontsize=9)
    figure.savefig(path, dpi=130)


def describe_spread(what: str, known: bool) -> str:
    """What runs a figure shows, and how it shows the spread over their seeds, if there is one."""
    if not known:
        return f"{what}: no spread can be shown."
    return (
        f"{what}. Lines: means over seeds; bands: one sample standard deviation each way; small"
        " markers: single seeds."
    )


def add_legend(ax: "Axes") -> "Axes":
    """The legend stands beside the axes, never on the lines."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, handlelength=2.8)
    return add_grid(ax)


def add_grid(ax: "Axes") -> "Axes":
    """A light grid, no box."""
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def strip_axes(ax: "Axes") -> "Axes":
    """No ticks and no frame: for pictures."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax
