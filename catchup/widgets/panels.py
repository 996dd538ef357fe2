"""The explorers, each one line over a plain function of `catchup.plots.cards.activations`, and the
panel of a live run.
"""

from collections.abc import Sequence
from functools import lru_cache
from traceback import format_exception
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..inspection.methods import run_methods
from ..plots import method_gallery, title
from ..plots.cards import activation_card, filter_card, live_card, playground_card
from .controls import Explorer, explore
from .kinds import Buttons, Choice, Play, Range

if TYPE_CHECKING:
    from ..experiments.live import LiveRun
    from ..inspection.activations import Observations
    from ..inspection.methods import MethodGallery

DPI = 96  # what the cards are laid out for
ACTIONS = {
    "start": ("ready", "paused", "stopped", "failed"),
    "pause": ("running",),
    "stop": ("running", "paused"),
}
STATES = {
    "ready": "Not started.",
    "running": "Training.",
    "paused": "Paused.",
    "failed": "Failed.",
    "stopped": "Stopped; start goes on from here.",
    "finished": "Finished.",
}


def filter_browser(store: "Observations", *, block: str | None = None, filter: int = 0) -> Explorer:
    """Pick a filter: its maps on several images, its norm, gradient and lessons over training
    (`filter_card`).

    Args:
        store: from `catchup.plots.cards.activations.observe`.
        block, filter: where to start; None takes the last block. Where a block has fewer filters
            than the number on the slider, its last one is shown.
    Raises:
        ValueError: if there is no such block, or no block has that many filters.
    """
    most = max(map(store.filters, store.blocks))

    def card(block: str, filter: int, scale: str):
        shown = min(filter, store.filters(block) - 1)
        norms = store.at(store.epochs[-1], block).norms.mean(dim=0)
        place = store.order(block).index(shown) + 1
        text = (
            f"Filter {shown} of {store.filters(block)} in {block}: mean norm {norms[shown]:.3g}"
            f" at epoch {store.epochs[-1]}, place {place} by strength."
        )
        return filter_card(store, block, shown, scale), text

    return explore(
        card,
        dpi=DPI,
        block=Choice("block", store.blocks, block or store.blocks[-1]),
        filter=Range("filter", 0, most - 1, 1, filter),
        scale=Choice("brightness", ("common", "own")),
    )


def activation_explorer(
    store: "Observations", *, block: str | None = None, image: int = 0
) -> Explorer:
    """The wall of a block's maps, epoch by epoch, with a play button (`activation_card`).

    Args:
        store: from `catchup.plots.cards.activations.observe`, of two epochs or more.
        block, image: where to start; None takes the last block.
    Raises:
        ValueError: if there is no such block or image.
    """
    last = len(store.epochs) - 1

    def card(block: str, image: int, epoch: int, scale: str):
        now = store.epochs[epoch]
        norms = store.at(now, block).norms[image]
        few = min(10, len(norms))
        top = norms.topk(few).values.sum() / norms.sum().clamp_min(1e-12)
        text = (
            f"{block} at epoch {now}, image {image}: the {few} strongest of {len(norms)}"
            f" filters hold {100 * top:.0f} % of the norm."
        )
        return activation_card(store, block, now, image, scale), text

    return explore(
        card,
        dpi=DPI,
        block=Choice("block", store.blocks, block or store.blocks[-1]),
        image=Range("image", 0, len(store.pixels) - 1, 1, image),
        epoch=Range("epoch", 0, last, 1, last, format=lambda place: str(store.epochs[place])),
        play=Play("over the epochs", "epoch", 600),
        scale=Choice("brightness", ("own", "common")),
    )


def lam_playground(
    image: Tensor | None = None,
    partner: Tensor | None = None,
    *,
    alpha: float = 1.0,
    lam: float = 0.5,
) -> Explorer:
    """What α and λ do to filters, labels and, at the input, images (`playground_card`).

    Args:
        image, partner: (3, H, W), uint8 or in [0, 1], to show the box of CutMix on; None draws an
            example.
        alpha: where to start, one of 0.1, 0.2, 0.5, 1, 2, 5, 10, 20.
        lam: where to start, in [0, 1].
    Raises:
        ValueError: if `alpha` or `lam` is not so. Images that do not fit are told in the error
            line.
    """

    def card(alpha: float, lam: float, channels: int):
        kept = int(lam * channels)
        text = (
            f"α {alpha:g}, λ {lam:.2f}: {kept} of {channels} filters stay, labels {lam:.2f} and"
            f" {1 - lam:.2f}."
        )
        return playground_card(alpha, lam, channels, image, partner), text

    return explore(
        card,
        dpi=DPI,
        alpha=Choice("α", (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0), float(alpha)),
        lam=Range("λ", 0, 1, 0.01, lam, format=".2f"),
        channels=Choice("filters C", (16, 32, 64, 128, 256, 512), 64),
    )


