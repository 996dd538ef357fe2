"""What α and λ mean, in one figure: how likely a λ is, and what it does to filters, labels and, at
layer 0, images.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...mixers.cutmix import cut_box
from ...utils.choices import check_whole
from .. import tiles
from ..panels import canvas, frame, picture, place
from ..results import beta_density
from ..style import FAINT, INK, NEUTRAL, WEAK, draw_box, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEAR_PLAIN = 0.1  # a step whose λ is this close to 0 or 1 mixes hardly at all


def playground_card(
    alpha: float,
    lam: float,
    channels: int = 64,
    image: Tensor | None = None,
    partner: Tensor | None = None,
) -> "Figure":
    """What α and λ mean: how likely this λ is, how many filters it keeps, what the labels weigh,
    what CutMix would cut.

    Args:
        alpha: of Beta(α, α), > 0.
        lam: λ in [0, 1].
        channels: C of the block, ≥ 1.
        image, partner: (3, H, W) of one size, uint8 or in [0, 1]; None draws an example.
    Raises:
        ValueError: if a number leaves its range or the images do not fit.
    """
    if not 0 < alpha < math.inf or not 0 <= lam <= 1:
        raise ValueError(
            f"alpha must be a number greater than 0, and lam lie in [0, 1], got {alpha} and {lam}"
        )
    check_whole(channels=channels)
    ours, theirs = _pictures(image, partner)
    figure = canvas(920, 440)
    _draw_density(figure, alpha, lam)
    _draw_shares(place(figure, (70, 20, 500, 104)), lam, channels)
    _draw_cut(figure, ours, theirs, lam)
    return figure


def near_plain(alpha: float) -> float:
    """Share of the steps that mix hardly at all: P(λ < 0.1 or λ > 0.9) for λ ~ Beta(α, α), in [0,
    1].
    """
    from scipy.special import betainc

    return 2 * float(betainc(alpha, alpha, NEAR_PLAIN))


def _pictures(image: Tensor | None, partner: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures (H, W, 3) of one size; the example is a bright disc and dark stripes."""
    given = image if image is not None else partner
    height, width = (64, 64) if given is None else given.shape[1:]
    y, x = np.mgrid[:height, :width]
    if image is None:
        disc = np.hypot(y - height / 2, x - width / 2) < 0.38 * min(height, width)
        ours = tiles.tint(np.where(disc, 1.0, 0.55))
    else:
        ours = tiles.picture(image)
    if partner is None:
        theirs = tiles.tint(np.where((x + y) * 64 // width // 6 % 2, 0.0, 0.25))
    else:
        theirs = tiles.picture(partner)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"image and partner need one size, got {ours.shape[:2]} and {theirs.shape[:2]}"
        )
    return ours, theirs


def _draw_density(figure: "Figure", alpha: float, lam: float) -> None:
    """Beta(α, α), its nearly plain ends shaded, λ marked."""
    lams = (np.arange(200) + 0.5) / 200  # the ends, where α < 1 is infinite, are left out
    heights = np.array([beta_density(x, alpha) for x in lams])
    top = max(2.0, 1.15 * beta_density(0.5, alpha))
    head = (
        f"α = {alpha:g}: {100 * near_plain(alpha):.1f} % of the steps are nearly plain (grey: λ <"
        " 0.1 or λ > 0.9)"
    )
    ax = place(figure, (70, 205, 500, 200), head)
    for part in (lams < NEAR_PLAIN, lams > 1 - NEAR_PLAIN):
        ax.fill_between(lams[part], heights[part], color=FAINT, linewidth=0)
    ax.plot(lams, heights, color=WEAK, linewidth=2)
    ax.plot([lam, lam], [0, top], color=INK, linestyle="--", linewidth=1.4)
    beside, side = (0.012, "left") if lam < 0.85 else (-0.012, "right")
    ax.text(lam + beside, 0.93 * top, f"λ = {lam:.2f}", ha=side)
    words = "λ, share of the source image (0 to 1)"
    frame(ax, (0, 1), (0, top), words, "density (per unit of λ)", ticks=5)


def _draw_shares(ax: "Axes", lam: float, channels: int) -> None:
    """C cells, the first K kept; below them the two labels' weights as one bar."""
    from matplotlib.patches import Rectangle

    kept, dark = int(lam * channels), style("catchup")[0]
    for left, right, bottom, look in (
        (0, kept / channels, 2, {"facecolor": dark}),
        (kept / channels, 1, 2, {"facecolor": FAINT}),
        (0, lam, 0, {"facecolor": dark}),
        (lam, 1, 0, {"facecolor": "white", "edgecolor": NEUTRAL[0], "hatch": "///"}),
    ):
        ax.add_patch(Rectangle((left, bottom), right - left, 1, **look))
    if channels <= 128:
        ax.vlines(np.arange(1, channels) / channels, 2, 3, color="white", linewidth=1)
    ax.set(xlim=(0, 1), ylim=(0, 3))
    ax.title.set_text(
        f"K = ⌊{lam:.2f} · {channels}⌋ = {kept} lagging filters kept (dark), {channels - kept}"
        " replaced"
    )
    ax.text(0.5, 1.2, f"label weights: {lam:.2f} source (dark), {1 - lam:.2f} partner", ha="center")


def _draw_cut(figure: "Figure", ours: np.ndarray, theirs: np.ndarray, lam: float) -> None:
    """CutMix at layer 0, its box in the middle."""
    height, width = ours.shape[:2]
    top, bottom, left, right = cut_box(height, width, lam, (0.5, 0.5))
    mixed = ours.copy()
    mixed[top:bottom, left:right] = theirs[top:bottom, left:right]
    area = (bottom - top) * (right - left) / (height * width)
    head = (
        "Layer 0: CutMix, the box is the partner's\n"
        f"({100 * area:.0f} % of the area; source label {1 - area:.2f})"
    )
    ax, edges = picture(figure, (615, 45, 290, 290), mixed, head), (left, top, right, bottom)
    draw_box(ax, edges, "black", "--", width=1.4, rim="white", rim_width=3)
