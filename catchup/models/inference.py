"""What a model says of images, resident or streamed: logits and errors, in evaluation mode, batch
by batch.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..data.augment import normalise, to_float
from ..data.images import Images, ImageSource
from ..hooks.layers import evaluating
from ..utils.tensors import check_answers


class PixelModel(nn.Module):
    """A classifier that takes images in [0, 1]: the normalisation of its data set comes first.

    Attacks and corruptions live in pixel space; with this wrapper their bounds mean what they say.

    Args:
        model: from normalised (B, C, H, W) images to (B, N) logits.
        mean, std: per channel, of pixels in [0, 1].
    """

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.model, self.mean, self.std = model, mean, std

    @classmethod
    def of(cls, model: nn.Module, dataset: Dataset) -> "PixelModel":
        """`model` behind the normalisation of `dataset`."""
        return cls(model, dataset.mean, dataset.std)

    def forward(self, images: Tensor) -> Tensor:
        """(B, N) logits of images (B, C, H, W) in [0, 1]."""
        return self.model(normalise(images, self.mean, self.std))


def predict(
    model: PixelModel,
    images: ImageSource,
    batch_size: int = 500,
    before_batch: Callable[[], None] | None = None,
) -> Tensor:
    """Logits (N, classes) float32 of all images, in evaluation mode; modes are restored afterwards.

    Args:
        model, images: as for `PixelModel`.
        batch_size: images per forward pass, ≥ 1.
        before_batch: called before each of them; what it raises ends the prediction.
    Raises:
        FloatingPointError: if the model answers with NaN or infinity.
    """

    def ready(chunks: Iterator[Images]) -> Iterator[Tensor]:
        for chunk in chunks:
            if before_batch:
                before_batch()
            yield to_float(chunk.pixels)

    with closing(images.chunks(batch_size)) as chunks:
        return predict_batches(model, ready(chunks))


@torch.no_grad()
def predict_batches(model: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """`predict`, of batches that are made when it is their turn: (B, C, H, W) in [0, 1]."""
    with evaluating(model):
        return check_answers(torch.cat([model(batch).float() for batch in batches]))


def top_k_error(logits: Tensor, labels: Tensor, k: int = 1) -> float:
    """Share of images, in percent, whose label is not among the k largest logits (all classes,
    where k exceeds them).

    Args:
        logits: (N, classes).
        labels: (N,) int64.
        k: ≥ 1.
    Raises:
        ValueError: if shapes or `k` are not so.
    """
    if k < 1 or logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            "logits must be (N, classes) and labels (N,), N and k at least 1, got"
            f" {tuple(logits.shape)}, {tuple(labels.shape)} and k {k}"
        )
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    missed = len(labels) - (best == labels[:, None]).sum().item()
    return 100 * missed / len(labels)
