"""Tables of evaluation objects: mean ± standard deviation over seeds, and the differences pair by pair."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

COLUMNS = {"top1_error": "top-1 error", "fgsm_error": "FGSM 4/255 error", "pgd_error": "PGD-10 4/255 error",
           "without_strongest": "accuracy without the strongest 20 %"}


def comparison(rows: Sequence[Mapping], columns: Mapping[str, str] = COLUMNS) -> list[list[str]]:
    """A table of cells: one line per method, then one per method minus the first, seed by seed.

    Args:
        rows: evaluation objects, the first method being what the others are compared with. Methods are compared on the
            seeds they share.
        columns: fields of the rows (and `without_strongest`, from the feature drop) to their headings; in percent.
    Raises:
        ValueError: as `grouped`, if a row lacks a column, and if two methods share no seed.
    """
    if "without_strongest" in columns:
        grouped(rows, "feature_drop")
        rows = [with_drop(row) for row in rows]
    for key in columns:
        grouped(rows, key)
    values = {method: {row["seed"]: row for row in group} for method, group in grouped(rows).items()}
    first, *others = values
    table = [["", *columns.values()]]
    table += [[method, *(spread([row[key] for row in seeds.values()]) for key in columns)]
              for method, seeds in values.items()]
    for method in others:
        shared = [seed for seed in values[first] if seed in values[method]]
        if not shared:
            raise ValueError(f"{first} and {method} have no seed in common, so they cannot be compared in pairs")
        pairs = [(values[method][seed], values[first][seed]) for seed in shared]
        table.append([f"{method} − {first}", *(spread([a[key] - b[key] for a, b in pairs], "+") for key in columns)])
    return table


def grouped(rows: Sequence[Mapping], needed: str | None = None) -> dict[str, list[Mapping]]:
    """{method: its rows}, in the order of first appearance, after making sure that they may be averaged.

    Args:
        rows: evaluation objects.
        needed: a field that every row must have.
    Raises:
        ValueError: if there are no rows, one lacks the field, or the rows of a method are not seeds of one setting.
    """
    if not rows:
        raise ValueError("there are no rows, got an empty sequence")
    groups: dict[str, list[Mapping]] = {}
    for row in rows:
        if needed is not None and row.get(needed) is None:
            raise ValueError(f"the row of {row['method']}, seed {row.get('seed')}, has no {needed}: evaluate it first")
        groups.setdefault(method_of(row), []).append(row)
    for method, group in groups.items():
        for key in ("data", "subset", "model", "width", "epochs", "n_test", "method_settings"):
            if any(row.get(key) != group[0].get(key) for row in group):
                raise ValueError(f"the rows of {method} differ in {key} ({span(row.get(key) for row in group)}), so "
                                 f"they are not seeds of one setting: show them apart")
        seeds = [row.get("seed") for row in group]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{method} has two rows of one seed, got seeds {seeds}")
    return groups


def method_of(row: Mapping) -> str:
    """The method's name in a table; Catch-up Mix that only ever draws layer 0 is CutMix and is called so."""
    settings = row.get("method_settings") or {}
    only_input = row["method"] == "catchup" and list(settings.get("layers") or []) == [0]
    only_input = only_input and settings.get("input_mix", "cutmix") == "cutmix"
    return "cutmix" if only_input else row["method"]


def accuracy_without(row: Mapping, fraction: float, which: str = "strongest") -> float:
    """Top-1 accuracy in percent with that fraction of the pooled features removed, from an evaluation object.

    Raises:
        ValueError: if that fraction was not measured.
    """
    curve = dict(map(tuple, row["feature_drop"][which]))
    if fraction not in curve:
        raise ValueError(f"no accuracy at the fraction {fraction}; measured: {', '.join(map(str, curve))}")
    return curve[fraction]


def with_drop(row: Mapping) -> dict:
    """The row with `without_strongest`, its accuracy in percent without the strongest 20 % of features."""
    return {**row, "without_strongest": accuracy_without(row, 0.2)}


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean ± sample standard deviation with two decimals; a single value stands alone."""
    return f"{mean(values):{sign}.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def as_text(table: Sequence[Sequence[str]]) -> str:
    """The table with its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*table)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in table)


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    head, *body = ("| " + " | ".join(line) + " |" for line in table)
    return "\n".join([head, "|" + "---|" * len(table[0]), *body])


def span(values) -> str:
    """The different values, as words: "3", "500 or 1000"."""
    return " or ".join(dict.fromkeys(str(value) for value in values))
