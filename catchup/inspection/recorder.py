"""Watching the filters while a model trains: how strong each one is, and how much gradient it still
gets.

Source: the questions of Kang, Kang & Kim, AAAI 2024, Section 1 and Figure 1b (norms of activation
maps against their gradients), and of Section 2.2: which filters the mixing gave a chance to learn.
The paper shows pictures; here are the numbers, per filter and epoch, for any model and method.

A context watches the model from outside and leaves nothing on it, so that its copies are not
watched. What is measured is detached and summed up on the model's device. One training step in
`every` is measured, the others cost nothing but the hooks' calls. In a run of several processes
each one records its own share of the batches.

A step is one forward pass of the model in training mode with gradients on, other than those that a
method makes beside it (saliency, teachers, further copies of the images). The maps are those of
this pass. The gradient of a kernel is what one backward pass adds to it, whichever passes it goes
through.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..hooks.blocks import unwrap
from ..hooks.layers import hookable
from ..hooks.passes import is_side_pass, watching
from ..mixers import Draw, Mixed, Mixer
from ..mixers.catchup import filter_influence, relative_filter_influence
from ..utils.choices import check_whole
from .maps import choose_blocks
from .tally import GRADIENT_RANGE, NORM_RANGE, BlockTally, edges

LESSONS = ("lead_kept", "lead_replaced", "gradient_kept", "gradient_replaced", "gradient_plain")
BRANCHES = ("downsample", "shortcut", "skip", "proj")  # parts of a block that run beside it


@contextmanager
def recording(
    model: nn.Module,
    blocks: Sequence[str] | None = None,
    *,
    mixer: Mixer | None = None,
    every: int = 10,
) -> Iterator["Record"]:
    """Inside the block, training steps of `model` are measured filter by filter.

    Validation does not disturb, also between forward and backward. On leaving, also after an error,
    nothing is watched any more; what was recorded stays readable. A block that did not run in any
    measured step is named in a warning.

    Args:
        model: any CNN, on any device, also wrapped for DDP; not compiled as a whole.
        blocks: qualified names of the modules to watch, each with (B, C, H, W) output, or one name;
            None finds them.
        mixer: the method in use, if its lessons are to be recorded too.
        every: one training step in so many is measured, ≥ 1. Which filters were kept is counted in
            every step.
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
    names = choose_blocks(model, blocks)
    modules = {name: hookable(model, name) for name in names}
    record = Record(unwrap(model), names, every, mixer is not None)
    with ExitStack() as stack:
        stack.callback(record._close)
        on_leave = {module: record._block_hook(name) for name, module in modules.items()}
        for name, conv in record.weights.items():
            _watch_kernel(stack, unwrap(model).get_submodule(conv), record._kernels[name], on_leave)
        stack.enter_context(watching({unwrap(model): record._begin_pass}, on_leave))
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
        self._every, self._with_lessons = every, lessons
        self._steps, self._open, self._measured = 0, True, False
        self._pass: _Pass | None = None
        self._kernels = {name: _Kernel(self, name) for name in self.weights}
        self._ran: set[str] = set()
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
        return self._filters(("norm", "map_gradient", "weight_gradient"), ("batches", "images"))

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
        return self._filters(("kept", "replaced", *LESSONS), ("steps",))

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
                **numbers["histogram"],
                **ends,
                "counts": numbers["histogram"]["counts"].tolist(),
                "images": numbers["images"],
            }
            for epoch, blocks in self._epochs
            for block, numbers in blocks.items()
        ]

    def end_epoch(self, row: Mapping | None = None) -> None:
        """Closes an epoch; an epoch without a measured pass leaves no rows.

        Args:
            row: the epoch's row as `catchup.fit` gives it; its "epoch" is taken. None counts on
                from the last one.
        """
        last = max((epoch for epoch, _ in self._epochs), default=0)
        epoch = last + 1 if row is None else row["epoch"]
        numbers = {name: _read(tally) for name, tally in self._tallies.items() if tally.images}
        if numbers:
            self._epochs.append((int(epoch), numbers))
        self._tallies = {name: BlockTally() for name in self.blocks}

    def _filters(self, own: Sequence[str], shared: Sequence[str]) -> list[dict]:
        """A row per epoch, block and filter: the filter's `own` values, and the block's."""
        rows = []
        for epoch, blocks in self._epochs:
            for block, numbers in blocks.items():
                common = {key: numbers[key] for key in shared}
                columns = zip(*(numbers[key].tolist() for key in own))
                for place, values in enumerate(columns):
                    head = {"epoch": epoch, "block": block, "filter": place}
                    rows.append({**head, **dict(zip(own, values)), **common})
        return rows

    # -- hooks -------------------------------------------------------------------------------------

    def _begin_pass(self, model: nn.Module) -> None:
        own = model.training and torch.is_grad_enabled() and not is_side_pass()
        self._pass = _Pass() if self._open and own else None
        if self._pass is not None:
            self._measured = self._pass.measured = self._steps % self._every == 0
            self._steps += 1

    def _block_hook(self, name: str) -> Callable[[nn.Module, object], None]:
        def hook(_module: nn.Module, maps: object) -> None:
            now = self._pass
            if now is None or not now.measured or is_side_pass():
                return
            if not isinstance(maps, Tensor) or maps.ndim != 4:
                shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
                raise ValueError(
                    f"block {name!r} must return maps (B, C, H, W) to be recorded, got {shape}"
                )
            if name not in now.norms:
                self._measure(name, now, maps)
            # Activation checkpointing runs a block again, and only then its maps have a graph.
            if maps.requires_grad and name not in now.awaited:
                now.awaited.add(name)
                tally, norms = self._tallies[name], now.norms[name]
                maps.register_hook(lambda grad: _add_map_gradient(name, now, tally, norms, grad))

        return hook

    def _measure(self, name: str, now: "_Pass", maps: Tensor) -> None:
        """The maps of a block, at its first run in a pass."""
        tally, norms = self._tallies[name], filter_influence(maps)
        now.norms[name] = norms
        self._ran.add(name)
        tally.norm.add(norms)
        tally.channels, tally.images = maps.shape[1], tally.images + len(maps)
        tally.batches += 1

    def _watch(self, block: str | None, draw: Draw, mixed: Mixed) -> None:
        now = self._pass
        keep = None if mixed.keep is None or block not in self._tallies else mixed.keep
        if now is not None:
            now.mixed = block
        if not self._open or keep is None or keep.shape != (*mixed.maps.shape[:2], 1, 1):
            return  # not a choice of whole channels
        tally, keep = self._tallies[block], keep[:, :, 0, 0]
        tally.kept = tally.kept + keep.sum(dim=0)
        tally.replaced = tally.replaced + (~keep).sum(dim=0)
        tally.mixed_steps += 1
        if now is None or not now.measured or block not in now.norms:
            return
        norms = now.norms[block]
        partners = norms[draw.partner.to(norms.device, non_blocking=True)]
        lead = relative_filter_influence(norms, partners)
        tally.lead_kept.add(lead, keep)
        tally.lead_replaced.add(lead, ~keep)
        if mixed.maps.requires_grad:
            mixed.maps.register_hook(lambda grad: _lesson(tally, keep, grad))

    def _close(self) -> None:
        if any(tally.images for tally in self._tallies.values()):
            self.end_epoch()
        self._open, self._measured, self._pass = False, False, None
        if self._ran and (silent := [name for name in self.blocks if name not in self._ran]):
            warnings.warn(
                f"not recorded, for it did not run in a training step: {', '.join(silent)}",
                stacklevel=2,
            )


