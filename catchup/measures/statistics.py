"""Tables of evaluation objects: mean ± standard deviation over seeds, and the differences pair by
pair.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean

from .significance import deviation, format_p, holm, interval, p_value, resolution_of

COLUMNS = {
    "top1_error": "top-1 error",
    "fgsm_error": "FGSM 4/255 error",
    "pgd_error": "PGD-10 4/255 error",
    "without_strongest": "accuracy without the strongest 20 %",
}


def comparison(
    rows: Sequence[Mapping], columns: Mapping[str, str] = COLUMNS, *, intervals: bool = False
) -> list[list[str]]:
    """A table of cells: one line per method, then one per method minus the first, seed by seed.

    Args:
        rows: evaluation objects, the first method being what the others are compared with. Methods
            are compared on the seeds they share.
        columns: fields of the rows (`corruption.mce`: a key inside a field; `without_strongest`:
            from the feature drop) to their headings.
        intervals: behind each difference its 95 % interval (see `interval`) instead of the standard
            deviation, and its p value after Holm's correction for all differences of the table; and
            a column n, the number of seeds.
    Raises:
        ValueError: as `by_method`, if a row lacks a column, and if two methods share no seed.
    """
    rows = _with_columns(rows, columns)
    table = [["", *(["n"] if intervals else []), *columns.values()]]
    for method, group in by_method(rows).items():
        cells = [mean_with_deviation([row[key] for row in group]) for key in columns]
        table.append([method, *([str(len(group))] if intervals else []), *cells])
    found = differences(rows, columns) if intervals else []
    for method, first, pairs in _pairs(rows):
        if intervals:
            own = [one for one in found if one["method"] == method]
            cells = [str(len(pairs)), *map(mean_with_interval, own)]
        else:
            gaps = [[a[key] - b[key] for a, b in pairs] for key in columns]
            cells = [mean_with_deviation(values, "+") for values in gaps]
        table.append([f"{method} − {first}", *cells])
    return table


def differences(rows: Sequence[Mapping], columns: Iterable[str] = COLUMNS) -> list[dict]:
    """The paired differences of `comparison` as numbers: one row for every method but the first and
    every column.

    Args:
        rows, columns: as for `comparison`; of the columns only the fields are read.
    Returns:
        {"method", "minus": the first method, "measure": the column, "n": shared seeds, "seeds",
        "mean", "sd", "low", "high"} each, in percentage points; "low" and "high" bound the 95 %
        interval, which is not narrower than a test image; "p" of the t test, and "p_holm",
        corrected for all differences of the table. The last five are None where n = 1.
    Raises:
        ValueError: as `comparison`.
    """
    rows, gaps = _with_columns(rows, columns), []
    for method, first, pairs in _pairs(rows):
        seeds = [a["seed"] for a, _ in pairs]
        for key in columns:
            values = [a[key] - b[key] for a, b in pairs]
            resolution = max(resolution_of(row, key) for pair in pairs for row in pair)
            low, high = interval(values, resolution=resolution) or (None, None)
            spread = deviation(values) if len(values) > 1 else None
            gap = {"method": method, "minus": first, "measure": key, "n": len(values)}
            gap |= {"seeds": seeds, "mean": mean(values), "sd": spread, "low": low, "high": high}
            gaps.append({**gap, "p": p_value(values, resolution)})
    corrected = holm([gap["p"] for gap in gaps])
    return [{**gap, "p_holm": p} for gap, p in zip(gaps, corrected)]


def _with_columns(rows: Sequence[Mapping], columns: Iterable[str]) -> Sequence[Mapping]:
    """The rows, in all of which every column was measured."""
    for key in columns:
        by_method(rows, "feature_drop" if key == "without_strongest" else key.partition(".")[0])
    rows = [{**row, **{key: value_of(row, key) for key in columns}} for row in rows]
    for key in columns:
        by_method(rows, key)
    return rows


def _pairs(rows: Sequence[Mapping]) -> Iterator[tuple[str, str, list[tuple[Mapping, Mapping]]]]:
    """(method, the first method, [(row, row of the first) of every seed they share]) of each method
    but the first.
    """
    groups = by_method(rows)
    first, *others = groups
    for method in others:
        own = {row["seed"]: row for row in groups[method]}
        pairs = [(own[row["seed"]], row) for row in groups[first] if row["seed"] in own]
        if not pairs:
            raise ValueError(
                f"{first} and {method} have no seed in common, so they cannot be compared in pairs"
            )
        yield method, first, pairs


def by_method(rows: Sequence[Mapping], needed: str | None = None) -> dict[str, list[Mapping]]:
    """{method: its rows}, in the order of first appearance, after making sure that they may be
    averaged.

    Args:
        rows: evaluation objects.
        needed: a field that every row must have.
    Raises:
        ValueError: if there are no rows, one lacks the field, or the rows of a method are not seeds
            of one setting.
    """
    if not rows:
        raise ValueError("there are no rows, got an empty sequence")
    groups: dict[str, list[Mapping]] = {}
    for row in rows:
        if needed is not None and row.get(needed) is None:
            raise ValueError(
                f"the row of {row['method']}, seed {row.get('seed')}, has no {needed}: evaluate it"
                " first"
            )
        groups.setdefault(method_of(row), []).append(row)
    for method, group in groups.items():
        for key in ("data", "subset", "model", "width", "epochs", "n_test", "method_settings"):
            if any(row.get(key) != group[0].get(key) for row in group):
                raise ValueError(
                    f"the rows of {method} differ in {key} ({span(row.get(key) for row in group)}),"
                    " so they are not seeds of one setting: show them apart"
                )
        seeds = [row.get("seed") for row in group]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{method} has two rows of one seed, got seeds {seeds}")
    return groups


def method_of(row: Mapping) -> str:
    """The method's name in a table: the row's own `label`, if it has one
    (`catchup.experiments.compare`).

    Without one, Catch-up Mix that only ever draws layer 0 is CutMix and is called so.
    """
    if row.get("label"):
        return row["label"]
    settings = row.get("method_settings") or {}
    only_input = row["method"] == "catchup" and list(settings.get("layers") or []) == [0]
    only_input = only_input and settings.get("input_mix", "cutmix") == "cutmix"
    return "cutmix" if only_input else row["method"]


def accuracy_without(row: Mapping, fraction: float, which: str = "strongest") -> float:
    """Top-1 accuracy in percent with that fraction of the pooled features removed, from an
    evaluation object.

    Raises:
        ValueError: if that fraction was not measured.
    """
    curve = dict(map(tuple, row["feature_drop"][which]))
    if fraction not in curve:
        raise ValueError(
            f"no accuracy at the fraction {fraction}; measured: {', '.join(map(str, curve))}"
        )
    return curve[fraction]


def value_of(row: Mapping, column: str) -> float | None:
    """The number of a row that a column shows.

    Args:
        row: an evaluation object.
        column: a field; a key inside a field, or deeper, joined by dots ("corruption.mce"); or
            "without_strongest", the accuracy in percent without the strongest 20 % of features.
            None if the row has no such number.
    """
    if column == "without_strongest":
        return accuracy_without(row, 0.2) if row.get("feature_drop") else None
    field, _, key = column.partition(".")
    value = row.get(field)
    if not key or not isinstance(value, Mapping):
        return value
    # a key may hold a dot itself
    return value[key] if key in value else value_of(value, key) if "." in key else None


def mean_with_deviation(values: Sequence[float], sign: str = "") -> str:
    """Mean ± sample standard deviation with two decimals; a single value stands alone."""
    return f"{mean(values):{sign}.2f}" + (f" ± {deviation(values):.2f}" if len(values) > 1 else "")


def mean_with_interval(difference: Mapping) -> str:
    """A row of `differences` with signs and two decimals: mean, 95 % interval and corrected p
    value; of a single pair both are unknown.
    """
    if difference["low"] is None:
        return f"{difference['mean']:+.2f} [unknown]"
    low, high, p = (difference[key] for key in ("low", "high", "p_holm"))
    return f"{difference['mean']:+.2f} [{low:+.2f}, {high:+.2f}], p {format_p(p)}"


def span(values) -> str:
    """The different values, as words: "3", "500 or 1000"."""
    return " or ".join(dict.fromkeys(str(value) for value in values))
