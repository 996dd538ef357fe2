"""Looking into a model and changing what a layer passes on, for the length of a `with` block and no
longer.

Nothing here knows a mixing method: a hook gets a function from tensor to tensor. Hooks are global
state of a module, so they are set on entering, removed on leaving, and a layer that was named but
did not run is an error, never silence.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import is_compiled, submodule, uncompiled, unwrap
from .compiled import CompiledForward

COMPILED = (
    "the model is compiled as a whole (torch.compile), and a compiled model skips hooks; "
    "compile its blocks instead: catchup.compile_blocks(model)"
)
INSIDE = (
    "layer {layer!r} is inside the compiled block {holder!r}, which skips hooks; train this model "
    "without compiling it, or act behind whole blocks"
)
CHECKPOINTED = (
    "layer {layer!r} runs inside activation checkpointing (or in training mode without gradients,"
    " or under saved-tensor hooks), where a second run would miss the change; name layers outside"
    " it or around it, or look things up in evaluation mode"
)


@contextmanager
def hooked(
    model: nn.Module,
    layers: Iterable[str],
    act: Callable[[str, Any], Tensor | None],
    *,
    when: Callable[[str], bool] = lambda layer: True,
    changes: bool = True,
) -> Iterator[Counter[str]]:
    """Inside the block `act(layer, output)` runs behind each layer. All hooks on layers are set
    here.

    Args:
        model: any module, also wrapped for DDP.
        layers: qualified names, as in `model.named_modules()` of the unwrapped model.
        act: what takes the place of the layer's output; None leaves it.
        when: in which of a layer's runs to act; asked in the forward pass.
        changes: whether `act` changes outputs; where it only looks, checkpointing does no harm.
    Yields:
        How often each layer has run so far.
    Raises:
        ValueError: before any hook is set, if there is no such layer.
        RuntimeError: if hooks would not run (see `hookable`), or, where `act` changes outputs, if a
            layer runs inside activation checkpointing, whose second run would miss the change.
    """
    modules = {layer: hookable(model, layer) for layer in layers}
    outside, runs, active = _grad_state(), Counter[str](), True

    def hook(layer: str, _module: nn.Module, _args: tuple, output: Any) -> Tensor | None:
        if not active:  # a compiler may have kept a stale reference: it must do nothing
            return None
        runs[layer] += 1
        if not when(layer):
            return None
        if changes and _grad_state() != outside:
            raise RuntimeError(CHECKPOINTED.format(layer=layer))
        return act(layer, output)

    # where forward functions are compiled, the hook itself stays plain Python
    if "torch._dynamo" in sys.modules:
        hook = torch.compiler.disable(hook)
    try:
        with ExitStack() as stack:
            for layer, module in modules.items():
                stack.enter_context(module.register_forward_hook(partial(hook, layer)))
            yield runs
    finally:
        active = False


@contextmanager
def edited(model: nn.Module, layer: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block, `layer` of `model` returns `edit(output)`; afterwards the model is as it
    was, also on error.

    Args:
        model: any module, also wrapped for DDP.
        layer: qualified name of a submodule, as in `model.named_modules()` of the unwrapped model.
        edit: what becomes of the layer's output. Runs in the forward pass, so autograd sees it.
    Raises:
        ValueError, RuntimeError: as `hooked`.
        RuntimeError: also if on leaving it turns out that the layer did not run exactly once.
    """
    with hooked(model, [layer], lambda _, output: edit(output)) as runs:
        yield
    if runs[layer] != 1:
        times = f"ran {runs[layer]} times" if runs[layer] else "did not run"
        raise RuntimeError(
            f"layer {layer!r} {times} in this forward pass; it has to run exactly once to be mixed."
            " Name another block (catchup.find_blocks lists them)"
        )


