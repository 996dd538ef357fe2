"""Training: one loop for every method, on accelerate for device, precision and several processes.

The order of the images and their augmentation follow from (seed, epoch) alone, the mixing from the mixer's own
generator; nothing depends on how often the run was stopped and taken up again.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from . import checkpoint, models, runs
from .data import Dataset, load, subset
from .data.augment import crop_and_flip, normalise, to_float
from .inference import PixelModel, predict, top_k_error
from .mixers import Mixer, make
from .settings import Settings

PROBE = 1000  # training images on which the clean error is measured


@dataclass(frozen=True)
class Result:
    """What a run came to. `rows`: one dictionary per epoch, as in metrics.jsonl."""

    model: nn.Module
    rows: list[dict]

    @property
    def summary(self) -> dict[str, float]:
        """Validation error in percent: last, best, median of the last ten epochs (None if there was no validation yet);
        and the run's time in s."""
        errors = [row["val_error_percent"] for row in self.rows if row["val_error_percent"] is not None] or [None]
        return {"last_error_percent": errors[-1], "best_error_percent": min(errors),
                "median10_error_percent": median(errors[-10:]), "time_s": sum(row["time_s"] for row in self.rows)}


def train(settings: Settings, out: Path, *, resume: bool = False, progress: bool = True) -> Result:
    """Trains as `settings` say and leaves run.json, metrics.jsonl and checkpoint.pt in `out`.

    Args:
        settings: everything that decides the run.
        out: the run's folder, new or empty; with `resume`, one that holds a run of the same settings.
        resume: go on after the last epoch that was finished.
        progress: a bar on standard error.
    Raises:
        ValueError: for settings that name nothing, a folder that holds another run, a damaged checkpoint.
        FloatingPointError: if the loss is no longer finite; the last good checkpoint is kept.
    """
    out = Path(out)
    mixer, engine = make(settings.method, seed=settings.seed, **settings.method_settings), _accelerator(settings)
    with engine.main_process_first():  # one process downloads and decodes, the others find it done
        dataset = dataset_of(settings, progress and engine.is_main_process)
    model = model_of(settings, dataset)
    mixer.check(model)
    try_out(model, dataset)
    if engine.is_main_process:
        runs.claim(out, runs.plain(settings.as_dict()), resume)
    engine.wait_for_everyone()
    result = fit(model, mixer, dataset, settings, out=out, resume=resume, progress=progress)
    if engine.is_main_process:
        runs.write_json(out / runs.RUN, {**runs.read_json(out / runs.RUN), "result": result.summary})
    return result


def dataset_of(settings: Settings, progress: bool = True) -> Dataset:
    """The data set of a run, its training images cut to the subset."""
    dataset = load(settings.data, settings.data_dir, image_size=settings.image_size,
                   skip_unreadable=settings.skip_unreadable, progress=progress)
    if settings.subset is None:
        return dataset
    return dataset.with_train(subset(dataset.train, settings.subset, settings.seed))


def model_of(settings: Settings, dataset: Dataset) -> nn.Module:
    """The model of a run, its weights drawn from the run's seed; the global generator is left as it was."""
    options = {key: getattr(settings, key) for key, default in (("stem_stride", 1), ("final_norm", False))
               if getattr(settings, key) != default}
    with seeded(settings.seed):
        return models.create(settings.model, num_classes=len(dataset.train.classes), width=settings.width,
                             in_channels=dataset.train.pixels.shape[1], **options)


def try_out(model: nn.Module, dataset: Dataset) -> None:
    """Raises ValueError unless a copy of `model`, in training mode, turns two images into two rows of logits."""
    images = normalise(to_float(dataset.train.pixels[:1].expand(2, -1, -1, -1)), dataset.mean, dataset.std)
    classes = len(dataset.train.classes)
    try:
        with torch.random.fork_rng(), torch.no_grad():
            logits = copy.deepcopy(model).train()(images)
    except (RuntimeError, ValueError) as error:
        shape = tuple(images.shape[1:])
        raise ValueError(f"{type(model).__name__} cannot train on images of {shape}: {error}") from error
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{type(model).__name__} must return logits (2, {classes}) for two images, got {got}")


def fit(model: nn.Module, mixer: Mixer, dataset: Dataset, settings: Settings, *, out: Path | None = None,
        resume: bool = False, progress: bool = True, on_epoch: Callable[[dict], None] | None = None) -> Result:
    """Trains `model` on `dataset` with `mixer`: the loop itself, for models and data of your own.

    Args:
        model: from normalised (B, C, H, W) float32 images to (B, N) logits; trained in place.
        mixer: any method.
        dataset: resident images.
        settings: epochs, batch size, optimiser, schedule, precision, seed (data, model and method are not read).
        out: a folder for metrics and checkpoints, made if needed. None writes nothing.
        resume: take up the checkpoint in `out`, if there is one.
        progress: a bar on standard error.
        on_epoch: called with each epoch's row.
    Raises:
        ValueError: if `out` holds a checkpoint and `resume` is not set, or the checkpoint is of another run.
        CheckpointError: if the checkpoint is damaged or of another model.
        FloatingPointError: if the loss or the weights are no longer finite; the last good checkpoint is kept.
    """
    with seeded(settings.seed):
        run = _Run(model, mixer, dataset, settings, out, resume)
        for epoch in _bar(range(len(run.rows), settings.epochs), settings.epochs, progress and run.main):
            row = run.epoch(epoch)
            run.keep(row)
            if on_epoch:
                on_epoch(row)
        return Result(run.accelerator.unwrap_model(run.model, keep_fp32_wrapper=False), run.rows)


