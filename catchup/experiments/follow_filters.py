"""Following the filters of one run: whose they are, how strong they are, how much gradient they
still get.

The other half of the causal test (see `catchup.experiments.background_bias`). At every epoch shape
and background of generated scenes are changed one at a time, and each filter's response is
attributed to the one or the other; a recording adds norms and gradients. So it can be asked whether
the filters that grow first are the background's, and whether the others are left without gradient
once the training images are learnt (Kang, Kang & Kim, AAAI 2024, Section 1).
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import nn

from ..data import Dataset
from ..data.augment import normalise, to_float
from ..data.sets.readers import parse_shapes_bias
from ..inspection.recorder import recording
from ..inspection.selectivity import filter_selectivity
from ..inspection.strength import rank_correlation, weak_and_strong
from ..mixers import Mixer, make
from ..training.settings import Settings
from ..training.trainer import Result, dataset_of, fit, model_of

SHARES = ("shape_share", "background_share", "both_share", "rest_share")
N_WATCHED = 256  # test images measured after every epoch
EARLY = 3  # epochs after which a filter counts as one that grew first


def follow(
    model: nn.Module,
    mixer: Mixer,
    dataset: Dataset,
    settings: Settings,
    *,
    cue: str = "texture",
    every: int = 4,
    n: int = 4,
    progress: bool = False,
) -> tuple[dict[str, list[dict]], Result]:
    """`catchup.fit`, watched: the weights come out the same.

    Args:
        model, mixer, dataset, settings: as for `fit`, validated in every epoch; the data set is one
            of `shapes`.
        cue: which attribute of the background is changed, "texture" or "colour".
        every: one training step in so many is recorded, ≥ 1 (see `catchup.recording`).
        n: draws for the shares of shape and background, ≥ 2 (see `filter_selectivity`).
        progress: a bar on standard error.
    Returns:
        {"filters": one row per epoch, block and filter: epoch, block, filter, response (mean norm
        on the scenes of `filter_selectivity`), shape_share, background_share, both_share,
        rest_share, and from epoch 1 what `Record.rows` measured in training: norm, map_gradient,
        weight_gradient, …. Epoch 0 is the untrained network, with the batch norm statistics of
        training images, without which its maps have another scale; "epochs": one row per epoch:
        epoch, train_loss, clean_train_accuracy and broken_accuracy in percent}, and the result of
        `fit`.
    """
    watched: list[dict] = []

    def look(epoch: int, network: nn.Module) -> None:
        watched.extend(
            {"epoch": epoch, **_renamed(row)}
            for row in filter_selectivity(
                network, mean=dataset.mean, std=dataset.std, n=n, seed=settings.seed, cue=cue
            )
        )

    look(0, settle_batch_norm(model, dataset))
    with recording(model, every=every) as record:

        def end_epoch(row: dict) -> None:
            record.end_epoch(row)
            look(row["epoch"], model)

        settings = replace(settings, validate_every=1)  # which no weight knows of
        result = fit(model, mixer, dataset, settings, on_epoch=end_epoch, progress=progress)
    seen = {_place(row): row for row in record.rows()}
    return {
        "filters": [{**row, **seen.get(_place(row), {})} for row in watched],
        "epochs": [_epoch(row) for row in result.rows],
    }, result


def follow_run(
    settings: Settings, *, progress: bool = True, **options
) -> tuple[dict[str, list[dict]], Result]:
    """`follow` of one run of `catchup.experiments.run_background`: the weights come out the same.

    Args:
        settings: of the run; its data are shapes:RHO:CUE. Only N_WATCHED of its test images are
            looked at after an epoch.
        progress: a bar on standard error.
        options: `every` and `n` of `follow`.
    Raises:
        ValueError: for settings that name nothing, or data without a cue.
    """
    kind, _, argument = settings.data.partition(":")
    if kind != "shapes":
        raise ValueError(f"the filters of shapes can be followed, shapes:RHO; got {settings.data}")
    _, cue = parse_shapes_bias(argument or None)
    mixer = make(settings.method, seed=settings.seed, **settings.method_settings)
    dataset = dataset_of(settings, progress=False)
    dataset = replace(dataset, test=dataset.test.take(range(N_WATCHED)))
    model = model_of(settings, dataset)
    return follow(model, mixer, dataset, settings, cue=cue, progress=progress, **options)


def summarise(story: Mapping[str, Sequence[dict]], early: int = EARLY) -> dict[str, list[dict]]:
    """A story in few numbers: means over the filters of every block.

    Args:
        story: the first value of `follow`. early: as for `growth_and_background`; not beyond the
            last epoch.
    Returns:
        "blocks": one row per epoch and block: epoch, block, response and the four shares, means
        over the filters (those that never vary left out), and from epoch 1 weak_gradient and
        strong_gradient (see `weak_gradient`). "growth": one row per block: block, early,
        correlation (see `growth_and_background`). "epochs": as in the story.
    """
    filters, blocks = (
        story["filters"],
        list(dict.fromkeys(row["block"] for row in story["filters"])),
    )
    last = max(row["epoch"] for row in filters)
    gradients = {
        (block, row["epoch"]): row for block in blocks for row in weak_gradient(story, block)
    }
    rows = []
    for epoch in sorted({row["epoch"] for row in filters}):
        for block in blocks:
            here = list(_of_epoch(filters, block, epoch).values())
            means = {key: _mean([row[key] for row in here]) for key in ("response", *SHARES)}
            halves = gradients.get((block, epoch), {})
            rows.append(
                {
                    "epoch": epoch,
                    "block": block,
                    **means,
                    **{
                        key: halves[key]
                        for key in ("weak_gradient", "strong_gradient")
                        if key in halves
                    },
                }
            )
    early = min(early, last)
    growth = [
        {
            "block": block,
            "early": early,
            "correlation": growth_and_background(filters, block, early, last),
        }
        for block in blocks
    ]
    return {"blocks": rows, "growth": growth, "epochs": list(story["epochs"])}


def growth_and_background(filters: Sequence[dict], block: str, early: int, late: int) -> float:
    """Do the filters of a block that have grown most by an early epoch answer to the background in
    the end?

    Args:
        filters: of one story (see `follow`). block: its name.
        early: growth is the response in this epoch, ≥ 1, over that of the untrained network.
        late: the epoch whose shares count; a filter's is background / (shape + background).
    Returns:
        Spearman's rank correlation over the filters, in [-1, 1]; nan where it is not defined.
        Filters that answer to nothing are left out. A block of few filters gives a noisy figure:
        with 16, |r| < 0.5 is within chance.
    Raises:
        ValueError: if there are no such rows.
    """
    start, grown, end = (_of_epoch(filters, block, epoch) for epoch in (0, early, late))
    pairs = [
        (grown[c]["response"] / start[c]["response"], row["background_share"] / total)
        for c, row in end.items()
        if start[c]["response"] > 0 and (total := row["background_share"] + row["shape_share"]) > 0
    ]
    return (
        rank_correlation(*(torch.tensor(side, dtype=torch.float64) for side in zip(*pairs)))
        if pairs
        else math.nan
    )


def weak_gradient(story: Mapping[str, Sequence[dict]], block: str) -> list[dict]:
    """Does the gradient to the weak filters of a block dry up when the training images are learnt?

    Returns:
        One row per epoch: epoch, clean_train_accuracy in percent, weak_gradient and
        strong_gradient, the mean map gradient of the weaker and the stronger half of the filters in
        that epoch (see `catchup.inspection.strength.weak_and_strong`). Epochs without a recorded
        step (`every` larger than an epoch) have no row.
    """
    accuracy = {row["epoch"]: row["clean_train_accuracy"] for row in story["epochs"]}
    recorded = [row for row in story["filters"] if "norm" in row]
    return [
        {
            "epoch": row["epoch"],
            "clean_train_accuracy": accuracy[row["epoch"]],
            "weak_gradient": row["weak_map_gradient"],
            "strong_gradient": row["strong_map_gradient"],
        }
        for row in weak_and_strong(recorded, block, share=0.5)
    ]


def _place(row: dict) -> tuple:
    return row["epoch"], row["block"], row["filter"]


def _renamed(row: dict) -> dict:
    """A row of `filter_selectivity` whose norm does not clash with that of training images."""
    return {"response" if key == "norm" else key: value for key, value in row.items()}


def _epoch(row: dict) -> dict:
    return {
        "epoch": row["epoch"],
        "train_loss": row["train_loss"],
        "clean_train_accuracy": 100 - row["clean_train_error_percent"],
        "broken_accuracy": 100 - row["val_error_percent"],
    }


def _of_epoch(filters: Sequence[dict], block: str, epoch: int) -> dict[int, dict]:
    """The rows of one block and epoch by filter; ValueError if there is none."""
    rows = {row["filter"]: row for row in filters if (row["block"], row["epoch"]) == (block, epoch)}
    if not rows:
        known = [sorted({row[key] for row in filters}) for key in ("block", "epoch")]
        raise ValueError(
            f"there are no filters of block {block!r} in epoch {epoch}; there are blocks {known[0]}"
            f" and epochs {known[1]}"
        )
    return rows


def _mean(values: Sequence[float]) -> float | None:
    """The mean of those that are numbers; None if none is."""
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else None


def settle_batch_norm(model: nn.Module, dataset: Dataset) -> nn.Module:
    """A copy whose batch norm statistics are those of 512 training images; the weights are the
    model's.

    An untrained network in evaluation mode normalises nothing, so its maps have another scale than
    in training.
    """
    copied = copy.deepcopy(model).train()
    for module in copied.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    first = dataset.train.take(range(min(512, len(dataset.train))))
    with torch.no_grad():
        copied(normalise(to_float(first.pixels), dataset.mean, dataset.std))
    return copied
