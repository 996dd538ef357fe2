"""How fast training is: our loop beside the loop most people write and beside the limit, in turn,
in one call.

An epoch of the same network on the same images, again and again, by

ours        the loop of `catchup.fit`: resident images augmented a batch at a time, precision and
            memory format chosen
catchup     the same with Catch-up Mix
ordinary    ours in float32 and PyTorch's ordinary memory format: what is left without that choice
dataloader  a plain PyTorch loop over a torchvision data set of pictures with a DataLoader, as most
            people write it
limit       the model's bare forward and backward pass on a batch that stays, in our precision and
            memory format

Where it misleads: the clock is the wall's, for the DataLoader works in processes of its own; other
work on the machine stretches all variants, not always alike. And the reading of files, which the
plain loop of a larger data set also does,
is no part of it: its pictures lie in memory, as CIFAR's do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import ratios, wall_clock
from catchup import models
from catchup.data import Augmentation, Dataset, Images
from catchup.data.augment import to_float
from catchup.data.sets.shapes import draw_scenes, render
from catchup.mixers import make
from catchup.training.groups import PRECISIONS
from catchup.training.loop import TrainingRun
from catchup.training.machine.accelerator import make_accelerator
from catchup.training.machine.precision import resolve_precision
from catchup.training.seeds import fork_rng
from catchup.training.settings import Settings
from catchup.utils.choices import check_least, pick
from catchup.utils.text import as_text

VARIANTS = ("ours", "catchup", "ordinary", "dataloader", "limit")
# times the plain loop, share of the limit: the toolkit's own
GOALS = {"cpu": (2.5, 0.95), "cuda": (10.0, 0.9)}
MIX_GOAL = 1.02  # of a Catch-up step to a plain one


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained, and how often.

    Args:
        model: resnet18, preact_resnet18, torchvision.NAME or timm.NAME.
        width: Channels of the stem of our own models (64 is the full size).
        image_size: Pixels a side of the images.
        batch: Images per step.
        classes: Number of classes.
        steps: Steps in an epoch, the unit that is timed.
        rounds: Epochs of each variant; the median is reported.
        workers: Processes of the DataLoader in the plain loop.
        precision: Of ours; auto is bf16 where the processor has it in hardware, else fp32.
        compile: Compile the blocks of ours (torch.compile).
        device: auto takes a GPU if there is one.
    """

    model: str = "resnet18"
    width: int | None = 16
    image_size: int = 32
    batch: int = 128
    classes: int = 100
    steps: int = 8
    rounds: int = 7
    workers: int = 2
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self):
        check_least(self, image_size=8, batch=2, classes=2, steps=1, rounds=2, workers=0)
        pick("precision", self.precision, PRECISIONS)
        pick("device", self.device, ("auto", "cpu"))

    @property
    def settings(self) -> Settings:
        """Those of ours: long enough that no epoch of a measurement is validated."""
        return resolve_precision(
            Settings(
                model=self.model,
                width=self.width,
                batch_size=self.batch,
                epochs=10**6,
                validate_every=10**6,
                lr=0.01,
                schedule="constant",
                precision=self.precision,
                compile=self.compile,
                device=self.device,
            )
        )


def throughput(load: Workload) -> dict:
    """Every variant of `VARIANTS` timed in turn.

    Returns:
        {"variants": {name: {"images_per_s", "time_s" of an epoch, "ratio" of its time to ours,
        "low", "high": quartiles}}, "tflops_per_s": {"ours", "limit", "matrix product"}, "goals":
        {…: {"at_least" or "at_most", "reached"}}}. The last of the tflops is that of one large
        matrix product in the same precision: what the device can do at best.
    """
    trainer = partial(Trainer, load)
    device = trainer("baseline").device
    work = {
        "ours": trainer("baseline").epoch,
        "catchup": trainer("catchup").epoch,
        "ordinary": trainer("baseline", ordinary=True).epoch,
        "dataloader": Plain(load, device).epoch,
        "limit": partial(bare, trainer("baseline")),
    }
    found = ratios(work, load.rounds, wall_clock(device))
    images = load.steps * load.batch
    variants = {
        name: {"images_per_s": images / row["time_s"], **row} for name, row in found.items()
    }
    flops = flops_of_a_step(load)
    rates = {name: flops * load.steps / found[name]["time_s"] / 1e12 for name in ("ours", "limit")}
    return {
        "variants": variants,
        "flops_per_image": flops / load.batch,
        "tflops_per_s": {
            **rates,
            "matrix product": matrix_product(load.settings.precision, device),
        },
        "goals": goals(variants, device.type),
    }


def goals(variants: dict, device: str) -> dict:
    """What was aimed at, and what was reached, of the rows of `throughput`."""
    faster, share = GOALS.get(device, GOALS["cpu"])
    return {
        "times the plain loop": {"at_least": faster, "reached": variants["dataloader"]["ratio"]},
        "share of the limit": {"at_least": share, "reached": variants["limit"]["ratio"]},
        "Catch-up step": {"at_most": MIX_GOAL, "reached": variants["catchup"]["ratio"]},
    }


