"""Co-Mixup: as many mixed images as there are images, each put together from the salient blocks of
several.

Kim, Choo, Jeong & Song, "Co-Mixup: Saliency Guided Joint Mixup with Supermodular Diversity", ICLR
2021. The batch is solved in parts; `comixup_solver` has the objective and says what in it is exact.
Constants are counted as in the authors' release: on g × g blocks beta, gamma and eta are divided by
g², tau is a share of an image.

The start is random, as in the release (the paper does not say).

Differs from the release:
- a block shows one input; from the second sweep on the release may also show the mean of two;
- of all labellings seen the best is returned, the release returns the last;
- outputs that show the same inputs are left so; before its last sweep the release makes one input
  of such a pair dearer;
- the labelling of one output is improved by expansion moves, the release's by swap moves;
- parts are of equal size as far as possible and may be of any size, so the last batch need not be
  full;
- the default criterion is "ce"; the release trains with "bce_softmax";
- the place of an image is its most salient window of a quarter of its sides, in the release of 8
  pixels (the same at 32); distances are scaled to a mean row sum of 1 in both.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_at_least, check_positive
from .clean import CleanPassMixer
from .draw import Draw, Mixed
from .parts.cells import join_cells, split_cells
from .parts.comixup_solver import Problem, solve
from .puzzlemix import block_saliency
from .target import Target


def batch_parts(order: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """A batch divided into parts whose sizes differ by at most one.

    Args:
        order: (B,) int64, the images in the order in which they are dealt out. largest: ≥ 1, of a
            part.
    Returns:
        members: (P, n) int64, P = ⌈B / largest⌉; a shorter row is filled up with its first image.
        real: (P, n) bool, False where filled up.
    """
    parts = -(-len(order) // largest)
    # dealt out like cards
    places = torch.arange(parts * -(-len(order) // parts)).reshape(-1, parts).T
    real = places < len(order)
    return order[torch.where(real, places, places[:, :1])], real


def salient_places(saliency: Tensor) -> Tensor:
    """Where each image is the most salient: the window of a quarter of its sides with the highest
    mean.

    Args:
        saliency: (B, H, W) float32, ≥ 0 and finite.
    Returns:
        (B, 2) float32, row and column of the window's corner in pixels, the first of equals.
    """
    window = tuple(max(side // 4, 1) for side in saliency.shape[1:])
    means = F.avg_pool2d(saliency[:, None], window, stride=1)[:, 0]
    place = means.flatten(1).argmax(dim=1)
    return torch.stack([place // means.shape[2], place % means.shape[2]], dim=1).float()


def affinity(places: Tensor, real: Tensor, omega: float) -> Tensor:
    """A = (1 − ω)·I + ω·C: inputs that are salient in different places are better shown together
    than apart.

    Args:
        places: (P, n, 2) float32. real: (P, n) bool. omega: ω in [0, 1].
    Returns:
        (P, n, n) float32. C is the l1 distance of the places, scaled to a mean row sum of 1 over
        the real inputs; 0 where all are in one place.
    """
    both = real[:, :, None] & real[:, None]
    distance = (places[:, :, None] - places[:, None]).abs().sum(dim=3) * both
    total = distance.sum(dim=(1, 2), keepdim=True)
    scaled = distance * real.sum(dim=1)[:, None, None] / torch.where(total > 0, total, 1)
    return (1 - omega) * torch.eye(real.shape[1], device=real.device) + omega * scaled


@dataclass(frozen=True, kw_only=True, eq=False)
class CoMixup(CleanPassMixer):
    """Each of B outputs shows blocks of up to `part` inputs; labels are weighted by area.

    The defaults are the release's. It trains with `criterion="bce_softmax"`; the default here is
    "ce" as for every method. One forward and backward pass more than plain training: by default in
    training mode on the clean images, whose loss is added (`clean_lam`). λ is not used;
    `draw.partner` deals the images out to the parts. Where the saliency is 0 everywhere or not
    finite, every block of that image counts alike.

    Args:
        alpha: the inputs of a part are favoured by weights ~ Dirichlet(alpha, …, alpha), > 0.
        part: images solved together, ≥ 1.
        block: blocks along a side, 1 … 7; must divide the images' height and width.
        beta: weight of like neighbours, ≥ 0.
        gamma: weight of the diversity of the outputs, ≥ 0.
        tau: how much of an image the other outputs may show for free, as a share of an image, ≥ 0.
        eta: weight of the Dirichlet prior, ≥ 0.
        omega: how much inputs that are salient in different places are brought together, in [0, 1].
        sweeps: how often every output is labelled anew, ≥ 0; fewer when one changes nothing.
        clean_lam: as in `CleanPassMixer`.
    """

    alpha: float = 2.0
    part: int = 20
    block: int = 4
    beta: float = 0.32
    gamma: float = 1.0
    tau: float = 0.83
    eta: float = 0.05
    omega: float = 0.001
    sweeps: int = 4
    clean_lam: float = 1.0

    planar: ClassVar[bool] = True
    title: ClassVar[str] = "Co-Mixup"
    about: ClassVar[str] = (
        "input: salient blocks of up to 20 images in each (Kim et al., ICLR 2021)"
    )
    passes: ClassVar[tuple[int, int]] = (2, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_at_least(
            part=(self.part, 1),
            beta=(self.beta, 0),
            gamma=(self.gamma, 0),
            tau=(self.tau, 0),
            eta=(self.eta, 0),
            sweeps=(self.sweeps, 0),
        )
        if self.block not in range(1, 8):
            raise ValueError(f"block must be one of 1 … 7, got {self.block}")
        if not 0 <= self.omega <= 1:
            raise ValueError(f"omega must lie in [0, 1], got {self.omega}")

    def plan(self, model: nn.Module, images: Tensor, labels: Tensor, draw: Draw) -> Draw:
        """The draw with the masks.

        `extra`: "saliency" (B, H, W); "source" (B, g²) int64, the image that each block shows, in
        reading order; "members" (B, n) int64, the images of the part, and "weights" (B, n) float32,
        their shares; the clean loss.
        """
        if images.shape[-2] % self.block or images.shape[-1] % self.block:
            raise ValueError(
                f"Co-Mixup with block={self.block} needs images whose sides it divides, "
                f"got {images.shape[-2]}×{images.shape[-1]}"
            )
        looked_up = self.look_up(model, images, labels)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return replace(draw, extra={**looked_up, **self.masks(looked_up["saliency"], draw)})

    def masks(self, saliency: Tensor, draw: Draw) -> dict[str, Tensor]:
        """ "source", "members" and "weights" (see `plan`) for these saliency maps, (B, H, W)
        float32 ≥ 0.
        """
        problem, start, members = self._problem(saliency, draw)
        real = problem.real
        labels = solve(problem, start, self.sweeps).flatten(2)  # (P, n, g²), numbers of members
        shown = members.gather(1, labels.flatten(1)).reshape(labels.shape)
        area = F.one_hot(labels, real.shape[1]).float().mean(dim=2)
        outputs = members[real]  # each image is in one part, and the output in its place is its own
        found = {
            "source": shown,
            "members": members[:, None].expand(-1, real.shape[1], -1),
            "weights": area,
        }
        return {
            name: torch.empty_like(of[real]).index_copy_(0, outputs, of[real])
            for name, of in found.items()
        }

    def _problem(self, saliency: Tensor, draw: Draw) -> tuple[Problem, Tensor, Tensor]:
        """What to solve for these saliency maps, the start (P, n, g, g) and the parts (P, n)."""
        members, real, chances, start = self._chances(draw, saliency.device)
        shares = block_saliency(saliency, self.block)
        saliency = torch.where(saliency.isfinite().all(dim=(1, 2), keepdim=True), saliency, 0)
        cost = -shares[members] - self.eta / self.block**2 * chances[..., None, None]
        together = affinity(salient_places(saliency)[members], real, self.omega)
        problem = Problem(
            cost,
            real,
            together,
            self.beta / self.block**2,
            self.gamma / self.block**2,
            self.tau * self.block**2,
        )
        return problem, start, members

    def _chances(self, draw: Draw, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Parts (P, n), which of them are real, log of the inputs' Dirichlet weights (P, n), the
        start (P, n, g, g).
        """
        members, real = batch_parts(draw.partner, self.part)
        rng, sizes = np.random.default_rng(draw.seed), real.sum(dim=1)
        # normalised gammas are a Dirichlet draw
        weights = rng.gamma(self.alpha, size=real.shape) * real.numpy()
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        log = torch.from_numpy(np.log(np.maximum(weights, 1e-8))).float()
        places = torch.from_numpy(rng.random((*real.shape, self.block, self.block)))
        start = (places * sizes[:, None, None, None]).long()
        members, real, log, start = (
            part.to(device, non_blocking=True) for part in (members, real, log, start)
        )
        return members, real, log, start

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W) put together as `draw.extra["source"]` says; the share is the own
        image's area.
        """
        if "source" not in draw.extra:
            raise ValueError(
                "Co-Mixup mixes by masks: complete the draw with plan(model, images, labels, draw)"
            )
        source, g = draw.extra["source"], self.block
        cells = split_cells(maps, g)[source, torch.arange(g * g, device=maps.device)]
        own = source == torch.arange(len(maps), device=maps.device)[:, None]
        return Mixed(torch.empty_like(maps).copy_(join_cells(cells)), own.float().mean(dim=1))

    def target(self, labels: Tensor, draw: Draw, mixed: Mixed) -> Target:
        """Every image's label by the area it covers."""
        return Target.several(labels, draw.extra["members"], draw.extra["weights"])
