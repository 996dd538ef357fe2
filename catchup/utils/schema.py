"""The form of our records: asked before evaluate, compare or the report believe what a file says.

A form is a type (True and False are no numbers, and numbers are finite), None, a tuple of forms of
which one fits, a list with the form of its items, a dictionary of the forms of its fields ("*": of
all others), or a function that says whether a value fits.
"""

from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from .files import read_object

LARGEST = 2**63  # whole numbers beyond it are damage, and have no float
NUMBER = (int, float)
TEXT = (None, str)


def fits(value: Any, form: Any) -> bool:
    """Has a value of JSON this form (see the module's docstring)?"""
    if isinstance(form, tuple):
        return any(fits(value, one) for one in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if isinstance(form, dict):
        return isinstance(value, dict) and all(
            fits(value.get(key), kind)
            for name, kind in form.items()
            for key in ([name] if name != "*" else value.keys() - form.keys())
        )
    if form is None or not isinstance(form, type):
        return value is None if form is None else form(value)
    if isinstance(value, bool) or not isinstance(value, form):
        return form is bool and isinstance(value, bool)
    return not isinstance(value, float) or isfinite(value)


def _shape(value: Any) -> bool:
    return value is None or fits(value, [int]) and len(value) == 3


def _positive(value: Any) -> bool:
    return fits(value, NUMBER) and value > 0


def _percent(value: Any) -> bool:
    return value is None or fits(value, NUMBER) and 0 <= value <= 100


def _drop_curves(value: Any) -> bool:
    """None, or what `feature_drop_curve` returns, with the fraction that the tables show."""
    curve = value.get("strongest") if isinstance(value, dict) else None
    pairs = fits(curve, [[NUMBER]]) and all(len(point) == 2 for point in curve)
    return value is None or pairs and 0.2 in dict(map(tuple, curve))


EVALUATION = {
    "method": str,
    "method_settings": {"regularisers": (None, [str])},
    "settings": (
        None,
        {
            "method": str,
            "recipe": TEXT,
            "scale": TEXT,
            "stem_stride": int,
            "batch_size": _positive,
            "window": (None, _positive),
        },
    ),
    "identity": (None, {"shape": _shape, "classes": (None, [str])}),
    "learning": (None, {"trained": bool, "reason": str, "half_budget_gain": (None, *NUMBER)}),
    "seed": (None, int),
    "data": TEXT,
    "subset": (None, _positive),
    "model": str,
    "width": (None, int),
    "epochs": (None, int),
    "n_test": (None, int),
    "training": (None, {"command": TEXT, "commit": TEXT}),
    "command": TEXT,
    "commit": TEXT,
    "versions": (None, dict),
    "hardware": (None, dict),
    "measured_with": (None, {"*": dict}),
    "feature_drop": _drop_curves,
    "cues": (None, {"*": _percent}),
    "label": TEXT,
    **dict.fromkeys(("last_error", "best_error", "median10_error", "clean_train_error"), _percent),
    **dict.fromkeys(("top1_error", "top5_error", "fgsm_error", "pgd_error"), _percent),
}
EPOCH = {
    "val_error_percent": _percent,
    "val_loss": lambda value: value is None or isinstance(value, float),  # it may have diverged
    "clean_train_error_percent": _percent,
    "time_s": NUMBER,
}
COST = {"method": str, "ratio": NUMBER, "low": NUMBER, "high": NUMBER}


def check_record(source: str, held: Mapping) -> None:
    """Raises ValueError unless the rows of a record have their form.

    Args:
        source: where it is from, for the message.
        held: evaluation objects under "rows", or a record of step costs, which has a "bench".
    """
    if any(abs(number) >= LARGEST for number in _integers(held)):
        raise ValueError(
            f"{source} holds a whole number of more than 18 digits: restore a copy, or make it"
            " again"
        )
    form, rows = COST if isinstance(held.get("bench"), dict) else EVALUATION, held.get("rows")
    if not fits(rows, [dict]) or not rows:
        raise ValueError(f"{source} holds no rows: restore a copy, or make it again")
    for number, row in enumerate(rows, start=1):
        for field, kind in form.items():
            if not fits(row.get(field), kind):
                raise ValueError(
                    f"{source}, row {number}: {str(row.get(field))[:60]!r} cannot be the {field} of"
                    " an evaluation: restore a copy, or make it again"
                )
        trained = row.get("settings") or {}
        for field in ("method", "seed"):
            if field in trained and trained[field] != row.get(field):
                raise ValueError(
                    f"{source}, row {number}: {field} {row.get(field)!r}, and {trained[field]!r} in"
                    " its settings: it is put together of two runs; evaluate them again"
                )


def read_evaluation(path: Path) -> dict[str, Any]:
    """The evaluation object in a file.

    Raises:
        ValueError: naming the file and the field, if it holds something else.
    """
    row = read_object(path)
    check_record(str(path), {"rows": [row]})
    return row


def is_epoch(row: Any) -> bool:
    """Is this what training writes of an epoch?"""
    return isinstance(row, dict) and EPOCH.keys() <= row.keys() and fits(row, EPOCH)


def _integers(held: Any) -> Iterator[int]:
    """All whole numbers in a JSON value."""
    inside = held.values() if isinstance(held, Mapping) else held if isinstance(held, list) else ()
    for value in inside:
        if isinstance(value, int):
            yield value
        else:
            yield from _integers(value)
