"""A test of the story itself: does a network that struggles to learn lean on the background, and does mixing help?

The paper's claim (Kang, Kang & Kim, AAAI 2024, Section 1) is about cause: filters with large norms grow first, take the
easy way out, and leave the others without gradient; handing an image's strong maps over to its partner lets the weak
ones catch up, and the network leans on more. On `shapes` (see `catchup.data.shapes`) it is known which way is the easy
one, how far it leads, and where it misleads: the background tells the class in a share ρ of the training images, and
in the test sets "broken" and "reversed" it does not. `run` asks what a method does to the accuracy there, over ρ.
`story` follows the filters of one run and asks whose they are, by changing shape and background one at a time.

What neither shows: the outcome on photographs, where a background may be of use; and networks of another size.
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from . import runs
from .checkpoint import write_atomically
from .choices import pick
from .data import Dataset
from .data.augment import normalise, to_float
from .data.shapes import CUES, KINDS, test_sets
from .inference import PixelModel, predict, top_k_error
from .mixers import MIXERS, make
from .recorder import recording
from .selectivity import filter_selectivity
from .settings import Settings
from .tables import as_text, comparison
from .training import dataset_of, fit, model_of

SETTINGS = Settings(data="shapes", subset=256, model="resnet18", width=16, stem_stride=2, epochs=20, batch_size=64,
                    lr=0.05, device="cpu", validate_every=100)
METHODS = ("baseline", "cutmix", "randomchannel", "catchup")
RHOS = (1 / KINDS, 0.8, 0.95, 1.0)
SEEDS = (0, 1, 2)
N_TEST = 2048  # images of each test set; always the same scenes
COLUMNS = {"train_accuracy": "training images", "kept_accuracy": "cue kept", "broken_accuracy": "cue broken",
           "reversed_accuracy": "cue reversed", "cue_followed": "reversed, cue followed"}
N_WATCHED = 256  # of them measured in the last epochs of training


def run(out: Path, *, methods: Sequence[str] = METHODS, rhos: Sequence[float] = RHOS, seeds: Sequence[int] = SEEDS,
        cue: str = "texture", settings: Settings = SETTINGS, on_row: Callable[[dict], None] | None = None,
        progress: bool = True) -> list[dict]:
    """Trains every method at every ρ with every seed and measures it where the background helps, is silent, and lies.

    Runs of one seed and ρ are paired: same images, initial weights, and order. Over ρ only the backgrounds of the
    training images change. Seeds take their subsets from one pool of 10 240 training scenes, so that a fifth of the
    images is common to two seeds of 2 048; the test scenes are the same for all. Every finished run is one line of
    `out`; a run that is there already is not done again.

    Where it misleads: all methods get one budget, and mixing slows learning. A method that has not finished learning at
    ρ = 1/8, where no background misleads, is worse everywhere for that reason: read its accuracies against that row.

    Args:
        out: a JSON-lines file; made, or continued if it is one of the same settings.
        methods: names from `MIXERS`. rhos: each in [0, 1]. seeds: each ≥ 0. None of them empty.
        cue: which attribute of the background agrees with the class, "texture" or "colour".
        settings: of every run; data, method and seed are filled in.
        on_row: called with each new row.
        progress: a bar on standard error.
    Returns:
        The rows asked for, as in `out`, seed by seed: what `measured` returns, and method, rho, cue, seed, the number
        of training images n_train, test images n_test, epochs, time_s, settings, versions, hardware, command, commit.
    Raises:
        ValueError: before anything is written, for an unknown name, a number out of range, or a file of other runs.
    """
    wanted = _wanted(methods, rhos, seeds, cue, settings)
    found = _found(Path(out), settings)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    missing = {key: chosen for key, chosen in wanted.items() if key not in found}
    for row in _bar(_trained(missing, cue), len(missing), progress):
        found[_key(row)] = row
        write_atomically(Path(out), "".join(json.dumps(row) + "\n" for row in found.values()).encode())
        if on_row:
            on_row(row)
    return [found[key] for key in wanted]


def measured(model: nn.Module, dataset: Dataset, sets: dict) -> dict:
    """Accuracies in percent of a model in evaluation mode, which is left as it was.

    Args:
        model: on the device of its parameters. dataset: its training images are classified too, without augmentation.
        sets: as `test_sets` returns them.
    Returns:
        train_accuracy; kept_accuracy, broken_accuracy, reversed_accuracy; and cue_followed, the percentage of the
        reversed images that are called by the class of their background (a model without any idea: 12.5).
    """
    device, judge = next(model.parameters()).device, PixelModel.of(model, dataset)

    def logits(images):
        return predict(judge, images.to(device)).cpu()

    said = {name: logits(images) for name, images in sets.items()}
    row = {"train_accuracy": _accuracy(logits(dataset.train), dataset.train.labels.cpu())}
    row |= {f"{name}_accuracy": _accuracy(said[name], images.labels) for name, images in sets.items()}
    return row | {"cue_followed": _accuracy(said["reversed"], (sets["reversed"].labels + 1) % KINDS)}


def story(method: str = "baseline", rho: float = 0.95, seed: int = 0, *, cue: str = "texture",
          settings: Settings = SETTINGS, every: int = 4, n: int = 4, progress: bool = True) -> dict[str, list[dict]]:
    """Follows the filters of one run of `run`: who they are, how strong they are, how much gradient they still get.

    Args:
        method, rho, seed, cue, settings: as for `run`; the weights come out the same.
        every: one training step in so many is recorded, ≥ 1 (see `catchup.recording`).
        n: draws for the shares of shape and background, ≥ 2 (see `filter_selectivity`).
        progress: a bar on standard error.
    Returns:
        "filters": one row per epoch, block and filter: epoch, block, filter, response (mean norm on the scenes of
        `filter_selectivity`), shape_share, background_share, both_share, rest_share, and from epoch 1 what
        `Record.rows` measured in training: norm, map_gradient, weight_gradient, …. Epoch 0 is the untrained network,
        with the batch norm statistics of training images, without which its maps have another scale.
        "epochs": one row per epoch: epoch, train_loss, clean_train_accuracy and broken_accuracy in percent.
        All rows with method, rho, cue and seed.
    Raises:
        ValueError: as `run`.
    """
    (settings,) = _wanted([method], [rho], [seed], cue, replace(settings, validate_every=1)).values()
    dataset, head = _watched(dataset_of(settings, progress=False)), dict(method=method, rho=rho, cue=cue, seed=seed)
    model, mixer = model_of(settings, dataset), make(method, seed=seed, **settings.method_settings)
    watched: list[dict] = []

    def look(epoch: int, network: nn.Module) -> None:
        watched.extend({"epoch": epoch, **_renamed(row)} for row in filter_selectivity(
            network, mean=dataset.mean, std=dataset.std, n=n, seed=seed, cue=cue))

    look(0, _settled(model, dataset))
    with recording(model, every=every) as record:
        def end_epoch(row: dict) -> None:
            record.end_epoch(row)
            look(row["epoch"], model)

        result = fit(model, mixer, dataset, settings, on_epoch=end_epoch, progress=progress)
    seen = {_place(row): row for row in record.rows()}
    return {"filters": [{**head, **row, **seen.get(_place(row), {})} for row in watched],
            "epochs": [{**head, **_epoch(row)} for row in result.rows]}


def growth_and_background(filters: Sequence[dict], block: str, early: int, late: int) -> float:
    """Do the filters of a block that have grown most by an early epoch answer to the background in the end?

    Args:
        filters: of one `story`. block: its name.
        early: growth is the response in this epoch, ≥ 1, over that of the untrained network.
        late: the epoch whose shares count; a filter's is background / (shape + background).
    Returns:
        Spearman's rank correlation over the filters, in [-1, 1]; nan where it is not defined. Filters that answer to
        nothing are left out. A block of few filters gives a noisy figure: with 16, |r| < 0.5 is within chance.
    Raises:
        ValueError: if there are no such rows.
    """
    start, grown, end = (_of_epoch(filters, block, epoch) for epoch in (0, early, late))
    pairs = [(grown[c]["response"] / start[c]["response"], row["background_share"] / total)
             for c, row in end.items() if start[c]["response"] > 0
             and (total := row["background_share"] + row["shape_share"]) > 0]
    return rank_correlation(*(torch.tensor(side, dtype=torch.float64) for side in zip(*pairs))) if pairs else math.nan


def weak_gradient(story: dict[str, list[dict]], block: str) -> list[dict]:
    """Does the gradient to the weak filters of a block dry up when the training images are learnt?

    Returns:
        One row per epoch: epoch, clean_train_accuracy in percent, weak_gradient and strong_gradient, the mean map
        gradient (see `Record.rows`) of the half of the filters with the smaller and with the larger norm in that epoch.
    """
    return [{"epoch": row["epoch"], "clean_train_accuracy": row["clean_train_accuracy"],
             **_halves(_of_epoch(story["filters"], block, row["epoch"]))} for row in story["epochs"]]


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's ρ of two (N,) tensors, ties sharing their mean rank; in [-1, 1], nan if N < 2 or one is constant."""
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"two (N,) tensors are needed, got {tuple(first.shape)} and {tuple(second.shape)}")
    if len(first) < 2:
        return math.nan
    ranks = [((side[:, None] > side).sum(1) + ((side[:, None] == side).sum(1) - 1) / 2).double()
             for side in (first, second)]
    a, b = (rank - rank.mean() for rank in ranks)
    return float((a @ b) / (a.norm() * b.norm()))


