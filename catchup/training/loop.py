"""The loop itself: one run in progress, which can be stopped after any step, stored, and continued
there.

The order of the images and their augmentation follow from (seed, epoch) alone, the mixing from the
mixer's own generator; nothing depends on how often the run was stopped and resumed.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..data.augment import normalise, to_float
from ..data.identity import DataIdentity
from ..hooks.compiled import compile_blocks
from ..hooks.layers import evaluating
from ..mixers import Mixer
from . import checkpoint
from .feed import Feed
from .folder import CHECKPOINT, find_checkpoint, write_metrics
from .machine.distributed import all_gather, all_reduce_max, average_gradients
from .machine.failures import first_broken, is_out_of_memory, memory_needed
from .machine.onednn import lone_columns_in_float32, memory_format
from .machine.precision import AUTOCAST
from .schedule import make_schedule
from .seeds import make_generator
from .settings import Settings
from .state import (
    Epoch,
    check_position,
    check_run,
    describe_run,
    guard_parts,
    load_weights,
    process_state,
    restore_generators,
)
from .validation import MEASURED, Stopped, draw_probe, is_validation_epoch, validate

if TYPE_CHECKING:
    from accelerate import Accelerator

READ_EVERY = 50  # steps after which a GPU is waited for, to see whether the loss is still finite


class Progress(NamedTuple):
    """Where a run is after a step."""

    epoch: int  # under way, from 1
    step: int  # of the whole run, from 1
    steps: int  # that the whole run has
    loss: Tensor  # of this step, 0-dim, on the training device: reading it waits for a GPU


class TrainingRun:
    """One run in progress: the prepared model, optimiser, schedule and data, and the epochs done so
    far.

    Args:
        model: from normalised (B, C, H, W) images to (B, N) logits; trained in place.
        mixer: the method.
        dataset: on any device.
        settings: of the run, the precision decided.
        accelerator: of that device and precision.
        out: the run's folder; None keeps nothing.
        identity: of the data; None where nothing is kept.
        resume: continue from the checkpoint in `out`, if there is one.
        on_step: called after each step; a true answer stops the run there.
        should_stop: asked after each step and before each batch of a validation.
    Raises:
        ValueError: as `catchup.training.fit`.
    """

    def __init__(
        self,
        model: nn.Module,
        mixer: Mixer,
        dataset: Dataset,
        settings: Settings,
        accelerator: "Accelerator",
        *,
        out: Path | None = None,
        identity: DataIdentity | None = None,
        resume: bool = False,
        on_step: Callable[[Progress], object] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        state = checkpoint.load(out / CHECKPOINT) if out and find_checkpoint(out, resume) else None
        self.mixer, self.settings, self.accelerator = mixer, settings, accelerator
        self.out, self.on_step, self.should_stop = out, on_step, should_stop
        self.dataset = dataset.to(accelerator.device)
        self.probe = draw_probe(self.dataset)
        self.run = describe_run(settings, mixer)
        self.identity = None if identity is None else identity.as_dict()
        self.rows: list[dict[str, Any]] = []
        self.under_way: Epoch | None = None
        self.stopped, self.step, self.saved_step = False, 0, 0
        self._prepare(model)
        if state is not None:
            self.load_state_dict(state)
        self.saved_step, self.saved_at = self.step, time.monotonic()
        if out is not None and self.is_main:
            out.mkdir(parents=True, exist_ok=True)
            write_metrics(out, self.rows)  # a crash may have left other lines than the checkpoint's

    def _prepare(self, model: nn.Module) -> None:
        """Brings the model to its device, and makes its optimiser and schedule."""
        settings, device = self.settings, self.accelerator.device
        self.mixer.check(model)
        # What came in evaluation mode inside a model in training mode is frozen, and stays so.
        self.frozen = [part for part in model.modules() if model.training and not part.training]
        self.mixer.begin_data(self.dataset.mean, self.dataset.std)
        self.mixer.begin_precision(AUTOCAST.get(settings.precision))
        layout = memory_format(model, device)
        self.feed = Feed(self.dataset, settings, self.accelerator, layout)
        self.steps = self.feed.steps
        model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
        if settings.compile:
            compile_blocks(model)
        groups = self.mixer.begin_run(model, len(self.dataset.train.classes))
        if self.accelerator.num_processes > 1:
            # these parameters are not in the model that DDP wraps
            average_gradients(parameter for group in groups for parameter in group["params"])
        optimizer = torch.optim.SGD(
            [{"params": list(model.parameters())}, *groups],
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov and settings.momentum > 0,
            foreach=True,
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.scheduler = make_schedule(optimizer, settings, self.steps * settings.epochs)

    @property
    def is_main(self) -> bool:
        """Is this the process that writes?"""
        return bool(self.accelerator.is_main_process)

    @property
    def on_cpu(self) -> bool:
        """Where a number can be read without waiting for it."""
        return self.accelerator.device.type == "cpu"

    def epoch(self, epoch: int) -> dict[str, Any] | None:
        """Trains an epoch, counted from 0, to its end and measures it; None if it was stopped on
        the way.
        """
        if self.under_way is None:
            self.mixer.begin_epoch(epoch, self.settings.epochs)
            rank = self.accelerator.process_index
            self.under_way = Epoch(epoch, make_generator(self.settings.seed, epoch, rank))
        self._train(self.under_way)
        if self.under_way.batches < self.steps:
            return None
        self._check_weights()
        trained, started = self.under_way, time.perf_counter()
        try:
            measured = self._validate(epoch)
        except Stopped:  # the training of the epoch is kept, its measurement is made again
            return None
        loss, accuracy = (self.accelerator.reduce(trained.totals, "sum") / trained.images).tolist()
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.steps,
            "lr": trained.lr,
            "train_loss": loss,
            "train_accuracy_mixed_percent": 100 * accuracy,
            "images_per_s": trained.images / trained.time_s,
            **measured,
        }
        self.under_way = None
        return {**row, "time_s": trained.time_s + time.perf_counter() - started}

    def _train(self, now: Epoch) -> None:
        """The steps of an epoch that are still to be done, or as many as nobody stops."""
        first_bad = torch.full((), math.inf, device=self.accelerator.device)
        started = time.perf_counter() - now.time_s
        self.model.train()
        for part in self.frozen:
            part.training = False
        # closing: a stop ends the processes that decode ahead
        with closing(self.feed.batches(now.number, now.batches, now.augment)) as batches:
            for images, labels, whole in batches:
                loss = self._step(images, labels, whole)
                self.step += 1
                now.add(whole, len(images) * self._meters(loss), time.perf_counter() - started)
                bad = torch.where(loss.isfinite(), math.inf, float(self.step))
                first_bad = first_bad.minimum(bad)
                if self._ends_after(loss, first_bad):
                    break

    def _step(self, images: Tensor, labels: Tensor, whole: int) -> Tensor:
        """One step of the optimiser; the loss, detached.

        Args:
            images: (B, C, H, W), normalised: this process's share of the batch.
            labels: (B,) int64.
            whole: images of the batch in all processes.
        """
        # DDP takes the plain mean of the processes; 1 where they have equally many images
        weight = len(images) * self.accelerator.num_processes / whole
        try:
            loss = self._loss(images, labels)
            self.accelerator.backward(loss if weight == 1 else loss * weight)
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise self._too_large(error, len(images)) from error
            raise
        if self.under_way is not None:
            self.under_way.lr = self.optimizer.param_groups[0]["lr"]
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.mixer.end_step(self.model)
        return loss.detach()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The method's loss. On a CPU it is read at once: what spoilt it can still be found."""
        with lone_columns_in_float32(self.accelerator.device, self.settings.precision):
            loss = self.mixer.loss(self.model, images, labels)
        alone = self.accelerator.num_processes == 1
        if self.on_cpu and alone and not loss.isfinite():
            raise self._broken("loss is", self.step + 1, images)
        return loss

    def _ends_after(self, loss: Tensor, first_bad: Tensor) -> bool:
        """Between two steps: is the run to stop? The same in every process.

        Raises FloatingPointError for a bad loss, and saves the run where it is time to.
        """
        last = self.step % self.steps == 0
        stop = self._asked_to_stop(loss)
        bad = self._bad_step(first_bad, at_once=stop or last)
        negated, stopped, due = all_reduce_max(-bad, stop, self._save_due())
        if negated > -math.inf:
            raise self._broken("loss is", int(-negated))
        self.stopped = bool(stopped)
        if due and not self.stopped and not last:
            self.save()
        return self.stopped

    def _asked_to_stop(self, loss: Tensor) -> bool:
        epoch, steps = (self.step - 1) // self.steps + 1, self.steps * self.settings.epochs
        at = Progress(epoch, self.step, steps, loss)
        return bool(self.on_step is not None and self.on_step(at)) or bool(self.should_stop())

    def _bad_step(self, first_bad: Tensor, at_once: bool) -> float:
        """The first step of a bad loss, inf if there was none, or if a GPU is not to be waited
        for.
        """
        reads = at_once or self.on_cpu or self.step % READ_EVERY == 0
        return first_bad.item() if reads else math.inf

    def _save_due(self) -> bool:
        every = self.settings.save_every_s
        if every is None or self.out is None or not self.is_main:
            return False
        return time.monotonic() - self.saved_at >= every

    def keep(self, row: dict[str, Any]) -> None:
        """Adds the epoch's row and stores the run with it; the metrics after the checkpoint, so
        that they never know more.
        """
        self.rows.append(row)
        self.save()
        if self.out is not None and self.is_main:
            write_metrics(self.out, self.rows)

    def save(self) -> None:
        """Stores the run as it stands, in the middle of an epoch too; every process has to call
        it.
        """
        if self.out is None:
            return
        if self.under_way is not None:  # at the end of an epoch it was done before the validation
            self._check_weights()
        state = self.state_dict()
        if self.is_main:
            checkpoint.save(self.out / CHECKPOINT, state)
        self.saved_step, self.saved_at = self.step, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step follows from, as plain values for a checkpoint; every process has
        to call it.
        """
        bare = self.accelerator.unwrap_model(self.model)
        scaler = self.accelerator.scaler
        own = process_state(self.under_way, self.mixer)
        processes = self.accelerator.num_processes
        state = {
            "format": checkpoint.FORMAT,
            "run": self.run,
            "data": self.identity,
            "epoch": len(self.rows),
            "rows": self.rows,
            "model": bare.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.scheduler.state_dict(),
            "scaler": scaler and scaler.state_dict(),
            **own,
            "processes": processes,
            "threads": torch.get_num_threads(),
            "device": self.accelerator.device.type,
        }
        if processes > 1:
            state["ranks"] = all_gather({**own, "buffers": dict(bare.named_buffers())})
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the run where the one of `state` was.

        Args:
            state: as `state_dict` returns it.
        Raises:
            ValueError: if it is of another run, of other data, or of another number of processes.
            CheckpointError: of another model, or if a part of it is missing or impossible.
        """
        processes, device = self.accelerator.num_processes, self.accelerator.device
        check_run(state, self.run, self.identity, self.out, processes, device)
        with guard_parts(self.out):
            own = state["ranks"][self.accelerator.process_index] if "ranks" in state else state
            self.rows = list(state["rows"])
            self.under_way = Epoch.restore(own["under_way"], len(self.rows), self.steps, device)
            done = self.under_way.batches if self.under_way else 0
            self.step = len(self.rows) * self.steps + done
            check_position(state, self.settings.epochs, self.step)
            bare = self.accelerator.unwrap_model(self.model)
            load_weights(bare, state["model"], own.get("buffers", {}), self.out)
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["schedule"])
            if self.accelerator.scaler and state["scaler"]:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            if self.under_way:  # its own process never saw it begin
                self.mixer.begin_epoch(self.under_way.number, self.settings.epochs)
            self.mixer.load_state_dict(own["mixer"])
            restore_generators(own)

    def position(self) -> str:
        """How far the run is, and how it goes on, in words."""
        done = f"stopped after step {self.step} of {self.steps * self.settings.epochs}"
        if self.out is None:
            return f"{done}; no folder keeps it"
        return f"{done}; it is kept in {self.out}: go on with resume"

    def _validate(self, epoch: int) -> dict[str, float | None]:
        """Errors on the validation images and on clean training images; None in epochs that are not
        validated.
        """
        if not is_validation_epoch(epoch, self.settings):
            return dict.fromkeys(MEASURED)
        try:
            return validate(self.model, self.dataset, self.probe, self._look_up)
        except FloatingPointError:
            shown = self.dataset.test.take(range(min(500, len(self.dataset.test)))).pixels
            images = normalise(to_float(shown), self.dataset.mean, self.dataset.std)
            with evaluating(self.model):
                raise self._broken("model's answers are", self.step, images) from None

    def _look_up(self) -> None:
        """Between two batches of a validation: has a stop been asked for?"""
        if all_reduce_max(bool(self.should_stop()))[0]:
            self.stopped = True
            raise Stopped

    def _meters(self, loss: Tensor) -> Tensor:
        last: Any = self.mixer.last  # of the step just made
        return torch.stack([loss.float(), last.target.accuracy(last.logits)])

    def _check_weights(self) -> None:
        """Weights that are no numbers must neither be stored nor measured."""
        modules = (self.model, *self.mixer.modules.values())
        values = (value for module in modules for value in module.state_dict().values())
        bad = not all(value.isfinite().all() for value in values if value.is_floating_point())
        if all_reduce_max(bad)[0]:
            raise self._broken("weights are", self.step)

    def _broken(self, what: str, step: int, images: Tensor | None = None) -> FloatingPointError:
        where = first_broken(self.accelerator.unwrap_model(self.model), images, self.mixer.modules)
        return FloatingPointError(
            f"the {what} not finite at step {step} (epoch {len(self.rows) + 1}): {self._kept()}; "
            f"not finite first: {where}; try a lower lr than {self.settings.lr}"
        )

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

    def _kept(self) -> str:
        if self.saved_step % self.steps:
            return f"the checkpoint of step {self.saved_step} is kept"
        if self.rows:
            return f"the checkpoint of epoch {len(self.rows)} is kept"
        return "no epoch was finished"
