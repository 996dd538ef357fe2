"""Every method on one pair of images: where it mixes, whose values go on, and what it calls the
result.

Nothing here knows a method by name: all get the same draw (λ, partner, seed) through `Mixer.loss`,
and `Mixer.watched` tells what came of it. A method that is added to `MIXERS` is in the gallery.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn

from ..data.augment import normalise, to_float
from ..hooks.blocks import find_blocks
from ..hooks.layers import captured, evaluating
from ..mixers import MIXERS, Draw, Mixed, Mixer, make
from ..utils.choices import check_index, pick

# where the pair's values differ by less than this share of the largest, nobody can tell whose they
# are
TELLS = 1e-3
OFF = 0.02  # values this share of the largest away from every blend of the pair's two are neither's


@dataclass(frozen=True, eq=False)
class MethodGallery:
    """A model and pairs of images for all methods to mix; made by `make_gallery`.

    Args:
        model: in whatever mode; it is run in evaluation mode.
        pixels: (N, 3 or 1, H, W) float32 in [0, 1], on the CPU; image 2p is mixed with image 2p +
            1.
        labels: (N,) int64.
        classes: names of all the model's classes.
        mean, std: per channel: the model takes (pixels − mean) / std.
        block: where methods that mix features do it, or as near to it as they can.
        settings: {method: {setting: value}}, beside the defaults.
        methods: names of all methods that can mix this model.
        refusals: {method: why it cannot}.
    """

    model: nn.Module
    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    block: str
    settings: Mapping[str, Mapping]
    methods: tuple[str, ...]
    refusals: Mapping[str, str]

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        return len(self.pixels) // 2

    def batch(self, pair: int) -> tuple[Tensor, Tensor, list[int]]:
        """All images as the model takes them, on its device, with labels and places: the pair
        first, then the others.

        Raises:
            ValueError: if there is no such pair.
        """
        check_index("pair", pair, self.pairs)
        places = torch.arange(len(self.pixels)).roll(-2 * pair)
        images = normalise(self.pixels[places], self.mean, self.std)
        device = next(self.model.parameters()).device
        return images.to(device), self.labels[places].to(device), places.tolist()

    def viewable(self, image: Tensor) -> Tensor:
        """An image (C, H, W) of the model's scale as pixels in [0, 1]."""
        return (image * _column(self.std) + _column(self.mean)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What one method made of one image. Tensors are on the CPU; C channels of H × W, an image's or
    those of a block.

    Attributes:
        method: its name in `MIXERS`.
        lam: λ in [0, 1], as it was given.
        seed: what boxes and masks are drawn from.
        block: name of the block that was mixed; None where it was the input.
        own: float32 (C, H, W), what the image brought.
        partner: the same of its partner.
        mixed: the same of what went on.
        pixels: (C, H, W) in [0, 1], the mixed image as it is shown; None where a block was mixed.
        place: of the image in the gallery.
        partner_place: of its partner; a method may choose its own.
        keep: bool (C, H, W), True where the method says that the image's own values stayed; None
            where it says nothing.
        pictures: (2, C, H, W) in [0, 1], the two images as they are shown.
        own_class: name of the image's class.
        partner_class: name of its partner's.
        weights: {class name: weight}, the mixed label, all > 0.
        passes: forward and backward passes of the model in one mixed step, as the method declares
            them.
    """

    method: str
    lam: float
    seed: int
    block: str | None
    own: Tensor
    partner: Tensor
    mixed: Tensor
    pixels: Tensor | None
    place: int
    partner_place: int
    keep: Tensor | None
    pictures: Tensor
    own_class: str
    partner_class: str
    weights: Mapping[str, float]
    passes: tuple[int, int]

    @property
    def share(self) -> Tensor:
        """Whose values went on, `own_share`: (1, H, W) of an image, one for its colours; (C, 1, 1)
        of a block.
        """
        maps = self.own, self.partner, self.mixed
        if self.block is None:
            return own_share(*maps)[None]
        return own_share(*(each.flatten(1).T[:, None] for each in maps)).reshape(-1, 1, 1)

    @property
    def mask(self) -> Tensor:
        """`keep` as a number, (C, H, W) float32 in [0, 1]; of a method without it `share`, NaN
        where it is.
        """
        return self.share.expand(self.mixed.shape) if self.keep is None else self.keep.float()

    @property
    def label(self) -> float:
        """The weight of the image's own class."""
        return self.weights.get(self.own_class, 0.0)


def make_gallery(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    *,
    classes: Sequence[str],
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    block: str | None = None,
    settings: Mapping[str, Mapping] | None = None,
) -> MethodGallery:
    """Pairs of images for all methods to mix.

    Args:
        model: a classifier from normalised (B, C, H, W) to logits (B, N); a trained one, where
            saliency is to mean something. It is not changed.
        pixels: (N, 3 or 1, H, W), uint8 or in [0, 1]; N even, image 2p is mixed with image 2p + 1.
            All are one batch, so that methods which choose their partners can.
        labels: (N,) integers; those of a pair should differ, else its label has one class.
        classes: names of all the model's classes.
        mean, std: of its data set, per channel or one for all.
        block: where methods that mix features do it; None: the first after the stem.
        settings: {method: {setting: value}}, beside the defaults.
    Raises:
        ValueError: if these do not fit together, or there is no such block or method.
    """
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or len(pixels) < 2 or len(pixels) % 2:
        raise ValueError(
            f"pixels must be (N, 3 or 1, H, W), N even and at least 2, got {tuple(pixels.shape)}"
        )
    count, fits = len(set(classes)), labels.shape == pixels.shape[:1]
    if not fits or labels.is_floating_point() or not 0 <= labels.min() <= labels.max() < count:
        raise ValueError(
            f"labels must be ({len(pixels)},) integers below {count}, the number of different"
            f" classes, got {labels.tolist()}"
        )
    pixels = to_float(pixels) if pixels.dtype == torch.uint8 else pixels.float()
    if not 0 <= pixels.min() <= pixels.max() <= 1:
        raise ValueError(
            f"floating pixels must lie in [0, 1], got {pixels.min():.3g} to {pixels.max():.3g}:"
            " give them as they are shown, and mean= and std="
        )
    blocks = find_blocks(model)
    block = pick("block", block, blocks) if block else blocks[min(1, len(blocks) - 1)]
    settings = settings or {}
    for method in settings:
        pick("method", method, MIXERS)
    refusals = _refusals({name: make(name, **settings.get(name, {})) for name in MIXERS}, model)
    return MethodGallery(
        model=model,
        pixels=pixels.cpu(),
        labels=labels.cpu().long(),
        classes=tuple(classes),
        mean=tuple(mean),
        std=tuple(std),
        block=block,
        settings=settings,
        methods=tuple(name for name in MIXERS if name not in refusals),
        refusals=refusals,
    )


def run_methods(
    gallery: MethodGallery,
    lam: float,
    *,
    pair: int = 0,
    seed: int = 0,
    methods: Sequence[str] | None = None,
) -> list[MethodResult]:
    """`run_method` of every method, or of those named, all with the same draw.

    Args:
        gallery: from `make_gallery`.
        lam: λ in [0, 1].
        pair, seed: as for `run_method`.
        methods: names; None takes all that can mix this model.
    Raises:
        ValueError: as `run_method`.
    """
    return [
        run_method(gallery, method, lam, pair=pair, seed=seed)
        for method in methods or gallery.methods
    ]


def run_method(
    gallery: MethodGallery, method: str, lam: float, *, pair: int = 0, seed: int = 0
) -> MethodResult:
    """What a method makes of the first image of a pair in one step, the model in evaluation mode.

    Of a method that composes its results of several images it is the result with most of the first
    one; the partner is then who has most beside it.

    The method is new and its run has just begun: networks of its own are untrained. One with a
    history has seen one step before this one, with the same draw on the same images.

    Args:
        gallery: from `make_gallery`.
        method: its name in `MIXERS`.
        lam: λ in [0, 1].
        pair: its number.
        seed: of boxes, masks and all else the method draws; ≥ 0.
    Raises:
        ValueError: if there is no such method or pair, λ leaves [0, 1], or the method cannot mix
            this model.
    """
    images, labels, places = gallery.batch(pair)
    draw = Draw(0, torch.arange(len(images)) ^ 1, lam, seed)
    mixer, step = _take_steps(gallery, method, draw, images, labels)
    if mixer.state:
        mixer, step = _take_steps(gallery, method, draw, images, labels, steps=2)
    return _first_result(gallery, mixer, method, places, *step)


def result_rows(rows: Sequence[MethodResult]) -> list[dict]:
    """What can be said of each result in numbers.

    Returns:
        One row each: method, block, lam, seed, place, passes, and
        label, total: the weight of the image's own class, and of all classes together;
        kept, exact: the share of values that the method says it kept, and whether they are the
        image's own to the last bit; both None where it says nothing;
        told, share: the share of values of which `own_share` can tell whose they are, and its mean
        over these, None where there are none.
    """
    fields = ("method", "block", "lam", "seed", "place", "passes", "label")
    numbers = []
    for row in rows:
        share, keep = row.share, row.keep
        told = ~share.isnan()
        numbers.append(
            {
                **{field: getattr(row, field) for field in fields},
                "total": sum(row.weights.values()),
                "kept": None if keep is None else keep.float().mean().item(),
                "exact": None if keep is None else torch.equal(row.mixed[keep], row.own[keep]),
                "told": told.float().mean().item(),
                "share": share[told].mean().item() if told.any() else None,
            }
        )
    return numbers


def mask_sources(rows: Sequence[MethodResult], others: Sequence[MethodResult] = ()) -> list[dict]:
    """What decides whose values go on: how far the mask moves when one thing changes and all else
    stays.

    Args:
        rows: results of several λ, seeds and images.
        others: likewise, of another network.
    Returns:
        One row per method: method, passes, and by_lam, by_seed, by_images, by_network: the mean
        `mask_gap` of two results that differ in this alone, in [0, 1]; NaN where there are none,
        or it cannot be told.
    """
    names = "by_lam", "by_seed", "by_images", "by_network"
    tagged = [
        (row.method, (row.lam, row.seed, row.place, network), row.mask)
        for network, group in enumerate((rows, others))
        for row in group
    ]
    gaps = {method: {name: [] for name in names} for method, *_ in tagged}
    for (method, key, mask), (other, their_key, their_mask) in combinations(tagged, 2):
        differs = [name for name, ours, theirs in zip(names, key, their_key) if ours != theirs]
        if method == other and len(differs) == 1:
            gaps[method][differs[0]].append(mask_gap(mask, their_mask))
    passes = {row.method: row.passes for row in (*rows, *others)}
    return [
        {
            "method": method,
            "passes": passes[method],
            **{name: _mean(gap) for name, gap in own.items()},
        }
        for method, own in gaps.items()
    ]


def mask_gap(mask: Tensor, other: Tensor) -> float:
    """Mean |difference| of two masks over the values that are no NaN in both; NaN if these are less
    than half.
    """
    both = ~(mask.isnan() | other.isnan())
    if 2 * int(both.sum()) < both.numel():
        return math.nan
    return (mask - other)[both].abs().mean().item()


def own_share(own: Tensor, partner: Tensor, mixed: Tensor) -> Tensor:
    """How much of each place is the image's own: w in mixed = w · own + (1 − w) · partner, by least
    squares.

    Args:
        own, partner, mixed: (…, C, H, W) floating; one w for the C values of a place.
    Returns:
        (…, H, W) float32 in [0, 1]; NaN where it cannot be told: the pair is equal there, or the
        values are neither's (moved, resized, rescaled, of a third image).
    """
    own, partner, mixed = own.float(), partner.float(), mixed.float()
    ahead, most = own - partner, torch.maximum(own.abs().max(), partner.abs().max())
    share = ((mixed - partner) * ahead).sum(dim=-3) / ahead.square().sum(dim=-3).clamp_min(1e-20)
    off = (mixed - partner - share.unsqueeze(-3) * ahead).abs().amax(dim=-3)
    told = (ahead.abs().amax(dim=-3) > TELLS * most) & (off <= OFF * most)
    told &= (share > -OFF) & (share < 1 + OFF)
    return torch.where(told, share.clamp(0, 1), torch.nan)


def _refusals(mixers: Mapping[str, Mixer], model: nn.Module) -> dict[str, str]:
    """{method: what its `check` says} of those that cannot train this model."""
    refusals = {}
    for name, mixer in mixers.items():
        try:
            mixer.check(model)
        except ValueError as error:
            refusals[name] = str(error)
    return refusals


def _take_steps(
    gallery: MethodGallery,
    method: str,
    wanted: Draw,
    images: Tensor,
    labels: Tensor,
    steps: int = 1,
) -> tuple[Mixer, tuple[str | None, Draw, Mixed, Tensor]]:
    """A new mixer after its steps on a batch; of the last the block, the draw, what came of it and
    what was there.
    """
    model, heard, seen = gallery.model, [], {}
    with evaluating(model), torch.random.fork_rng(devices=[]):
        # networks that the method makes for its run are the same at every seed
        torch.manual_seed(0)
        settings = {"seed": wanted.seed, **gallery.settings.get(method, {})}
        mixer = make(pick("method", method, MIXERS), **settings)
        mixer.begin_run(model, len(gallery.classes))
        mixer.begin_epoch(0, 1)
        draw, block = _fix_draw(mixer, gallery, wanted)

        def hear(_block: str | None, drawn: Draw, mixed: Mixed) -> None:
            heard.append((block, drawn, mixed, seen[block][-1] if block else images))

        with mixer.watched(hear):
            for _ in range(steps):
                heard.clear()
                with captured(model, *([block] if block else [])) as seen:
                    mixer.loss(model, images, labels, draw=draw)
    return mixer, heard[0]


def _fix_draw(mixer: Mixer, gallery: MethodGallery, wanted: Draw) -> tuple[Draw, str | None]:
    """The mixer's draw with the wanted λ, partner and seed, at the gallery's block or as near to it
    as the method can.
    """
    blocks = mixer.block_names(gallery.model)
    drawn = mixer.draw(len(wanted.partner), len(blocks), np.random.default_rng(wanted.seed))
    aim = blocks.index(gallery.block) + 1 if gallery.block in blocks else 1
    layers = mixer.layer_set(len(blocks))
    layer = min(layers, key=lambda layer: (layer == 0, abs(layer - aim), layer))
    fixed = {"partner": wanted.partner, "lam": wanted.lam, "seed": wanted.seed}
    return replace(drawn, layer=layer, **fixed), blocks[layer - 1] if layer else None


def _first_result(
    gallery: MethodGallery,
    mixer: Mixer,
    method: str,
    places: list[int],
    block: str | None,
    drawn: Draw,
    mixed: Mixed,
    before: Tensor,
) -> MethodResult:
    """The first image's part of a step."""
    labels, classes = gallery.labels[places].tolist(), gallery.classes
    label = mixer.last.target.soft(len(classes)).cpu()
    k, other = 0, int(drawn.partner[0])
    named = {kind for kind, weight in enumerate(label[0].tolist()) if weight > 0}
    if not named <= {labels[0], labels[other]}:
        k, other = _of_several(labels, label)
    maps = mixed.maps[k].detach().float().cpu()
    own, partner = (before[place].detach().float().cpu() for place in (0, other))
    weights = zip(classes, label[k].tolist())
    return MethodResult(
        method=method,
        lam=drawn.lam,
        seed=drawn.seed,
        block=block,
        own=own,
        partner=partner,
        mixed=maps,
        pixels=None if block else gallery.viewable(maps),
        place=places[0],
        partner_place=places[other],
        keep=None if mixed.keep is None else mixed.keep.cpu().expand(mixed.maps.shape)[k],
        pictures=gallery.pixels[[places[0], places[other]]],
        own_class=classes[labels[0]],
        partner_class=classes[labels[other]],
        weights={name: weight for name, weight in weights if weight > 0},
        passes=mixer.passes,
    )


def _of_several(labels: list[int], label: Tensor) -> tuple[int, int]:
    """Where results are of several images: the place of the one with most of the first, and who has
    most beside it.
    """
    k = int(label[:, labels[0]].argmax())
    return k, max(
        range(1, len(labels)), key=lambda i: (labels[i] != labels[0]) * float(label[k, labels[i]])
    )


def _mean(values: Sequence[float]) -> float:
    """The mean of those that are no NaN; NaN where there are none."""
    return fmean([value for value in values if not math.isnan(value)] or [math.nan])


def _column(values: Sequence[float]) -> Tensor:
    """(C, 1, 1)."""
    return torch.tensor(values).reshape(-1, 1, 1)
