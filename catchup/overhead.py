"""What something costs, as a ratio: variants of one piece of work timed in turn, in one process.

Single timings on a shared machine say little; the ratio of neighbours does. `python -m catchup.overhead` measures what
recording the filters costs a training step.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from statistics import median, quantiles

import torch

from . import models
from .mixers import make
from .recorder import recording
from .runs import surroundings


def ratios(work: Mapping[str, Callable[[], None]], rounds: int = 15, clock: Callable[[], float] | None = None) -> dict:
    """Runs every variant once a round, in turn, the order reversed every other round.

    Args:
        work: {name: what to time}; the first is what the others are compared with. Each is run once before, untimed.
        rounds: ≥ 2.
        clock: seconds; None takes the process's own CPU time, which other processes do not stretch (measure on one
            thread), or, where there is a GPU, the wall clock, after waiting for the device.
    Returns:
        {name: {"ratio": median over rounds of its time to the first's, "low", "high": quartiles of the ratio,
        "time_s": median}}.
    Raises:
        ValueError: if there is no work or `rounds` < 2.
    """
    if not work or rounds < 2:
        raise ValueError(f"there must be something to time, in at least 2 rounds, got {list(work)} and {rounds}")
    clock = clock or (_gpu_clock if torch.cuda.is_available() else time.process_time)
    for call in work.values():
        call()
    times = {name: [] for name in work}
    for turn in range(rounds):
        for name in list(work)[::-1 if turn % 2 else 1]:
            start = clock()
            work[name]()
            times[name].append(clock() - start)
    first = next(iter(times.values()))
    found = {}
    for name, took in times.items():
        ratio = [own / base for own, base in zip(took, first)]
        low, _, high = quantiles(ratio, n=4)
        found[name] = {"ratio": median(ratio), "low": low, "high": high, "time_s": median(took)}
    return found


def recording_cost(width: int = 16, batch: int = 100, method: str = "catchup", rounds: int = 15) -> dict:
    """`ratios` of ten training steps of ResNet-18 on 32×32 images: plain, recorded at every tenth and at every step."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(100, (batch,), generator=generator).to(device)

    def ten_steps(every: int | None) -> Callable[[], None]:
        torch.manual_seed(0)
        model = models.create("resnet18", num_classes=100, width=width).to(device)
        mixer, optimizer = make(method, seed=0), torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)

        def go() -> None:
            mixer.load_state_dict(make(method, seed=0).state_dict())  # the same layers in every variant and round
            with recording(model, mixer=mixer, every=every) if every else nullcontext():
                for _ in range(10):
                    mixer.loss(model, images, labels).backward()
                    optimizer.step()
                    optimizer.zero_grad()
        return go

    work = {"plain": ten_steps(None), "every 10th step": ten_steps(10), "every step": ten_steps(1)}
    return ratios(work, rounds)


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Prints the cost of recording as JSON."""
    parser = argparse.ArgumentParser(prog="python -m catchup.overhead", description=main.__doc__)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({**vars(chosen), "recording": recording_cost(chosen.width, chosen.batch, rounds=chosen.rounds),
                      **surroundings()}, indent=1))


if __name__ == "__main__":
    main()
