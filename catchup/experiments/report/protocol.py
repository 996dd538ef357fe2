"""In what a recorded run differs from the paper's, in words: data, network, budget, the tests, and
the recipe.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from ...measures.registry import MEASURES
from ...measures.subject import Options
from ...training import recipes
from ...utils.files import jsonable
from .printed import Column, layout
from .records import ALONE, Group

# options of the tests that the papers state; the defaults are theirs
STATED = ("eps_255", "cam_threshold", "ood")
# settings that change nothing of a recipe's protocol; the last five are told apart
FREE = {*ALONE, "data", "subset", "model", "width", "epochs"}


def differences(
    group: Group, column: Column, protocol: str, rows: Sequence[Mapping] = ()
) -> list[str]:
    """In what a group differs from the paper's run, in words; empty if in nothing that is known.

    Args:
        group: evaluation objects of one setting.
        column: what the cell expects.
        protocol: the recipe of the cell, "" where the paper states none.
        rows: those of the group whose tests are compared.
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
    stride = group.settings.get("stem_stride", 1)
    if stride != 1 and not group.settings.get("recipe"):
        said.append(f"stem stride {stride}")
    if row["epochs"] != column.epochs:
        said.append(
            f"{row['epochs']} epochs" + (f" instead of {column.epochs}" if column.epochs else "")
        )
    if row.get("n_test") != whole.get("n_test"):
        said.append(f"{row.get('n_test')} instead of {whole.get('n_test')} test images")
    tests = (words for one in rows for words in _test_words(one, column))
    return [*said, *dict.fromkeys(tests), *_recipe_words(row, protocol)]


def rules_left_out(row: Mapping, protocol: str) -> list[str]:
    """The recipe's rules for the row's method alone, which a comparison cannot follow, as its runs
    share settings.
    """
    settings = row.get("settings") or {}
    if not protocol or settings.get("recipe") != protocol:
        return []
    return [
        f"{row['method']}: the recipe's {key.replace('_', ' ')} {value} left out"
        for key, value in _rules(row, protocol)
        if settings.get(key) != jsonable(value)
    ]


def _rules(row: Mapping, protocol: str) -> Iterator[tuple[str, object]]:
    """The settings that a recipe gives to the row's method alone."""
    settings = row["settings"]
    for rule in recipes.load()[protocol].special:
        when = rule.get("when", {}).items()
        if row["method"] in rule.get("methods", [row["method"]]) and when <= settings.items():
            yield from rule["settings"].items()


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


def test_options(row: Mapping, column: Column) -> list[tuple[str, Mapping]]:
    """The tests of a row that fill the column, each with the options it was measured with."""
    field = (column.measure or "").partition(".")[0]
    return [
        (test, how)
        for test, how in (row.get("measured_with") or {}).items()
        if test in MEASURES and field in MEASURES[test].fields
    ]


def _test_words(row: Mapping, column: Column) -> list[str]:
    """What is said of the options of the tests that fill the column."""
    said, wanted = [], {**asdict(Options()), **column.measured_with}
    for test, how in test_options(row, column):
        if how.get("sample"):
            said.append(f"a sample of {how['sample']} test images per class")
        said += [
            f"{name.replace('_', ' ')} {how[name]} instead of {wanted[name]}"
            for name in STATED
            if name in how
            and how[name] != wanted[name]
            and str(how[name]).partition(":")[0] != wanted[name]
        ]  # imagenet-o:PATH is imagenet-o
        if test == "corruption" and not how.get("cifar_c_dir"):
            said.append("corruptions generated here instead of the published arrays")
    return said


def _recipe_words(row: Mapping, protocol: str) -> list[str]:
    """What is said of the recipe: of another one, of none, of settings that are not its own."""
    if not protocol:
        return ["the paper states no protocol"]
    settings = row.get("settings") or {}
    recipe, scale = settings.get("recipe"), settings.get("scale")
    if recipe != protocol:
        return [
            f"recipe {recipe} instead of {protocol}"
            if recipe
            else f"no recipe named (the paper's: {protocol})"
        ]
    chosen = {key: settings[key] for key in ("data", "model")}
    own = jsonable(recipes.settings_of(recipe, row["method"], scale, **chosen).as_dict())
    apart = {*FREE, *(key for key, _ in _rules(row, protocol))}
    changed = sorted(key for key in own.keys() - apart if settings.get(key) != own[key])
    said = [f"recipe at scale {scale}"] if scale else []
    return said + [f"{name.replace('_', ' ')} not the recipe's" for name in changed]


def _name(data: str | None) -> str:
    return layout()["data"].get(data, {}).get("name", str(data))
