"""Compiling a model block by block, so that the hooks between the blocks still run."""

import copy
from typing import Any

import torch
from torch import nn

from .blocks import find_blocks, is_compiled, submodule


def compile_blocks(model: nn.Module, blocks: list[str] | None = None, **options: Any) -> nn.Module:
    """The model, its blocks compiled one by one, so that hooks between them still run.

    Args:
        model: not compiled as a whole; changed in place and returned. Blocks that are compiled
            already stay as they are.
        blocks: qualified names; by default what `find_blocks` finds.
        options: passed to `torch.compile` (`mode=`, `backend=`, …).
    """
    for module in [submodule(model, name) for name in blocks or find_blocks(model)]:
        if not is_compiled(module):
            # forward only: the hooks around it stay outside
            module.forward = CompiledForward(module, options)
    return model


class CompiledForward:
    """A module's forward, compiled. A deep copy of the module compiles its own, over its own
    weights.
    """

    def __init__(self, module: nn.Module, options: dict[str, Any]) -> None:
        self.module, self.options = module, options
        self.call = torch.compile(type(module).forward.__get__(module), **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def __deepcopy__(self, memo: dict) -> "CompiledForward":
        return CompiledForward(copy.deepcopy(self.module, memo), self.options)
