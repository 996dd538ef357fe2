"""The loop itself: one run in progress, which can be stopped after any step, stored, and taken up there again.

The order of the images and their augmentation follow from (seed, epoch) alone, the mixing from the mixer's own
generator; nothing depends on how often the run was stopped and taken up again.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from . import checkpoint, models, runs
from .data.augment import augmented, normalise, to_float
from .hooks import average_gradients
from .inference import PixelModel, predict, top_k_error
from .mixers import Mixer
from .settings import LABELS, Settings

PROBE = 1000  # training images on which the clean error is measured


class Progress(NamedTuple):
    """Where a run is after a step."""

    epoch: int     # under way, from 1
    step: int      # of the whole run, from 1
    steps: int     # that the whole run has
    loss: Tensor   # of this step, 0-dim, on the training device: reading it waits for a GPU


class _Stopped(Exception):
    """Leaves a validation that was not to be finished."""


@dataclass
class _Epoch:
    """The epoch under way: what it has summed up, and the generator of its augmentation."""

    number: int
    augment: torch.Generator
    batches: int = 0
    images: int = 0
    totals: Tensor | float = 0.0
    time_s: float = 0.0
    lr: float = 0.0

    def state(self) -> dict:
        return {**vars(self), "augment": self.augment.get_state()}

    @classmethod
    def of(cls, state: dict, device: torch.device) -> "_Epoch":
        augment = torch.Generator()
        augment.set_state(state["augment"])
        return cls(**{**state, "augment": augment, "totals": state["totals"].to(device)})


class Run:
    """One run in progress: the prepared model, optimiser, schedule and data, and the epochs done so far."""

    def __init__(self, model, mixer, dataset, settings, out, resume, on_step=None, should_stop=None):
        found = out is not None and (Path(out) / runs.CHECKPOINT).exists()
        if found and not resume:
            raise ValueError(f"{out} holds a checkpoint already; resume it, or give another folder")
        self.accelerator = accelerator(settings)
        device = self.accelerator.device
        self.settings, self.mixer, self.out, self.on_step, self.rows = settings, mixer, out, on_step, []
        self.under_way: _Epoch | None = None
        self.stopped, self.should_stop = False, should_stop or (lambda: False)
        self.main = self.accelerator.is_main_process
        self.dataset = dataset.to(device)
        probe = self.dataset.train.take(torch.randperm(len(dataset.train), generator=_generator(0))[:PROBE])
        self.probe = probe.centred(dataset.test.pixels.shape[2:])
        mixer.check(model)
        mixer.begin_data(self.dataset.mean, self.dataset.std)
        self.memory_format = models.memory_format(model, device)
        model = model.to(device, memory_format=self.memory_format)
        groups = mixer.begin_run(model, len(dataset.train.classes))
        if self.accelerator.num_processes > 1:  # these parameters are not in the model that DDP wraps
            average_gradients(parameter for group in groups for parameter in group["params"])
        optimizer = torch.optim.SGD([{"params": list(model.parameters())}, *groups], lr=settings.lr,
                                    momentum=settings.momentum, weight_decay=settings.weight_decay,
                                    nesterov=settings.nesterov and settings.momentum > 0)
        self.steps = len(self._order(0))
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.schedule = schedule(optimizer, settings, self.steps * settings.epochs)
        if found:
            self._take_up(checkpoint.load(Path(out) / runs.CHECKPOINT))
        if out is not None and self.main:
            Path(out).mkdir(parents=True, exist_ok=True)
            runs.write_metrics(out, self.rows)  # a crash may have left a line of an epoch that no checkpoint knows

    def epoch(self, epoch: int) -> dict | None:
        """Trains an epoch to its end and measures it; None if it was stopped on the way."""
        s = self.settings
        if self.under_way is None:
            self.mixer.begin_epoch(epoch, s.epochs)
            self.under_way = _Epoch(epoch, _generator(s.seed, epoch, self.accelerator.process_index))
        self._train(self.under_way)
        if self.under_way.batches < self.steps:
            return None
        states = [part.state_dict() for part in (self.model, *self.mixer.modules.values())]
        if not all(value.isfinite().all() for state in states for value in state.values() if value.is_floating_point()):
            raise self._broken("weights are", (epoch + 1) * self.steps)
        done, measuring = self.under_way, time.perf_counter()
        try:
            measured = self._measured(epoch)
        except _Stopped:  # the training of the epoch is kept, its measurement is made again
            return None
        loss, accuracy = (self.accelerator.reduce(done.totals, "sum") / done.images).tolist()
        row = {"epoch": epoch + 1, "step": (epoch + 1) * self.steps, "lr": done.lr,
               "train_loss": loss, "train_accuracy_mixed_percent": 100 * accuracy,
               "images_per_s": done.images / done.time_s, **measured}
        self.under_way = None
        return {**row, "time_s": done.time_s + time.perf_counter() - measuring}

    def keep(self, row: dict) -> None:
        """Adds the epoch's row, on disk too; then the checkpoint that contains it."""
        self.rows.append(row)
        if self.out is not None and self.main:
            runs.append_metrics(self.out, row)
            self.save()

    def save(self) -> None:
        """Stores the run as it stands, in the middle of an epoch too."""
        if self.out is not None and self.main:
            checkpoint.save(Path(self.out) / runs.CHECKPOINT, self._state())

    def _train(self, now: _Epoch) -> None:
        """The steps of an epoch that are still to be done, or as many as `on_step` lets it do."""
        acc = self.accelerator
        first_bad = torch.full((), math.inf, device=acc.device)
        self.model.train()
        started = time.perf_counter()
        for indices in self._order(now.number)[now.batches:]:
            images, labels = self._batch(indices[acc.process_index::acc.num_processes], now.augment)
            loss = self._step(images, labels)
            now.batches, now.images = now.batches + 1, now.images + len(indices)
            now.totals = now.totals + len(images) * self._meters(loss)
            self.step = now.number * self.steps + now.batches
            first_bad = first_bad.minimum(torch.where(loss.isfinite(), math.inf, float(self.step)))
            if acc.device.type == "cpu" or self.step % 50 == 0:  # reading a number back stalls a GPU
                self._stop_if_bad(first_bad)
            progress = Progress(now.number + 1, self.step, self.steps * self.settings.epochs, loss)
            if (self.on_step is not None and self.on_step(progress)) or self.should_stop():
                self.stopped = True
                break
        self._stop_if_bad(first_bad)
        now.time_s += time.perf_counter() - started

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimiser; the loss, detached."""
        loss = self.mixer.loss(self.model, images, labels)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.under_way.lr = self.optimizer.param_groups[0]["lr"]
        self.schedule.step()
        self.optimizer.zero_grad()
        self.mixer.end_step(self.model)
        return loss.detach()

    def _order(self, epoch: int) -> list[Tensor]:
        smallest = 2 * self.accelerator.num_processes  # batch norm needs two images in every process
        return batches(len(self.dataset.train), self.settings.batch_size, self.settings.seed, epoch, smallest)

    def _batch(self, indices: Tensor, augment: torch.Generator) -> tuple[Tensor, Tensor]:
        batch = self.dataset.train.take(indices.to(self.accelerator.device, non_blocking=True))
        pixels = batch.pixels
        if self.settings.augment:
            pixels = augmented(pixels, self.dataset.augmentation, augment)
        images = normalise(to_float(pixels), self.dataset.mean, self.dataset.std)
        return images.contiguous(memory_format=self.memory_format), batch.labels

    def _meters(self, loss: Tensor) -> Tensor:
        last = self.mixer.last
        return torch.stack([loss.float(), last.target.accuracy(last.logits)])

    def _stop_if_bad(self, first_bad: Tensor) -> None:
        if (step := first_bad.item()) < math.inf:
            raise self._broken("loss is", int(step))

    def _broken(self, what: str, step: int) -> FloatingPointError:
        kept = f"the checkpoint of epoch {len(self.rows)} is kept" if self.rows else "no epoch was finished"
        return FloatingPointError(f"the {what} not finite at step {step} (epoch {len(self.rows) + 1}): "
                                  f"{kept}; try a lower lr than {self.settings.lr}")

    def _measured(self, epoch: int) -> dict:
        """Errors on the validation images and on clean training images; None in epochs that are not validated."""
        s, names = self.settings, ("val_error_percent", "val_loss", "clean_train_error_percent")
        if (epoch + 1) % s.validate_every and epoch + 10 < s.epochs:
            return dict.fromkeys(names)
        model, labels = PixelModel.of(self.model, self.dataset), self.dataset.test.labels
        try:
            logits, probe = (predict(model, images, before_batch=self._look_up) for images in
                             (self.dataset.test, self.probe))
        except FloatingPointError:
            raise self._broken("model's answers are", (epoch + 1) * self.steps) from None
        loss = nn.functional.cross_entropy(logits, labels).item()
        return dict(zip(names, (top_k_error(logits, labels), loss, top_k_error(probe, self.probe.labels))))

    def _look_up(self) -> None:
        """Between two batches of a validation: has a stop been asked for?"""
        if self.should_stop():
            self.stopped = True
            raise _Stopped

    def _state(self) -> dict:
        bare = self.accelerator.unwrap_model(self.model)
        return {"format": 1, "epoch": len(self.rows), "rows": self.rows, "model": bare.state_dict(),
                "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                "mixer": self.mixer.state_dict(),
                "under_way": self.under_way and self.under_way.state(), "torch_rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "scaler": self.accelerator.scaler and self.accelerator.scaler.state_dict(),
                "run": _identity(self.settings, self.mixer)}

    def _take_up(self, state: dict) -> None:
        now, before = _identity(self.settings, self.mixer), state.get("run")
        if before != now:
            raise ValueError(f"{self.out} holds a checkpoint of another run: {before}, this one is {now}")
        try:
            self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        except RuntimeError:
            message = f"the checkpoint in {self.out} holds the weights of another model"
            raise checkpoint.CheckpointError(message) from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if under_way := state.get("under_way"):
            self.under_way = _Epoch.of(under_way, self.accelerator.device)
            self.mixer.begin_epoch(self.under_way.number, self.settings.epochs)  # its own process never saw it begin
        self.mixer.load_state_dict(state["mixer"])
        torch.set_rng_state(state["torch_rng"])
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if torch.cuda.is_available() and len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.rows = state["rows"]


def batches(n: int, batch_size: int, seed: int, epoch: int, smallest: int = 2) -> list[Tensor]:
    """The order of one epoch: every index of 0 … n-1 once, in (≤ batch_size,) int64 batches.

    A last batch of fewer than `smallest` images is left out (batch norm cannot be trained on one), unless it is the
    only one.
    """
    order = torch.randperm(n, generator=_generator(seed, epoch)).split(batch_size)
    return list(order[:-1] if len(order) > 1 and len(order[-1]) < smallest else order)


def schedule(optimizer: torch.optim.Optimizer, settings: Settings, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """PyTorch's scheduler of that name over `steps` optimiser steps; a group's own `min_lr` comes before the run's.

    With a warm-up every rate of its steps is that of the schedule times a line from 1 / n to 1, n being their number.
    """
    from torch.optim import lr_scheduler as kinds

    if settings.warmup_epochs:
        rises = max(1, round(settings.warmup_epochs * steps / settings.epochs))
        shares = _shares(optimizer, settings, steps)
        return kinds.LambdaLR(optimizer, [lambda step, share=share: share(step) * min(1.0, (step + 1) / rises)
                                          for share in shares])
    if settings.schedule == "cosine":
        floors = [group.get("min_lr", settings.min_lr) for group in optimizer.param_groups]
        if len(set(floors)) == 1:
            return kinds.CosineAnnealingLR(optimizer, T_max=steps, eta_min=floors[0])
        return kinds.LambdaLR(optimizer, _shares(optimizer, settings, steps))
    if settings.schedule == "step":
        return kinds.MultiStepLR(optimizer, [round(share * steps) for share in settings.milestones], gamma=0.1)
    if settings.schedule == "onecycle":
        return kinds.OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps + 1)
    return kinds.ConstantLR(optimizer, factor=1.0)


def _shares(optimizer: torch.optim.Optimizer, settings: Settings, steps: int) -> list[Callable[[int], float]]:
    """For each group its rate in step 0, 1, … of `steps`, as a share of its highest."""
    def cosine(step: int, end: float) -> float:
        return end + (1 - end) * (1 + math.cos(math.pi * step / steps)) / 2

    if settings.schedule == "cosine":
        ends = [group.get("min_lr", settings.min_lr) / group["lr"] for group in optimizer.param_groups]
        return [partial(cosine, end=end) for end in ends]
    passed = [round(share * steps) for share in settings.milestones] if settings.schedule == "step" else []
    return [lambda step: 0.1 ** sum(step >= mark for mark in passed)] * len(optimizer.param_groups)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the block torch's global generator starts from `seed`; afterwards it is where it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _generator(*keys: int) -> torch.Generator:
    """A CPU generator that follows from the keys alone."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1))


