"""Acting inside a model for the length of a step: hooks behind named layers, each with a generator
of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...hooks.blocks import unwrap
from ...hooks.layers import hooked
from .seeds import generator

Act = Callable[[int, Tensor, torch.Generator], Tensor]


@contextmanager
def act_behind(
    model: nn.Module, layers: Sequence[str], act: Act, seed: int, name: str
) -> Iterator[None]:
    """Inside the block each layer returns act(index, output, generator); afterwards the model is as
    it was.

    A layer acts as a module put behind it would: in the passes in which the module that holds it is
    in training mode. It may run any number of times; every layer draws from one generator, made
    anew from (seed, name, index) on entering, so that passes differ and a replayed step does not.

    Args:
        model: any module, also wrapped for DDP.
        layers: qualified names in the unwrapped model; none does nothing.
        act: what becomes of a layer's output (B, …); must not change it in place.
        seed: of the step, see `generator`.
        name: of the regulariser, see `generator`.
    Raises:
        ValueError, RuntimeError: as `catchup.hooks.hooked`.
        ValueError: also in the pass, if a layer returns no maps.
        RuntimeError: also on leaving, if a layer did not run at all.
    """
    places = {layer: index for index, layer in enumerate(layers)}
    dice: dict[str, torch.Generator] = {}

    def training(layer: str) -> bool:  # the holder's mode: batch norm alone is often frozen
        return unwrap(model).get_submodule(layer.rpartition(".")[0]).training

    def behind(layer: str, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim < 2:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer {layer!r} must return maps (B, C, …), got {got}; name another layer"
            )
        if layer not in dice:
            dice[layer] = generator(seed, name, places[layer], output.device)
        return act(places[layer], output, dice[layer])

    with hooked(model, places, behind, when=training) as runs:
        yield
    idle = next((layer for layer in places if not runs[layer]), None)
    if idle is not None:
        raise RuntimeError(
            f"layer {idle!r} did not run in this step, so {name} could not act behind it; "
            "name the layers it is to act behind"
        )
