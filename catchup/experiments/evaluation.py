"""One evaluation object from a run's folder: what the model in its checkpoint does on the test
images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..data import Dataset, Images
from ..data.files.archives import CIFAR100_C
from ..data.identity import check_same_data, identify
from ..measures.registry import MEASURES, measure, select_tests, tests_that_need
from ..measures.subject import Options, Subject, load_outside
from ..models.inference import PixelModel
from ..training import checkpoint
from ..training.checkpoint import CheckpointError
from ..training.folder import CHECKPOINT, EVALUATION, RUN
from ..training.learning import assess_record
from ..training.lock import lock_file
from ..training.machine.onednn import memory_format
from ..training.settings import WITHOUT_EFFECT, Settings
from ..training.trainer import Result, dataset_of, model_of
from ..utils.choices import pick
from ..utils.files import jsonable, read_object, remove_abandoned, write_json
from ..utils.provenance import surroundings
from ..utils.schema import is_epoch, read_evaluation

TESTS = tuple(MEASURES)
# what is measured if nothing is named: any model and data will do
MERGING_S = 600  # seconds to wait for other evaluations of the same run to write theirs
USUAL = ("clean", "feature-drop", "fgsm", "pgd")


def evaluate(
    run_dir: str | Path,
    tests: Sequence[str] = USUAL,
    *,
    options: Options | None = None,
    data_dir: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> dict:
    """Evaluates the checkpoint of a run on the test images and leaves `evaluation.json` in its
    folder.

    The fields of tests that are not asked for are taken over from an earlier evaluation.json of the
    same checkpoint; otherwise they are None.

    Args:
        run_dir: the folder that `train` filled. A run that was stopped is evaluated as far as it
            came.
        tests: some of `TESTS` (see `catchup.measures`).
        options: of the tests; None takes the defaults.
        data_dir: where the data are now; None: where they were in training.
        device: "auto" takes a GPU if there is one, "cpu" does not.
        progress: bars on standard error.
    Returns:
        What was written: method, method_settings, seed, data, subset, model, width, `epochs`
        (finished ones; `finished` says whether that is all of them), the fields of `evaluation_of`,
        last_error, best_error, median10_error, last_val_loss (validation during training, None if
        there was none), checkpoint_sha256, training (its command and commit), and versions,
        hardware, command and commit of this evaluation; learning, whether the network is trained
        (see `catchup.training.learning.assess_record`). All errors in percent.
    Raises:
        ValueError: for an unknown test, a test that the data or the model cannot take, or a folder
            that holds no run.
        FileNotFoundError: if the data are not there.
        CheckpointError: if the checkpoint is missing, damaged, or of another model. Nothing is
            written then.
    """
    run_dir, asked, options = Path(run_dir), select_tests(tests), options or Options()
    pick("device", device, ("auto", "cpu"))
    run, settings = _run_of(run_dir)
    state, digest = _checkpoint_of(run_dir, run["settings"])
    settings = replace(settings, data_dir=data_dir or settings.data_dir)
    options = with_published(options, settings)
    dataset = dataset_of(settings, progress)
    identity = identify(dataset).as_dict()
    check_same_data(run.get("data"), identity, f"{run_dir} holds a run")
    check_same_data(state.get("data"), identity, f"{run_dir / CHECKPOINT} is a checkpoint")
    model, place = _restored(run_dir, settings, dataset, state["model"]), device_named(device)
    model.to(place, memory_format=memory_format(model, place))
    outside = None
    if tests_that_need("outside", asked):
        outside = load_outside(options, settings.data_dir, dataset, progress)
    found = {
        **evaluation_of(model, dataset, asked, options=options, outside=outside, progress=progress),
        "checkpoint_sha256": digest,
        "identity": identity,
    }
    row = {**describe_training(run["settings"], state["rows"]), **found}
    row["learning"] = assess_record(row)
    training = {"training": {key: run.get(key) for key in ("command", "commit")}}
    return merge_evaluation(
        run_dir, row, asked, ("checkpoint_sha256", "n_test", "identity"), training
    )


def evaluation_of(
    model: nn.Module,
    dataset: Dataset,
    tests: Sequence[str] = USUAL,
    *,
    options: Options | None = None,
    outside: Images | None = None,
    progress: bool = False,
) -> dict:
    """What can be measured of a model in memory; nothing is read or written, and the model is left
    as it was.

    Args:
        model: from normalised (B, C, H, W) images to (B, N) logits, on any device.
        dataset: its test images are evaluated, all of them but where the options sample; mean and
            std normalise.
        tests: some of `TESTS`.
        options: of the tests; None takes the defaults.
        outside: images from elsewhere, for the test ood.
        progress: bars on standard error.
    Returns:
        n_test; the fields of every test (see `catchup.measures.MEASURES`), None for those that were
        not asked, among them top1_error and top5_error (0 by definition where there are at most
        five classes) in percent; and measured_with, {test: its settings}.
    Raises:
        ValueError: for an unknown test, or a model or data without what a test needs.
    """
    place = next(model.parameters()).device
    dataset, outside = dataset.to(place), None if outside is None else outside.to(place)
    subject = Subject(
        PixelModel.of(model, dataset), dataset, options or Options(), outside, progress
    )
    return {"n_train": len(dataset.train), "n_test": len(dataset.test), **measure(subject, tests)}


def _run_of(run_dir: Path) -> tuple[dict, Settings]:
    """The run's record and its settings."""
    path = run_dir / RUN
    if not path.is_file():
        raise ValueError(f"{run_dir} is not the folder of a run: it holds no {RUN}")
    run = read_object(path)
    try:
        return run, Settings.from_dict(run["settings"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not hold the settings of a run ({type(error).__name__},"
            f" {str(error)[:150]}): restore a copy, or train it again"
        ) from None


def _checkpoint_of(run_dir: Path, settings: dict) -> tuple[dict, str]:
    """The state of the run's checkpoint and the SHA-256 of its file.

    Raises:
        CheckpointError: if it is none, or that of a run with other settings than run.json has.
    """
    path = run_dir / CHECKPOINT
    state, digest = checkpoint.load_with_digest(path)
    rows, own = state.get("rows"), state.get("run")
    whole = "model" in state and isinstance(own, dict) and isinstance(rows, list)
    if not whole or not all(map(is_epoch, rows)):
        held = ", ".join(map(str, state))[:150] or "nothing"
        raise CheckpointError(
            f"{path} is no checkpoint of a training run, or not a whole one: it holds {held}; train"
            " it again"
        )
    changed = [
        f"{key} {str(own.get(key))[:60]} there, {str(value)[:60]} in {RUN}"
        for key, value in settings.items()
        if key not in WITHOUT_EFFECT and own.get(key) != value
    ]
    if changed:
        raise CheckpointError(
            f"{path} is of another run than {RUN} beside it ({'; '.join(changed[:3])}): put"
            " the two files of one run together, or train it again"
        )
    return state, digest


def _restored(run_dir: Path, settings: Settings, dataset: Dataset, weights: dict) -> nn.Module:
    """The run's model with the weights of its checkpoint."""
    # what it began with is not asked for again
    model = model_of(replace(settings, pretrained=False), dataset)
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError):
        raise CheckpointError(
            f"{run_dir / CHECKPOINT} holds the weights of another model than {RUN} names"
            f" beside it ({settings.model}, width {settings.width}, {len(dataset.test.classes)}"
            f" classes of {settings.data}): put the two files of one run together, or train it"
            " again"
        ) from None
    return model


def device_named(device: str) -> torch.device:
    """The device of that setting."""
    gpu = device == "auto" and torch.accelerator.is_available()
    return torch.accelerator.current_accelerator() if gpu else torch.device("cpu")


def describe_training(settings: dict, rows: list[dict]) -> dict:
    """The part of an evaluation object that says what was trained, and the validation errors and
    last loss of it.

    Args:
        settings: of the run, as `run.json` keeps them. rows: its epochs.
    """
    kept = {
        key: settings[key]
        for key in ("method", "method_settings", "seed", "data", "subset", "model", "width")
    }
    summary = Result(None, rows).summary
    errors = {
        f"{name}_error": summary[f"{name}_error_percent"] for name in ("last", "best", "median10")
    }
    losses = [row["val_loss"] for row in rows if row["val_loss"] is not None]
    learnt = [
        row["clean_train_error_percent"]
        for row in rows
        if row["clean_train_error_percent"] is not None
    ]
    return {
        **kept,
        "settings": settings,
        "epochs": len(rows),
        "finished": len(rows) == settings["epochs"],
        **errors,
        "last_val_loss": losses[-1] if losses else None,
        "clean_train_error": learnt[-1] if learnt else None,
    }


def merge_evaluation(
    folder: Path, row: dict, asked: Sequence[str], same: Sequence[str], more: Mapping
) -> dict:
    """Writes the row into evaluation.json, with what an earlier evaluation with the `same` values
    found by other tests; evaluations side by side wait for each other here, so that none is lost.
    """
    path = folder / EVALUATION
    with lock_file(path, wait_s=MERGING_S):
        remove_abandoned(folder, f".{path.name}.*.tmp")
        earlier = read_evaluation(path) if path.is_file() else {}
        merged = jsonable({**_completed(row, asked, earlier, same), **more, **surroundings()})
        write_json(path, merged)
    return merged


def _completed(row: dict, asked: Sequence[str], earlier: dict, same: Sequence[str]) -> dict:
    """What was measured now, and for tests not asked what an earlier evaluation found with the
    `same` values.
    """
    if any(key not in earlier or earlier[key] != row[key] for key in same):
        return row
    kept = {
        test: how
        for test, how in (earlier.get("measured_with") or {}).items()
        if test in MEASURES and test not in asked
    }
    fields = {field: earlier.get(field) for test in kept for field in MEASURES[test].fields}
    return {**row, **fields, "measured_with": {**kept, **row["measured_with"]}}


def with_published(options: Options, settings: Settings) -> Options:
    """The options with the published CIFAR-100-C arrays, where they lie in the data folder of a run
    and can be taken.

    They can for all test images of cifar100 in their size: not for a sample, a window or another
    size, and not where the options name a folder themselves.
    """
    folder = Path(settings.data_dir) / CIFAR100_C.folder
    whole = (
        settings.data == "cifar100"
        and settings.image_size in (None, 32)
        and settings.window is None
    )
    if (
        not whole
        or options.cifar_c_dir is not None
        or options.sample is not None
        or not folder.is_dir()
    ):
        return options
    return replace(options, cifar_c_dir=folder)
