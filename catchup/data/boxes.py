"""Boxes around objects, in pixels of the images they belong to.

One convention everywhere: a box is its left, top, right and bottom edge, right and bottom
exclusive, so that a whole image of H x W has the box 0, 0, W, H and a box of one pixel has an area
of one. Readers translate what a data set's own
files say: Tiny-ImageNet's corners are inclusive, CUB's are left, top, width and height.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..utils.tensors import form_of


class MarkedBox(NamedTuple):
    """A box as the file of a data set gives it, before its image is opened."""

    file: int  # position of the image among the files of its split
    # left, top, right, bottom in pixels of the stored image, last exclusive
    edges: tuple[float, float, float, float]
    place: str  # where it was read, for messages


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of a set of images; an image may have none, one or several.

    Args:
        edges: (K, 4) float32, left, top, right, bottom in pixels, right and bottom exclusive; left
            < right and top < bottom.
        image: (K,) int64, the image that each box belongs to, ascending.
        size: height and width of the images, in pixels.
    Raises:
        ValueError: if a dtype or shape is not so, a box is empty, or one leaves the image.
    """

    edges: Tensor
    image: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        edges, image, (height, width) = self.edges, self.image, self.size
        if edges.dtype != torch.float32 or edges.ndim != 2 or edges.shape[1] != 4:
            raise ValueError(f"edges must be float32 (K, 4), got {form_of(edges)}")
        if image.dtype != torch.int64 or image.shape != edges.shape[:1]:
            raise ValueError(f"image must be int64 ({len(edges)},), got {form_of(image)}")
        if len(image) and (int(image[0]) < 0 or (image.diff() < 0).any()):
            raise ValueError("image must be ascending positions of images, from 0 on")
        size = edges.new_tensor([width, height])
        empty = ~(edges[:, :2] < edges[:, 2:]).all(1)
        outside = ~((edges[:, :2] >= 0) & (edges[:, 2:] <= size)).all(1)
        for bad, what in (
            (empty, "is empty:"),
            (outside, f"leaves the image of {width} x {height} pixels:"),
        ):
            for place in bad.nonzero()[:1, 0].tolist():
                edge = edges[place].tolist()
                raise ValueError(f"box {place} {what} {edge} (left, top, right, bottom)")

    def __len__(self) -> int:
        return len(self.edges)

    def to(self, device: torch.device | str) -> "Boxes":
        """The same boxes on `device`."""
        return dataclasses.replace(self, edges=self.edges.to(device), image=self.image.to(device))

    def centre_crop(self, size: tuple[int, int]) -> "Boxes":
        """The boxes in the middle part of the images, of `size` (H, W); those that lie outside of
        it are left out.
        """
        top, left = ((side - inner) // 2 for side, inner in zip(self.size, size))
        shift = torch.tensor([left, top, left, top], dtype=torch.float32, device=self.edges.device)
        most = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32, device=self.edges.device)
        edges = (self.edges - shift).clamp(min=0).minimum(most)
        seen = (edges[:, :2] < edges[:, 2:]).all(1)
        return Boxes(edges[seen], self.image[seen], size)

    def take(self, indices: Tensor) -> "Boxes":
        """The boxes of the images at `indices`, in that order: as `Images.take` cuts the images.

        Args:
            indices: (N,) int64, positions of images.
        """
        place = indices.to(self.image.device)
        owners = self.image.contiguous()
        first, end = (torch.searchsorted(owners, place, right=right) for right in (False, True))
        count, device = end - first, place.device
        position = torch.arange(len(place), device=device).repeat_interleave(count)
        within = torch.arange(len(position), device=device) - (count.cumsum(0) - count)[position]
        return Boxes(self.edges[first[position] + within], position, self.size)


def iou_of(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes: the area they share, of the area they cover together.

    Args:
        first, second: (…, 4), as `Boxes.edges`; broadcast against each other. An empty box shares
            nothing.
    Returns:
        (…) float64 in [0, 1]; so that whole pixels that share three tenths reach 0.3 and not a
        rounding less.
    """
    first, second = first.double(), second.double()
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    own, other = ((boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second))
    covered = own + other - shared
    return shared / covered.clamp_min(torch.finfo(torch.float64).tiny)
