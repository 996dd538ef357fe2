"""The loop itself: one run in progress, which can be stopped after any step, stored, and taken up
there again.

The order of the images and their augmentation follow from (seed, epoch) alone, the mixing from the
mixer's own generator; nothing depends on how often the run was stopped and taken up again.
"""

import math
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..data import Images
from ..data.augment import augment_batch, normalise, to_float
from ..hooks.compiled import compile_blocks
from ..hooks.layers import evaluating
from ..models.inference import PixelModel, predict, top_k_error
from ..training.machine.onednn import memory_format
from . import checkpoint
from . import folder as runs
from .machine.accelerator import accelerator
from .machine.distributed import average_gradients, largest
from .machine.failures import first_broken, memory_needed, out_of_memory
from .machine.onednn import lone_columns_in_float32
from .machine.precision import with_precision
from .schedule import schedule
from .seeds import _generator
from .settings import Settings
from .state import Epoch, stored, take_up

PROBE = 1000  # training images on which the clean error is measured


class Progress(NamedTuple):
    """Where a run is after a step."""

    epoch: int  # under way, from 1
    step: int  # of the whole run, from 1
    steps: int  # that the whole run has
    loss: Tensor  # of this step, 0-dim, on the training device: reading it waits for a GPU


class _Stopped(Exception):
    """Leaves a validation that was not to be finished."""


