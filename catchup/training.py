"""Training: one run from its settings, or on a model and data of your own; the loop is in `loop.py`."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from . import models, runs
from .data import Augmentation, Dataset, load, subset
from .data.augment import normalise, to_float
from .data.protocol import under_protocol, without_augmentation
from .data.resize import ResizedCrop
from .loop import Progress, Run, accelerator, progress_bar, seeded
from .mixers import Mixer, make
from .settings import Settings


@dataclass(frozen=True)
class Result:
    """What a run came to. `rows`: one dictionary per finished epoch, as in metrics.jsonl; `finished`: not stopped."""

    model: nn.Module
    rows: list[dict]
    finished: bool = True

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
    mixer, engine = make(settings.method, seed=settings.seed, **settings.method_settings), accelerator(settings)
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
    """The data set of a run, its training images cut to the subset, as the settings have it (see `under_protocol`)."""
    dataset = load(settings.data, settings.data_dir, image_size=settings.image_size,
                   skip_unreadable=settings.skip_unreadable, progress=progress)
    if settings.subset is not None:
        dataset = dataset.with_train(subset(dataset.train, settings.subset, settings.seed))
    dataset = under_protocol(dataset, augmentation_of(settings, dataset.augmentation), settings.normalisation)
    return dataset if settings.augment else without_augmentation(dataset)


def augmentation_of(settings: Settings, own: Augmentation) -> Augmentation:
    """What the training images go through: what the settings say, and where they are silent the data set's `own`.

    Raises:
        ValueError: if the settings do not fit together, or are out of range.
    """
    resized = settings.resized_scale and ResizedCrop(settings.resized_scale, settings.resized_ratio,
                                                     settings.resized_interpolation)
    pad, window = settings.pad, settings.window or own.window
    if pad is None:
        pad = 0 if settings.window or resized else own.pad
    return Augmentation(pad, settings.pad_mode or own.pad_mode, own.flip, window, resized, settings.jitter,
                        settings.lighting)


def model_of(settings: Settings, dataset: Dataset) -> nn.Module:
    """The model of a run, its weights drawn from the run's seed; the global generator is left as it was."""
    off = {"stem_stride": 1, "final_norm": False, "stem": None, "pretrained": False}
    options = {key: getattr(settings, key) for key, default in off.items() if getattr(settings, key) != default}
    with seeded(settings.seed):
        return models.create(settings.model, num_classes=len(dataset.train.classes), width=settings.width,
                             in_channels=dataset.train.pixels.shape[1], **options)


def try_out(model: nn.Module, dataset: Dataset) -> None:
    """Raises ValueError unless a copy of `model`, in training mode, turns two images into two rows of logits."""
    images = normalise(to_float(dataset.test.pixels[:1].expand(2, -1, -1, -1)), dataset.mean, dataset.std)
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
        resume: bool = False, progress: bool = True, on_epoch: Callable[[dict], None] | None = None,
        on_step: Callable[[Progress], bool | None] | None = None,
        should_stop: Callable[[], bool] | None = None) -> Result:
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
        on_step: called after each step; a true answer stops the run there (in one process). What was trained is kept:
            in `out` as a checkpoint from which `resume` goes on at the next step, to the same weights.
        should_stop: asked after each step and before each batch of a validation, to the same effect.
    Raises:
        ValueError: if `out` holds a checkpoint and `resume` is not set, or the checkpoint is of another run.
        CheckpointError: if the checkpoint is damaged or of another model.
        FloatingPointError: if the loss or the weights are no longer finite; the last good checkpoint is kept.
    """
    with seeded(settings.seed):
        run = Run(model, mixer, dataset, settings, out, resume, on_step, should_stop)
        for epoch in progress_bar(range(len(run.rows), settings.epochs), progress and run.main):
            row = run.epoch(epoch)
            if row is None:
                run.save()
                break
            run.keep(row)
            if on_epoch:
                on_epoch(row)
            if run.stopped:
                break
        bare = run.accelerator.unwrap_model(run.model, keep_fp32_wrapper=False)
        return Result(bare, run.rows, finished=len(run.rows) == settings.epochs)
