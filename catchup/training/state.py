"""A run's state: all that the next step follows from, as plain values for a checkpoint, and back.

What several processes have each of their own (the mixer's generator and history, the global
generators, the place in the augmentation, the running statistics) is gathered into the one
checkpoint, and given back to the same process. Nothing in the package draws from Python's or
NumPy's global generators; what a model or method of your own draws from them is not stored.
"""

import warnings
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..mixers import Mixer
from ..utils.files import jsonable
from . import checkpoint
from .machine.distributed import gathered, world
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

    def state(self) -> dict:
        """Plain values; `of` makes the same of them."""
        return {**vars(self), "augment": self.augment.get_state()}

    @classmethod
    def of(cls, state: dict, device: torch.device) -> "Epoch":
        """The epoch that `state` described, its sums on `device`."""
        augment = torch.Generator()
        augment.set_state(state["augment"])
        return cls(**{**state, "augment": augment, "totals": state["totals"].to(device)})


def stored(run) -> dict:
    """The state of a `catchup.training.loop.Run`. Every process has to call it; the one that writes
    has that of all.
    """
    bare = run.accelerator.unwrap_model(run.model)
    own = {
        "under_way": run.under_way and run.under_way.state(),
        "mixer": run.mixer.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    several = (
        {}
        if world()[1] == 1
        else {"ranks": gathered({**own, "buffers": dict(bare.named_buffers())})}
    )
    return {
        "format": checkpoint.FORMAT,
        "epoch": len(run.rows),
        "rows": run.rows,
        "model": bare.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        **own,
        "scaler": run.accelerator.scaler and run.accelerator.scaler.state_dict(),
        "run": identity(run.settings, run.mixer),
        "processes": world()[1],
        "threads": torch.get_num_threads(),
        "device": run.accelerator.device.type,
        **several,
    }


def take_up(run, state: dict) -> None:
    """Puts a `catchup.training.loop.Run` where the stored one was; warns if the numbers will differ
    in their last digits.

    Raises:
        ValueError: if it is of another run, or of another number of processes. CheckpointError: of
            another model, or if a part of it is missing or of another kind.
    """
    _check(run, state)
    try:
        _put(run, state)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise checkpoint.CheckpointError(
            f"the checkpoint in {run.out} lacks a part, or holds something else there "
            f"({type(error).__name__}: {error}): restore a copy, or train "
            "it again"
        ) from error


def _put(run, state: dict) -> None:
    bare = run.accelerator.unwrap_model(run.model)
    try:
        bare.load_state_dict(state["model"])
    except RuntimeError:
        raise checkpoint.CheckpointError(
            f"the checkpoint in {run.out} holds the weights of another model"
        ) from None
    run.optimizer.load_state_dict(state["optimizer"])
    run.schedule.load_state_dict(state["schedule"])
    if run.accelerator.scaler and state["scaler"]:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    own = state["ranks"][world()[0]] if "ranks" in state else state
    for name, value in own.get("buffers", {}).items():
        bare.get_buffer(name).copy_(value)
    if under_way := own.get("under_way"):
        run.under_way = Epoch.of(under_way, run.accelerator.device)
        # its own process never saw it begin
        run.mixer.begin_epoch(run.under_way.number, run.settings.epochs)
    run.mixer.load_state_dict(own["mixer"])
    torch.set_rng_state(own["torch_rng"])
    if torch.cuda.is_available() and len(own["cuda_rng"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(own["cuda_rng"])
    run.rows = list(state["rows"])


def identity(settings: Settings, mixer: Mixer) -> dict:
    """What makes two runs the same run; own functions count by their name."""
    chosen = {field.name: getattr(mixer, field.name) for field in fields(mixer)}
    named = {key: getattr(value, "__qualname__", value) for key, value in chosen.items()}
    deciding = {
        key: value for key, value in settings.as_dict().items() if key not in WITHOUT_EFFECT
    }
    return jsonable({**deciding, "mixer": {"class": type(mixer).__name__, **named}})


def _check(run, state: dict) -> None:
    now, before = identity(run.settings, run.mixer), state.get("run")
    if before != now:
        raise ValueError(
            f"{run.out} holds a checkpoint of another run: {before}, this one is {now}"
        )
    processes = state.get("processes", world()[1])  # an older checkpoint does not say
    if processes != world()[1]:
        raise ValueError(
            f"the checkpoint in {run.out} was written by {processes} process(es), and this run has "
            f"{world()[1]}: other processes mix other batches. Start it with as many "
            f"(torchrun --nproc-per-node={processes}), or begin a new run in another folder"
        )
    for what, here in (
        ("threads", torch.get_num_threads()),
        ("device", run.accelerator.device.type),
    ):
        if state.get(what, here) != here:
            warnings.warn(
                f"{run.out} was trained with {what} {state[what]}, and goes on with {here}: the"
                " last digits of the weights will differ from those of a run that was never"
                " stopped",
                stacklevel=6,
            )
