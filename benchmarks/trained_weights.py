"""The networks of `catchup.models.trained`: trains them and writes weights and cards.

    OMP_NUM_THREADS=1 python -m benchmarks.trained_weights --data digits

Each method is trained once from the same start, in float32. Baseline and Catch-up Mix are also kept
at earlier epochs of the same run. Run it from a clean checkout: the cards name the commit.
"""

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

import catchup
from catchup.data import Dataset
from catchup.experiments.evaluation import evaluation_of
from catchup.models.trained_networks import WEIGHTS
from catchup.models.weights import load_weights, save_weights
from catchup.training import Settings, dataset_of, model_of
from catchup.utils.provenance import surroundings

from .command import call

METHODS = ("baseline", "cutmix", "randomchannel", "catchup")
LOOKED_BACK = ("baseline", "catchup")  # kept at earlier epochs too
ALWAYS = ("data", "model", "method", "lr", "schedule", "seed")  # on a card, defaults or not
SHARE = 0.2  # of the features, the strongest, that are removed
COMMON = Settings(model="resnet18", width=8, precision="fp32", device="cpu", validate_every=0)
RUNS = {
    "digits": replace(
        COMMON, data="digits", subset=30, epochs=120, batch_size=50, lr=0.1, schedule="onecycle"
    ),
    "shapes95": replace(
        COMMON, data="shapes:0.95", subset=128, stem_stride=2, epochs=240, batch_size=32, lr=0.05
    ),
}
EARLIER = {"digits": (10, 30, 60), "shapes95": (5, 20, 80)}


def main(
    data: Literal["digits", "shapes95"], methods: tuple[str, ...] = METHODS, out: Path = WEIGHTS
) -> None:
    """Train the networks of one data set.

    Args:
        data: Which.
        methods: Which methods.
        out: The folder of the weights.
    """
    around = surroundings()  # before the first file is written: the checkout is still clean
    for method in methods:
        settings = replace(RUNS[data], method=method)
        earlier = EARLIER[data] if method in LOOKED_BACK else ()
        for epoch, model, dataset in train_and_keep(settings, earlier):
            name = f"{data}-{method}" + (f"-epoch{epoch}" if epoch < settings.epochs else "")
            card = save(model, dataset, settings, epoch, out, name, around)
            print(name, {key: value for key, value in card.items() if key.endswith("error")})


def train_and_keep(
    settings: Settings, earlier: Sequence[int] = ()
) -> Iterable[tuple[int, nn.Module, Dataset]]:
    """Trains one run.

    Args:
        settings: of the run.
        earlier: epochs before the last that are kept too.
    Returns:
        (epoch, model in evaluation mode, data set) of these and of the last epoch, ascending.
    """
    dataset = dataset_of(settings, progress=False)
    model = model_of(settings, dataset)
    kept = catchup.Snapshots(model, (*earlier, settings.epochs))
    mixer = catchup.mixers.make(settings.method, seed=settings.seed, **settings.method_settings)
    catchup.fit(model, mixer, dataset, settings, progress=False, on_epoch=kept)
    return [(epoch, kept.model(epoch), dataset) for epoch in kept.epochs if epoch]


def save(
    model: nn.Module,
    dataset: Dataset,
    settings: Settings,
    epoch: int,
    out: Path,
    name: str,
    around: dict,
) -> dict:
    """Writes the weights, measures what came out of the rounding, and returns the card."""
    network = {
        "name": settings.model,
        "num_classes": len(dataset.train.classes),
        "in_channels": dataset.train.shape[0],
        "width": settings.width,
        "stem_stride": settings.stem_stride,
    }
    card = {"settings": chosen(settings), "network": network, "epoch": epoch}
    exact = digest(model)
    save_weights(model.state_dict(), out, name, {})
    model.load_state_dict(load_weights(out, name)[0])
    card |= {**measure(model, dataset), "sha256": exact, **around, "command": command_of(settings)}
    save_weights(model.state_dict(), out, name, card)
    return card


def measure(model: nn.Module, dataset: Dataset) -> dict[str, float]:
    """The errors of a card, in percent."""
    found = evaluation_of(model, dataset, ("clean", "feature-drop", "fgsm"))
    known = evaluation_of(model, replace(dataset, test=dataset.train), ("clean",))
    return {
        "clean_train_error": known["top1_error"],
        "top1_error": found["top1_error"],
        "fgsm_error": found["fgsm_error"],
        "without_strongest": catchup.accuracy_without(found, SHARE),
    }


def digest(model: nn.Module) -> str:
    """SHA-256 over all tensors of a model, in their order."""
    total = hashlib.sha256()
    for value in model.state_dict().values():
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def chosen(settings: Settings) -> dict:
    """The settings that make the run: those of `ALWAYS`, and what else is not at its default."""
    values, usual = asdict(settings), asdict(Settings())
    return {name: value for name, value in values.items() if name in ALWAYS or value != usual[name]}


def command_of(settings: Settings) -> str:
    """The command line that trains the same weights, in their last epoch."""
    flags = [
        part
        for name, value in chosen(settings).items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    return shlex.join(["catchup", "train", *flags, "--out", "runs/trained"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(call(main, "trained_weights"))
