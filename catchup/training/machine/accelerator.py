"""The engine of a run, by accelerate: device, precision and processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..settings import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator

# what accelerate sets on a model
_ENGINES = ("forward", "_original_forward", "_is_accelerate_prepared")


@contextmanager
def restore_model(model: nn.Module) -> Iterator[None]:
    """Afterwards the engine has left no trace on `model`: neither its mixed precision nor its mark,
    with which the model would be trained in float32 the next time, without a word.
    """
    own = vars(model)
    before = {name: own[name] for name in _ENGINES if name in own}
    try:
        yield
    finally:
        for name in _ENGINES:
            own.pop(name, None)
        own.update(before)


def make_accelerator(settings: Settings) -> "Accelerator":
    """The engine: device, precision and processes. One of another device or precision is replaced.

    Args:
        settings: with the precision decided (`resolve_precision`).
    Raises:
        ValueError: for fp16 without a GPU.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    precision, on_cpu = (
        {"fp32": "no"}.get(settings.precision, settings.precision),
        settings.device == "cpu",
    )
    if PartialState._shared_state and PartialState().num_processes == 1:
        wanted = "cpu" if on_cpu or not torch.cuda.is_available() else "cuda"
        if PartialState().device.type != wanted:
            AcceleratorState._reset_state(reset_partial_state=True)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    engine = Accelerator(mixed_precision=precision, cpu=on_cpu)
    # accelerate would train in fp32 without a word
    if precision == "fp16" and engine.device.type == "cpu":
        raise ValueError("precision fp16 needs a GPU; on a CPU use fp32 or bf16")
    return engine
