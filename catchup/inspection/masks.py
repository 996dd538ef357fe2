"""Everything the mask inspector shows, computed once: maps, influences, order of the channels,
predictions for every K.

Kang, Kang & Kim, AAAI 2024, Eqs. 4–7. Numbers and arrays only; `catchup.widgets.mask_inspector`
draws them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..hooks.blocks import submodule
from ..hooks.layers import edited, evaluating
from ..mixers.catchup import filter_influence, keep_mask, mix_channels, relative_filter_influence
from .maps import OF_NO_USE, as_bytes, block_maps, choose_blocks

MOST_K = 33  # values of K predicted per layer, pair and checkpoint
MOST_CLASSES = 12  # classes sent to the browser per layer, pair and checkpoint
MOST_PAIRS = 4  # pairs taken where none are named


@dataclass(frozen=True, eq=False)
class Layer:
    """One block of one checkpoint; n images, C channels, P pairs, G values of K, N classes.

    maps: (n, C, h, w) uint8, magnitudes |a| of the activation maps, averaged down to the
        thumbnail's size; value v of channel c of image i stands for v / 255 · scale[i, c].
    scale: (n, C) float32, the largest |a| of each thumbnail.
    influence: (n, C) float32, FI, ≥ 0 (Eq. 4). share: (n, C) float32, FI divided by its sum over
        the channels.
    rfi: (P, C) float32, source minus partner (Eq. 5). order: (P, C) int64, channels by rising RFI,
        ties to the lower channel: `keep_mask` keeps the first ⌊λC⌋ of them.
    kept: (G,) int64, ascending, the values of K for which `mixed` was computed: all of 0 … C, or 33
        of them.
    mixed: (P, G, N) float32, softmax of the mixed image: the source's first K channels in `order`,
        else the partner's.
    """

    maps: np.ndarray
    scale: np.ndarray
    influence: np.ndarray
    share: np.ndarray
    rfi: np.ndarray
    order: np.ndarray
    kept: np.ndarray
    mixed: np.ndarray


@dataclass(frozen=True, eq=False)
class MaskInspection:
    """What was computed for some checkpoints, pairs and blocks.

    Attributes:
        checkpoints: their labels.
        blocks: their names.
        pairs: (source, partner) as indices into the n images kept here.
        names: one per image.
        classes: one name per class.
        labels: (n,) int64.
        pixels: (n, H, W, 3) uint8, the images as they are shown.
        plain: {checkpoint: (n, N) float32}, softmax of the unmixed images.
        layers: {(checkpoint, block): Layer}.
    """

    checkpoints: tuple[str, ...]
    blocks: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    pixels: np.ndarray
    plain: dict[str, np.ndarray]
    layers: dict[tuple[str, str], Layer]

    def packed(self) -> tuple[dict, bytes]:
        """(JSON-able header, one buffer) for the browser: arrays little-endian, each at a multiple
        of four bytes.

        Probabilities are rounded to 1/65535, and of more than 12 classes those go in that are
        likeliest at some K, the pair's own always among them.
        """
        packer = _Packer()
        packer.add("pixels", self.pixels)
        for place, checkpoint in enumerate(self.checkpoints):
            packer.add(f"plain/{place}", _as_uint16(self.plain[checkpoint]))
            for depth, block in enumerate(self.blocks):
                self._pack_layer(packer, f"{place}/{depth}", self.layers[checkpoint, block])
        header = {
            "checkpoints": self.checkpoints,
            "blocks": self.blocks,
            "pairs": self.pairs,
            "names": self.names,
            "classes": self.classes,
            "labels": self.labels.tolist(),
            "arrays": packer.entries,
        }
        return header, b"".join(packer.parts)

    def _pack_layer(self, packer: "_Packer", path: str, layer: Layer) -> None:
        sources, partners = (self.labels[[pair[side] for pair in self.pairs]] for side in (0, 1))
        likely = layer.mixed.max(axis=1)  # (P, N)
        rows = np.arange(len(self.pairs))
        likely[rows, sources] = likely[rows, partners] = 2.0
        shown = np.sort(likely.argsort(axis=1)[:, ::-1][:, :MOST_CLASSES], axis=1)  # (P, S)
        mixed = np.take_along_axis(layer.mixed, shown[:, None, :], axis=2)
        arrays = {
            "maps": layer.maps,
            "scale": layer.scale,
            "share": layer.share,
            "rfi": layer.rfi,
            "order": layer.order.astype("<u2"),
            "kept": layer.kept.astype("<u2"),
            "shown": shown.astype("<u2"),
            "mixed": _as_uint16(mixed),
        }
        for name, array in arrays.items():
            packer.add(f"{name}/{path}", array)


def inspect_masks(
    models: nn.Module | Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    *,
    pairs: Iterable[tuple[int, int]] | None = None,
    blocks: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    thumbnail: int = 16,
) -> MaskInspection:
    """Maps, influences, masks and predictions of pairs of images, for each checkpoint and block.

    Costs one forward pass per checkpoint, and per checkpoint, block and pair one of at most 33
    images.

    Args:
        models: a classifier from (B, C, H, W) to logits (B, N), or several as {label: model}. Run
            in evaluation mode; nothing of them is changed.
        images: (M, 1 or 3, H, W) as the models take them: floating, or uint8, which becomes
            floating in [0, 1]. Shown as they are where they lie in [0, 1], else stretched between
            their lowest and highest value.
        labels: (M,) integers in [0, N).
        pairs: (source, partner) as indices of `images`; None pairs 0 with 1, 2 with 3, …, four
            pairs at most.
        blocks: qualified names of the blocks; None finds them (`catchup.find_blocks` of the first
            model).
        class_names: N names; None numbers them.
        names: M names of the images; None takes their classes'.
        thumbnail: maps are averaged down to at most this many pixels a side, in 4 … 64.
    Raises:
        ValueError: for anything that does not fit together, and for maps that are not finite (B, C,
            H, W).
    """
    models = dict(models) if isinstance(models, Mapping) else {"model": models}
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    _check(models, images, labels, thumbnail)
    pairs = _pair_list(pairs, len(images))
    blocks = choose_blocks(next(iter(models.values())), blocks)
    for model in models.values():
        for block in blocks:
            submodule(model, block)
    used = sorted({index for pair in pairs for index in pair})
    inside = [(used.index(source), used.index(partner)) for source, partner in pairs]
    plain, layers = {}, {}
    for label, model in models.items():
        plain[label], inside_blocks = _inspect_model(model, images[used], inside, blocks, thumbnail)
        layers.update({(label, block): layer for block, layer in inside_blocks.items()})
    classes = _name_tuple("class_names", class_names, {array.shape[1] for array in plain.values()})
    numbers = labels[used].cpu().numpy().astype(np.int64)
    if numbers.min() < 0 or numbers.max() >= len(classes):
        raise ValueError(
            f"labels must lie in 0 … {len(classes) - 1}, got {numbers.min()} … {numbers.max()}"
        )
    if names is None:
        names = [classes[k] for k in labels.tolist()]
    called = _name_tuple("names", names, {len(images)})
    return MaskInspection(
        checkpoints=tuple(models),
        blocks=blocks,
        pairs=tuple(inside),
        names=tuple(called[index] for index in used),
        classes=classes,
        labels=numbers,
        pixels=_pixels(images[used]),
        plain=plain,
        layers=layers,
    )


@torch.no_grad()
def _inspect_model(
    model: nn.Module,
    images: Tensor,
    pairs: list[tuple[int, int]],
    blocks: tuple[str, ...],
    thumbnail: int,
) -> tuple[np.ndarray, dict[str, Layer]]:
    """Softmax of the unmixed images, and all that is shown of each block."""
    images = images.to(next((weights.device for weights in model.parameters()), images.device))
    seen, logits = block_maps(model, images, blocks)
    plain = _softmax(logits, len(images))
    layers = {}
    with evaluating(model):
        for block, maps in seen.items():
            influence = filter_influence(maps)
            source, partner = (influence[[pair[side] for pair in pairs]] for side in (0, 1))
            rfi = relative_filter_influence(source, partner)
            kept = _grid(maps.shape[1])
            mixed = [
                _predictions(model, block, images[list(pair)], row, kept, plain[pair[0]])
                for pair, row in zip(pairs, rfi, strict=True)
            ]
            layers[block] = _layer(maps, influence, rfi, kept, torch.stack(mixed), thumbnail)
    return plain.cpu().numpy(), layers


def _layer(
    maps: Tensor, influence: Tensor, rfi: Tensor, kept: Tensor, mixed: Tensor, thumbnail: int
) -> Layer:
    """The arrays of one block, on the CPU."""
    levels, scale = as_bytes(maps, thumbnail)
    # minus nothing: FI over its sum
    share = relative_filter_influence(influence, torch.zeros_like(influence))
    order = rfi.argsort(dim=1, stable=True)
    parts = levels, scale, influence, share, rfi, order, kept, mixed
    return Layer(*(part.cpu().numpy() for part in parts))


def _predictions(
    model: nn.Module, block: str, pair: Tensor, rfi: Tensor, kept: Tensor, alone: Tensor
) -> Tensor:
    """(G, N) softmax of the pair (2, …) mixed at `block` with each K of `kept`; `alone` is the
    unmixed source's.
    """
    channels, count = len(rfi), len(kept)
    # ⌊λC⌋ = K, whatever rounds
    lams = [1.0 if k == channels else (k + 0.5) / channels for k in kept.tolist()]
    keep = torch.cat([keep_mask(rfi[None], lam) for lam in lams] * 2)
    swap = torch.arange(2 * count, device=rfi.device).roll(count)

    def late(maps: Tensor) -> Tensor:  # the blocks before run on two images only
        return mix_channels(maps.repeat_interleave(count, dim=0), swap, keep)[:count]

    def whole(maps: Tensor) -> Tensor:  # for models in which something passes by the block
        return mix_channels(maps, swap, keep)

    try:
        with edited(model, block, late):
            answers = _softmax(model(pair), count)
        # K = C is the source itself: nothing passes by the block
        if torch.allclose(answers[-1], alone, atol=1e-4):
            return answers
    except (RuntimeError, ValueError):
        pass
    with edited(model, block, whole):
        return _softmax(model(pair.repeat_interleave(count, dim=0)), 2 * count)[:count]


def _grid(channels: int) -> Tensor:
    """The values of K that are predicted: 0 … C, or 33 of them, evenly spread, both ends among
    them.
    """
    return torch.linspace(0, channels, min(MOST_K, channels + 1)).round().long().unique()


def _softmax(logits: Tensor, count: int) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must return logits ({count}, N), got {got}")
    if not logits.isfinite().all():
        raise ValueError(f"the model answers with NaN or infinity: {OF_NO_USE}")
    return logits.float().softmax(dim=1)


def _check(models: dict[str, nn.Module], images: Tensor, labels: Tensor, thumbnail: int) -> None:
    if not models or not all(isinstance(model, nn.Module) for model in models.values()):
        raise ValueError(
            "models must be an nn.Module or {label: nn.Module}, at least one, got"
            f" {models!r:.200}"
        )
    fits = images.ndim == 4 and images.shape[1] in (1, 3) and len(images) >= 2
    if not fits or not images.is_floating_point():
        raise ValueError(
            "images must be (M, 1 or 3, H, W) floating or uint8, M ≥ 2, "
            f"got {tuple(images.shape)} {images.dtype}"
        )
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels must be ({len(images)},) integers, got {tuple(labels.shape)} {labels.dtype}"
        )
    if not 4 <= thumbnail <= 64:
        raise ValueError(f"thumbnail must lie in 4 … 64 pixels, got {thumbnail}")


def _pair_list(pairs: Iterable[tuple[int, int]] | None, count: int) -> list[tuple[int, int]]:
    """The pairs as a list; ValueError unless each names two of the `count` images."""
    if pairs is None:
        return [(first, first + 1) for first in range(0, count - 1, 2)][:MOST_PAIRS]
    pairs = [tuple(int(index) for index in pair) for pair in pairs]
    fits = [len(pair) == 2 and all(0 <= index < count for index in pair) for pair in pairs]
    if not pairs or not all(fits):
        raise ValueError(
            f"pairs must be (source, partner) with indices in 0 … {count - 1}, at least one, got"
            f" {pairs}"
        )
    return pairs


def _name_tuple(what: str, names: Sequence[str] | None, counts: set[int]) -> tuple[str, ...]:
    """The names as strings, numbers where there are none; ValueError unless there are as many as
    needed.
    """
    if len(counts) > 1:
        raise ValueError(f"the models differ in their number of classes: {sorted(counts)}")
    (count,) = counts
    if names is not None and len(names) != count:
        raise ValueError(f"{what} must be {count} names, got {len(names)}")
    return tuple(map(str, range(count) if names is None else names))


def _pixels(images: Tensor) -> np.ndarray:
    """(n, H, W, 3) uint8 for the eye."""
    images = images.detach().float().cpu()
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        images = (images - low) / (high - low)
    pixels = (255 * images).round().byte().expand(-1, 3, -1, -1)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def _as_uint16(probabilities: np.ndarray) -> np.ndarray:
    return np.rint(65535.0 * probabilities).astype("<u2")


class _Packer:
    """Arrays one after the other, and where each stands."""

    def __init__(self):
        self.parts, self.entries, self.size = [], {}, 0

    def add(self, name: str, array: np.ndarray) -> None:
        """Appends an array under a name, little-endian, at a multiple of four bytes."""
        kind = {"uint8": "u1", "uint16": "u2", "float32": "f4"}[array.dtype.name]
        data = np.ascontiguousarray(array, dtype=f"<{kind}").tobytes()
        self.entries[name] = {"kind": kind, "shape": list(array.shape), "at": self.size}
        self.parts += [data, bytes(-len(data) % 4)]
        self.size += len(data) + -len(data) % 4