@dataclass
class _Pass:
    """The step's own forward pass that runs, or ran last.

    Attributes:
        measured: whether this step is one of those measured.
        mixed: the block that was mixed; None for the input or none.
        norms: {block: filter norms (B, C) of its maps}.
        awaited: blocks the gradient of whose maps is on its way.
    """

    measured: bool = False
    mixed: str | None = None
    norms: dict[str, Tensor] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)


class _Kernel:
    """The gradient of a block's kernels: gathered during a backward pass, added when it is done."""

    def __init__(self, record: Record, name: str):
        self.record, self.name = record, name
        self.gradient: Tensor | None = None

    def gather(self, grad: Tensor) -> None:
        """Takes up what goes through one use of the kernels."""
        self.gradient = grad.detach() if self.gradient is None else self.gradient + grad.detach()

    def replace(self, grad: Tensor) -> None:
        """Takes up the whole gradient of a parameter, summed over its uses already."""
        self.gradient = grad.detach()

    def add(self, _parameter: Tensor) -> None:
        """Called when a parameter has its gradient: `torch.autograd.grad` never comes here."""
        tally, gradient = self.record._tallies[self.name], self.gradient
        self.gradient = None
        if self.record._measured and gradient is not None and len(gradient) == tally.channels:
            tally.weight_gradient.add(filter_influence(gradient.flatten(1)[None]))


