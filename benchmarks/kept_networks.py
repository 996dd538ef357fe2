"""Trained networks kept as small files beside their records, and what more is measured of them.

    catchup compare … --out runs/main
    python -m benchmarks.kept_networks --runs runs/main
    python -m benchmarks.kept_networks --tests clean,fgsm,feature-drop,calibration
    python -m benchmarks.kept_networks --tests pgd,corruption --sample 10 --cache cache

The second keeps the last weights of finished runs, in half precision, and appends their evaluation
objects to the records. The others measure the kept networks and write what they find into their
records, after each network: called again they go on. The data of the records must be laid out
(`data/results/README.md` says how); others are refused.

Where it misleads: the rounded weights answer a few of 10 000 images otherwise than those of the
run. A record is of the one or of the other, never of both: its field `weights` says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from catchup.data import Dataset
from catchup.data.identity import check_same_data, identify
from catchup.experiments.evaluation import evaluation_of
from catchup.measures.registry import MEASURES, select_tests, tests_that_need
from catchup.measures.subject import Options, load_outside
from catchup.models.weights import load_weights, save_weights
from catchup.training import Settings, checkpoint, dataset_of, model_of
from catchup.training import folder as runs_in
from catchup.utils.files import jsonable, read_lines, read_object, write_atomically
from catchup.utils.provenance import surroundings

from .command import call

RESULTS = Path("data/results")
CARD = ("method", "seed", "epochs", "top1_error", "fgsm_error", "commit", "versions", "hardware")
WEIGHTS, KEPT = "weights", "float16"  # the field of a record that was measured here


def main(
    records: Path = RESULTS / "main.jsonl",
    weights: Path = RESULTS / "weights" / "main",
    runs: Path | None = None,
    tests: str = "",
    sample: int | None = None,
    ood: str | None = None,
    cache: Path | None = None,
) -> None:
    """Keep finished runs, or measure the kept networks.

    Args:
        records: Evaluation objects, a line each.
        weights: Folder of the weights.
        runs: Folder of finished runs to keep; those that are there already stay.
        tests: What to measure of the kept networks, separated by commas.
        sample: Test images of each class, for the slow tests.
        ood: Images from elsewhere, for the test ood.
        cache: Folder that keeps the generated corruptions.
    """
    if runs is not None:
        keep_runs(runs, records, weights)
    if tests:
        options = Options(sample=sample, ood=ood, cache=cache)
        measure_kept(records, weights, select_tests(tests.split(",")), options)


def keep_runs(runs: Path, records: Path, weights: Path) -> None:
    """Stores the weights of the finished runs below `runs` and appends their evaluation objects."""
    rows = read_lines(records) if records.is_file() else []
    known = {row["checkpoint_sha256"] for row in rows}
    for run in sorted(path.parent for path in runs.glob(f"*/{runs_in.EVALUATION}")):
        row = read_object(run / runs_in.EVALUATION)
        if not row["finished"] or row["checkpoint_sha256"] in known:
            continue
        state, digest = checkpoint.load_with_digest(run / runs_in.CHECKPOINT)
        if digest != row["checkpoint_sha256"]:
            raise ValueError(f"{run} was trained on after its evaluation: evaluate it again")
        card = {
            **{key: row[key] for key in CARD},
            "command": row["training"]["command"],
            "checkpoint_sha256": digest,
        }
        save_weights(state["model"], weights, name_of(row), card)
        rows.append(row)
        print(f"kept {name_of(row)}: {row['top1_error']} %")
    write_rows(records, rows)


def measure_kept(records: Path, weights: Path, tests: Sequence[str], options: Options) -> None:
    """Measures the networks of the records and completes these, one network after the other."""
    rows = read_lines(records)
    told = {test: MEASURES[test].settings(options) for test in tests}
    for row in rows:
        missing = missing_of(row, told)
        if missing:
            row |= measured(row, weights, missing, options)
            row["measured_with"] |= {test: told[test] for test in missing}
            write_rows(records, rows)
            print(f"{name_of(row)}: {', '.join(missing)}", flush=True)


def missing_of(row: Mapping, told: Mapping[str, Mapping]) -> list[str]:
    """What is still to be measured of a record's network.

    Raises:
        ValueError: for a record of the unrounded weights, of which not everything is asked for.
    """
    recorded = row["measured_with"]
    if row.get(WEIGHTS) == KEPT:
        return [test for test in told if recorded.get(test) != told[test]]
    left = [test for test in recorded if test not in told]
    if left:
        raise ValueError(
            f"the record of {name_of(row)} has {', '.join(left)} of the weights before they were"
            f" rounded: name these with --tests too; got {', '.join(told)}"
        )
    return list(told)


def measured(row: Mapping, weights: Path, tests: Sequence[str], options: Options) -> dict:
    """The fields of these tests, of a record's kept network."""
    model, dataset = restore(row, weights)
    outside = None
    if tests_that_need("outside", tests):
        outside = load_outside(options, "data", dataset, False)
    found = evaluation_of(model, dataset, tests, options=options, outside=outside)
    names = [field for test in tests for field in MEASURES[test].fields]
    return {**{name: found[name] for name in names}, WEIGHTS: KEPT, **surroundings()}


def restore(row: Mapping, weights: Path) -> tuple[nn.Module, Dataset]:
    """The network of a record, and its data."""
    settings = Settings.from_dict(row["settings"])
    dataset = dataset_of(settings, progress=False)
    check_same_data(row["identity"], identify(dataset).as_dict(), f"the record of {name_of(row)}")
    model = model_of(replace(settings, pretrained=False), dataset)
    model.load_state_dict(load_weights(weights, name_of(row))[0])
    return model, dataset


def name_of(row: Mapping) -> str:
    """Of the weights of a record."""
    return f"{row['method']}-{row['seed']}"


def write_rows(path: Path, rows: Sequence[Mapping]) -> None:
    """Evaluation objects, a line each."""
    lines = "".join(json.dumps(jsonable(row)) + "\n" for row in rows)
    write_atomically(path, lines.encode())


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(call(main, "kept_networks"))
