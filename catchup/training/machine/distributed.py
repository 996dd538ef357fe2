"""What the processes of one run tell each other: the largest of some numbers, and the state of
each.

One process tells itself, at no cost. The numbers go over gloo between CPUs, also where the
gradients go over NCCL: a signal, a clock or a number that is none must not make a GPU wait.
"""

import atexit
import gc
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

# before a group is formed: its functions' defaults would hold it for ever
if torch.distributed.is_available():
    import torch.distributed.nn.functional

# by the identity of the world, so that a new one does not meet an old one's group
_GROUPS: dict[int, Any] = {}


def world() -> tuple[int, int]:
    """(number of this process, number of processes); (0, 1) where torch.distributed is not set
    up.
    """
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if ready else (0, 1)


def all_reduce_max(*values: float) -> list[float]:
    """The largest of each value over all processes; every one has to call it, equally often.

    Args:
        values: any numbers but NaN.
    """
    if world()[1] == 1:
        return list(values)
    told = torch.tensor(values, dtype=torch.float64)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX, group=_between_cpus())
    return told.tolist()


def all_gather(state: dict) -> list[dict]:
    """The states of all processes, in their order, in every process; tensors are moved to the CPU
    first.

    Args:
        state: tensors, numbers, strings, None, lists, tuples and dictionaries.
    """
    if world()[1] == 1:
        return [state]
    states: list[Any] = [None] * world()[1]
    torch.distributed.all_gather_object(states, to_cpu(state), group=_between_cpus())
    return states


def to_cpu(value: Any) -> Any:
    """The same with every tensor on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: to_cpu(item) for key, item in value.items()}
    return type(value)(map(to_cpu, value)) if isinstance(value, (list, tuple)) else value


def destroy_group_at_exit() -> None:
    """Has the process leave its group first of all when it ends; for runs that went well, see
    `keep_group_at_exit`.

    Nothing else does. Threads of gloo may still hold a tensor of the last exchange then, wait for
    the interpreter in
    order to free it, and find it gone: that aborts the process (SIGABRT), after a run that went
    well. The threads end with the last reference to the group, so one that the caller keeps is one
    that keeps them.
    """
    keep_group_at_exit()  # once is enough
    atexit.register(_leave)


def keep_group_at_exit() -> None:
    """Takes `destroy_group_at_exit` back: a process that fails must not wait for the exchanges that
    the others are late for.
    """
    atexit.unregister(_leave)


def _leave() -> None:
    """Only what gloo joins: NCCL's threads need no interpreter, and its end may wait for the other
    processes.
    """
    groups = list(_GROUPS.values())
    _GROUPS.clear()
    gc.collect()  # DDP refers to the group, and to itself
    if not torch.distributed.is_initialized():
        return
    for group in [None] if torch.distributed.get_backend() == "gloo" else groups:
        torch.distributed.destroy_process_group(group)


def _between_cpus() -> Any:
    """The group of all processes over gloo; made by the first call, which all of them make
    together.
    """
    world_group = torch.distributed.group.WORLD
    if torch.distributed.get_backend() == "gloo":
        return world_group
    if id(world_group) not in _GROUPS:
        _GROUPS[id(world_group)] = torch.distributed.new_group(backend="gloo")
    return _GROUPS[id(world_group)]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """From now on the gradients of these parameters are averaged over all processes, as DDP does
    for its model's.

    For parameters outside the wrapped model (`Mixer.begin_run`'s): call it once, where
    torch.distributed is set up. Every process has to run the same backward passes.
    """

    def average(parameter: nn.Parameter) -> None:
        gradient: Any = parameter.grad  # it has just been accumulated
        torch.distributed.all_reduce(gradient)
        gradient /= torch.distributed.get_world_size()

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(average)
