"""Boxes around objects, in pixels of the images they belong to.

One convention everywhere: a box is its left, top, right and bottom edge, right and bottom exclusive, so that a whole
image of H x W has the box 0, 0, W, H and a box of one pixel has an area of one. Readers translate what a data set's own
files say: Tiny-ImageNet's corners are inclusive, CUB's are left, top, width and height.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of a set of images; an image may have none, one or several.

    Args:
        edges: (K, 4) float32, left, top, right, bottom in pixels, right and bottom exclusive; left < right and
            top < bottom.
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
            raise ValueError(f"edges must be float32 (K, 4), got {edges.dtype} {tuple(edges.shape)}")
        if image.dtype != torch.int64 or image.shape != edges.shape[:1]:
            raise ValueError(f"image must be int64 ({len(edges)},), got {image.dtype} {tuple(image.shape)}")
        if len(image) and (int(image[0]) < 0 or (image.diff() < 0).any()):
            raise ValueError("image must be ascending positions of images, from 0 on")
        bad = (~(edges[:, :2] < edges[:, 2:]).all(1)).nonzero()[:, 0]
        if len(bad):
            raise ValueError(f"box {int(bad[0])} is empty: {edges[bad[0]].tolist()} (left, top, right, bottom)")
        out = (~((edges[:, :2] >= 0).all(1) & (edges[:, 2] <= width) & (edges[:, 3] <= height))).nonzero()[:, 0]
        if len(out):
            raise ValueError(f"box {int(out[0])} leaves the image of {width} x {height} pixels: "
                             f"{edges[out[0]].tolist()} (left, top, right, bottom)")

    def __len__(self) -> int:
        return len(self.edges)

    def to(self, device: torch.device | str) -> "Boxes":
        """The same boxes on `device`."""
        return dataclasses.replace(self, edges=self.edges.to(device), image=self.image.to(device))

    def take(self, indices: Tensor) -> "Boxes":
        """The boxes of the images at `indices`, in that order: as `Images.take` cuts the images.

        Args:
            indices: (N,) int64, positions of images.
        """
        place = indices.to(self.image.device)
        belongs = place[:, None] == self.image  # (N, K): a few million entries at most for the sets that have boxes
        position, chosen = belongs.nonzero(as_tuple=True)
        return Boxes(self.edges[chosen], position, self.size)
