"""One evaluation object from a run's folder: what the model in its checkpoint does on the test images."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from . import checkpoint, models, runs
from .checkpoint import CheckpointError
from .choices import pick
from .data import Dataset, Images
from .feature_drop import feature_drop_curve
from .inference import PixelModel, predict, top_k_error
from .robustness import attack_error, fgsm, pgd
from .settings import Settings
from .training import Result, dataset_of, model_of

FIELDS = {"clean": ("top1_error", "top5_error"), "fgsm": ("fgsm_error",), "pgd": ("pgd_error",),
          "feature-drop": ("feature_drop",)}  # each test, and what it fills
TESTS = tuple(FIELDS)
EPS_255 = 4.0
PGD = {"steps": 10, "step_255": 1.0, "start_seed": 0}  # random starts: the same for every model on the same images


def evaluate(run_dir: str | Path, tests: Sequence[str] = TESTS, *, data_dir: str | None = None, device: str = "auto",
             progress: bool = True) -> dict:
    """Evaluates the checkpoint of a run on the whole test set and leaves `evaluation.json` in its folder.

    The fields of tests that are not asked for are taken over from an earlier evaluation.json, if it measured the same
    checkpoint on as many images with the same attacks; otherwise they are None.

    Args:
        run_dir: the folder that `train` filled. A run that was stopped is evaluated as far as it came.
        tests: some of `TESTS`.
        data_dir: where the data are now; None: where they were in training.
        device: "auto" takes a GPU if there is one, "cpu" does not.
        progress: bars on standard error.
    Returns:
        What was written: method, method_settings, seed, data, subset, model, width, `epochs` (finished ones; `finished`
        says whether that is all of them), the fields of `evaluation_of`, last_error, best_error and median10_error
        (validation during training, None if there was none), checkpoint_sha256, training (its command and commit),
        and versions, hardware, command and commit of this evaluation. All errors in percent.
    Raises:
        ValueError: for an unknown test or a folder that holds no run. FileNotFoundError: if the data are not there.
        CheckpointError: if the checkpoint is missing, damaged, or of another model. Nothing is written then.
    """
    run_dir, asked = Path(run_dir), _picked(tests)
    pick("device", device, ("auto", "cpu"))
    run, settings = _run_of(run_dir)
    state, digest = _checkpoint_of(run_dir)
    earlier = runs.read_json(run_dir / runs.EVALUATION) if (run_dir / runs.EVALUATION).exists() else {}
    settings = replace(settings, subset=None, data_dir=data_dir or settings.data_dir)  # test images are always whole
    dataset = dataset_of(settings, progress)
    model, place = _restored(run_dir, settings, dataset, state["model"]), _device(device)
    model.to(place, memory_format=models.memory_format(model, place))
    measured = evaluation_of(model, dataset, asked, progress=progress)
    row = {**described(run["settings"], state["rows"]), **_completed(measured, asked, earlier, digest),
           "checkpoint_sha256": digest, "training": {key: run.get(key) for key in ("command", "commit")},
           **runs.surroundings()}
    runs.write_json(run_dir / runs.EVALUATION, row)
    return runs.plain(row)


def evaluation_of(model: nn.Module, dataset: Dataset, tests: Sequence[str] = TESTS, *, progress: bool = False) -> dict:
    """What can be measured of a model in memory; nothing is read or written, and the model is left as it was.

    Args:
        model: from normalised (B, C, H, W) images to (B, N) logits, on any device.
        dataset: its test images are evaluated, all of them; its mean and std normalise.
        tests: some of `TESTS`: clean, fgsm, pgd, feature-drop.
        progress: bars on standard error.
    Returns:
        n_test; top1_error, top5_error (0 by definition where there are at most five classes), fgsm_error, pgd_error,
        in percent; feature_drop (see `feature_drop_curve`); None for what was not asked; eps_255 and pgd, the settings
        of the attacks.
    Raises:
        ValueError: for an unknown test, or a model without what a test needs.
    """
    asked = _picked(tests)
    images, pixel_model = dataset.test.to(next(model.parameters()).device), PixelModel.of(model, dataset)
    row = {"n_test": len(images), **dict.fromkeys(field for test in TESTS for field in FIELDS[test])}
    for test in asked:
        row |= _measured(test, pixel_model, images, progress)
    return row | {"eps_255": EPS_255, "pgd": dict(PGD)}


def _measured(test: str, model: PixelModel, images: Images, progress: bool) -> dict:
    """The fields of one test."""
    if test == "clean":
        logits = predict(model, images)
        return {f"top{k}_error": top_k_error(logits, images.labels, k) for k in (1, 5)}
    if test == "feature-drop":
        return {"feature_drop": feature_drop_curve(model, images)}
    start = torch.Generator().manual_seed(PGD["start_seed"])

    def attack(*batch):
        if test == "fgsm":
            return fgsm(*batch, eps_255=EPS_255)
        return pgd(*batch, eps_255=EPS_255, steps=PGD["steps"], step_255=PGD["step_255"], generator=start)

    attack.__name__ = test
    return {f"{test}_error": attack_error(model, images, attack, progress=progress)}


def _picked(tests: Sequence[str]) -> list[str]:
    """The tests asked for, each once; the quick ones come first, and refuse a model before minutes of attacks."""
    if not tests:
        raise ValueError(f"no test was named; choose some of: {', '.join(TESTS)}")
    asked = {pick("test", test, TESTS) for test in tests}
    return [test for test in ("clean", "feature-drop", "fgsm", "pgd") if test in asked]


def _run_of(run_dir: Path) -> tuple[dict, Settings]:
    """The run's record and its settings."""
    path = run_dir / runs.RUN
    if not path.is_file():
        raise ValueError(f"{run_dir} is not the folder of a run: it holds no {runs.RUN}")
    run = runs.read_json(path)
    try:
        return run, Settings.from_dict(run["settings"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold the settings of a run: {type(error).__name__}, {error}") from None


def _checkpoint_of(run_dir: Path) -> tuple[dict, str]:
    """The checkpoint's state and the SHA-256 of its file."""
    path = run_dir / runs.CHECKPOINT
    state = checkpoint.load(path)
    if not {"model", "rows"} <= state.keys():
        raise CheckpointError(f"{path} is no checkpoint of a training run: it holds {', '.join(state) or 'nothing'}")
    return state, hashlib.sha256(path.read_bytes()).hexdigest()


def _restored(run_dir: Path, settings: Settings, dataset: Dataset, weights: dict) -> nn.Module:
    """The run's model with the weights of its checkpoint."""
    model = model_of(settings, dataset)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise CheckpointError(
            f"{run_dir / runs.CHECKPOINT} holds the weights of another model than {runs.RUN} names beside it "
            f"({settings.model}, width {settings.width}, {len(dataset.test.classes)} classes of {settings.data}): "
            f"put the two files of one run together, or train it again") from None
    return model


def _device(device: str) -> torch.device:
    """The device of that setting."""
    gpu = device == "auto" and torch.accelerator.is_available()
    return torch.accelerator.current_accelerator() if gpu else torch.device("cpu")


def described(settings: dict, rows: list[dict]) -> dict:
    """The part of an evaluation object that says what was trained, and the validation errors of its training.

    Args:
        settings: of the run, as `run.json` keeps them. rows: its epochs.
    """
    kept = {key: settings[key] for key in ("method", "method_settings", "seed", "data", "subset", "model", "width")}
    summary = Result(None, rows).summary
    errors = {f"{name}_error": summary[f"{name}_error_percent"] for name in ("last", "best", "median10")}
    return {**kept, "epochs": len(rows), "finished": len(rows) == settings["epochs"], **errors}


def _completed(measured: dict, asked: Sequence[str], earlier: dict, digest: str) -> dict:
    """What was measured now, and for tests not asked what an earlier evaluation of the same checkpoint found."""
    same = earlier.get("checkpoint_sha256") == digest and all(
        earlier.get(key) == measured[key] for key in ("n_test", "eps_255", "pgd"))
    skipped = [field for test in TESTS if test not in asked for field in FIELDS[test]] if same else []
    return measured | {field: earlier.get(field) for field in skipped}
