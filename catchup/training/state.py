"""A run's state: all that the next step follows from, as plain values for a checkpoint, and back.

What several processes have each of their own (the mixer's generator and history, the global
generators, the place in the augmentation, the running statistics) is gathered into the one
checkpoint, and given back to the same process. Nothing in the package draws from Python's or
NumPy's global generators; what a model or method of your own draws from them is not stored.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.identity import check_same_data
from ..mixers import Mixer
from ..utils.files import jsonable
from ..utils.schema import is_epoch
from .checkpoint import CheckpointError
from .settings import WITHOUT_EFFECT, Settings


@dataclass
class Epoch:
    """The epoch under way: what it has summed up, and the generator of its augmentation."""

    number: int
    augment: torch.Generator
    batches: int = 0
    images: int = 0
    totals: Tensor | float = 0.0
    time_s: float = 0.0
    lr: float = 0.0

    def add(self, images: int, totals: Tensor, time_s: float) -> None:
        """Counts a batch of so many images; `time_s` is that of the whole epoch so far."""
        self.batches, self.images = self.batches + 1, self.images + images
        self.totals, self.time_s = self.totals + totals, time_s

    def state_dict(self) -> dict[str, Any]:
        """Plain values; `restore` makes the same of them."""
        return {**vars(self), "augment": self.augment.get_state()}

    @classmethod
    def restore(
        cls, state: dict[str, Any] | None, number: int, steps: int, device: torch.device
    ) -> "Epoch | None":
        """The epoch that `state` describes, its sums on `device`; None if none was under way.

        Raises:
            ValueError: if it is not the epoch `number`, or has not 1 to `steps` batches.
        """
        if not state:
            return None
        if state["number"] != number or not 0 <= state["batches"] <= steps:
            raise ValueError(
                f"{state['batches']} batches of epoch {state['number']}, where epoch {number} with "
                f"at most {steps} was under way"
            )
        augment = torch.Generator()
        augment.set_state(state["augment"])
        totals = state["totals"]
        totals = totals.to(device) if isinstance(totals, Tensor) else float(totals)
        return cls(**{**state, "augment": augment, "totals": totals})


def process_state(under_way: Epoch | None, mixer: Mixer) -> dict[str, Any]:
    """What every process has of its own, as plain values."""
    return {
        "under_way": under_way and under_way.state_dict(),
        "mixer": mixer.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(own: Mapping[str, Any]) -> None:
    """Sets torch's global generators to those of a `process_state`."""
    torch.set_rng_state(own["torch_rng"])
    if torch.cuda.is_available() and len(own["cuda_rng"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(own["cuda_rng"])


def describe_run(settings: Settings, mixer: Mixer) -> dict[str, Any]:
    """What makes two runs the same run; own functions count by their name."""
    chosen = {field.name: getattr(mixer, field.name) for field in fields(mixer)}
    named = {key: getattr(value, "__qualname__", value) for key, value in chosen.items()}
    deciding = {
        key: value for key, value in settings.as_dict().items() if key not in WITHOUT_EFFECT
    }
    return jsonable({**deciding, "mixer": {"class": type(mixer).__name__, **named}})


@contextmanager
def guard_parts(out: Path | None) -> Iterator[None]:
    """Inside the block a part of the state that is missing or impossible becomes a
    CheckpointError.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError(
            f"the checkpoint in {out} lacks a part, or holds something impossible there "
            f"({type(error).__name__}: {str(error)[:300]}): restore a copy, or train it again"
        ) from error


def load_weights(
    model: nn.Module, weights: dict[str, Tensor], buffers: Mapping[str, Tensor], out: Path | None
) -> None:
    """Loads the weights, and the process's own running statistics; CheckpointError if they are
    another model's.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise CheckpointError(
            f"the checkpoint in {out} holds the weights of another model"
        ) from None
    for name, value in buffers.items():
        model.get_buffer(name).copy_(value)


def check_position(state: Mapping[str, Any], epochs: int, step: int) -> None:
    """ValueError unless the epochs, their rows and the schedule of a state agree on `step`."""
    rows = state["rows"]
    if state["epoch"] != len(rows) or len(rows) > epochs:
        raise ValueError(
            f"epoch {state['epoch']} with the rows of {len(rows)} epochs, of a run of {epochs}"
        )
    if not all(map(is_epoch, rows)):
        raise ValueError("a row that is none of an epoch")
    if state["schedule"]["last_epoch"] != step:
        raise ValueError(
            f"a schedule at step {state['schedule']['last_epoch']}, where {step} were done"
        )


def check_run(
    state: Mapping[str, Any],
    run: Mapping[str, Any],
    identity: Mapping[str, Any] | None,
    out: Path | None,
    processes: int,
    device: torch.device,
) -> None:
    """ValueError if a state is of another run than `run`, of other data, or of other processes;
    a warning if the numbers will differ in their last digits.
    """
    if state.get("run") != run:
        raise ValueError(
            f"{out} holds a checkpoint of another run: {state.get('run')}, this one is {run}"
        )
    check_same_data(state.get("data"), identity, f"{out} holds a checkpoint")
    if state.get("processes") != processes:
        raise ValueError(
            f"the checkpoint in {out} was written by {state.get('processes')} process(es), and "
            f"this run has {processes}: other processes mix other batches. Start it with as many "
            f"(torchrun --nproc-per-node={state.get('processes')}), or begin a new run in another "
            "folder"
        )
    for what, here in (("threads", torch.get_num_threads()), ("device", device.type)):
        if state.get(what, here) != here:
            warnings.warn(
                f"{out} was trained with {what} {state[what]}, and goes on with {here}: the last"
                " digits of the weights will differ from those of a run that was never stopped",
                stacklevel=7,
            )
