"""Square: squares of changed pixels at random places, kept where they bring the answer nearer to a
wrong one.

Source: Andriushchenko, Croce, Flammarion & Hein, ECCV 2020, Algorithms 1 and 2 (L-infinity), the
schedule of section 5.

Where it misleads: it needs thousands of answers; with few, a robust and a masked network look
alike.
"""

import numpy as np
import torch
from torch import Tensor

from ...hooks.layers import evaluating
from ...models.inference import PixelModel
from ...utils.choices import check_whole
from ..robustness import check_images, pixel_length

FIRST_SHARE = 0.8  # of the pixels, in the first squares
# from which of 10 000 queries on the share is halved once more
HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@torch.no_grad()
def square(
    model: PixelModel,
    images: Tensor,
    labels: Tensor,
    eps_255: float = 4.0,
    queries: int = 5000,
    seed: int = 0,
) -> Tensor:
    """The images of the smallest margin that was found, all pixels of a changed place at the edge
    of the ball.

    Args:
        model: from images in [0, 1] to logits (B, N); in evaluation mode meanwhile.
        images: (B, C, H, W) float32 or float64, in [0, 1].
        labels: (B,) int64, the true classes.
        eps_255: radius of the ball in units of 1/255, >= 0.
        queries: answers asked of the model for each image, >= 1; 5000 in AutoAttack.
        seed: of the squares; an image's depend on its place in the batch.
    Returns:
        Like `images`, inside the ball; an image is left alone once it is misclassified.
    Raises:
        ValueError: if the images, eps_255 or queries are not so.
    """
    check_images(images)
    check_whole(queries=queries)
    eps, rng = pixel_length("eps_255", eps_255), np.random.default_rng(seed)
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    with evaluating(model):
        stripes = _signs(rng, (*images.shape[:2], 1, images.shape[3])).to(images)
        best = (images + eps * stripes).clamp(low, high)
        margin = _margin(model, best, labels)
        for query in range(1, queries):
            left = (margin > 0).nonzero()[:, 0]
            if len(left) == 0:
                break
            side = _side(query, queries, images.shape[2:])
            tried = best[left]
            _paint(tried, images[left], eps, side, rng)
            tried = tried.clamp(low[left], high[left])
            found = _margin(model, tried, labels[left])
            nearer = found < margin[left]
            best[left[nearer]], margin[left[nearer]] = tried[nearer], found[nearer]
    return best


def _paint(tried: Tensor, images: Tensor, eps: float, side: int, rng: np.random.Generator) -> None:
    """Sets a square of each image to the clean pixels plus or minus eps, a sign for each channel,
    in place.
    """
    count, channels, height, width = tried.shape
    rows = rng.integers(0, height - side + 1, count)
    columns = rng.integers(0, width - side + 1, count)
    signs = _signs(rng, (count, channels, 1, 1)).to(images)
    for place, (row, column) in enumerate(zip(rows, columns)):
        window = np.s_[place, :, row : row + side, column : column + side]
        tried[window] = images[window] + eps * signs[place]


def _side(query: int, queries: int, size: tuple[int, ...]) -> int:
    """Of the squares of this query: the share of the pixels is halved on a schedule for 10 000."""
    passed = 10_000 * query / queries
    share = FIRST_SHARE / 2 ** sum(passed > bound for bound in HALVED)
    return min(max(round((share * size[0] * size[1]) ** 0.5), 1), *size)


def _margin(model: PixelModel, images: Tensor, labels: Tensor) -> Tensor:
    """(B,): z_y − max_{i≠y} z_i, not above 0 where the image is misclassified."""
    logits = model(images)
    own = logits.gather(1, labels[:, None])
    return (own - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1, keepdim=True))[:, 0]


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """−1 or 1, each with probability one half."""
    return torch.from_numpy(2.0 * rng.integers(0, 2, shape) - 1)
