"""Watching a model's forward passes from outside: no hook on the model itself, so that its copies
have none, and which passes are a training step's own.

PyTorch calls a global hook for every module that runs. Here it is asked whether the module is one
of those given, by identity: a deep copy, a moving average or a pickled model is another module and
is left alone.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

_beside: ContextVar[bool] = ContextVar("beside", default=False)


@contextmanager
def side_passes() -> Iterator[None]:
    """Inside the block, forward passes stand beside a training step's own: a saliency pass, a
    teacher's, the further copies of a consistency loss. Their gradient counts, their maps do not.
    """
    token = _beside.set(True)
    try:
        yield
    finally:
        _beside.reset(token)


def is_side_pass() -> bool:
    """Whether a forward pass that runs now is one of `side_passes`."""
    return _beside.get()


@contextmanager
def watching(
    on_enter: Mapping[nn.Module, Callable[[nn.Module], None]],
    on_leave: Mapping[nn.Module, Callable[[nn.Module, object], None]],
) -> Iterator[None]:
    """Inside the block, calls are made when these modules run; nothing is changed.

    Args:
        on_enter: {module: called with it before each of its forward passes}.
        on_leave: {module: called with it and its output behind each of its forward passes, before
            the hooks of the module itself}.
    """

    def enter(module: nn.Module, _args: object) -> None:
        if (call := on_enter.get(module)) is not None:
            call(module)

    def leave(module: nn.Module, _args: object, output: object) -> None:
        if (call := on_leave.get(module)) is not None:
            call(module, output)

    # where a part of the model is compiled, the hooks are not: a compiler would trace through them
    if "torch._dynamo" in sys.modules:
        enter, leave = torch.compiler.disable(enter), torch.compiler.disable(leave)
    with register_module_forward_pre_hook(enter), register_module_forward_hook(leave):
        yield
