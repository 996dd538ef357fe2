"""What every regulariser is: something that composes with any mixing method and is gone when the
step is over.

A regulariser may change the images before they are mixed, act inside the model during the step,
change the labels' weights, or add a term to the loss. It has no parameters and no state; all chance
follows from the step's seed.
"""

from abc import ABC
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..target import Target


@dataclass(frozen=True, kw_only=True)
class Regulariser(ABC):
    """A regulariser with its settings; every method below does nothing unless overridden."""

    title: ClassVar[str]  # its name in figures and text
    about: ClassVar[str]  # one line for `catchup methods`: what it does and the paper it is from
    # extra forward and backward passes of the model per step
    passes: ClassVar[tuple[int, int]] = (0, 0)

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if the regulariser cannot act in this model (no residual branches, no
        such block).
        """

    def for_data(self, mean: Sequence[float], std: Sequence[float]) -> "Regulariser":
        """The same, told how a run normalises its images, per channel of pixels in [0, 1]."""
        return self

    def images(self, images: Tensor, seed: int) -> Tensor:
        """The images (B, C, H, W) as the method will see them; a new tensor wherever something
        changes.
        """
        return images

    @contextmanager
    def around(self, model: nn.Module, seed: int) -> Iterator[None]:
        """Inside the block the regulariser acts in the modules of `model` that are in training
        mode.
        """
        yield

    def target(self, target: Target, num_classes: int) -> Target:
        """The labels of the mixed batch, changed."""
        return target

    def extra_loss(self, model: nn.Module, images: Tensor, seed: int) -> Tensor | None:
        """A term to add to the loss, 0-dim, of the images (B, C, H, W) before `images` changed
        them.
        """
        return None
