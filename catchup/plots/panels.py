"""Panels that draw in a few milliseconds, for figures that follow a slider.

Most of the time of a small matplotlib figure goes into tick objects and text. Here a panel is an
axes without them: grid and frame are collections, and a handful of numbers stand beside it. Text
under the tiles of a wall is stamped into the picture. Titles and axis labels are set as ever, so
`ax.get_xlabel()` and its kin tell what they are.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from . import tiles
from .style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 96  # what rectangles in pixels are meant at
GRID = "#E4E4E4"
TEXT = 8  # points, of the numbers beside the axes

# left, bottom, width, height, in pixels from the lower left corner
Rect = tuple[float, float, float, float]


def canvas(width: int, height: int) -> "Figure":
    """An empty figure of so many pixels at 96 dpi, which nothing global knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def place(figure: "Figure", rect: Rect, head: str = "", size: float = 10) -> "Axes":
    """Axes without frame and ticks in a rectangle, `head` above them."""
    width, height = figure.get_size_inches() * DPI
    ax = figure.add_axes((rect[0] / width, rect[1] / height, rect[2] / width, rect[3] / height))
    ax.set_axis_off()
    ax.set_title(head, fontsize=size, y=1.0, pad=5)  # a fixed y: nothing is measured to find room
    return ax


def frame(
    ax: "Axes",
    xlim: tuple[float, float],
    ylim: tuple[float, float],
    xlabel: str,
    ylabel: str = "",
    *,
    ticks: int = 4,
    named: Callable[[float], str] = "{:g}".format,
) -> "Axes":
    """Limits, a light grid with its numbers, and the names of the axes; call it after drawing.

    Args:
        xlim, ylim: the limits.
        xlabel: below;
        ylabel: turned, at the left, or "" where the title says it.
        ticks: about how many numbers per axis.
        named: how a number of the x axis is written.
    """
    from matplotlib.collections import LineCollection

    ax.set(xlim=xlim, ylim=ylim, xlabel=xlabel, ylabel=ylabel)
    xs, ys = _ticks(*xlim, ticks), _ticks(*ylim, ticks)
    grid = [[(x, ylim[0]), (x, ylim[1])] for x in xs] + [[(xlim[0], y), (xlim[1], y)] for y in ys]
    axes = [[(xlim[0], ylim[1]), (xlim[0], ylim[0]), (xlim[1], ylim[0])]]
    ax.add_collection(LineCollection(grid, colors=GRID, linewidths=0.8, zorder=0.5))
    ax.add_collection(LineCollection(axes, colors="black", linewidths=1, clip_on=False, zorder=3))
    box, (width, height) = ax.get_position(), ax.figure.get_size_inches() * DPI

    def write(x: float, y: float, words: str, size: float, at: str = "center top", **turn) -> None:
        across, along = at.split()
        ax.figure.text(x, y, words, size=size, ha=across, va=along, **turn)

    middle_x, middle_y = box.x0 + box.width / 2, box.y0 + box.height / 2
    for x in xs:
        place_x = box.x0 + box.width * (x - xlim[0]) / (xlim[1] - xlim[0])
        write(place_x, box.y0 - 4 / height, named(x), TEXT)
    for y in ys:
        place_y = box.y0 + box.height * (y - ylim[0]) / (ylim[1] - ylim[0])
        write(box.x0 - 5 / width, place_y, f"{y:g}", TEXT, "right center")
    if xlabel:
        write(middle_x, box.y0 - 19 / height, xlabel, TEXT + 0.5)
    if ylabel:
        write(box.x0 - 40 / width, middle_y, ylabel, TEXT + 0.5, "center center", rotation=90)
    return ax


def say(ax: "Axes", words: str) -> None:
    """A sentence where there is nothing to draw."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=INK, size=9)


def picture(figure: "Figure", rect: Rect, image: np.ndarray, head: str = "") -> "Axes":
    """An image (H, W, 3) in a rectangle, as large as fits."""
    ax = place(figure, rect, head)
    ax.imshow(image, interpolation="nearest")
    return ax


def wall(
    figure: "Figure", rect: Rect, shown: np.ndarray, words: Sequence[str], columns: int, head: str
) -> "Axes":
    """Tiles (n, h, w, 3) uint8, each with a word under it, as large as the rectangle allows: one
    picture.

    The words are stamped in, since so many text objects would take most of the time.
    """
    from PIL import Image, ImageDraw

    rows, gap = -(-len(shown) // columns), (16, 10)
    side = max(16, min(int(rect[2] // columns) - gap[1], int(rect[3] // rows) - gap[0]))
    sheet = Image.fromarray(tiles.mosaic(tiles.resize(shown, side), columns, gap))
    pen = ImageDraw.Draw(sheet)
    for k, word in enumerate(words):
        x, y = tiles.corner(k, (side, side), columns, gap)
        middle = x + side / 2, y + side + gap[0] / 2
        pen.text(middle, word, fill="black", font=_font(10), anchor="mm")
    left, bottom = rect[0] + (rect[2] - sheet.width) // 2, rect[1] + rect[3] - sheet.height
    ax = place(figure, (left, bottom, *sheet.size), head)
    ax.imshow(np.asarray(sheet), interpolation="nearest", aspect="auto")
    return ax


def _ticks(low: float, high: float, count: int) -> list[float]:
    """A few round numbers between two limits."""
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(value) for value in values if low - slack <= value <= high + slack]


@cache
def _font(size: int):
    """Matplotlib's own letters, for the stamp."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
