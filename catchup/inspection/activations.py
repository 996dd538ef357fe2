"""What a few images look like inside a model, epoch by epoch: computed once, so that looking needs
no forward pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..mixers.catchup import filter_influence
from ..utils.choices import pick
from .maps import as_bytes, block_maps, choose_blocks
from .rows import field_table, rows_of_block, viewable

SIDE = 32  # maps larger than this are averaged down: no tile on a screen shows more


class BlockMaps(NamedTuple):
    """One block at one epoch. maps: uint8 (N, C, h, w), |activation|, each map relative to its own
    largest value (255).
    peaks: float32 (N, C), those largest values. norms: float32 (N, C), of the maps at full size.
    """

    maps: Tensor
    peaks: Tensor
    norms: Tensor


class Course(NamedTuple):
    """One quantity over the epochs. epochs: (E,) int. values: (E, C) float64, NaN where there is
    none.
    """

    epochs: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Observations:
    """The maps of a few images at several epochs; made by `observe`, drawn by the cards of
    `catchup.plots.cards.activations`.

    Args:
        pixels: (N, 3, H, W) uint8, the images as they are shown.
        epochs: ascending; 0 is the untrained start.
        blocks: names, in the order they run.
        seen: {(epoch, block): Seen}.
        scores: {epoch: (N, classes) float32}, class probabilities.
        classes: their names.
        courses: {(block, "norm" | "gradient" | "kept"): Course}; "kept" is the share of mixed pairs
            that kept the filter's map, in percent. Where no recording was given, only "norm", a
            mean over the N images.
    """

    pixels: Tensor
    epochs: tuple[int, ...]
    blocks: tuple[str, ...]
    seen: Mapping[tuple[int, str], BlockMaps]
    scores: Mapping[int, Tensor]
    classes: tuple[str, ...]
    courses: Mapping[tuple[str, str], Course]

    def filters(self, block: str) -> int:
        """How many filters a block has; ValueError if there is no such block."""
        return self.seen[self.epochs[0], pick("block", block, self.blocks)].norms.shape[1]

    def at(self, epoch: int, block: str) -> BlockMaps:
        """One block at one epoch; ValueError with what there is if one of them is unknown."""
        pick("block", block, self.blocks)
        if epoch not in self.epochs:
            raise ValueError(
                f"there is no epoch {epoch!r}; epochs: {', '.join(map(str, self.epochs))}"
            )
        return self.seen[epoch, block]

    def order(self, block: str) -> list[int]:
        """Filter numbers, strongest first by the mean norm at the last epoch: the same for every
        epoch and image.
        """
        return (-self.at(self.epochs[-1], block).norms.mean(dim=0)).argsort(stable=True).tolist()

    @property
    def bytes(self) -> int:
        """Memory of the maps, in bytes."""
        return sum(part.nbytes for seen in self.seen.values() for part in seen)


def observe(
    snapshots,
    images: Tensor,
    blocks: Sequence[str] | None = None,
    *,
    pixels: Tensor | None = None,
    classes: Sequence[str] = (),
    rows: Sequence[Mapping] = (),
    lessons: Sequence[Mapping] = (),
    max_mib: int = 256,
) -> Observations:
    """Runs every model once on the images and keeps what its blocks answered.

    Args:
        snapshots: {epoch: model}, or `catchup.Snapshots`. Models are looked at in evaluation mode,
            on their own device, and left as they were.
        images: (N, C, H, W) floating, as the models take them; N ≥ 1, a dozen are plenty.
        blocks: qualified names; None takes `find_blocks` of the first model.
        pixels: (N, 3, H, W) or (N, 1, H, W), uint8 or in [0, 1], to be shown; None stretches
            `images` to [0, 1].
        classes: names of the classes; () counts them.
        rows, lessons: from `recording`, for the courses over training; may be empty.
        max_mib: what the maps may take, in MiB.
    Raises:
        ValueError: if there is no model or image, a block is unknown or does not run exactly once,
            pixels or classes do not fit, or the maps would exceed `max_mib` (looked at after the
            first model).
    """
    if isinstance(snapshots, Mapping):
        epochs, model_of = _epochs_of(snapshots), snapshots.__getitem__
    elif hasattr(snapshots, "epochs"):
        epochs, model_of = tuple(snapshots.epochs), snapshots.model
    else:
        raise ValueError(
            f"snapshots must be {{epoch: model}} or Snapshots, got {type(snapshots).__name__}"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floating, as the models take them, got {images.dtype}; show them as"
            " pixels="
        )
    if not epochs or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"observing needs at least one model and images (N, C, H, W), got {len(epochs)} models"
            f" and {tuple(images.shape)}"
        )
    shown, seen, scores = _pixels_to_show(images, pixels), {}, {}
    for epoch in epochs:
        model = model_of(epoch)
        blocks = choose_blocks(model, blocks)
        maps, scores[epoch] = _look_inside(model, images, blocks)
        seen.update({(epoch, name): part for name, part in maps.items()})
        size = sum(part.nbytes for kept in maps.values() for part in kept) * len(epochs)
        if size > max_mib * 2**20:
            raise ValueError(
                f"the maps of {len(images)} images at {len(epochs)} epochs would take"
                f" {size / 2**20:.0f} MiB, more than max_mib={max_mib}: take fewer images, epochs"
                " or blocks"
            )
    count = scores[epochs[0]].shape[1]
    names = tuple(classes) or tuple(map(str, range(count)))
    if len(names) != count:
        raise ValueError(f"the models tell {count} classes apart, got {len(names)} names")
    courses = _courses(epochs, blocks, seen, rows, lessons)
    return Observations(shown, epochs, blocks, seen, scores, names, courses)


def _epochs_of(models: Mapping) -> tuple[int, ...]:
    """The epochs of {epoch: model}, ascending, after making sure that they are such."""
    for epoch, model in models.items():
        whole = isinstance(epoch, int) and not isinstance(epoch, bool)
        if not whole or not isinstance(model, nn.Module):
            raise ValueError(
                f"snapshots must be {{epoch: model}}, got {epoch!r}: {type(model).__name__}"
            )
    return tuple(sorted(models))


def _pixels_to_show(images: Tensor, pixels: Tensor | None) -> Tensor:
    """(N, 3, H, W) uint8 to show."""
    if pixels is None:
        colours = images.shape[1] in (1, 3)
        pixels = viewable(images.float() if colours else images.float().mean(1, True))
    if pixels.ndim != 4 or len(pixels) != len(images) or pixels.shape[1] not in (1, 3):
        raise ValueError(f"pixels must be ({len(images)}, 3 or 1, H, W), got {tuple(pixels.shape)}")
    if pixels.is_floating_point():
        pixels = (255 * pixels.clamp(0, 1)).round()
    return pixels.byte().cpu().expand(-1, 3, -1, -1).contiguous()


def _look_inside(
    model: nn.Module, images: Tensor, blocks: Sequence[str]
) -> tuple[dict[str, BlockMaps], Tensor]:
    """What each block answers to the images, and the class probabilities."""
    device = next((value.device for value in model.parameters()), images.device)
    maps, logits = block_maps(model, images.to(device), blocks)
    return {name: _compress(own) for name, own in maps.items()}, logits.float().softmax(1).cpu()


def _compress(maps: Tensor) -> BlockMaps:
    """(N, C, h, w) floating as bytes; see `BlockMaps`."""
    levels, peaks = as_bytes(maps, SIDE)
    return BlockMaps(levels.cpu(), peaks.cpu(), filter_influence(maps).cpu())


def _courses(
    epochs: tuple[int, ...],
    blocks: tuple[str, ...],
    seen: Mapping,
    rows: Sequence[Mapping],
    lessons: Sequence[Mapping],
) -> dict[tuple[str, str], Course]:
    """Norm, gradient and share of kept maps over the epochs, per block, as far as they were
    recorded.
    """
    recorded, taught = ({row["block"] for row in some} for some in (rows, lessons))
    courses = {}
    for block in blocks:
        means = torch.stack([seen[epoch, block].norms.mean(dim=0) for epoch in epochs])
        courses[block, "norm"] = Course(np.asarray(epochs), means.double().numpy())
        if block in recorded:
            mine = rows_of_block(rows, block)
            for field, name in (("norm", "norm"), ("map_gradient", "gradient")):
                courses[block, name] = Course(*field_table(mine, field)[::2])
        if block in taught:
            mine = rows_of_block(lessons, block)
            days, _, kept = field_table(mine, "kept")
            total = kept + field_table(mine, "replaced")[2]
            courses[block, "kept"] = Course(days, 100 * kept / np.where(total == 0, np.nan, total))
    for (block, name), course in courses.items():
        count = seen[epochs[0], block].norms.shape[1]
        if course.values.shape[1] != count:
            raise ValueError(
                f"block {block!r} has {count} filters, but its rows ({name}) tell of "
                f"{course.values.shape[1]}"
            )
    return courses