def gallery_explorer(
    gallery: "MethodGallery", *, lam: float = 0.5, pair: int = 0, seed: int = 0
) -> Explorer:
    """Every method on one pair of images, for any λ, with a play button (`plots.method_gallery`).

    A picture needs a step of every method on a few images; pictures seen before come at once.

    Args:
        gallery: from `catchup.inspection.make_gallery`.
        lam: where to start, in [0, 1]; the slider stops at multiples of 0.05.
        pair, seed: likewise; seeds of 0 … 9.
    Raises:
        ValueError: if one of them does not exist.
    """
    steps = lru_cache(64)(lambda lam, pair, seed: run_methods(gallery, lam, pair=pair, seed=seed))
    pairs = gallery.labels.reshape(-1, 2).tolist()
    names = [[gallery.classes[label] for label in two] for two in pairs]

    def card(lam: float, pair: int, seed: int):
        rows = steps(lam, pair, seed)
        weights = ", ".join(f"{title(row.method)} {row.label:.2f}" for row in rows)
        mixed = " mixed with ".join(names[pair])
        text = f"λ {lam:.2f}, {mixed}. Weight of the own label: {weights}."
        return method_gallery(rows), text

    return explore(
        card,
        dpi=DPI,
        lam=Range("λ", 0, 1, 0.05, lam, format=".2f"),
        play=Play("over λ", "lam", 600),
        pair=Choice("pair", {f"{k}: {' + '.join(two)}": k for k, two in enumerate(names)}, pair),
        seed=Range("seed of boxes and masks", 0, 9, 1, seed),
    )


def live_panel(run: "LiveRun", block: str | None = None) -> Explorer:
    """Buttons for a run that trains in its own thread, and its curves and norms as they come
    (`live_card`).

    The callbacks only set flags; the picture is drawn by the thread that trains, between two steps.
    The run's `on_change` is taken over.

    Args:
        run: a `catchup.experiments.live.LiveRun`, started or not.
        block: whose norms are shown; None takes the last one watched.
    """

    @lru_cache(1)  # there is a new one after each epoch; a picture comes more often
    def newest(_epochs: int):
        rows = [row for row in run.histograms() if block in (None, row["block"])]
        return rows[-1] if rows else None

    def card(**_presses):
        text = (
            f"{STATES[run.state]} Step {run.step} of {run.steps or '?'}, "
            f"{len(run.rows)} of {run.settings.epochs} epochs."
        )
        if run.rows and run.rows[-1]["val_error_percent"] is not None:
            text += f" Validation error {run.rows[-1]['val_error_percent']:.1f} %."
        return live_card(run.rows, _of_every_step(run.losses), newest(len(run.rows))), text

    act = {"start": run.start, "pause": run.pause, "stop": run.stop}
    panel = explore(
        card, dpi=DPI, run=Buttons("training", tuple(ACTIONS), on_press=lambda name: act[name]())
    )
    # a press draws nothing, so it cannot wipe out the error of a failed run
    panel.controls.on_change(lambda: None)

    def changed(run: "LiveRun") -> None:
        if panel.comm is None:
            return  # closed
        unfit = [name for name, states in ACTIONS.items() if run.state not in states]
        panel.disable(*(f"run/{name}" for name in unfit))
        panel.redraw()
        if run.state == "failed":
            panel.controls.traceback = "".join(format_exception(run.error))
            panel.controls.error = f"{type(run.error).__name__}: {run.error}"

    changed(run)
    run.on_change = changed
    return panel


def _of_every_step(losses: Sequence[tuple[int, float]]) -> np.ndarray:
    """One loss per step, of [(step, loss)] that may be thinned out: each stands for the steps since
    the one before.
    """
    steps, values = np.array(losses, dtype=float).reshape(-1, 2).T
    return np.repeat(values, np.diff(steps, prepend=0).astype(int))
