"""A test of the story itself: does a network that struggles to learn lean on the background, and
does mixing help?

The paper's claim (Kang, Kang & Kim, AAAI 2024, Section 1) is about cause: filters with large norms
grow first, take the easy way out, and leave the others without gradient; handing an image's strong
maps over to its partner lets the weak ones catch up, and the network leans on more. On `shapes`
(see `catchup.data.sets.shapes`) it is known which way is the easy one, how far it leads, and where
it misleads: the background tells the class in a share ρ of the training images, and in the test
sets "broken" and "reversed" it does not. `run_background` asks what a method does to the accuracy
there, over ρ. `follow_run` follows the filters of one run and asks whose they are (see
`catchup.experiments.follow_filters`).

What neither shows: the outcome on photographs, where a background may be of use; and networks of
another size.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from ..data import Dataset
from ..data.sets.shapes import CUES, KINDS, test_sets
from ..measures.statistics import comparison
from ..mixers import MIXERS, make
from ..models.inference import PixelModel, predict, top_k_error
from ..training.lock import lock_file
from ..training.settings import Settings
from ..training.trainer import dataset_of, fit, model_of
from ..utils.choices import pick
from ..utils.files import jsonable, read_lines, write_atomically
from ..utils.progress import bar
from ..utils.provenance import surroundings
from ..utils.text import as_text
from .follow_filters import follow, summarise

SETTINGS = Settings(
    data="shapes",
    subset=256,
    model="resnet18",
    width=16,
    stem_stride=2,
    epochs=20,
    batch_size=64,
    lr=0.05,
    precision="fp32",
    device="cpu",
    validate_every=100,
)
METHODS = ("baseline", "cutmix", "randomchannel", "catchup")
RHOS = (1 / KINDS, 0.8, 0.95, 1.0)
SEEDS = (0, 1, 2)
N_TEST = 2048  # images of each test set; always the same scenes
COLUMNS = {
    "train_accuracy": "training images",
    "kept_accuracy": "cue kept",
    "broken_accuracy": "cue broken",
    "reversed_accuracy": "cue reversed",
    "cue_followed": "reversed, cue followed",
}
N_WATCHED = 256  # of them measured in the last epochs of training


def run_background(
    out: Path,
    *,
    methods: Sequence[str] = METHODS,
    rhos: Sequence[float] = RHOS,
    seeds: Sequence[int] = SEEDS,
    cue: str = "texture",
    settings: Settings = SETTINGS,
    follow_filters: bool = False,
    on_row: Callable[[dict], None] | None = None,
    progress: bool = True,
) -> list[dict]:
    """Trains every method at every ρ with every seed and measures it where the background helps, is
    silent, and lies.

    Runs of one seed and ρ are paired: same images, initial weights, and order. Over ρ only the
    backgrounds of the training images change. Seeds take their subsets from one pool of 10 240
    training scenes, so that a fifth of the images is common to two seeds of 2 048; the test scenes
    are the same for all. Every finished run is one line of `out`; a run that is there already is
    not done again.

    Where it misleads: all methods get one budget, and mixing slows learning. A method that has not
    finished learning at ρ = 1/8, where no background misleads, is worse everywhere for that reason:
    read its accuracies against that row. And "catchup" is the paper's method with CutMix at the
    input in a sixth of its steps, "randomchannel" has no input mix: their difference is not the
    choice of channels alone (the paper's Table 9 leaves the input out of both).

    Args:
        out: a JSON-lines file; made, or continued if it is one of the same settings.
        methods: names from `MIXERS`. rhos: each in [0, 1]. seeds: each ≥ 0. None of them empty.
        cue: which attribute of the background agrees with the class, "texture" or "colour".
        settings: of every run; data, method and seed are filled in.
        follow_filters: also follow the filters of the runs:
            `catchup.experiments.follow_filters.summarise` of each is in its row as "story". The
            weights come out the same. Rows that are there already are left as they are.
        on_row: called with each new row.
        progress: a bar on standard error.
    Returns:
        The rows asked for, as in `out`, seed by seed: what `measure_cues` returns, and method, rho,
        cue, seed, the number of training images n_train, test images n_test, epochs, time_s,
        settings, versions, hardware, command, commit.
    Raises:
        ValueError: before anything is written, for an unknown name, a number out of range, a file
            of other runs, or one that another process is filling at the moment (its folder may have
            been made).
    """
    out, wanted = Path(out), _wanted(methods, rhos, seeds, cue, settings)
    found = _found(out, settings)
    if wanted.keys() <= found.keys():  # a file that can only be read will do
        return [found[key] for key in wanted]
    out.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(out):
        found = _found(out, settings)
        missing = {key: chosen for key, chosen in wanted.items() if key not in found}
        for row in bar(
            _train_missing(missing, cue, follow_filters),
            "background",
            "run",
            progress,
            total=len(missing),
        ):
            found[_key(row)] = row
            write_atomically(
                out, "".join(json.dumps(row) + "\n" for row in found.values()).encode()
            )
            if on_row:
                on_row(row)
    return [found[key] for key in wanted]


def measure_cues(model: nn.Module, dataset: Dataset, sets: dict) -> dict:
    """Accuracies in percent of a model in evaluation mode, which is left as it was.

    Args:
        model: on the device of its parameters. dataset: its training images are classified too,
            without augmentation.
        sets: as `test_sets` returns them.
    Returns:
        train_accuracy; kept_accuracy, broken_accuracy, reversed_accuracy; and cue_followed, the
        percentage of the reversed images that are called by the class of their background (a model
        without any idea: 12.5).
    """
    device, judge = next(model.parameters()).device, PixelModel.of(model, dataset)

    def logits(images):
        return predict(judge, images.to(device)).cpu()

    said = {name: logits(images) for name, images in sets.items()}
    row = {"train_accuracy": _accuracy(logits(dataset.train), dataset.train.labels.cpu())}
    row |= {
        f"{name}_accuracy": _accuracy(said[name], images.labels) for name, images in sets.items()
    }
    return row | {
        "cue_followed": _accuracy(said["reversed"], (sets["reversed"].labels + 1) % KINDS)
    }


def with_watched_images(dataset: Dataset) -> Dataset:
    """The data set with N_WATCHED test images: training looks at them after each of its last
    epochs.
    """
    return replace(dataset, test=dataset.test.take(range(N_WATCHED)))


def follow_run(
    method: str = "baseline",
    rho: float = 0.95,
    seed: int = 0,
    *,
    cue: str = "texture",
    settings: Settings = SETTINGS,
    progress: bool = True,
    **options,
) -> dict[str, list[dict]]:
    """Follows the filters of one run of `run_background`, filter by filter; the weights come out
    the same.

    Args:
        method, rho, seed, cue, settings: as for `run_background`.
        progress: a bar on standard error. options: `every` and `n` of
            `catchup.experiments.follow_filters.follow`.
    Returns:
        As `catchup.experiments.follow_filters.follow`, all rows with method, rho, cue and seed.
    Raises:
        ValueError: as `run_background`.
    """
    (settings,) = _wanted([method], [rho], [seed], cue, settings).values()
    told, _ = _followed(
        settings,
        with_watched_images(dataset_of(settings, progress=False)),
        cue,
        progress=progress,
        **options,
    )
    head = {"method": method, "rho": rho, "cue": cue, "seed": seed}
    return {name: [{**head, **row} for row in rows] for name, rows in told.items()}


def describe_background(rows: Sequence[dict]) -> str:
    """The outcome of `run_background` as text: a table for each ρ, mean ± standard deviation over
    the seeds, paired differences.

    Raises:
        ValueError: if there are no rows; as `catchup.comparison`.
    """
    if not rows:
        raise ValueError("there are no rows to report, got an empty sequence")
    said = [
        f"{rows[0]['n_train']} training images, {rows[0]['epochs']} epochs, {rows[0]['n_test']}"
        " test images of each kind; percent"
    ]
    for rho in dict.fromkeys(row["rho"] for row in rows):
        chosen = [row for row in rows if row["rho"] == rho]
        seeds = len({row["seed"] for row in chosen})
        said += [
            "",
            (
                f"the background's {rows[0]['cue']} agrees in {100 * rho:g} % of the training"
                f" images, {seeds} paired seeds"
            ),
            as_text(comparison(chosen, COLUMNS)),
        ]
    return "\n".join(said)


def read_rows(path: Path) -> list[dict]:
    """The rows that `run_background` left in a file. ValueError naming the file if it is missing or
    holds something else.
    """
    return read_lines(path)


def _train_missing(
    missing: dict[tuple, Settings], cue: str, follow_filters: bool
) -> Iterator[dict]:
    """One row for each of the settings."""
    sets = test_sets(N_TEST, 0, cue) if missing else {}
    for (method, rho, _, seed), settings in missing.items():
        dataset = with_watched_images(dataset_of(settings, progress=False))
        if follow_filters:
            told, result = _followed(settings, dataset, cue)
            extra = {"story": summarise(told)}
        else:
            mixer = make(method, seed=seed, **settings.method_settings)
            result = fit(model_of(settings, dataset), mixer, dataset, settings, progress=False)
            extra = {}
        yield jsonable(
            {
                "method": method,
                "rho": rho,
                "cue": cue,
                "seed": seed,
                **measure_cues(result.model, dataset, sets),
                "n_train": len(dataset.train),
                "n_test": N_TEST,
                "epochs": settings.epochs,
                "time_s": result.summary["time_s"],
                **extra,
                "settings": settings.as_dict(),
                **surroundings(),
            }
        )


def _followed(settings: Settings, dataset: Dataset, cue: str, **options):
    """`follow` of one run."""
    mixer = make(settings.method, seed=settings.seed, **settings.method_settings)
    return follow(model_of(settings, dataset), mixer, dataset, settings, cue=cue, **options)


def _wanted(methods, rhos, seeds, cue, settings) -> dict[tuple, Settings]:
    """The settings of every run by its key, whole seeds first; ValueError before any work for what
    does not fit.
    """
    pick("cue", cue, CUES)
    for name, values in (("methods", methods), ("rhos", rhos), ("seeds", seeds)):
        if not values:
            raise ValueError(f"{name} must name at least one, got {values!r}")
    for rho in rhos:
        if not 0 <= rho <= 1:
            raise ValueError(f"rho must lie in [0, 1], got {rho}")
    for method in methods:
        make(pick("method", method, MIXERS), seed=0, **settings.method_settings)
    return {
        (method, float(rho), cue, seed): _settings(settings, method, rho, cue, seed)
        for seed in seeds
        for rho in rhos
        for method in methods
    }


def _settings(settings: Settings, method: str, rho: float, cue: str, seed: int) -> Settings:
    return replace(settings, data=f"shapes:{float(rho)}:{cue}", method=method, seed=seed)


def _key(row: dict) -> tuple:
    return row["method"], row["rho"], row["cue"], row["seed"]


def _found(out: Path, settings: Settings) -> dict[tuple, dict]:
    """The rows of `out` by their keys; ValueError if they are of other settings."""
    rows = read_rows(out) if out.exists() else []
    for row in rows:
        try:
            same = row["settings"] == jsonable(_settings(settings, *_key(row)).as_dict())
        except (KeyError, TypeError):
            raise ValueError(
                f"{out} holds something else than rows of this experiment; give another file"
            ) from None
        if not same:
            raise ValueError(f"{out} holds runs with other settings; give another file")
    return {_key(row): row for row in rows}


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 - top_k_error(logits, labels)
