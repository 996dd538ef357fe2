"""Training: one run from its settings, or on a model and data of your own; the loop is in
`loop.py`.
"""

import copy
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import models
from ..data import Augmentation, Dataset, load, subset
from ..data.augment import normalise, to_float
from ..data.identity import identify
from ..data.protocol import with_protocol, without_augmentation
from ..data.resize import ResizedCrop
from ..mixers import Mixer, make
from ..mixers.feature import check_blocks_run
from ..utils.files import jsonable, read_json, write_json
from ..utils.progress import bar, say
from .folder import RUN, check_claim, claim
from .learning import Learning, judge_learning, share_of_paper
from .lock import lock_folder
from .loop import Progress, TrainingRun
from .machine.accelerator import make_accelerator, restore_model
from .machine.distributed import destroy_group_at_exit, keep_group_at_exit
from .machine.precision import resolve_precision
from .machine.signals import StopRequest, defer_signals
from .seeds import fork_rng
from .settings import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Result:
    """What a run came to. `rows`: one dictionary per finished epoch, as in metrics.jsonl;
    `finished`: not stopped; `learning`: whether the network is trained or still learning.
    """

    model: nn.Module
    rows: list[dict]
    finished: bool = True
    learning: Learning = Learning(False, "it was not judged")

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
    settings = resolve_precision(settings, [out] if resume else [])
    mixer = make(settings.method, seed=settings.seed, **settings.method_settings)
    accelerator = make_accelerator(settings)
    is_main = accelerator.is_main_process
    with accelerator.main_process_first():  # one process downloads and decodes, for all of them
        dataset = dataset_of(settings, progress and is_main)
    model = model_of(settings, dataset)
    mixer.check(model)
    try_out(model, dataset)
    try_blocks(model, mixer, dataset)
    identity = identify(dataset)
    record = {"settings": jsonable(settings.as_dict()), "data": identity.as_dict()}
    if is_main:  # before the lock, so that what is refused leaves no trace
        check_claim(out, **record, resume=resume)
    begin = partial(
        TrainingRun,
        model,
        mixer,
        dataset,
        settings,
        accelerator,
        out=out,
        identity=identity,
        resume=resume,
    )
    with _defer_signals() as request, _lock(out, accelerator):
        if is_main:
            claim(out, **record, resume=resume)
        accelerator.wait_for_everyone()
        result = _fit(request, begin, progress)
        if is_main and result.finished:
            told = {"result": result.summary, "learning": result.learning._asdict()}
            write_json(out / RUN, {**read_json(out / RUN), **told})
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
    with fork_rng(settings.seed):
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
    images, classes = _two_images(dataset), len(dataset.train.classes)
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


def try_blocks(model: nn.Module, mixer: Mixer, dataset: Dataset) -> None:
    """Raises ValueError unless every block that `mixer` may draw runs once and returns maps (see
    `check_blocks_run`).
    """
    place = next(model.parameters()).device
    check_blocks_run(mixer, model, torch.zeros(2, *dataset.test.shape, device=place))


def _two_images(dataset: Dataset) -> Tensor:
    """The first test image twice, as the model sees it."""
    return normalise(to_float(dataset.test.take([0, 0]).pixels), dataset.mean, dataset.std)


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
        resume: go on from the checkpoint in `out`, if there is one; its data have to be these.
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
        ValueError: for a block that the method may draw and that does not run exactly once; if
            `out` holds a checkpoint and `resume` is not set, if the checkpoint is of another run,
            of other data or of another number of processes, if it is missing though
            epochs were finished, or another run is at work in `out`.
        CheckpointError: if the checkpoint is damaged or of another model.
        FloatingPointError: if the loss or the weights are no longer finite: after the step on a
            CPU, within 50 on a GPU. MemoryError: if a step does not fit. OSError: if a checkpoint
            cannot be written. In all three cases the last good checkpoint is kept.
        KeyboardInterrupt: after an interrupt. SystemExit: 143, after SIGTERM, which clusters send
            before they kill.
    """
    out = None if out is None else Path(out)
    settings = resolve_precision(settings, [out] if resume and out else [])
    accelerator = make_accelerator(settings)
    try_blocks(model, mixer, dataset)
    identity = None if out is None else identify(dataset)
    begin = partial(
        TrainingRun,
        model,
        mixer,
        dataset,
        settings,
        accelerator,
        out=out,
        identity=identity,
        resume=resume,
        on_step=on_step,
    )
    # in this order: an interrupt must not leave the folder locked
    with _defer_signals() as request, _lock(out, accelerator):
        result = _fit(request, begin, progress, on_epoch, should_stop)
    if progress and accelerator.is_main_process and result.finished and not result.learning.trained:
        say(f"still learning: {result.learning.reason} (catchup.training.learning)", progress)
    return result


def _defer_signals() -> AbstractContextManager[StopRequest]:
    """Signals put off; under torchrun, which repeats a Ctrl-C to its processes, the second one
    too.
    """
    return defer_signals(patient=int(os.environ.get("WORLD_SIZE", 1)) > 1)


def _lock(out: Path | None, accelerator: "Accelerator") -> AbstractContextManager[None]:
    """The lock of the folder, for the process that writes there."""
    return nullcontext() if out is None or not accelerator.is_main_process else lock_folder(out)


def _fit(
    request: StopRequest,
    begin: "partial[TrainingRun]",
    progress: bool,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Result:
    """`fit`: the run that `begin` makes, the signals being noted in `request` and the folder
    ours.
    """

    def stops() -> bool:
        return bool(request) or (should_stop is not None and should_stop())

    model, _, dataset, settings, accelerator = begin.args
    keep_group_at_exit()
    with fork_rng(settings.seed), restore_model(model):
        run = begin(should_stop=stops)
        _train_epochs(run, progress, on_epoch)
        request.agree(run.position())
    if accelerator.num_processes > 1:
        destroy_group_at_exit()
    finished = len(run.rows) == settings.epochs
    return Result(model, run.rows, finished, _learning_of(run.rows, dataset, settings))


def _learning_of(rows: Sequence[dict[str, Any]], dataset: Dataset, settings: Settings) -> Learning:
    """The verdict on a run as far as it came, from its last validation."""
    errors = [row["clean_train_error_percent"] for row in rows]
    side = settings.window or dataset.train.shape[-1]
    return judge_learning(
        next((error for error in reversed(errors) if error is not None), None),
        share_of_paper(len(rows), settings.batch_size, side),
    )


def _train_epochs(
    run: TrainingRun, progress: bool, on_epoch: Callable[[dict[str, Any]], None] | None
) -> None:
    """The epochs that are left, or as many as nobody stops."""
    todo, shown = range(len(run.rows), run.settings.epochs), progress and run.is_main
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
