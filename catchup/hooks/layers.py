"""Looking into a model and changing what a layer passes on, for the length of a `with` block and no
longer.

Nothing here knows a mixing method: a hook gets a function from tensor to tensor. Hooks are global
state of a module, so they are set on entering, removed on leaving, and a layer that was named but
did not run is an error, never silence.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..utils.choices import misfit
from .blocks import unwrap

COMPILED = (
    "the model is compiled as a whole (torch.compile), and a compiled model skips hooks; "
    "compile its blocks instead: catchup.compile_blocks(model)"
)


@contextmanager
def edited(model: nn.Module, layer: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block, `layer` of `model` returns `edit(output)`; afterwards the model is as it
    was, also on error.

    Args:
        model: any module, also wrapped for DDP.
        layer: qualified name of a submodule, as in `model.named_modules()` of the unwrapped model.
        edit: what becomes of the layer's output. Runs in the forward pass, so autograd sees it.
    Raises:
        ValueError: before any hook is set, if there is no such layer.
        RuntimeError: if the model cannot be edited by hooks (compiled as a whole, DataParallel), if
            the layer runs inside activation checkpointing (its recomputation would miss the edit),
            or if on leaving it turns out that the layer did not run exactly once.
    """
    module = hookable(model, layer)
    outside, calls, active = _grad_state(), [], True

    def hook(_module, _args, output):
        if not active:  # a compiler may have kept a stale reference: it must do nothing
            return None
        if _grad_state() != outside:
            raise RuntimeError(
                f"layer {layer!r} runs inside activation checkpointing (or no_grad, or saved-tensor"
                " hooks), where a second run would miss the edit; name a layer outside it or"
                " around it"
            )
        calls.append(layer)
        return edit(output)

    # where forward functions are compiled, the hook itself stays plain Python
    if "torch._dynamo" in sys.modules:
        hook = torch.compiler.disable(hook)
    try:
        with module.register_forward_hook(hook):
            yield
    finally:
        active = False
    if len(calls) != 1:
        times = "did not run" if not calls else f"ran {len(calls)} times"
        raise RuntimeError(
            f"layer {layer!r} {times} in this forward pass; it has to run exactly once to be mixed."
            " Name another block (catchup.find_blocks lists them)"
        )


@contextmanager
def captured(model: nn.Module, *layers: str) -> Iterator[dict[str, list[Tensor]]]:
    """Inside the block, collects what the named layers return.

    Args:
        model: any module. layers: qualified names in the unwrapped model.
    Yields:
        {name: [one detached copy per call]}, filled as the model runs.
    Raises:
        ValueError: before any hook is set, if there is no such layer; in the forward pass, if one
            returns no tensor.
    """
    # a wrong name fails before any hook exists
    modules = {layer: submodule(model, layer) for layer in layers}
    seen: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: str, output: Tensor) -> None:
        if not isinstance(output, Tensor):
            raise ValueError(f"layer {layer!r} returns no tensor but a {type(output).__name__}")
        seen[layer].append(output.detach().clone())  # a copy: the next layer may work in place

    handles = [
        module.register_forward_hook(lambda _m, _a, output, layer=layer: keep(layer, output))
        for layer, module in modules.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


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
        raise ValueError(f"a CNN is needed, {type(model).__name__} has no convolution")
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


def submodule(model: nn.Module, layer: str) -> nn.Module:
    """The submodule of that qualified name in the unwrapped model; ValueError with the nearest if
    there is none.
    """
    try:
        return unwrap(model).get_submodule(layer)
    except AttributeError:
        names = [name for name, _ in unwrap(model).named_modules() if name]
        raise ValueError(misfit("layer", layer, names)) from None


def hookable(model: nn.Module, layer: str) -> nn.Module:
    """The submodule `layer`, if a forward hook on it would really run.

    Raises:
        ValueError: if there is no such layer.
        RuntimeError: if the model is compiled as a whole, or wrapped in DataParallel.
    """
    module = submodule(model, layer)
    if any(isinstance(part, nn.DataParallel) for part in _wrappers(model)):
        raise RuntimeError(
            "DataParallel splits the batch inside the model, so pairs cannot be mixed; "
            "use DistributedDataParallel or one device"
        )
    path = [
        unwrap(model).get_submodule(layer.rsplit(".", n)[0] if n else layer)
        for n in range(layer.count(".") + 1)
    ]
    for part in (*_wrappers(model), unwrap(model), *path):
        if hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None:
            raise RuntimeError(COMPILED)
    return module


def _wrappers(model: nn.Module) -> list[nn.Module]:
    """The wrappers around the model, outermost first."""
    found, bare = [], unwrap(model)
    while model is not bare:
        found.append(model)
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return found


def _grad_state() -> tuple[bool, bool]:
    """Is autograd on, and does something intercept what it saves? Checkpointing changes one of the
    two.
    """
    # private: absent means unknown
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return torch.is_grad_enabled(), top is not None and top(True) is not None


class _Reached(Exception):
    """Carries a block's output out of the forward pass."""


def _stop(_module: nn.Module, _args, output) -> None:
    raise _Reached(output)