def _watch_kernel(
    stack: ExitStack, conv: nn.Module, kernel: _Kernel, on_leave: dict[nn.Module, Callable]
) -> None:
    """Hooks on the parameters that a convolution's kernels are, or are computed from."""
    weight = conv._parameters.get("weight")
    if weight is not None:
        sources = [weight]
        if weight.requires_grad:
            stack.callback(weight.register_hook(kernel.replace).remove)
    elif is_parametrized(conv, "weight"):
        computed = conv.parametrizations["weight"]
        sources = list(computed.parameters())
        on_leave[computed] = lambda _module, made: _gather_from(kernel, made)
    else:  # the older norms of torch.nn.utils, which set a plain tensor before each pass
        sources = list(conv._parameters.values())
        on_leave[conv] = lambda module, _output: _gather_from(kernel, module.weight)
    for source in sources:
        if source is not None and source.requires_grad:
            stack.callback(source.register_post_accumulate_grad_hook(kernel.add).remove)


def _gather_from(kernel: _Kernel, made: object) -> None:
    if isinstance(made, Tensor) and made.requires_grad:
        made.register_hook(kernel.gather)


def _add_map_gradient(
    name: str, now: _Pass, tally: BlockTally, norms: Tensor, grad: Tensor
) -> None:
    gradients = len(grad) * filter_influence(grad)
    tally.map_gradient.add(gradients)
    tally.histogram.add(norms, gradients)
    if now.mixed != name:
        tally.gradient_plain.add(gradients)


def _lesson(tally: BlockTally, keep: Tensor, grad: Tensor) -> None:
    gradients = len(grad) * filter_influence(grad)
    tally.gradient_kept.add(gradients, keep)
    tally.gradient_replaced.add(gradients, ~keep)


def _read(tally: BlockTally) -> dict:
    """A finished block, as numbers and small tensors on the CPU."""
    means = ("norm", "map_gradient", "weight_gradient", *LESSONS)
    none = torch.zeros(tally.channels, dtype=torch.int64)
    return {
        **{key: getattr(tally, key).read(tally.channels) for key in means},
        # whole numbers where no step mixed the block
        **{key: none + torch.as_tensor(getattr(tally, key)).cpu() for key in ("kept", "replaced")},
        "steps": tally.mixed_steps,
        "batches": tally.batches,
        "images": tally.images,
        "histogram": tally.histogram.read(),
    }


def _filters_of(model: nn.Module, block: str) -> str | None:
    """The convolution whose kernels are the filters of a block, by the order of registration."""
    inside, before = None, None
    for name, module in model.named_modules():
        beside = any(part in name.rsplit(".", 2)[-2:] for part in BRANCHES)
        if not isinstance(module, nn.Conv2d) or beside:
            continue
        if name == block or name.startswith(block + "."):
            inside = name
        elif inside is None and not _after(model, name, block):
            before = name
    return inside or before


def _after(model: nn.Module, name: str, block: str) -> bool:
    names = [known for known, _ in model.named_modules()]
    return names.index(name) > names.index(block)