@contextmanager
def captured(model: nn.Module, *layers: str) -> Iterator[dict[str, list[Tensor]]]:
    """Inside the block, collects what the named layers return.

    Args:
        model: any module, also wrapped for DDP.
        layers: qualified names in the unwrapped model.
    Yields:
        {name: [one detached copy per call]}, filled as the model runs.
    Raises:
        ValueError, RuntimeError: as `hooked`.
        ValueError: also in the forward pass, if a layer returns no tensor.
    """
    outputs: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: str, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise ValueError(f"layer {layer!r} returns no tensor but a {type(output).__name__}")
        outputs[layer].append(output.detach().clone())  # a copy: the next layer may work in place

    with hooked(model, layers, keep, changes=False):
        yield outputs


def map_channels(model: nn.Module, block: str) -> int:
    """Number of channels that a block returns, found by running the model up to it on two blank
    images.

    In evaluation mode and without gradients, so that nothing changes; what comes behind the block
    does not run.

    Args:
        model: the bare model. block: qualified name of a submodule.
    Raises:
        ValueError: if there is no such block, the model has no convolution, or the block returns no
            (B, C, h, w) maps.
    """
    module = submodule(model, block)
    first = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"a CNN is needed, {type(model).__name__} has no 2-D convolution")
    blank = torch.zeros(
        2, first.in_channels, 64, 64, dtype=first.weight.dtype, device=first.weight.device
    )
    maps = None
    with evaluating(model), torch.no_grad(), module.register_forward_hook(_stop):
        try:
            model(blank)
        except _Reached as reached:
            maps = reached.args[0]
    if not isinstance(maps, Tensor) or maps.ndim != 4 or len(maps) != 2:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(
            f"block {block!r} must return maps (B, C, h, w), got {got} for two images; name another"
            " block"
        )
    return maps.shape[1]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside the block the model is in evaluation mode; afterwards every submodule is back in the
    mode it had.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def count_hooks(model: nn.Module) -> int:
    """Number of hooks of any kind on the model and all its submodules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def hookable(model: nn.Module, layer: str) -> nn.Module:
    """The submodule `layer`, if a forward hook on it would really run.

    Raises:
        ValueError: if there is no such layer.
        RuntimeError: if the model is compiled as a whole, the layer lies inside a block compiled by
            `compile_blocks`, or the model is wrapped in DataParallel.
    """
    module, bare = submodule(model, layer), unwrap(model)
    wrappers = _wrappers(model)
    if any(isinstance(part, nn.DataParallel) for part in wrappers):
        raise RuntimeError(
            "DataParallel splits the batch inside the model, so pairs cannot be mixed; "
            "use DistributedDataParallel or one device"
        )
    parents = [layer.rsplit(".", n)[0] for n in range(1, layer.count(".") + 1)]
    holders = {name: bare.get_submodule(name) for name in parents}
    if any(is_compiled(part) or _calls_compiled(part) for part in (*wrappers, bare)):
        raise RuntimeError(COMPILED)
    for name, holder in holders.items():
        own = isinstance(vars(holder).get("forward"), CompiledForward)
        if own or is_compiled(holder) or _calls_compiled(holder):
            raise RuntimeError(INSIDE.format(layer=layer, holder=name))
    if _calls_compiled(uncompiled(module)):
        raise RuntimeError(
            f"layer {layer!r} was compiled with its hooks ({layer}.compile()) and skips later"
            " ones; compile its forward alone: catchup.compile_blocks(model)"
        )
    return module


def _calls_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called, which compiles the hooks along."""
    return getattr(module, "_compiled_call_impl", None) is not None


def _wrappers(model: nn.Module) -> list[nn.Module]:
    """The wrappers around the model, outermost first."""
    wrappers: list[nn.Module] = []
    bare = unwrap(model)
    while model is not bare:
        wrappers.append(model)
        model = model.get_submodule("_orig_mod" if is_compiled(model) else "module")
    return wrappers


def _grad_state() -> tuple[bool, bool]:
    """Is autograd on, and does something intercept what it saves? Checkpointing changes one of the
    two.
    """
    # private: absent means unknown
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return torch.is_grad_enabled(), top is not None and top(True) is not None


class _Reached(Exception):
    """Carries a block's output out of the forward pass."""


def _stop(_module: nn.Module, _args: tuple, output: Any) -> None:
    raise _Reached(output)
