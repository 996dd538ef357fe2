"""Training: one run from its settings, or on a model and data of your own; the loop is in
`loop.py`.
"""

import copy
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from .. import models
from ..data import Augmentation, Dataset, load, subset
from ..data.augment import normalise, to_float
from ..data.protocol import with_protocol, without_augmentation
from ..data.resize import ResizedCrop
from ..mixers import Mixer, make
from ..utils.files import jsonable, read_json, write_json
from ..utils.progress import bar
from . import folder as runs
from .lock import locked
from .loop import Progress, Run
from .machine import heap
from .machine.accelerator import accelerator, given_back
from .machine.distributed import leave_at_exit, stay
from .machine.precision import with_precision
from .machine.signals import Asked, deferred
from .seeds import seeded
from .settings import Settings


@dataclass(frozen=True)
class Result:
    """What a run came to. `rows`: one dictionary per finished epoch, as in metrics.jsonl;
    `finished`: not stopped.
    """

    model: nn.Module
    rows: list[dict]
    finished: bool = True

    @property
    def summary(self) -> dict[str, float]:
        """Validation error in percent: last, best, median of the last ten, of the epochs that were
        validated (None if there was no validation yet); and the run's time in s.
        """
        errors = [
            row["val_error_percent"] for row in self.rows if row["val_error_percent"] is not None
        ] or [None]
        return {
            "last_error_percent": errors[-1],
            "best_error_percent": min(errors),
            "median10_error_percent": median(errors[-10:]),
            "time_s": sum(row["time_s"] for row in self.rows),
        }


def train(settings: Settings, out: Path, *, resume: bool = False, progress: bool = True) -> Result:
    """Trains as `settings` say and leaves run.json, metrics.jsonl and checkpoint.pt in `out`.

    Args:
        settings: everything that decides the run. Precision "auto" is decided once: a resumed run
            keeps its own.
        out: the run's folder, new or empty; with `resume`, one that holds a run of the same
            settings.
        resume: go on where the checkpoint of the run stands, also inside an epoch.
        progress: a bar on standard error.
    Raises:
        ValueError: for settings that name nothing, a folder that holds another run or is another
            process's at the moment, a damaged checkpoint.
        FloatingPointError, MemoryError, OSError, KeyboardInterrupt, SystemExit: as `fit`.
    """
    out = Path(out)
    settings = with_precision(settings, [out] if resume else [])
    mixer, engine = (
        make(settings.method, seed=settings.seed, **settings.method_settings),
        accelerator(settings),
    )
    with engine.main_process_first():  # one process downloads and decodes, the others find it done
        dataset = dataset_of(settings, progress and engine.is_main_process)
    model = model_of(settings, dataset)
    mixer.check(model)
    try_out(model, dataset)
    chosen = jsonable(settings.as_dict())
    if engine.is_main_process:
        # first of all, so that what is refused leaves no trace
        runs.check_claim(out, chosen, resume)
    with _deferred() as asked, _locked(out, engine):
        if engine.is_main_process:
            runs.claim(out, chosen, resume)
        engine.wait_for_everyone()
        result = _fitted(asked, model, mixer, dataset, settings, out, resume, progress)
        if engine.is_main_process and result.finished:
            write_json(out / runs.RUN, {**read_json(out / runs.RUN), "result": result.summary})
    return result


def dataset_of(settings: Settings, progress: bool = True) -> Dataset:
    """The data set of a run, its training images cut to the subset, as the settings have it (see
    `with_protocol`).
    """
    dataset = load(
        settings.data,
        settings.data_dir,
        image_size=settings.image_size,
        skip_unreadable=settings.skip_unreadable,
        progress=progress,
        loader=settings.loader,
        workers=settings.workers,
    )
    if settings.subset is not None:
        dataset = dataset.with_train(subset(dataset.train, settings.subset, settings.seed))
    dataset = with_protocol(
        dataset, augmentation_of(settings, dataset.augmentation), settings.normalisation
    )
    return dataset if settings.augment else without_augmentation(dataset)


def augmentation_of(settings: Settings, own: Augmentation) -> Augmentation:
    """What the training images go through: what the settings say, and where they are silent the
    data set's `own`.

    Raises:
        ValueError: if the settings do not fit together, or are out of range.
    """
    resized = settings.resized_scale and ResizedCrop(
        settings.resized_scale, settings.resized_ratio, settings.resized_interpolation
    )
    pad, window = settings.pad, settings.window or own.window
    if pad is None:
        pad = 0 if settings.window or resized else own.pad
    return Augmentation(
        pad,
        settings.pad_mode or own.pad_mode,
        own.flip,
        window,
        resized,
        settings.jitter,
        settings.pca_noise,
    )


def model_of(settings: Settings, dataset: Dataset) -> nn.Module:
    """The model of a run, its weights drawn from the run's seed; the global generator is left as it
    was.
    """
    off = {"stem_stride": 1, "norm_before_pool": False, "stem": None, "pretrained": False}
    options = {
        key: getattr(settings, key)
        for key, default in off.items()
        if getattr(settings, key) != default
    }
    with seeded(settings.seed):
        return models.create(
            settings.model,
            num_classes=len(dataset.train.classes),
            width=settings.width,
            in_channels=dataset.train.shape[0],
            **options,
        )


