"""Acting inside a model for the length of a step: hooks behind named layers, each with a generator
of its own.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ...hooks.blocks import unwrap
from ...hooks.compiled import _CompiledForward
from ...hooks.layers import _grad_state, hookable
from .seeds import generator

# (which of the layers; its output; where its chance is from)
Act = Callable[[int, Tensor, torch.Generator], Tensor]


@contextmanager
def acting(
    model: nn.Module, layers: Sequence[str], act: Act, seed: int, name: str
) -> Iterator[None]:
    """Inside the block each layer returns act(index, output, generator); afterwards the model is as
    it was.

    A layer acts as a module put behind it would: in the passes in which the module that holds it is
    in training mode. It may run any number of times; every layer draws from one generator, made
    anew from (seed, name, index) on entering, so that passes differ and a replayed step does not.

    Args:
        model: any module, also wrapped for DDP. layers: qualified names in the unwrapped model;
            none does nothing.
        act: what becomes of a layer's output (B, …); must not change it in place.
        seed, name: see `generator`.
    Raises:
        ValueError: before any hook is set, if there is no such layer; in the pass, if one returns
            no tensor.
        RuntimeError: if hooks would not run or would be missed later (compiled as a whole or inside
            a compiled block, DataParallel, activation checkpointing, a training pass without
            gradients), and on leaving, if a layer did not run at all.
    """
    modules, holders = (
        [_reachable(model, layer) for layer in layers],
        [_holder(model, layer) for layer in layers],
    )
    outside, ran, dice, active = _grad_state(), set(), {}, True

    def hook(index: int, _module: nn.Module, _args: tuple, output: Tensor) -> Tensor | None:
        if not active:  # a compiler may have kept a stale reference: it must do nothing
            return None
        ran.add(index)
        if not holders[index].training:
            return None
        _check_pass(layers[index], output, outside)
        if index not in dice:
            dice[index] = generator(seed, name, index, output.device)
        return act(index, output, dice[index])

    # where forward functions are compiled, the hook itself stays plain Python
    if "torch._dynamo" in sys.modules:
        hook = torch.compiler.disable(hook)
    try:
        with ExitStack() as stack:
            for index, module in enumerate(modules):
                stack.enter_context(module.register_forward_hook(partial(hook, index)))
            yield
    finally:
        active = False
    if len(ran) < len(layers):
        missed = next(layer for index, layer in enumerate(layers) if index not in ran)
        raise RuntimeError(
            f"layer {missed!r} did not run in this step, so {name} could not act behind it; "
            "name the layers it is to act behind"
        )


def remembered(
    search: Callable[[nn.Module], Sequence[str]],
) -> Callable[[nn.Module], tuple[str, ...]]:
    """`search`, its answer remembered per unwrapped model: a step may not pay for the search again."""
    found: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()

    @wraps(search)
    def look(model: nn.Module) -> tuple[str, ...]:
        bare = unwrap(model)
        if bare not in found:
            found[bare] = tuple(search(bare))
        return found[bare]

    return look


def _reachable(model: nn.Module, layer: str) -> nn.Module:
    """The layer's module; RuntimeError if it stands inside a block compiled by `compile_blocks`,
    where no hook runs.
    """
    module, holder = hookable(model, layer), layer.rpartition(".")[0]
    while holder:
        if isinstance(
            unwrap(model).get_submodule(holder).__dict__.get("forward"), _CompiledForward
        ):
            raise RuntimeError(
                f"layer {layer!r} is inside the compiled block {holder!r}, which skips hooks; "
                "train this model without compile_blocks, or act behind whole blocks"
            )
        holder = holder.rpartition(".")[0]
    return module


def _holder(model: nn.Module, layer: str) -> nn.Module:
    """The module that a layer is a child of. Its own mode says less: batch norm alone is often
    frozen.
    """
    return unwrap(model).get_submodule(layer.rpartition(".")[0])


def _check_pass(layer: str, output: Tensor, outside: tuple[bool, bool]) -> None:
    if not isinstance(output, Tensor) or output.ndim < 2:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"layer {layer!r} must return maps (B, C, …), got {got}; name another layer"
        )
    if _grad_state() != outside:
        raise RuntimeError(
            f"layer {layer!r} runs inside activation checkpointing (or in training mode without"
            " gradients, or under saved-tensor hooks), where a second run would miss the"
            " regulariser; name layers outside it, or look things up in evaluation mode"
        )