class Trainer:
    """Our own loop on made-up images; `epoch()` is what is timed.

    Args:
        load: what is trained.
        method: its name.
        ordinary: in float32 and PyTorch's ordinary memory format.
    """

    def __init__(self, load: Workload, method: str, ordinary: bool = False):
        settings = load.settings
        if ordinary:
            settings = replace(settings, precision="fp32", compile=False)
        settings = resolve_precision(settings)
        self.run = TrainingRun(
            network(load), make(method, seed=0), dataset(load), settings, make_accelerator(settings)
        )
        if ordinary:
            self.run.feed.memory_format = torch.contiguous_format
            self.run.model.to(memory_format=torch.contiguous_format)
        self.device, self._epochs = self.run.accelerator.device, 0

    @cached_property
    def batch(self) -> tuple[Tensor, Tensor]:
        """The first batch, not augmented, in the run's memory format; labels."""
        first = self.run.dataset.train.take(range(self.run.settings.batch_size))
        return to_float(first.pixels).contiguous(
            memory_format=self.run.feed.memory_format
        ), first.labels

    def epoch(self) -> None:
        """One epoch of training, without validation."""
        self.run.epoch(self._epochs)
        self._epochs += 1


class Plain:
    """The loop most people write: pictures, torchvision's transforms, a DataLoader, a loss read at
    every step.
    """

    def __init__(self, load: Workload, device: torch.device):
        from torch.utils.data import DataLoader

        data = dataset(load)
        self.loader = DataLoader(
            Pictures(data),
            batch_size=load.batch,
            shuffle=True,
            num_workers=load.workers,
            pin_memory=device.type == "cuda",
            persistent_workers=load.workers > 0,
        )
        self.model, self.device = network(load).to(device), device
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
        )

    def epoch(self) -> float:
        """One epoch; the mean loss."""
        self.model.train()
        total = 0.0
        for images, labels in self.loader:
            images, labels = images.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total / len(self.loader)


class Pictures:
    """A data set as torchvision's CIFAR is one: arrays in memory, each made a picture and
    transformed.
    """

    def __init__(self, data: Dataset):
        from torchvision import transforms

        self.arrays = data.train.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = data.train.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(self.arrays.shape[1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def bare(trainer: Trainer) -> None:
    """Forward and backward passes of an epoch on one batch that stays, nothing else."""
    run, (images, labels) = trainer.run, trainer.batch
    run.model.train()
    for _ in range(run.steps):
        run.accelerator.backward(F.cross_entropy(run.model(images), labels))
        run.optimizer.zero_grad()


def network(load: Workload) -> nn.Module:
    """The model, its weights always the same."""
    with fork_rng(0):
        return models.create(load.model, num_classes=load.classes, width=load.width)


def dataset(load: Workload) -> Dataset:
    """As many scenes of `catchup.data.sets.shapes` as an epoch has, with random labels, augmented
    as CIFAR is.
    """
    count = load.steps * load.batch
    pixels = render(draw_scenes(min(count, 512), seed=0))
    if load.image_size != pixels.shape[2]:
        pixels = F.interpolate(
            pixels, (load.image_size, load.image_size), mode="bilinear", antialias=True
        )
    pixels = pixels.repeat(-(-count // len(pixels)), 1, 1, 1)[:count].contiguous()
    labels = torch.randint(load.classes, (count,), generator=torch.Generator().manual_seed(0))
    drawn = Images(pixels, labels, tuple(str(name) for name in range(load.classes)))
    return Dataset(
        "scenes", drawn, drawn.take([0, 1]), (0.5,) * 3, (0.25,) * 3, Augmentation(pad=4, flip=True)
    )


def flops_of_a_step(load: Workload) -> int:
    """Floating-point operations of a batch, forward and backward; a multiplication with its
    addition counts as two.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model, batch = network(load), dataset(load).train.take(range(2))
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model.train()(to_float(batch.pixels)), batch.labels).backward()
    return counter.get_total_flops() * load.batch // 2


def matrix_product(precision: str, device: torch.device) -> float:
    """10¹² floating-point operations per second of a large square matrix product, the best of
    five.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    side = 8192 if device.type == "cuda" else 1536
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    clock, times = wall_clock(device), []
    for _ in range(6):
        start = clock()
        left @ right
        times.append(clock() - start)
    return 2 * side**3 / min(times[1:]) / 1e12


def describe(found: Mapping) -> str:
    """What `throughput` found, as text."""
    rows = [["", "images/s", "time / ours", "quartiles"]]
    rows += [
        [
            name,
            f"{row['images_per_s']:.0f}",
            f"{row['ratio']:.3f}",
            f"{row['low']:.3f}–{row['high']:.3f}",
        ]
        for name, row in found["variants"].items()
    ]
    aims = "; ".join(
        f"{name} {aim['reached']:.2f} (goal {'≥' if 'at_least' in aim else '≤'} "
        f"{aim.get('at_least', aim.get('at_most')):g})"
        for name, aim in found["goals"].items()
    )
    rates = ", ".join(f"{name} {rate:.3g}" for name, rate in found["tflops_per_s"].items())
    return "\n\n".join([as_text(rows), aims, f"TFLOP/s: {rates}"])