def try_out(model: nn.Module, dataset: Dataset) -> None:
    """Raises ValueError unless a copy of `model`, in training mode, turns two images into two rows
    of logits.
    """
    images = normalise(to_float(dataset.test.take([0, 0]).pixels), dataset.mean, dataset.std)
    classes = len(dataset.train.classes)
    try:
        with torch.random.fork_rng(), torch.no_grad():
            logits = copy.deepcopy(model).train()(images)
    except (RuntimeError, ValueError) as error:
        shape = tuple(images.shape[1:])
        raise ValueError(
            f"{type(model).__name__} cannot train on images of {shape}: {error}"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{type(model).__name__} must return logits (2, {classes}) for two images, got {got}"
        )


def fit(
    model: nn.Module,
    mixer: Mixer,
    dataset: Dataset,
    settings: Settings,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[dict], None] | None = None,
    on_step: Callable[[Progress], bool | None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Result:
    """Trains `model` on `dataset` with `mixer`: the loop itself, for models and data of your own.

    Args:
        model: from normalised (B, C, H, W) float32 images to (B, N) logits; trained in place.
        mixer: any method.
        dataset: resident images.
        settings: epochs, batch size, optimiser, schedule, precision, seed (data, model and method
            are not read).
        out: a folder for metrics and checkpoints, made if needed. None writes nothing.
        resume: take up the checkpoint in `out`, if there is one.
        progress: a bar on standard error.
        on_epoch: called with each epoch's row.
        on_step: called after each step; a true answer, of any process, stops the run there. What
            was trained is kept: in `out` as a checkpoint from which `resume` goes on at the next
            step, to the same weights.
        should_stop: asked after each step and before each batch of a validation, to the same
            effect.

    Ctrl-C, the kernel's stop button and SIGTERM never break into a step (in the main thread, where
    Python lets signals be put off; a second Ctrl-C does). The step is finished, the run stored in
    `out`, no hook left; the model stays in training mode, as after a run that ended. Called again
    with `resume`, the run goes on to the weights that it would have had. Without `out` only the
    model keeps what was learnt: called again, a new run begins with its weights.

    Raises:
        ValueError: if `out` holds a checkpoint and `resume` is not set, if the checkpoint is of
            another run or of another number of processes, or another run is at work in `out`.
        CheckpointError: if the checkpoint is damaged or of another model.
        FloatingPointError: if the loss or the weights are no longer finite: after the step on a
            CPU, within 50 on a GPU. MemoryError: if a step does not fit. OSError: if a checkpoint
            cannot be written. In all three cases the last good checkpoint is kept.
        KeyboardInterrupt: after an interrupt. SystemExit: 143, after SIGTERM, which clusters send
            before they kill.
    """
    settings = with_precision(settings, [Path(out)] if resume and out is not None else [])
    engine = accelerator(settings)
    # in this order: an interrupt must not leave the folder locked
    with _deferred() as asked, _locked(out, engine):
        return _fitted(
            asked,
            model,
            mixer,
            dataset,
            settings,
            out,
            resume,
            progress,
            on_epoch,
            on_step,
            should_stop,
        )


def _deferred() -> AbstractContextManager[Asked]:
    """Signals put off; under torchrun, which repeats a Ctrl-C to its processes, the second one
    too.
    """
    return deferred(patient=int(os.environ.get("WORLD_SIZE", 1)) > 1)


def _locked(out: Path | None, engine) -> AbstractContextManager:
    """The lock of the folder, for the process that writes there."""
    return nullcontext() if out is None or not engine.is_main_process else locked(out)


def _fitted(
    asked,
    model,
    mixer,
    dataset,
    settings,
    out,
    resume,
    progress,
    on_epoch=None,
    on_step=None,
    should_stop=None,
) -> Result:
    """`fit`, the signals being noted in `asked` and the folder ours."""
    stay()
    with seeded(settings.seed), given_back(model):
        run = Run(
            model,
            mixer,
            dataset,
            settings,
            out,
            resume,
            on_step,
            lambda: bool(asked) or (should_stop is not None and should_stop()),
        )
        with heap.kept() if run.accelerator.device.type == "cpu" else nullcontext():
            _go_on(run, settings, progress, on_epoch)
        asked.agree(run.where())
    if run.accelerator.num_processes > 1:
        leave_at_exit()
    return Result(model, run.rows, finished=len(run.rows) == settings.epochs)


def _go_on(
    run: Run, settings: Settings, progress: bool, on_epoch: Callable[[dict], None] | None
) -> None:
    """The epochs that are left, or as many as nobody stops."""
    todo, shown = range(len(run.rows), settings.epochs), progress and run.main
    for epoch in bar(todo, None, "epoch", shown, initial=todo.start, total=todo.stop, leave=False):
        row = run.epoch(epoch)
        if row is None:
            run.save()
            break
        run.keep(row)
        if on_epoch:
            on_epoch(row)
        if run.stopped:
            break
