"""Watching the filters while a model trains: how strong each one is, and how much gradient it still
gets.

Source: the questions of Kang, Kang & Kim, AAAI 2024, Section 1 and Figure 1b (norms of activation
maps against their gradients), and of Section 2.2: which filters the mixing gave a chance to learn.
The paper shows pictures; here are the numbers, per filter and epoch, for any model and method.

A context sets the hooks and takes them away; what is measured is detached and summed up on the
model's device. One training pass in `every` is measured, the others cost nothing but the hooks'
calls. In a run of several processes each one records its own share of the batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..hooks.blocks import find_blocks, submodule, unwrap
from ..hooks.layers import hooked
from ..mixers import Draw, Mixed, Mixer
from ..mixers.catchup import filter_influence, relative_filter_influence
from ..utils.choices import check_whole
from .tally import GRADIENT_RANGE, NORM_RANGE, BlockTally, edges

BRANCHES = ("downsample", "shortcut", "skip", "proj")  # parts of a block that run beside it


@contextmanager
def recording(
    model: nn.Module,
    blocks: Sequence[str] | None = None,
    *,
    mixer: Mixer | None = None,
    every: int = 10,
) -> Iterator["Record"]:
    """Inside the block, training passes of `model` are measured filter by filter.

    Only passes in training mode with gradients on are counted, so validation does not disturb.
    Hooks are removed on leaving, also after an error; what was recorded stays readable.

    Args:
        model: any CNN, on any device, also wrapped for DDP; not compiled as a whole.
        blocks: qualified names of the modules to watch, each with (B, C, H, W) output, or one name;
            None finds them.
        mixer: the method in use, if its lessons are to be recorded too.
        every: one training pass in so many is measured, ≥ 1. Which filters were kept is counted in
            every pass.
    Yields:
        A `Record`; call its `end_epoch` after each epoch (`catchup.fit(...,
        on_epoch=record.end_epoch)`).
    Raises:
        ValueError: before any hook is set, for an unknown block, `every` < 1, or a mixer that is
            none.
        RuntimeError: if hooks would not run (see `catchup.edited`).
    """
    check_whole(every=every)
    if mixer is not None and not isinstance(mixer, Mixer):
        raise ValueError(
            f"mixer must be the method in use, such as catchup.CatchUpMix(), got {mixer!r}"
        )
    names = (
        (blocks,)
        if isinstance(blocks, str)
        else tuple(find_blocks(model) if blocks is None else blocks)
    )
    for name in names:
        submodule(model, name)  # a wrong name is refused here, with the nearest right one
    record = Record(unwrap(model), names, every, mixer is not None)
    with ExitStack() as stack:
        stack.enter_context(hooked(model, names, record._measure, changes=False))
        stack.callback(record._close)
        stack.enter_context(unwrap(model).register_forward_pre_hook(record._begin_pass))
        for name, conv in record.weights.items():
            weight = unwrap(model).get_submodule(conv).weight
            if weight.requires_grad:
                stack.callback(weight.register_hook(record._weight_hook(name)).remove)
        if mixer is not None:
            stack.enter_context(mixer.watched(record._watch))
        yield record


class Record:
    """What `recording` found, one entry per finished epoch.

    Memory does not grow with images or steps, but with epochs: eleven numbers per filter and 2 304
    counts per block (for ResNet-18 of width 16 about 100 kB an epoch).

    Attributes:
        blocks: names of the watched blocks.
        weights: {block: name of the convolution whose kernels are its filters}: the block's last
            one beside no shortcut, or, where the block has none (a pooling layer), the last one
            before it. Its gradient counts only if it has as many kernels as the block has channels.
    """

    def __init__(self, model: nn.Module, blocks: tuple[str, ...], every: int, lessons: bool):
        self.blocks, self.weights = blocks, {}
        for name in blocks:
            if (conv := _filters_of(model, name)) is not None:
                self.weights[name] = conv
        self._every, self._with_lessons, self._model = every, lessons, model
        self._passes, self._active, self._mixed, self._open = 0, False, None, True
        self._norms: dict[str, Tensor] = {}
        self._epochs: list[tuple[int, dict[str, dict]]] = []
        self._tallies = {name: BlockTally() for name in blocks}

    def rows(self) -> list[dict]:
        """One row per epoch, block and filter.

        Returns:
            {"epoch": ≥ 1, "block", "filter": 0 … C-1, "norm": mean ‖a‖₂ of the filter's own maps,
            before any mixing; "map_gradient": mean ‖∂ℓ/∂a‖₂ over images, ℓ the sum of the batch's
            losses, so that the batch size does not matter; "weight_gradient": mean over batches of
            ‖∂L/∂W‖₂, W the filter's kernel and L the mean loss (NaN where the block has no such
            kernel); "batches", "images": how many were measured}. Under mixing, the gradient that a
            map receives for its own image and that of the image it was lent to add up. Under a
            gradient scaler (fp16) both gradients are scaled.
        """
        keys = ("norm", "map_gradient", "weight_gradient")
        return [
            {
                **head,
                **{key: found[key][head["filter"]] for key in keys},
                "batches": found["batches"],
                "images": found["images"],
            }
            for head, found in self._filters()
        ]

    def lessons(self) -> list[dict]:
        """Who got a catch-up lesson: one row per epoch, block and filter.

        Returns:
            {"epoch", "block", "filter", "kept", "replaced": in how many (image, filter) pairs of
            all steps the image kept the filter's map, and got its partner's; "lead_kept",
            "lead_replaced": mean relative filter influence (Eq. 5, in [-1, 1]) of such pairs, below
            0 where the image lagged behind its partner; "gradient_kept", "gradient_replaced": mean
            ‖∂ℓ/∂a‖₂ of the mixed map over such pairs; "gradient_plain": the same over the passes in
            which this block was not mixed (another layer may have been); NaN where there was no
            such pair; "steps": in how many steps the block was mixed}. Leads and gradients are of
            measured passes alone.

            How often a filter is kept says nothing about the method: partners are a permutation and
            λ is symmetric, so every filter is kept in about half of its pairs. In which pairs it is
            kept, its lead tells.
        Raises:
            ValueError: if `recording` was given no mixer.
        """
        if not self._with_lessons:
            raise ValueError(
                "lessons need the method that mixes: recording(model, mixer=mixer), got mixer=None"
            )
        keys = (
            "kept",
            "replaced",
            "lead_kept",
            "lead_replaced",
            "gradient_kept",
            "gradient_replaced",
            "gradient_plain",
        )
        return [
            {**head, **{key: found[key][head["filter"]] for key in keys}, "steps": found["steps"]}
            for head, found in self._filters()
        ]

    def histograms(self) -> list[dict]:
        """Norm against gradient, counted over (image, filter) pairs: one row per epoch and block
        (Figure 1b).

        Returns:
            {"epoch", "block", "counts": rows of norm bins of columns of gradient bins,
            "norm_edges", "gradient_edges", "zero_norm", "zero_gradient", "not_finite": pairs that
            no logarithmic bin can hold, "pairs", "images"}.
        """
        ends = {"norm_edges": edges(NORM_RANGE), "gradient_edges": edges(GRADIENT_RANGE)}
        return [
            {
                "epoch": epoch,
                "block": block,
                **found["histogram"],
                **ends,
                "counts": found["histogram"]["counts"].tolist(),
                "images": found["images"],
            }
            for epoch, blocks in self._epochs
            for block, found in blocks.items()
        ]

    def end_epoch(self, row: Mapping | None = None) -> None:
        """Closes an epoch; an epoch without a measured pass leaves no rows.

        Args:
            row: the epoch's row as `catchup.fit` gives it; its "epoch" is taken. None counts on
                from the last one.
        """
        epoch = (
            row["epoch"]
            if row is not None
            else 1 + max((epoch for epoch, _ in self._epochs), default=0)
        )
        found = {name: _read(tally) for name, tally in self._tallies.items() if tally.images}
        if found:
            self._epochs.append((int(epoch), found))
        self._tallies = {name: BlockTally() for name in self.blocks}

    def _filters(self) -> Iterator[tuple[dict, dict]]:
        for epoch, blocks in self._epochs:
            for block, found in blocks.items():
                lists = {
                    key: value.tolist() if isinstance(value, Tensor) else value
                    for key, value in found.items()
                }
                for place in range(len(lists["norm"])):
                    yield {"epoch": epoch, "block": block, "filter": place}, lists

    # -- hooks -------------------------------------------------------------------------------------

    def _begin_pass(self, model: nn.Module, _args) -> None:
        # not a copy
        training = (
            self._open and model is self._model and model.training and torch.is_grad_enabled()
        )
        self._active, self._mixed = training and self._passes % self._every == 0, None
        self._passes += training
        self._norms.clear()

    def _measure(self, name: str, maps: Tensor) -> None:
        if not self._active:
            return
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise ValueError(
                f"block {name!r} must return maps (B, C, H, W) to be recorded, got {shape}"
            )
        tally, norms = self._tallies[name], filter_influence(maps)
        self._norms[name] = norms
        tally.norm.add(norms)
        tally.channels, tally.images = maps.shape[1], tally.images + len(maps)
        tally.batches += 1
        if maps.requires_grad:
            maps.register_hook(lambda grad: self._map_gradient(name, tally, norms, grad))

    def _map_gradient(self, name: str, tally: BlockTally, norms: Tensor, grad: Tensor) -> None:
        gradients = len(grad) * filter_influence(grad)
        tally.map_gradient.add(gradients)
        tally.histogram.add(norms, gradients)
        if self._mixed != name:
            tally.gradient_plain.add(gradients)

    def _weight_hook(self, name: str):
        def hook(grad: Tensor) -> None:
            tally = self._tallies[name]
            if self._active and len(grad) == tally.channels:
                tally.weight_gradient.add(filter_influence(grad.detach().flatten(1)[None]))

        return hook

    def _watch(self, block: str | None, draw: Draw, mixed: Mixed) -> None:
        self._mixed = block
        keep = None if mixed.keep is None or block not in self._tallies else mixed.keep
        if not self._open or keep is None or keep.shape != (*mixed.maps.shape[:2], 1, 1):
            return  # not a choice of whole channels
        tally, keep = self._tallies[block], keep[:, :, 0, 0]
        tally.kept, tally.replaced = (
            tally.kept + keep.sum(dim=0),
            tally.replaced + (~keep).sum(dim=0),
        )
        tally.mixed_steps += 1
        if self._active and block in self._norms:
            norms = self._norms[block]
            lead = relative_filter_influence(
                norms, norms[draw.partner.to(norms.device, non_blocking=True)]
            )
            tally.lead_kept.add(lead, keep)
            tally.lead_replaced.add(lead, ~keep)
        if self._active and mixed.maps.requires_grad:
            mixed.maps.register_hook(lambda grad: _lesson(tally, keep, grad))

    def _close(self) -> None:
        if any(tally.images for tally in self._tallies.values()):
            self.end_epoch()
        self._open = self._active = False
        self._norms.clear()


def _lesson(tally: BlockTally, keep: Tensor, grad: Tensor) -> None:
    gradients = len(grad) * filter_influence(grad)
    tally.gradient_kept.add(gradients, keep)
    tally.gradient_replaced.add(gradients, ~keep)


def _read(tally: BlockTally) -> dict:
    """A finished block, as numbers and small tensors on the CPU."""
    means = (
        "norm",
        "map_gradient",
        "weight_gradient",
        "lead_kept",
        "lead_replaced",
        "gradient_kept",
        "gradient_replaced",
        "gradient_plain",
    )
    counts = {
        key: (
            getattr(tally, key).cpu()
            if isinstance(getattr(tally, key), Tensor)
            else torch.zeros(tally.channels, dtype=torch.int64)
        )
        for key in ("kept", "replaced")
    }
    return {
        **{key: getattr(tally, key).read(tally.channels) for key in means},
        **counts,
        "steps": tally.mixed_steps,
        "batches": tally.batches,
        "images": tally.images,
        "histogram": tally.histogram.read(),
    }


def _filters_of(model: nn.Module, block: str) -> str | None:
    """The convolution whose kernels are the filters of a block, by the order of registration."""
    inside, before = None, None
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d) or any(
            part in name.rsplit(".", 2)[-2:] for part in BRANCHES
        ):
            continue
        if name == block or name.startswith(block + "."):
            inside = name
        elif inside is None and not _after(model, name, block):
            before = name
    return inside or before


def _after(model: nn.Module, name: str, block: str) -> bool:
    names = [known for known, _ in model.named_modules()]
    return names.index(name) > names.index(block)
