"""In what a recorded run differs from the paper's, in words: data, network, budget, the tests, and
the recipe.
"""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields

from ...measures.registry import MEASURES, Options
from ...training import recipes
from ...training.settings import PLACE, WITHOUT_EFFECT, Settings
from .printed import Column, layout
from .records import Group

# options of the tests that the papers state; the defaults are theirs
STATED = ("eps_255", "cam_threshold", "ood")
# options of a command that change nothing of a recipe's protocol; three are told apart
FREE = {"method", "seed", "label", "alpha", "data", "subset", "model", *PLACE, *WITHOUT_EFFECT}


def differences(group: Group, column: Column, protocol: str) -> list[str]:
    """In what a group differs from the paper's run, in words; empty if in nothing that is known.

    Args:
        column: what the cell expects. protocol: the recipe of the cell, "" where the paper states
            none.
    """
    row, whole = group.first, layout()["data"].get(group.data, {})
    said = (
        []
        if group.data == column.data
        else [f"{_name(group.data)} instead of {_name(column.data)}"]
    )
    if group.classes != whole.get("classes"):
        said.append(f"{group.classes} of {whole['classes']} classes")
    if not _same(group.share, column.share if group.data == column.data else 1.0):
        said.append(_share_words(group, whole, column))
    if column.model and row["model"] != column.model:
        said.append(f"{row['model']} instead of {column.model}")
    if group.width != group.full_width:
        said.append(f"width {group.width} instead of {group.full_width}")
    # older objects do not name it
    stride = row.get("stem_stride") or _options(row).get("stem_stride")
    if stride and str(stride) != "1" and not row.get("recipe"):
        said.append(f"stem stride {stride}")
    if row["epochs"] != column.epochs:
        said.append(
            f"{row['epochs']} epochs" + (f" instead of {column.epochs}" if column.epochs else "")
        )
    return [*said, *_test_words(row, column, whole), *_recipe_words(row, protocol)]


def rules_left_out(row: Mapping, protocol: str) -> list[str]:
    """The recipe's rules for the row's method alone, which a comparison cannot follow, as its runs
    share settings.
    """
    method, options, run = row["method"], _options(row), row.get("_run_settings") or {}
    command = (row.get("training") or {}).get("command") or row.get("command") or ""
    if (row.get("recipe") or options.get("recipe")) != protocol or command.split()[:2] == [
        "catchup",
        "train",
    ]:
        return []  # a run by itself follows them
    recipe = recipes.load().get(protocol)
    return [
        f"{method}: the recipe's {key.replace('_', ' ')} {value} left out"
        for rule in (recipe.special if recipe else ())
        if method in rule.get("methods", [method])
        and all(row.get(key) == value for key, value in rule.get("when", {}).items())
        for key, value in rule["settings"].items()
        if not _equal(run.get(key, options.get(key)), value)
    ]


def _equal(given, value) -> bool:
    """Is a setting, perhaps as it stands in a command, this value?"""
    try:
        return float(given) == float(value)
    except (TypeError, ValueError):
        return str(given) == str(value)


def model_distance(group: Group, column: Column) -> int:
    """How far the network is from the paper's: one for another model, one for another width."""
    return (column.model is not None and group.first["model"] != column.model) + (
        group.width != group.full_width
    )


def true_share(group: Group, column: Column) -> bool:
    """Does the group hold the share of the training images that the cell is about?"""
    return _same(group.share, column.share)


def _same(share: float, wanted: float) -> bool:
    return abs(share / wanted - 1) < 0.02  # classes differ by a few images in some data sets


def _share_words(group: Group, whole: Mapping, column: Column) -> str:
    said = f"{100 * group.share:g} % of the training images" + (
        f" ({group.per_class:g} of {whole['per_class']} per class)"
        if group.per_class and "per_class" in whole
        else ""
    )
    return said if column.share == 1 else f"{said} for {100 * column.share:g} %"


def _test_words(row: Mapping, column: Column, whole: Mapping) -> list[str]:
    """What is said of the test images, where not all of them were taken."""
    said = (
        []
        if row.get("n_test") == whole.get("n_test")
        else [f"{row.get('n_test')} instead of {whole.get('n_test')} test images"]
    )
    field = (column.measure or "").partition(".")[0]
    for test, how in (row.get("measured_with") or {}).items():
        if test not in MEASURES or field not in MEASURES[test].fields:
            continue
        if how.get("sample"):
            said.append(f"a sample of {how['sample']} test images per class")
        wanted = {**asdict(Options()), **column.measured_with}
        # imagenet-o:PATH is imagenet-o
        said += [
            f"{name.replace('_', ' ')} {how[name]} instead of {wanted[name]}"
            for name in STATED
            if name in how
            and how[name] != wanted[name]
            and str(how[name]).partition(":")[0] != wanted[name]
        ]
        if test == "corruption" and not how.get("cifar_c_dir"):
            said.append("corruptions generated here instead of the published arrays")
    return said


def _recipe_words(row: Mapping, protocol: str) -> list[str]:
    """What is said of the recipe: of another one, of none, of settings given besides."""
    options = _options(row)
    recipe, scale = (row.get(key) or options.get(key) for key in ("recipe", "scale"))
    if not protocol:
        return ["the paper states no protocol"]
    if recipe != protocol:
        return [
            (
                f"recipe {recipe} instead of {protocol}"
                if recipe
                else f"no recipe named (the paper's: {protocol})"
            )
        ]
    changed = sorted(set(options) & {field.name for field in fields(Settings)} - FREE)
    said = [f"recipe at scale {scale}"] if scale not in (None, "full") else []
    return said + [f"{name.replace('_', ' ')} not the recipe's" for name in changed]


def _options(row: Mapping) -> dict[str, str]:
    """The options of the command that trained a run, without their dashes; none if it is not a
    command line.
    """
    try:
        words = shlex.split((row.get("training") or {}).get("command") or row.get("command") or "")
    except ValueError:
        return {}
    found = {}
    for word, following in zip(words, [*words[1:], ""]):
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            found[key.replace("-", "_")] = value if equals else following
    return found


def _name(data: str | None) -> str:
    return layout()["data"].get(data, {}).get("name", str(data))
