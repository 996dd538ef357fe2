"""What a run feeds to its model: the images of an epoch in their order, augmented and
normalised.
"""

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data import Dataset, Images
from ..data.augment import augment_batch, normalise, to_float
from .seeds import make_generator
from .settings import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator


class Feed:
    """The training images of a run, batch by batch, as one of its processes sees them.

    Args:
        dataset: on the training device.
        settings: of the run.
        accelerator: says which share of each batch is this process's.
        memory_format: of the images that come out.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: Settings,
        accelerator: "Accelerator",
        memory_format: torch.memory_format,
    ) -> None:
        self.dataset, self.settings, self.memory_format = dataset, settings, memory_format
        self.rank, self.processes = accelerator.process_index, accelerator.num_processes
        self.steps = len(self.order(0))

    def order(self, epoch: int) -> list[Tensor]:
        """The indices of each batch of an epoch, those of all processes."""
        smallest = 2 * self.processes  # batch norm needs two images in every process
        n, batch_size = len(self.dataset.train), self.settings.batch_size
        return epoch_order(n, batch_size, self.settings.seed, epoch, smallest)

    def batches(
        self, epoch: int, begun: int, generator: torch.Generator
    ) -> Generator[tuple[Tensor, Tensor, int], None, None]:
        """The batches of an epoch that follow the first `begun` ones.

        Args:
            epoch: counted from 0.
            begun: batches that were trained already.
            generator: of the augmentation; every batch moves it on.
        Yields:
            Images (B, C, H, W) float32, normalised; labels (B,) int64; and how many images the
            batch has in all processes.
        """
        order = self.order(epoch)[begun:]
        shares = [indices[self.rank :: self.processes] for indices in order]
        with closing(self.dataset.train.batches(shares)) as batches:
            for indices, batch in zip(order, batches):
                yield self._augment(batch, generator), batch.labels, len(indices)

    def _augment(self, batch: Images, generator: torch.Generator) -> Tensor:
        pixels = batch.pixels
        if self.settings.augment:
            pixels = augment_batch(pixels, self.dataset.augmentation, generator)
        images = normalise(to_float(pixels), self.dataset.mean, self.dataset.std)
        return images.contiguous(memory_format=self.memory_format)


def epoch_order(n: int, batch_size: int, seed: int, epoch: int, smallest: int = 2) -> list[Tensor]:
    """The order of one epoch: every index of 0 … n-1 once, in (≤ batch_size,) int64 batches.

    A last batch of fewer than `smallest` images is left out (batch norm cannot be trained on one),
    unless it is the only one.
    """
    order = torch.randperm(n, generator=make_generator(seed, epoch)).split(batch_size)
    return list(order[:-1] if len(order) > 1 and len(order[-1]) < smallest else order)
