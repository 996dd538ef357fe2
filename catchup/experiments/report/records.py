"""Records for the report: recorded comparisons, run folders and step costs, read and sorted into
groups that pair up.

A group holds the evaluation objects of one place that were made under one setting, on the same
images: only these are compared with each other. Recorded files are kept apart from each other even
where all that they record agrees: each is one comparison.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from ...measures.statistics import value_of
from ...models import full_width
from ...training import recipes
from ...training.folder import EVALUATION, RUN
from ...training.settings import PLACE, WITHOUT_EFFECT
from ...utils.choices import parse_spec
from ...utils.files import read_json, read_lines, read_object
from ...utils.schema import check_record, read_evaluation
from ..compare import APART, RESULTS
from .printed import Column, layout

# settings in which the rows of a group may differ
ALONE = (*APART, *PLACE, *WITHOUT_EFFECT)


class Group(NamedTuple):
    """Evaluation objects of one setting.

    rows: the objects. methods: of each, as `as_written`. data: the data set they are of, classes
    and per_class of its training images that were taken, and share: of the whole set's images of a
    class.
    """

    source: str
    rows: tuple[Mapping, ...]
    methods: tuple[str, ...]
    data: str
    classes: int | None
    per_class: float | None
    share: float

    @property
    def first(self) -> Mapping:
        """One of its rows, for what they have in common."""
        return self.rows[0]

    @property
    def settings(self) -> Mapping:
        """All settings of one of its runs; empty for a model that was not trained here."""
        return self.first.get("settings") or {}

    @property
    def full_width(self) -> int | None:
        """The published width of the model, None for one without a width to set."""
        return full_width(self.first["model"])

    @property
    def width(self) -> int | None:
        """Channels of the stem, the published ones where none are recorded."""
        return self.first.get("width") or self.full_width


class StepCost(NamedTuple):
    """A record of `python -m benchmarks.method_cost`."""

    source: str
    record: Mapping


class Records(NamedTuple):
    """What was read. `unused`: sentences about what was found and cannot stand in any table."""

    groups: list[Group]
    costs: list[StepCost]
    unused: list[str]


def read(paths: Sequence[Path] | None = None) -> Records:
    """All records at these places.

    Args:
        paths: files like those in data/results, folders of `catchup compare`, run folders with
            evaluation.json, or folders of such; None: those of data/results, of the working
            directory or else of the checkout, where files of other kinds are passed over.
    Raises:
        ValueError: for a path that is not there or holds no record, a file that is not JSON, or a
            group with two rows of one method and seed.
    """
    found, rows = Records([], [], []), {}
    for name, held in (
        [source for path in paths for source in _sources(Path(path))]
        if paths
        else _committed_records()
    ):
        check_record(name, held)
        if isinstance(held.get("bench"), dict):
            found.costs.append(StepCost(name, held))
        else:
            rows.setdefault(name, []).extend(held["rows"])
    for name, found_there in rows.items():
        _sort_in(found, name, found_there)
    return found


def stands_for(written: str, text: str) -> bool:
    """Is a method, as `as_written` has it, the one that `text` names, with its other settings at
    their defaults?

    Args:
        written: of a record. text: as for `choices.parse_spec`, or NAME:* for any settings.
    """
    if text.endswith(":*"):
        return written.partition(":")[0] == text[:-2]
    return written == _as_asked(text)


def as_written(method: str, settings: Mapping) -> str:
    """A method and its settings as one writes them, without what is at its default:
    "catchup:alpha=10.0".

    Of regularisers only the names are kept.
    """
    own = _own_settings(method, settings)
    parts = [
        f"{key}={json.dumps(value) if isinstance(value, tuple) else value}"
        for key, value in sorted(own.items())
    ]
    return method + (":" + ",".join(parts) if parts else "")


def under_recipe(specs: Sequence[str], protocol: str) -> tuple[str, ...]:
    """The methods with the settings that a recipe gives them, then as they stand; what a spec sets
    itself stays.

    Args:
        specs: as for `stands_for`. protocol: a recipe; one that is not known gives no settings.
    """
    known = recipes.load()
    given = known[protocol].methods if protocol in known else {}
    named = [parse_spec(text) for text in specs if not text.endswith(":*")]
    with_recipe = [
        as_written(name, {**given.get("all", {}), **given.get(name, {}), **own})
        for name, own in named
    ]
    return tuple(dict.fromkeys([*with_recipe, *specs]))


@cache
def _as_asked(text: str) -> str:
    return as_written(*parse_spec(text))


def value_in(row: Mapping, column: Column) -> float | None:
    """The number of a row as the cell prints it; None if it was not measured."""
    value = value_of(row, column.measure) if column.measure else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return None
    return 100 - value if column.accuracy else value


def _own_settings(method: str, settings: Mapping) -> dict:
    """The settings of a method that are not its defaults, in one form."""
    defaults = _defaults(method)
    ignored = {"seed", *(("prob",) if method == "baseline" else ())}
    plain = {key: _plain(key, value) for key, value in settings.items() if key not in ignored}
    return {
        key: value
        for key, value in plain.items()
        if key not in defaults or value != _plain(key, defaults[key])
    }


@cache
def _defaults(method: str) -> dict:
    """The settings of a method as it is made without any; empty for one that is not known."""
    from ...mixers import MIXERS

    kind = MIXERS.get(method)
    return {field.name: getattr(kind(), field.name) for field in fields(kind)} if kind else {}


def _plain(key: str, value):
    if key == "regularisers":
        return tuple(sorted(str(name).partition(":")[0] for name in value or ()))
    if isinstance(value, (list, tuple)):
        # all there are
        return None if key == "layers" and list(value) == [0, 1, 2, 3, 4, 5] else tuple(value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _committed_records() -> list[tuple[str, dict]]:
    """The files of data/results, and of the folders in it, that are records: rows under "rows", or
    a line each.
    """
    package = Path(__file__).resolve().parents[2]  # of a checkout, or with what the wheel holds
    folders = [one / "data" / "results" for one in (Path(), package.parent, package / "course")]
    folder = next((one for one in folders if any(one.rglob("*.json"))), folders[0])
    found = [
        (path.name, held)
        for path in sorted(folder.rglob("*.json"))
        if _is_record(held := read_json(path))
    ]
    rows = {path.name: read_lines(path) for path in sorted(folder.rglob("*.jsonl"))}
    return found + [(name, {"rows": held}) for name, held in rows.items() if _are_evaluations(held)]


def _sources(path: Path) -> Iterable[tuple[str, dict]]:
    """(name, record) of everything at one place that was named."""
    if path.is_file():
        held = {"rows": read_lines(path)} if path.suffix == ".jsonl" else read_json(path)
        if not _is_record(held):
            raise ValueError(
                f"{path} holds no evaluation objects: name a results.json of `catchup compare`, a"
                " record of `python -m benchmarks.method_cost`, or a run's folder"
            )
        return [(str(path), held)]
    if (path / RESULTS).is_file():
        return _sources(path / RESULTS)
    if (path / EVALUATION).is_file():
        return [(str(path.parent), {"rows": [_evaluation_in(path)]})]
    inside = sorted(path.glob(f"*/{RESULTS}")) if path.is_dir() else []
    single = sorted(found.parent for found in path.glob(f"*/{EVALUATION}")) if path.is_dir() else []
    if not inside and not single:
        raise ValueError(
            f"{path} holds no evaluated run ({EVALUATION} or {RESULTS}, in it or one folder"
            " below): run `catchup evaluate` or `catchup compare` first"
        )
    pooled = (
        [(str(path), {"rows": [_evaluation_in(folder) for folder in single]})] if single else []
    )
    return [*(source for file in inside for source in _sources(file)), *pooled]


def _evaluation_in(folder: Path) -> dict:
    """The evaluation object in a run's folder; ValueError if it is of another run than its
    run.json.
    """
    row, run = read_evaluation(folder / EVALUATION), folder / RUN
    settings = read_object(run).get("settings") if run.is_file() else None
    if settings is not None and row.get("settings") not in (None, settings):
        raise ValueError(
            f"{folder / EVALUATION} is of another run than {RUN} beside it ({row['method']}, seed"
            f" {row.get('seed')}): put the files of one run together, or evaluate it again"
        )
    return row


def _are_evaluations(rows: Sequence[Mapping]) -> bool:
    """Are these lines evaluation objects, and not the epochs of runs?"""
    return bool(rows) and all("measured_with" in row for row in rows)


def _is_record(held) -> bool:
    rows = held.get("rows") if isinstance(held, dict) else None
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, dict) and "method" in row for row in rows)
    )


def _sort_in(found: Records, source: str, rows: Iterable[Mapping]) -> None:
    """Adds the groups of one place to what was found."""
    sorted_rows: dict[str, list[Mapping]] = {}
    for row in rows:
        if not row.get("finished", True):
            found.unused.append(
                f"{source}: {row['method']}, seed {row.get('seed')}, is not finished"
            )
            continue
        shared = {
            key: value for key, value in (row.get("settings") or {}).items() if key not in ALONE
        }
        key = [shared, row.get("epochs"), row.get("n_test"), _test_images(row)]
        sorted_rows.setdefault(json.dumps(key, sort_keys=True), []).append(row)
    for group in sorted_rows.values():
        facts = _facts(str(group[0].get("data")), group[0].get("subset"))
        if facts is None:
            found.unused.append(
                f"{source}: {group[0].get('data')} is in none of the papers' tables"
            )
            continue
        methods = tuple(
            as_written(row["method"], row.get("method_settings") or {}) for row in group
        )
        _check_seeds(source, [(method, row.get("seed")) for method, row in zip(methods, group)])
        found.groups.append(Group(source, tuple(group), methods, *facts))


def _test_images(row: Mapping) -> list:
    """What tells the test images of a row; its training images may differ from seed to seed."""
    held = row.get("identity") or {}
    return [held.get(key) for key in ("classes", "test_shape", "test_fingerprint")]


def _check_seeds(source: str, seen: Sequence[tuple]) -> None:
    """ValueError if a method has two rows of one seed: which of them pairs up could not be said."""
    for method, seed in seen:
        if seen.count((method, seed)) > 1:
            raise ValueError(
                f"{source} holds two rows of {method}, seed {seed}, under one setting: name the"
                " runs of one comparison at a time"
            )


def _facts(
    data: str, subset: int | float | None
) -> tuple[str, int | None, float | None, float] | None:
    """(data set, classes, training images per class, their share) of a record; None for data of no
    table.
    """
    name, _, path = data.partition(":")
    held = layout()["parts"].get(re.split(r"[\\/]", path.rstrip("\\/"))[-1])
    family = held["data"] if held else name
    whole = layout()["data"].get(family)
    if whole is None:
        return None
    full, there = whole.get("per_class"), (held or whole).get("per_class")
    taken = (
        subset if isinstance(subset, int) else there if subset is None else there and subset * there
    )
    share = taken / full if taken and full else (subset if isinstance(subset, float) else 1.0)
    return family, (held or {}).get("classes", whole["classes"]), taken, share