class _Run:
    """One run in progress: the prepared model, optimiser, schedule and data, and the epochs done so far."""

    def __init__(self, model, mixer, dataset, settings, out, resume):
        found = out is not None and (Path(out) / runs.CHECKPOINT).exists()
        if found and not resume:
            raise ValueError(f"{out} holds a checkpoint already; resume it, or give another folder")
        self.accelerator = _accelerator(settings)
        device = self.accelerator.device
        self.settings, self.mixer, self.out, self.rows = settings, mixer, out, []
        self.main = self.accelerator.is_main_process
        self.dataset = dataset.to(device)
        self.probe = self.dataset.train.take(torch.randperm(len(dataset.train), generator=_generator(0))[:PROBE])
        mixer.check(model)
        self.memory_format = models.memory_format(model, device)
        model = model.to(device, memory_format=self.memory_format)
        groups = mixer.begin_run(model, len(dataset.train.classes))
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

    def epoch(self, epoch: int) -> dict:
        """Trains one epoch and measures it."""
        s, started = self.settings, time.perf_counter()
        self.mixer.begin_epoch(epoch, s.epochs)
        loss, accuracy, seen = self._train(epoch)
        trained = time.perf_counter()
        if not all(value.isfinite().all() for value in self.model.state_dict().values() if value.is_floating_point()):
            raise self._broken("weights are", self.step)
        row = {"epoch": epoch + 1, "step": (epoch + 1) * self.steps, "lr": self.lr,
               "train_loss": loss, "train_accuracy_mixed_percent": 100 * accuracy,
               "images_per_s": seen / (trained - started), **self._measured(epoch)}
        return {**row, "time_s": time.perf_counter() - started}

    def keep(self, row: dict) -> None:
        """Adds the epoch's row, on disk too; then the checkpoint that contains it."""
        self.rows.append(row)
        if self.out is None or not self.main:
            return
        runs.append_metrics(self.out, row)
        checkpoint.save(Path(self.out) / runs.CHECKPOINT, self._state())

    def _train(self, epoch: int) -> tuple[float, float, int]:
        """One pass over the training images: mean loss, mean λ-weighted accuracy, images seen."""
        acc, totals, seen = self.accelerator, 0, 0
        first_bad = torch.full((), math.inf, device=acc.device)
        self.model.train()
        augment = _generator(self.settings.seed, epoch, acc.process_index)
        for step, indices in enumerate(self._order(epoch), start=1 + epoch * self.steps):
            images, labels = self._batch(indices[acc.process_index::acc.num_processes], augment)
            loss = self.mixer.loss(self.model, images, labels)
            acc.backward(loss)
            self.optimizer.step()
            self.step, self.lr = step, self.optimizer.param_groups[0]["lr"]
            self.schedule.step()
            self.optimizer.zero_grad()
            self.mixer.end_step(self.model)
            seen += len(indices)
            totals = totals + len(images) * self._meters(loss)
            first_bad = first_bad.minimum(torch.where(loss.detach().isfinite(), math.inf, float(step)))
            if acc.device.type == "cpu" or step % 50 == 0:  # reading a number back stalls a GPU
                self._stop_if_bad(first_bad)
        self._stop_if_bad(first_bad)
        loss, accuracy = (acc.reduce(totals, "sum") / seen).tolist()
        return loss, accuracy, seen

    def _order(self, epoch: int) -> list[Tensor]:
        smallest = 2 * self.accelerator.num_processes  # batch norm needs two images in every process
        return batches(len(self.dataset.train), self.settings.batch_size, self.settings.seed, epoch, smallest)

    def _batch(self, indices: Tensor, augment: torch.Generator) -> tuple[Tensor, Tensor]:
        batch = self.dataset.train.take(indices.to(self.accelerator.device, non_blocking=True))
        pixels = batch.pixels
        if self.settings.augment:
            pixels = crop_and_flip(pixels, self.dataset.augmentation, augment)
        images = normalise(to_float(pixels), self.dataset.mean, self.dataset.std)
        return images.contiguous(memory_format=self.memory_format), batch.labels

    def _meters(self, loss: Tensor) -> Tensor:
        last = self.mixer.last
        return torch.stack([loss.detach().float(), last.target.accuracy(last.logits)])

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
            logits, probe = predict(model, self.dataset.test), predict(model, self.probe)
        except FloatingPointError:
            raise self._broken("model's answers are", self.step) from None
        loss = nn.functional.cross_entropy(logits, labels).item()
        return dict(zip(names, (top_k_error(logits, labels), loss, top_k_error(probe, self.probe.labels))))

    def _state(self) -> dict:
        bare = self.accelerator.unwrap_model(self.model)
        return {"format": 1, "epoch": len(self.rows), "rows": self.rows, "model": bare.state_dict(),
                "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                "mixer": self.mixer.state_dict(), "torch_rng": torch.get_rng_state(),
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
    """PyTorch's scheduler of that name over `steps` optimiser steps."""
    from torch.optim import lr_scheduler as kinds

    if settings.schedule == "cosine":
        return kinds.CosineAnnealingLR(optimizer, T_max=steps)
    if settings.schedule == "step":
        return kinds.MultiStepLR(optimizer, [round(share * steps) for share in settings.milestones], gamma=0.1)
    if settings.schedule == "onecycle":
        return kinds.OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps + 1)
    return kinds.ConstantLR(optimizer, factor=1.0)


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
    return runs.plain({**settings.as_dict(), "mixer": {"class": type(mixer).__name__, **named}})


def _accelerator(settings: Settings):
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


def _bar(epochs: range, total: int, shown: bool):
    from tqdm.auto import tqdm

    return tqdm(epochs, initial=epochs.start, total=total, unit="epoch", disable=not shown, leave=False)