class Run:
    """One run in progress: the prepared model, optimiser, schedule and data, and the epochs done so
    far.
    """

    def __init__(
        self, model, mixer, dataset, settings, out, resume, on_step=None, should_stop=None
    ):
        found = out is not None and (Path(out) / runs.CHECKPOINT).exists()
        if found and not resume:
            raise ValueError(f"{out} holds a checkpoint already; resume it, or give another folder")
        settings = with_precision(settings)
        self.accelerator = accelerator(settings)
        device = self.accelerator.device
        self.settings, self.mixer, self.out, self.on_step, self.rows = (
            settings,
            mixer,
            out,
            on_step,
            [],
        )
        self.under_way: Epoch | None = None
        self.stopped, self.should_stop = False, should_stop or (lambda: False)
        self.step, self.saved_step, self.saved_at = 0, 0, time.monotonic()
        self.main = self.accelerator.is_main_process
        self.dataset = dataset.to(device)
        probe = self.dataset.train.take(
            torch.randperm(len(dataset.train), generator=_generator(0))[:PROBE]
        )
        self.probe = probe.centre_crop(dataset.test.shape[1:])
        mixer.check(model)
        mixer.begin_data(self.dataset.mean, self.dataset.std)
        self.memory_format = memory_format(model, device)
        model = model.to(device, memory_format=self.memory_format)
        if settings.compile:
            compile_blocks(model)
        groups = mixer.begin_run(model, len(dataset.train.classes))
        # these parameters are not in the model that DDP wraps
        if self.accelerator.num_processes > 1:
            average_gradients(parameter for group in groups for parameter in group["params"])
        optimizer = torch.optim.SGD(
            [{"params": list(model.parameters())}, *groups],
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov and settings.momentum > 0,
            foreach=True,
        )
        self.steps = len(self._order(0))
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.schedule = schedule(optimizer, settings, self.steps * settings.epochs)
        if found:
            take_up(self, checkpoint.load(Path(out) / runs.CHECKPOINT))
            begun = self.under_way.batches if self.under_way else 0
            self.step = self.saved_step = len(self.rows) * self.steps + begun
        if out is not None and self.main:
            Path(out).mkdir(parents=True, exist_ok=True)
            # a crash may have left a line of an epoch that no checkpoint knows
            runs.write_metrics(out, self.rows)

    def epoch(self, epoch: int) -> dict | None:
        """Trains an epoch to its end and measures it; None if it was stopped on the way."""
        s = self.settings
        if self.under_way is None:
            self.mixer.begin_epoch(epoch, s.epochs)
            self.under_way = Epoch(epoch, _generator(s.seed, epoch, self.accelerator.process_index))
        self._train(self.under_way)
        if self.under_way.batches < self.steps:
            return None
        self._check_weights()
        done, measuring = self.under_way, time.perf_counter()
        try:
            measured = self._measured(epoch)
        except _Stopped:  # the training of the epoch is kept, its measurement is made again
            return None
        loss, accuracy = (self.accelerator.reduce(done.totals, "sum") / done.images).tolist()
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.steps,
            "lr": done.lr,
            "train_loss": loss,
            "train_accuracy_mixed_percent": 100 * accuracy,
            "images_per_s": done.images / done.time_s,
            **measured,
        }
        self.under_way = None
        return {**row, "time_s": done.time_s + time.perf_counter() - measuring}

    def keep(self, row: dict) -> None:
        """Adds the epoch's row, on disk too; then the checkpoint that contains it."""
        self.rows.append(row)
        if self.out is not None and self.main:
            runs.write_metrics(self.out, self.rows)
        self.save()

    def save(self) -> None:
        """Stores the run as it stands, in the middle of an epoch too; every process has to call
        it.
        """
        if self.out is None:
            return
        if self.under_way is not None:  # at the end of an epoch it was done before the validation
            self._check_weights()
        state = stored(self)
        if self.main:
            checkpoint.save(Path(self.out) / runs.CHECKPOINT, state)
        self.saved_step, self.saved_at = self.step, time.monotonic()

    def where(self) -> str:
        """How far the run is, and how it goes on, in words."""
        done = f"stopped after step {self.step} of {self.steps * self.settings.epochs}"
        return (
            f"{done}; it is kept in {self.out}: go on with resume"
            if self.out
            else f"{done}; no folder keeps it"
        )

    def _train(self, now: Epoch) -> None:
        """The steps of an epoch that are still to be done, or as many as `on_step` lets it do."""
        acc = self.accelerator
        first_bad = torch.full((), math.inf, device=acc.device)
        self.model.train()
        started = time.perf_counter() - now.time_s
        todo = self._order(now.number)[now.batches :]
        shares = [indices[acc.process_index :: acc.num_processes] for indices in todo]
        # a stop ends the processes that decode ahead
        with closing(self.dataset.train.batches(shares)) as coming:
            for indices, batch in zip(todo, coming):
                images, labels = self._batch(batch, now.augment)
                loss = self._step(images, labels, len(images) * acc.num_processes / len(indices))
                now.batches, now.images = now.batches + 1, now.images + len(indices)
                now.totals = now.totals + len(images) * self._meters(loss)
                now.time_s = time.perf_counter() - started
                self.step = now.number * self.steps + now.batches
                first_bad = first_bad.minimum(
                    torch.where(loss.isfinite(), math.inf, float(self.step))
                )
                at = Progress(now.number + 1, self.step, self.steps * self.settings.epochs, loss)
                if self._stops_here(at, first_bad):
                    break

    def _stops_here(self, at: Progress, first_bad: Tensor) -> bool:
        """What is looked up between two steps, and is the same in every process: bad numbers, a
        stop, a save due.
        """
        stop = bool(self.on_step is not None and self.on_step(at)) or bool(self.should_stop())
        last, every = at.step % self.steps == 0, self.settings.save_every_s
        # it makes a GPU wait
        reads = stop or last or at.step % 50 == 0 or self.accelerator.device.type == "cpu"
        bad = -first_bad.item() if reads else -math.inf
        due = (
            self.main
            and self.out is not None
            and every is not None
            and time.monotonic() - self.saved_at >= every
        )
        bad, stop, due = largest(bad, stop, due)
        if bad > -math.inf:
            raise self._broken("loss is", int(-bad))
        self.stopped = bool(stop)
        if due and not stop and not last:
            self.save()
        return self.stopped

    def _step(self, images: Tensor, labels: Tensor, weight: float) -> Tensor:
        """One step of the optimiser; the loss, detached. `weight`: of this process's share of the
        batch, 1 if even.
        """
        try:
            loss = self._updated(images, labels, weight)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise self._too_large(error, len(images)) from error
        self.under_way.lr = self.optimizer.param_groups[0]["lr"]
        self.schedule.step()
        self.optimizer.zero_grad()
        self.mixer.end_step(self.model)
        return loss.detach()

    def _updated(self, images: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Forward, backward, the weights' step. On a CPU the loss is read first: what spoilt it can
        still be found.
        """
        with lone_columns_in_float32() if self.accelerator.device.type == "cpu" else nullcontext():
            loss = self.mixer.loss(self.model, images, labels)
        if (
            self.accelerator.device.type == "cpu"
            and self.accelerator.num_processes == 1
            and not loss.isfinite()
        ):
            raise self._broken("loss is", self.step + 1, images)
        # DDP takes the plain mean of the processes
        self.accelerator.backward(loss if weight == 1 else loss * weight)
        self.optimizer.step()
        return loss

    def _too_large(self, error: Exception, n: int) -> MemoryError:
        """No smaller batch is taken instead: its batch norm and its pairs would make another method
        of it.
        """
        return MemoryError(
            f"step {self.step + 1} (epoch {len(self.rows) + 1}) does not fit into memory with {n} "
            f"images: {memory_needed(error, self.accelerator.device)}; {self._kept()}. Take a "
            f"batch_size below {self.settings.batch_size} (in a new folder, with an lr to match), "
            "precision bf16, or more devices"
        )

    def _order(self, epoch: int) -> list[Tensor]:
        # batch norm needs two images in every process
        smallest = 2 * self.accelerator.num_processes
        return batches(
            len(self.dataset.train), self.settings.batch_size, self.settings.seed, epoch, smallest
        )

    def _batch(self, batch: Images, augment: torch.Generator) -> tuple[Tensor, Tensor]:
        pixels = batch.pixels
        if self.settings.augment:
            pixels = augment_batch(pixels, self.dataset.augmentation, augment)
        images = normalise(to_float(pixels), self.dataset.mean, self.dataset.std)
        return images.contiguous(memory_format=self.memory_format), batch.labels

    def _meters(self, loss: Tensor) -> Tensor:
        last = self.mixer.last
        return torch.stack([loss.float(), last.target.accuracy(last.logits)])

    def _check_weights(self) -> None:
        """Weights that are no numbers must neither be stored nor measured."""
        states = [part.state_dict() for part in (self.model, *self.mixer.modules.values())]
        bad = not all(
            value.isfinite().all()
            for state in states
            for value in state.values()
            if value.is_floating_point()
        )
        if largest(bad)[0]:
            raise self._broken("weights are", self.step)

    def _broken(self, what: str, step: int, images: Tensor | None = None) -> FloatingPointError:
        where = first_broken(self.accelerator.unwrap_model(self.model), images, self.mixer.modules)
        return FloatingPointError(
            f"the {what} not finite at step {step} (epoch {len(self.rows) + 1}): {self._kept()}; "
            f"not finite first: {where}; try a lower lr than {self.settings.lr}"
        )

    def _kept(self) -> str:
        if self.saved_step % self.steps:
            return f"the checkpoint of step {self.saved_step} is kept"
        return (
            f"the checkpoint of epoch {len(self.rows)} is kept"
            if self.rows
            else "no epoch was finished"
        )

    def _measured(self, epoch: int) -> dict:
        """Errors on the validation images and on clean training images; None in epochs that are not
        validated.
        """
        names = ("val_error_percent", "val_loss", "clean_train_error_percent")
        if not validated(epoch, self.settings):
            return dict.fromkeys(names)
        model, labels = PixelModel.of(self.model, self.dataset), self.dataset.test.labels
        try:
            logits, probe = (
                predict(model, images, before_batch=self._look_up)
                for images in (self.dataset.test, self.probe)
            )
        except FloatingPointError:
            shown = self.dataset.test.take(range(min(500, len(labels)))).pixels
            images = normalise(to_float(shown), self.dataset.mean, self.dataset.std)
            with evaluating(self.model):
                raise self._broken(
                    "model's answers are", (epoch + 1) * self.steps, images
                ) from None
        loss = nn.functional.cross_entropy(logits, labels).item()
        return dict(
            zip(names, (top_k_error(logits, labels), loss, top_k_error(probe, self.probe.labels)))
        )

    def _look_up(self) -> None:
        """Between two batches of a validation: has a stop been asked for?"""
        if largest(bool(self.should_stop()))[0]:
            self.stopped = True
            raise _Stopped


def validated(epoch: int, settings: Settings) -> bool:
    """Is there a validation after this epoch, counted from 0?"""
    every, left = settings.validate_every, settings.epochs - epoch - 1
    return left == 0 if every == 0 else (epoch + 1) % every == 0 or left < 10


def batches(n: int, batch_size: int, seed: int, epoch: int, smallest: int = 2) -> list[Tensor]:
    """The order of one epoch: every index of 0 … n-1 once, in (≤ batch_size,) int64 batches.

    A last batch of fewer than `smallest` images is left out (batch norm cannot be trained on one),
    unless it is the only one.
    """
    order = torch.randperm(n, generator=_generator(seed, epoch)).split(batch_size)
    return list(order[:-1] if len(order) > 1 and len(order[-1]) < smallest else order)
