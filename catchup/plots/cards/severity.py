"""One image, one corruption, six severities: what the image looks like, and how sure each network
is of its class.

Where it misleads: one image says nothing of the mean over a test set
(`catchup.measures.corruption.corruption_errors`), and where chance is part of a corruption, other
dice may give another answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...data import Images
from ...measures.corruption import corruption_tiles
from ...measures.corruptions import CORRUPTIONS
from ...models.inference import PixelModel, predict
from ...utils.choices import check_index, pick
from ..panels import canvas, frame, picture, place
from ..style import INK, look_of
from ..tiles import picture as pixels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Severities:
    """One image under K corruptions at severity 0 (the image itself) to 5, and what networks make
    of it.

    Args:
        pixels: {corruption: (6, C, H, W) uint8}.
        label: the true class.
        classes: all names.
        shares: {method: {corruption: (6, classes) float32}}, softmax probabilities.
    """

    pixels: Mapping[str, Tensor]
    label: int
    classes: tuple[str, ...]
    shares: Mapping[str, Mapping[str, Tensor]]

    def answer(self, method: str, corruption: str, severity: int) -> str:
        """The name of the class that a network takes the image for."""
        return self.classes[int(self.shares[method][corruption][severity].argmax())]


def ask_networks(
    models: Mapping[str, PixelModel],
    images: Images,
    image: int,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    seed: int = 0,
) -> Severities:
    """Corrupts one image in every way and asks every network.

    Args:
        models: {method: network from images in [0, 1] to logits}, at least one, on the device of
            `images`.
        images: where the image stands.
        image: its number there.
        corruptions, seed: as for `catchup.measures.corruption.corruption_tiles`.
    Raises:
        ValueError: if there is no such image or no network; as `corruption_tiles`.
            FloatingPointError: as `predict`.
    """
    if not models:
        raise ValueError("at least one network is needed, got none")
    check_index("image", image, len(images))
    whole = images.pixels[image]
    pixels = {
        name: torch.cat([whole[None], tiles])
        for name, tiles in corruption_tiles(whole, corruptions, seed).items()
    }
    all_of_it = torch.cat(list(pixels.values()))
    asked = Images(all_of_it, images.labels[image].expand(len(all_of_it)), images.classes)
    shares = {
        method: dict(zip(pixels, predict(model, asked).softmax(dim=1).cpu().split(6)))
        for method, model in models.items()
    }
    return Severities(pixels, int(images.labels[image]), images.classes, shares)


def severity_card(store: Severities, corruption: str, severity: int) -> "Figure":
    """The image, the corrupted image, and the probability of its true class at every severity, a
    line per network.

    Args:
        store: from `ask_networks`.
        corruption: one of its corruptions.
        severity: 0 (the image itself) to 5.
    Raises:
        ValueError: if there is no such corruption or severity.
    """
    tiles = store.pixels[pick("corruption", corruption, store.pixels)]
    check_index("severity", severity, len(tiles))
    figure, named = canvas(940, 300), corruption.replace("_", " ")
    picture(figure, (20, 40, 210, 210), pixels_of(tiles[0]), f"clean: {store.classes[store.label]}")
    head = f"{named}, severity {severity}"
    picture(figure, (250, 40, 210, 210), pixels_of(tiles[severity]), head)
    ax = place(figure, (545, 60, 370, 190), "Does it still see the true class?")
    for method, shares in store.shares.items():
        sure, look = 100 * shares[corruption][:, store.label], look_of(method)
        look["label"] += f": “{store.answer(method, corruption, severity)}”"
        ax.plot(range(len(tiles)), sure, clip_on=False, **look)
    ax.axvline(severity, color=INK, linestyle=":")
    frame(ax, (-0.2, len(tiles) - 0.8), (0, 100), "severity", "probability of the true class (%)")
    ax.legend(loc="lower left", fontsize=8, framealpha=0.8)
    return figure