def report(rows: Sequence[dict]) -> str:
    """The outcome of `run` as text: a table for each ρ, mean ± standard deviation over the seeds, paired differences.

    Raises:
        ValueError: as `catchup.comparison`.
    """
    said = [f"{rows[0]['n_train']} training images, {rows[0]['epochs']} epochs, {rows[0]['n_test']} test images of "
            f"each kind; percent"]
    for rho in dict.fromkeys(row["rho"] for row in rows):
        chosen = [row for row in rows if row["rho"] == rho]
        seeds = len({row["seed"] for row in chosen})
        said += ["", f"the background's {rows[0]['cue']} agrees in {100 * rho:g} % of the training images, {seeds} "
                     f"paired seeds", as_text(comparison(chosen, COLUMNS))]
    return "\n".join(said)


def read(path: Path) -> list[dict]:
    """The rows that `run` left in a file. ValueError naming the file if it is missing or holds something else."""
    try:
        return [json.loads(line) for line in Path(path).read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def _trained(missing: dict[tuple, Settings], cue: str) -> Iterator[dict]:
    """One row for each of the settings."""
    sets = test_sets(N_TEST, 0, cue) if missing else {}
    for (method, rho, _, seed), settings in missing.items():
        dataset = _watched(dataset_of(settings, progress=False))
        result = fit(model_of(settings, dataset), make(method, seed=seed, **settings.method_settings), dataset,
                     settings, progress=False)
        yield runs.plain({
            "method": method, "rho": rho, "cue": cue, "seed": seed, **measured(result.model, dataset, sets),
            "n_train": len(dataset.train), "n_test": N_TEST, "epochs": settings.epochs,
            "time_s": result.summary["time_s"], "settings": settings.as_dict(), **runs.surroundings()})


def _watched(dataset: Dataset) -> Dataset:
    """The data set with few test images: training looks at them after each of its last epochs."""
    return replace(dataset, test=dataset.test.take(range(N_WATCHED)))


def _wanted(methods, rhos, seeds, cue, settings) -> dict[tuple, Settings]:
    """The settings of every run by its key, whole seeds first; ValueError before any work for what does not fit."""
    pick("cue", cue, CUES)
    for name, values in (("methods", methods), ("rhos", rhos), ("seeds", seeds)):
        if not values:
            raise ValueError(f"{name} must name at least one, got {values!r}")
    for rho in rhos:
        if not 0 <= rho <= 1:
            raise ValueError(f"rho must lie in [0, 1], got {rho}")
    for method in methods:
        make(pick("method", method, MIXERS), seed=0, **settings.method_settings)
    return {(method, float(rho), cue, seed): _settings(settings, method, rho, cue, seed)
            for seed in seeds for rho in rhos for method in methods}


def _settings(settings: Settings, method: str, rho: float, cue: str, seed: int) -> Settings:
    return replace(settings, data=f"shapes:{float(rho)}:{cue}", method=method, seed=seed)


def _key(row: dict) -> tuple:
    return row["method"], row["rho"], row["cue"], row["seed"]


def _found(out: Path, settings: Settings) -> dict[tuple, dict]:
    """The rows of `out` by their keys; ValueError if they are of other settings."""
    rows = read(out) if out.exists() else []
    for row in rows:
        try:
            same = row["settings"] == runs.plain(_settings(settings, *_key(row)).as_dict())
        except (KeyError, TypeError):
            raise ValueError(f"{out} holds something else than rows of this experiment; give another file") from None
        if not same:
            raise ValueError(f"{out} holds runs with other settings; give another file")
    return {_key(row): row for row in rows}


def _settled(model: nn.Module, dataset: Dataset) -> nn.Module:
    """A copy whose batch norm statistics are those of 512 training images; the weights are the model's."""
    settled = copy.deepcopy(model).train()
    for module in settled.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        settled(normalise(to_float(dataset.train.pixels[:512]), dataset.mean, dataset.std))
    return settled


def _place(row: dict) -> tuple:
    return row["epoch"], row["block"], row["filter"]


def _renamed(row: dict) -> dict:
    """A row of `filter_selectivity` whose norm does not clash with that of training images."""
    return {"response" if key == "norm" else key: value for key, value in row.items()}


def _epoch(row: dict) -> dict:
    return {"epoch": row["epoch"], "train_loss": row["train_loss"],
            "clean_train_accuracy": 100 - row["clean_train_error_percent"],
            "broken_accuracy": 100 - row["val_error_percent"]}


def _of_epoch(filters: Sequence[dict], block: str, epoch: int) -> dict[int, dict]:
    """The rows of one block and epoch by filter; ValueError if there is none."""
    rows = {row["filter"]: row for row in filters if (row["block"], row["epoch"]) == (block, epoch)}
    if not rows:
        known = [sorted({row[key] for row in filters}) for key in ("block", "epoch")]
        raise ValueError(f"there are no filters of block {block!r} in epoch {epoch}; there are blocks {known[0]} and "
                         f"epochs {known[1]}")
    return rows


def _halves(filters: dict[int, dict]) -> dict[str, float]:
    ranked = [row["map_gradient"] for row in sorted(filters.values(), key=lambda row: row["norm"])]
    half = len(ranked) // 2
    return {"weak_gradient": sum(ranked[:half]) / max(half, 1),
            "strong_gradient": sum(ranked[half:]) / (len(ranked) - half)}


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 - top_k_error(logits, labels)


def _bar(rows: Iterable, total: int, shown: bool) -> Iterable:
    from tqdm.auto import tqdm

    return tqdm(rows, total=total, desc="background", unit="run", disable=not shown)