def _identity(settings: Settings, mixer: Mixer) -> dict:
    """What makes two runs the same run; own functions count by their name."""
    chosen = {field.name: getattr(mixer, field.name) for field in fields(mixer)}
    named = {key: getattr(value, "__qualname__", value) for key, value in chosen.items()}
    deciding = {key: value for key, value in settings.as_dict().items() if key not in LABELS}
    return runs.plain({**deciding, "mixer": {"class": type(mixer).__name__, **named}})


def accelerator(settings: Settings):
    """The engine: device, precision and processes. One of another device or precision is replaced."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    precision, on_cpu = {"fp32": "no"}.get(settings.precision, settings.precision), settings.device == "cpu"
    if PartialState._shared_state and PartialState().num_processes == 1:
        wanted = "cpu" if on_cpu or not torch.cuda.is_available() else "cuda"
        if PartialState().device.type != wanted:
            AcceleratorState._reset_state(reset_partial_state=True)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    engine = Accelerator(mixed_precision=precision, cpu=on_cpu)
    if precision == "fp16" and engine.device.type == "cpu":  # accelerate would train in fp32 without a word
        raise ValueError("precision fp16 needs a GPU; on a CPU use fp32 or bf16")
    return engine


def progress_bar(epochs: range, shown: bool) -> Iterator[int]:
    """The epochs, with a bar on standard error."""
    from tqdm.auto import tqdm

    return tqdm(epochs, initial=epochs.start, total=epochs.stop, unit="epoch", disable=not shown, leave=False)
