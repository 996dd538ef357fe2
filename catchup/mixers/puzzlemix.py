"""PuzzleMix: per block, which image to show, and where to move what is salient so that it is shown.

Kim, Choo & Song, "Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup", ICML
2020: its mask problem and its masked transport. The mask z is the share of the image's own pixels.
Constants are counted as in the authors' release, where saliency sums to one over an image: weights
of neighbours are β/(16·n) and βγ/(16·n) on n × n blocks, the prior is a mean over blocks, the
distance of a transport is squared and (n − 1)² from edge to edge.

Between two labels the cost of a share is the mean over its ends, as in the release.

Differs from the release:
- the mask's label problem is solved exactly (`graphcut`); its swap moves may stop above the
  minimum, and it rounds costs to integers;
- the transport is the paper's greedy iteration, run until no cell loses its place; the release
  stops after as many rounds as there are cells along a side;
- weights of neighbours that would be negative count as 0;
- borders are compared in units of `pixel_std`, one for all colours;
- the adversarial noise that the release can add is left out;
- the default criterion is "ce"; the release trains with "bce_softmax".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import BetaMixer
from .checks import check_at_least
from .clean import CleanPassMixer
from .draw import Draw, Mixed
from .parts.cells import join_cells, split_cells
from .parts.graphcut import grid_labels
from .parts.saliency import sum_to_one

MAX_CELLS = 16  # cells of a transport along a side: its costs are a matrix of cells², squared


# -- the mask --------------------------------------------------------------------------------------


def block_numbers(height: int, width: int) -> tuple[int, ...]:
    """The numbers of blocks along a side to draw from: those of 2, 4, 8, 16 that divide height and
    width.

    Raises:
        ValueError: if none does.
    """
    numbers = tuple(n for n in (2, 4, 8, 16) if height % n == 0 and width % n == 0)
    if not numbers:
        raise ValueError(f"PuzzleMix needs images of even height and width, got {height}×{width}")
    return numbers


def block_saliency(saliency: Tensor, n_blocks: int) -> Tensor:
    """Saliency per block, as a share of the image's.

    Args:
        saliency: (B, H, W) floating, ≥ 0; `n_blocks` divides H and W.
    Returns:
        (B, n, n), sums 1; uniform for an image whose saliency is 0 everywhere or not finite
        somewhere.
    """
    size = (saliency.shape[1] // n_blocks, saliency.shape[2] // n_blocks)
    return sum_to_one(F.avg_pool2d(saliency[:, None], size)[:, 0])


def label_prior(lam: float, n_labels: int) -> list[float]:
    """−log p(z) of z = 0, 1/m, …, 1, where m·z ~ Binomial(m, λ), m = n_labels − 1; λ in (0, 1)."""
    m = n_labels - 1
    return [
        -(math.log(math.comb(m, k)) + k * math.log(lam) + (m - k) * math.log1p(-lam))
        for k in range(n_labels)
    ]


def border_distance(upper: Tensor, lower: Tensor, n_blocks: int, reach: int) -> Tensor:
    """d_p: how much the pixels differ across the border of each block and the one below it.

    Args:
        upper, lower: (B, C, H, W) floating; the block is of `upper`, the one below it of `lower`.
        n_blocks: along a side, divides H and W. reach: pixels that are averaged first, a divisor of
            H/n and W/n.
    Returns:
        (B, n − 1, n) float32: mean over colours and along the border of the absolute difference.
    """
    above, below = (F.avg_pool2d(images.float(), reach) for images in (upper, lower))
    per_block = above.shape[2] // n_blocks
    steps = (
        (above[:, :, per_block - 1 : -1 : per_block] - below[:, :, per_block::per_block])
        .abs()
        .mean(dim=1)
    )
    return steps.unflatten(2, (n_blocks, -1)).mean(dim=3)


def border_terms(
    own: Tensor, other: Tensor, n_blocks: int, reach: int
) -> tuple[Tensor, Tensor, Tensor]:
    """φ extended to shares: φ(z, z') = φ00 + a·z + b·z' + c·(z − z')², of a pair of neighbours.

    Args:
        own, other: (B, C, H, W), the images shown where z = 1 and z = 0. n_blocks, reach: as in
            `border_distance`.
    Returns:
        a, b, c: (B, n − 1, n) each, of the upper block, of the lower one, of both; 0 where a pixel
            is not finite.
    """
    of = {
        (x, y): border_distance(own if x else other, own if y else other, n_blocks, reach)
        for x in (0, 1)
        for y in (0, 1)
    }
    lead, step = of[1, 1] - of[0, 0], of[1, 0] - of[0, 1]
    a, b, c = (lead + step) / 2, (lead - step) / 2, (of[1, 0] + of[0, 1] - of[0, 0] - of[1, 1]) / 2
    fine = a.isfinite() & b.isfinite() & c.isfinite()
    return torch.where(fine, a, 0), torch.where(fine, b, 0), torch.where(fine, c, 0)


def mask_problem(
    own: Tensor,
    other: Tensor,
    saliency: Tensor,
    other_saliency: Tensor,
    lam: float,
    *,
    n_labels: int,
    beta: float,
    gamma: float,
    eta: float,
    reach: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The energy of the mask without transport: what `graphcut.grid_labels` minimises.

    −z·s − (1 − z)·s' per block, β(z − z')² + βγφ(z, z') per pair of neighbours, −η log p(z) per
    block. A pair whose φ outweighs the smoothness (1 + γc < 0) would reward disagreement and is
    counted as weight 0.

    Args:
        own, other: (B, C, H, W) floating, colours in [0, 1] units up to a shift.
        saliency, other_saliency: (B, n, n), sums 1. lam: λ in (0, 1).
        n_labels: ≥ 2. beta, gamma, eta: as in `PuzzleMix`. reach: ξ, pixels, cut to a divisor of
            the block's sides.
    Returns:
        unary (B, n, n, K), down (B, n − 1, n), right (B, n, n − 1), float32.
    """
    n = saliency.shape[1]
    reach = math.gcd(reach, own.shape[2] // n, own.shape[3] // n)
    z = torch.arange(n_labels, device=own.device) / (n_labels - 1)
    prior = torch.tensor(label_prior(lam, n_labels)).to(own.device, non_blocking=True)
    unary = -saliency[..., None] * z - other_saliency[..., None] * (1 - z) + eta / n**2 * prior
    weights, beta = [], beta / (16 * n)
    for turn in (False, True):  # blocks above one another, then, turned, side by side
        pair = (own.mT, other.mT) if turn else (own, other)
        a, b, c = border_terms(*pair, n, reach)
        first, second = (beta * gamma * part[..., None] * z for part in (a, b))
        pairs = F.pad(first, (0, 0, 0, 0, 0, 1)) + F.pad(second, (0, 0, 0, 0, 1, 0))
        unary = unary + (pairs.transpose(1, 2) if turn else pairs)
        weight = (beta * (1 + gamma * c)).clamp_min(0)
        weights.append(weight.mT if turn else weight)
    return unary, weights[0], weights[1]


# -- the transport ---------------------------------------------------------------------------------


def cell_distances(n: int, device: torch.device | str = "cpu") -> Tensor:
    """Squared distances of the cells of an n × n grid, (n², n²) float32, 1 between two corners of
    one side.
    """
    place = torch.stack(
        torch.meshgrid(*[torch.arange(n, device=device)] * 2, indexing="ij"), dim=-1
    ).flatten(0, 1)
    return (place[:, None] - place).square().sum(dim=-1).float() / max(n - 1, 1) ** 2


def masked_transport(shown: Tensor, saliency: Tensor, distance: Tensor, eps: float) -> Tensor:
    """Which cell goes to each place, so that much saliency is shown and little is moved.

    Every cell i asks for the place j of least cost ε·C_ij − s_i·shown_j; a place takes the one that
    offers the least (of equals the first), and the others turn to the next place on their list,
    until every place has one cell. That ends after at most n² refusals, for all images at once; a
    NaN anywhere in `saliency` would not change that.

    Args:
        shown: (N, n) bool, places where this image is seen. saliency: (N, n) floating, of its
            cells, ≥ 0.
        distance: C (n, n) ≥ 0. eps: ε ≥ 0, price of a unit of distance.
    Returns:
        (N, n) int64: the cell that comes to each place, a permutation in every row. The paper's
        assignment is stable (no cell and place would both gain by leaving theirs for each other),
        not of least total cost.
    """
    batch, n = shown.shape
    cost = torch.where(
        shown[:, None], eps * distance - saliency.nan_to_num()[..., None], eps * distance
    ).flatten(0, 1)
    bid, place = cost.min(dim=1)
    cell = torch.arange(batch * n, device=cost.device)
    image = cell // n * n
    while True:
        asked = image + place
        least = torch.full_like(bid, torch.inf).scatter_reduce_(0, asked, bid, "amin")
        first = torch.full_like(cell, batch * n).scatter_reduce_(
            0, asked, cell.where(bid <= least[asked], batch * n), "amin"
        )
        refused = (first[asked] != cell).nonzero()[:, 0]
        if not len(refused):
            return torch.empty_like(cell).scatter_(0, asked, cell - image).reshape(batch, n)
        cost[refused, place[refused]] = torch.inf
        bid[refused], place[refused] = cost[refused].min(dim=1)


def move_cells(images: Tensor, source: Tensor) -> Tensor:
    """Images with their cells rearranged: place j shows cell source[:, j].

    Args:
        images: (B, C, H, W). source: (B, g²) int64, cells of a g × g grid in reading order, g
            divides H and W.
    Returns:
        (B, C, H, W), new.
    """
    cells = split_cells(images, math.isqrt(source.shape[1]))
    return join_cells(cells[torch.arange(len(images), device=images.device)[:, None], source])


# -- the method ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class PuzzleMix(CleanPassMixer, BetaMixer):
    """One λ and one number of blocks per batch, a mask per image; the label weight is the mask's
    mean.

    The defaults are the release's for CIFAR. It trains with `criterion="bce_softmax"`; the default
    here is "ce" as for every method. One forward and backward pass more than plain training, for
    the saliency. λ = 0 and λ = 1 leave one image as it is, and so does mixing an image with itself.
    Where the saliency is 0 everywhere or not finite, every block of that image counts alike.

    Args:
        alpha: λ ~ Beta(alpha, alpha), > 0.
        n_labels: shares a block can have, ≥ 2: 3 allows none, half, all.
        beta: weight of equal shares in neighbouring blocks, ≥ 0.
        gamma: weight of matching pixels at the borders of blocks, relative to beta, ≥ 0.
        eta: weight of the prior, which draws the shares towards λ, ≥ 0.
        neighbour: pixels on either side of a border that are compared, ≥ 1.
        pixel_std: standard deviation of the colours in [0, 1] units before normalisation, > 0;
            borders are compared in these units. 0.25 is about CIFAR's.
        transport: whether salient cells move to where they are shown.
        t_size: side of the cells that move, in pixels, ≥ 1, at most a block and at least a 16th of
            the image; -1 moves whole blocks (Tiny ImageNet).
        t_eps: price of moving, ≥ 0.
        clean_lam: as in `CleanPassMixer`; the release's is 1 for Tiny ImageNet and ImageNet.
    """

    n_labels: int = 3
    beta: float = 1.2
    gamma: float = 0.5
    eta: float = 0.2
    neighbour: int = 4
    pixel_std: float = 0.25
    transport: bool = True
    t_size: int = 4
    t_eps: float = 0.8

    planar: ClassVar[bool] = True
    title: ClassVar[str] = "PuzzleMix"
    about: ClassVar[str] = (
        "input: blocks chosen by saliency, moved to where they show (Kim et al., ICML 2020)"
    )
    passes: ClassVar[tuple[int, int]] = (2, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(
            n_labels=(self.n_labels, 2),
            beta=(self.beta, 0),
            gamma=(self.gamma, 0),
            eta=(self.eta, 0),
            neighbour=(self.neighbour, 1),
            t_eps=(self.t_eps, 0),
        )
        if not (self.pixel_std > 0 and math.isfinite(self.pixel_std)):
            raise ValueError(f"pixel_std must be a positive number, got {self.pixel_std}")
        if self.t_size != -1 and self.t_size < 1:
            raise ValueError(f"t_size must be ≥ 1, or -1 for whole blocks, got {self.t_size}")

    def plan(self, model: nn.Module, images: Tensor, labels: Tensor, draw: Draw) -> Draw:
        """The draw with `extra["saliency"]`, (B, H, W) float32, and the clean loss where it
        counts.
        """
        block_numbers(*images.shape[-2:])
        return replace(draw, extra=self.look_up(model, images, labels))

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W), by `draw.extra["saliency"]` (`plan`); `draw.seed` gives the number
        of blocks.
        """
        if "saliency" not in draw.extra:
            raise ValueError(
                "PuzzleMix mixes by saliency: complete the draw with plan(model, images, labels,"
                " draw)"
            )
        partner = draw.partner.to(maps.device, non_blocking=True)
        n_blocks = int(np.random.default_rng(draw.seed).choice(block_numbers(*maps.shape[-2:])))
        with torch.no_grad():
            mask = self.mask(maps, draw, n_blocks)
        own, other = (
            self._transport(maps, maps[partner], mask, draw)
            if self.transport
            else (maps, maps[partner])
        )
        z = _spread(mask, maps.shape[-2:])[:, None].to(maps.dtype)
        alone = (draw.partner == torch.arange(len(maps))).to(maps.device, non_blocking=True)
        mixed = torch.where(alone[:, None, None, None], maps, z * own + (1 - z) * other)
        return Mixed(torch.empty_like(maps).copy_(mixed), mask.mean(dim=(1, 2)))

    def mask(self, maps: Tensor, draw: Draw, n_blocks: int) -> Tensor:
        """z, (B, n, n) float32 in {0, 1/(K−1), …, 1}: the own image's share of each block, of least
        energy.
        """
        if draw.lam in (0, 1):  # p(z) is 0 for every other share
            return torch.full((len(maps), n_blocks, n_blocks), float(draw.lam), device=maps.device)
        partner = draw.partner.to(maps.device, non_blocking=True)
        saliency, colours = (
            block_saliency(draw.extra["saliency"], n_blocks),
            maps.detach() * self.pixel_std,
        )
        problem = mask_problem(
            colours,
            colours[partner],
            saliency,
            saliency[partner],
            draw.lam,
            beta=self.beta,
            n_labels=self.n_labels,
            gamma=self.gamma,
            eta=self.eta,
            reach=self.neighbour,
        )
        return grid_labels(*problem).float() / (self.n_labels - 1)

    def _transport(
        self, own: Tensor, other: Tensor, mask: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """Both images with their cells moved to where the mask shows them."""
        partner, n = draw.partner.to(own.device, non_blocking=True), mask.shape[1]
        cells = self.cells(n, *own.shape[-2:])
        with torch.no_grad():
            z, saliency = (
                _spread(mask, (cells, cells)).flatten(1),
                block_saliency(draw.extra["saliency"], cells),
            )
            shown, saliency = (
                torch.cat([z > 0, z < 1]),
                torch.cat([saliency, saliency[partner]]).flatten(1),
            )
            source = masked_transport(
                shown, saliency, cell_distances(cells, own.device), self.t_eps
            )
        return move_cells(own, source[: len(own)]), move_cells(other, source[len(own) :])

    def cells(self, n_blocks: int, height: int, width: int) -> int:
        """Cells along a side that the transport moves: a multiple of the number of blocks, at most
        16.
        """
        block = math.gcd(height // n_blocks, width // n_blocks)
        size = block if self.t_size == -1 else min(self.t_size, block)
        allowed = [
            n_blocks * k
            for k in range(1, block + 1)
            if block % k == 0 and n_blocks * k <= MAX_CELLS
        ]
        return max((n for n in allowed if min(height, width) // n >= size), default=n_blocks)


def _spread(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask of blocks (B, n, n) on a finer grid, (B, *size); n divides both."""
    n = mask.shape[1]
    return mask.repeat_interleave(size[0] // n, dim=1).repeat_interleave(size[1] // n, dim=2)
