"""What something costs: variants of one piece of work timed in turn, passes through a model
counted, memory watched.

Single timings on a shared machine say little; the ratio of neighbours in one process does. `python
-m benchmarks.timing` measures what recording the filters costs a training step; what a method costs
is in `benchmarks.method_cost`.
"""

import argparse
import gc
import json
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from catchup import models
from catchup.hooks.blocks import unwrap
from catchup.inspection.recorder import recording
from catchup.mixers import make
from catchup.utils.provenance import surroundings


def ratios(
    work: Mapping[str, Callable[[], None]],
    rounds: int = 15,
    clock: Callable[[], float] | None = None,
    turns: int = 1,
) -> dict:
    """Runs every variant once a round, in turn, the order reversed every other time.

    Args:
        work: {name: what to time}; the first is what the others are compared with. Each is run once
            before, untimed.
        rounds: ≥ 2.
        clock: seconds; None takes `clock_of` a GPU, if there is one, otherwise that of the CPU.
        turns: ≥ 1. Where there are more than one, each variant runs so often in a round, always one
            after the other, and the times of its turns are added up: neighbours come closer.
            Before, untimed, as often.
    Returns:
        {name: {"ratio": median over rounds of its time to the first's, "low", "high": quartiles of
        the ratio, "time_s": median of its time in a round}}.
    Raises:
        ValueError: if there is no work, `rounds` < 2 or `turns` < 1.
    """
    if not work or rounds < 2 or turns < 1:
        raise ValueError(
            f"there must be something to time, in at least 2 rounds, got {list(work)} and {rounds}"
            + (f", and at least 1 turn, got {turns}" if turns < 1 else "")
        )
    clock = clock or clock_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    times = {name: [0.0] * rounds for name in work}
    for _ in range(turns):
        for call in work.values():
            call()
    for turn in range(rounds * turns):
        for name in list(work)[:: -1 if turn % 2 else 1]:
            start = clock()
            work[name]()
            times[name][turn // turns] += clock() - start
    first = next(iter(times.values()))
    found = {}
    for name, took in times.items():
        ratio = [own / base for own, base in zip(took, first)]
        low, _, high = quantiles(ratio, n=4)
        found[name] = {"ratio": median(ratio), "low": low, "high": high, "time_s": median(took)}
    return found


def clock_of(device: torch.device) -> Callable[[], float]:
    """The clock, in seconds, for work on that device.

    On a CPU the process's own time, which other processes do not stretch (measure on one thread);
    elsewhere `wall_clock`.
    """
    return time.process_time if device.type == "cpu" else wall_clock(device)


def wall_clock(device: torch.device) -> Callable[[], float]:
    """The wall clock, in seconds, after waiting for the device."""

    def clock() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    return clock


@dataclass
class Passes:
    """Passes through networks of the model's kind and size, in batches: half a batch is half a
    pass.
    """

    forward: float = 0.0
    backward: float = 0.0


@dataclass
class Peak:
    """The highest amount of tensor memory in bytes; None where it cannot be measured."""

    bytes: int | None = None


@contextmanager
def count_passes(model: nn.Module, batch: int) -> Iterator[Passes]:
    """Inside the block counts the passes through the model and through copies of it, whoever made
    them.

    A copy is any module of the model's class with as many parameters. A forward pass counts when it
    is over, as its share of a batch; a backward pass when gradient arrives at what a forward pass
    returned, also for the images alone.

    Args:
        model: wrapped or not.
        batch: images in a batch, ≥ 1.
    """
    kind, size, found = type(unwrap(model)), _size(unwrap(model)), Passes()
    inside: list[nn.Module] = []

    def arrived(share: float) -> None:
        found.backward += share

    def begins(module: nn.Module, _args) -> None:
        if type(module) is kind and _size(module) == size:
            inside.append(module)

    def ends(module: nn.Module, args, output) -> None:
        if not inside or inside[-1] is not module:
            return
        inside.pop()
        if not inside and isinstance(output, Tensor):
            share = len(args[0]) / batch
            found.forward += share
            if output.requires_grad:
                output.register_hook(lambda _grad: arrived(share))

    with (
        register_module_forward_pre_hook(begins),
        register_module_forward_hook(ends, always_call=True),
    ):
        yield found


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Inside the block watches the memory of the tensors made in it, on one device; on leaving sets
    the peak's `bytes`.

    On a GPU its allocator keeps count, of everything. On a CPU the storages that operations return
    are added up; what an operation needs for itself meanwhile is not seen there.

    Args:
        device: elsewhere than on a CPU or with CUDA the peak stays None.
    """
    found = Peak()
    if device.type == "cpu":
        with _Tensors() as tensors:
            yield found
        found.bytes = tensors.peak
    elif device.type == "cuda":
        gc.collect()  # what earlier work left must not be freed meanwhile
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.bytes = torch.cuda.max_memory_allocated(device) - before
    else:
        yield found


def recording_cost(
    width: int = 16, batch: int = 100, method: str = "catchup", rounds: int = 15
) -> dict:
    """`ratios` of ten training steps of ResNet-18 on 32×32 images: plain, recorded at every tenth
    and at every step.
    """
    device = (
        torch.accelerator.current_accelerator()
        if torch.accelerator.is_available()
        else torch.device("cpu")
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(100, (batch,), generator=generator).to(device)

    def ten_steps(every: int | None) -> Callable[[], None]:
        torch.manual_seed(0)
        model = models.create("resnet18", num_classes=100, width=width).to(device)
        mixer, optimizer = (
            make(method, seed=0),
            torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
        )

        def go() -> None:
            # the same layers in every variant and round
            mixer.load_state_dict(make(method, seed=0).state_dict())
            with recording(model, mixer=mixer, every=every) if every else nullcontext():
                for _ in range(10):
                    mixer.loss(model, images, labels).backward()
                    optimizer.step()
                    optimizer.zero_grad()

        return go

    work = {"plain": ten_steps(None), "every 10th step": ten_steps(10), "every step": ten_steps(1)}
    return ratios(work, rounds)


class _Tensors(TorchDispatchMode):
    """Inside the block adds up the memory of all tensors that are made in it: `now`, and the
    highest it was, `peak`.

    Counted is every storage that an operation returns, from then until it is freed. What an
    operation needs for itself and gives back before it returns is not seen, nor are tensors that
    were there before.
    """

    def __init__(self):
        super().__init__()
        self.peak = self.now = 0
        self._known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._known.update(_storages((args, kwargs)))  # whatever was there before is not ours
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage not in self._known:
                self._known.add(storage)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _storages(tree) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def main() -> None:
    """Prints the cost of recording as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timing", description=main.__doc__)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(
        json.dumps(
            {
                **vars(chosen),
                "recording": recording_cost(chosen.width, chosen.batch, rounds=chosen.rounds),
                **surroundings(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
