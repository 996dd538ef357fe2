"""The demo: baseline and Catch-up Mix on few real digits, same seeds, same budget; one table, two
figures.

Small enough for a minute on two cores, and large enough to show every part of the toolkit:
training, evaluation, attacks, the feature-drop curve. The settings were chosen for the time they
take; nothing is tuned towards a result.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..measures.statistics import comparison
from ..mixers import make
from ..training.settings import Settings
from ..training.trainer import dataset_of, fit, model_of
from ..utils.files import plain, write_json
from ..utils.progress import bar
from ..utils.provenance import surroundings
from ..utils.text import as_text
from ..utils.threads import single_threaded
from .evaluation import USUAL, described, evaluation_of

SETTINGS = Settings(
    data="digits",
    subset=20,
    model="resnet18",
    width=16,
    epochs=20,
    batch_size=50,
    lr=0.05,
    precision="fp32",
    validate_every=0,
)
METHODS, SEEDS = ("baseline", "catchup"), (0, 1, 2)


def run(
    out: Path,
    *,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    settings: Settings = SETTINGS,
    progress: bool = True,
) -> dict:
    """Trains and evaluates every method with every seed; writes results.json and two figures to
    `out`.

    Args:
        out: a folder; made if needed. Files of an earlier demo in it are replaced, others refused.
        methods, seeds: what to compare; all methods get the same seeds (subset, initial weights,
            order of images).
        settings: of every run; method and seed are filled in.
        progress: a bar on standard error.
    Returns:
        {"rows": [evaluation objects]}, as written.
    """
    out = _folder(Path(out))
    with single_threaded():
        rows = list(trained_rows(methods, bar(seeds, "demo", "seed", progress), settings))
    results = {"rows": [{**plain(row), **surroundings()} for row in rows]}
    write_json(out / "results.json", results)
    _figures(rows, out)
    return results


def trained_rows(
    methods: Sequence[str],
    seeds: Iterable[int],
    settings: Settings = SETTINGS,
    tests: Sequence[str] = USUAL,
) -> Iterator[dict]:
    """Trains every method with every seed, in memory, and yields one evaluation object each.

    Args:
        methods: names from `MIXERS`.
        seeds: for every seed the methods share subset, initial weights and order of the images:
            they are paired.
        settings: of every run; method and seed are filled in.
        tests: what to measure (see `catchup.experiments.evaluation.TESTS`).
    """
    for seed in seeds:
        dataset = dataset_of(replace(settings, seed=seed), progress=False)
        for method in methods:
            chosen = replace(settings, method=method, seed=seed)
            result = fit(
                model_of(chosen, dataset), make(method, seed=seed), dataset, chosen, progress=False
            )
            yield {
                **described(chosen.as_dict(), result.rows),
                **evaluation_of(result.model, dataset, tests),
            }


def report(results: dict, out: Path) -> str:
    """The table of the demo as text: mean ± standard deviation over the seeds, and the paired
    differences.
    """
    rows = results["rows"]
    seeds = len({row["seed"] for row in rows})
    said = (
        f"{rows[0]['data']}, {rows[0]['subset']} training images per class, {rows[0]['model']}"
        f" width {rows[0]['width']}, {rows[0]['epochs']} epochs; percent on {rows[0]['n_test']}"
        f" test images, mean ± standard deviation over {seeds} paired seeds"
    )
    return "\n".join(
        [
            said,
            "",
            as_text(comparison(rows)),
            "",
            f"results: {out / 'results.json'}",
            f"figures: {out / 'feature_drop.png'}, {out / 'errors.png'}",
            "next:    uv run jupyter lab notebooks/00_quickstart.ipynb",
        ]
    )


def _folder(out: Path) -> Path:
    ours = {"results.json", "feature_drop.png", "errors.png"}
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder for the demo")
    if out.is_dir() and not {file.name for file in out.iterdir()} <= ours:
        raise ValueError(f"{out} holds other files than a demo's; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _figures(rows: list[dict], out: Path) -> None:
    from .. import plots

    plots.save(rows, out / "feature_drop.png", plots.feature_drop_curves)
    plots.save(rows, out / "errors.png", plots.error_bars)
