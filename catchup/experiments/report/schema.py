"""Is a file of results what it says it is? Asked before the report believes it, field by field."""

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from pathlib import Path

from ...utils.files import read_object

LARGEST = 2**63  # whole numbers beyond it are damage, and have no float


def check_record(source: str, held: Mapping) -> None:
    """Raises ValueError unless a record has the fields that the report reads, of the types that it
    expects.

    Args:
        source: where it is from, for the message. held: evaluation objects under "rows", or a
            record of step costs.
    """
    if any(abs(number) >= LARGEST for number in _integers(held)):
        raise ValueError(
            f"{source} holds a whole number of more than 18 digits: restore a copy, or make it"
            " again"
        )
    costs = isinstance(held.get("bench"), dict)
    rows = held.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{source} holds no rows: restore a copy, or make it again")
    for number, row in enumerate(rows, start=1):
        for field, fits in (COST if costs else ROW).items():
            if not fits(row.get(field)):
                raise ValueError(
                    f"{source}, row {number}: {str(row.get(field))[:60]!r} cannot be the {field} of"
                    " an evaluation: restore a copy, or make it again"
                )


def evaluation_in(path: Path) -> dict:
    """The evaluation object in a file; ValueError naming the file if it holds something else."""
    row = read_object(path)
    check_record(str(path), {"rows": [row]})
    return row


def settings_in(path: Path) -> dict:
    """The settings in a run.json, empty where there is none; ValueError naming the file if it holds
    something else.
    """
    settings = (read_object(path).get("settings") or {}) if path.is_file() else {}
    if not isinstance(settings, dict):
        raise ValueError(
            f"{path} does not hold the settings of a run: restore a copy, or leave the run out"
        )
    return settings


def _is(*kinds: type) -> Callable[[object], bool]:
    """A test for one of these types, where True and False are no numbers."""
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _number(value) -> bool:
    return _is(int, float)(value) and isfinite(value)


def _subset(value) -> bool:
    return value is None or _number(value) and value > 0


def _words(value) -> bool:
    """A dictionary in which what is read as text is text."""
    return (
        value is None
        or isinstance(value, dict)
        and all(isinstance(value.get(key), (str, NONE)) for key in ("command", "commit"))
    )


def _method_settings(value) -> bool:
    held = {} if value is None else value
    return isinstance(held, dict) and isinstance(held.get("regularisers", ()), (list, tuple, NONE))


def _tests(value) -> bool:
    return (
        value is None
        or isinstance(value, dict)
        and all(isinstance(how, dict) for how in value.values())
    )


def _curves(value) -> bool:
    """None, or what `feature_drop_curve` returns, with the fraction that the tables show."""
    curve = value.get("strongest") if isinstance(value, dict) else None
    points = isinstance(curve, list) and all(
        isinstance(point, list) and len(point) == 2 and all(map(_number, point)) for point in curve
    )
    return value is None or points and 0.2 in dict(map(tuple, curve))


def _integers(held) -> Iterator[int]:
    """All whole numbers in a JSON value."""
    inside = held.values() if isinstance(held, Mapping) else held if isinstance(held, list) else ()
    for value in inside:
        if isinstance(value, int):
            yield value
        else:
            yield from _integers(value)


NONE = type(None)
ROW = {
    "method": _is(str),
    "method_settings": _method_settings,
    "seed": _is(int, NONE),
    "data": _is(str, NONE),
    "subset": _subset,
    "model": _is(str),
    "width": _is(int, NONE),
    "epochs": _is(int, NONE),
    "n_test": _is(int, NONE),
    "training": _words,
    "command": _is(str, NONE),
    "commit": _is(str, NONE),
    "versions": _is(dict, NONE),
    "hardware": _is(dict, NONE),
    "measured_with": _tests,
    "feature_drop": _curves,
    "recipe": _is(str, NONE),
    "scale": _is(str, int, float, NONE),
    "label": _is(str, NONE),
    "_run_settings": _is(dict, NONE),
    "fgsm_error": _is(int, float, NONE),
    "pgd_error": _is(int, float, NONE),
}
COST = {"method": _is(str), "ratio": _number, "low": _number, "high": _number}
