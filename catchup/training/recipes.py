"""The training protocols of the papers as data: what each sets, where it is from, its conflicts,
what it aims at.

The data are in `recipes.toml`; here they become `Settings`. A recipe can be scaled down: a share of
0.1 has a tenth of the epochs and of the images, and the named scales are for two cores (see
`SCALES`).

Where it misleads: a recipe is the nearest protocol that a paper or a release states, not a promise
that the authors ran exactly this; read its `conflicts` and `differs`. A scaled run is another
protocol, whose number belongs to no table.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from .. import models
from ..mixers import MIXERS, make
from ..mixers.published import published_settings
from ..utils.choices import parse_spec, pick
from ..utils.files import as_tuples
from .settings import PLACE, WITHOUT_EFFECT, Settings

# only those of plain values are looked at
_DEFAULTS = {field.name: field.default for field in fields(Settings)}
OF_NO_RECIPE = (*PLACE, "seed", "method_settings")
REPORTS = {
    "last": "the last epoch",
    "best": "the best epoch",
    "median10": "the median of the last ten epochs",
    "": "which epoch is not said",
}


class Scale(NamedTuple):
    """A scale by name. What is at most this already stays as it is.

    epochs: passes over the images. images: for training, in all, the same number of every class.
    divided: what the width of our own models is divided by, unless they are pretrained. pixels: the
    side of what the network sees, halved until it fits. batch_size: with it `lr` and `min_lr` fall
    in proportion. The precision becomes fp32; milestones and warm-up keep their shares of the run.
    """

    epochs: int
    images: int
    divided: int
    pixels: int
    batch_size: int


SCALES = {"full": None, "small": Scale(30, 5000, 4, 64, 128), "tiny": Scale(2, 500, 4, 64, 32)}
# Of each data set: classes and the training images of its smallest class.
CLASSES = {
    "cifar10": (10, 5000),
    "cifar100": (100, 500),
    "tiny-imagenet": (200, 500),
    "cub200": (200, 29),
    "cars196": (196, 24),
    "aircraft": (100, 66),
    "imagenet": (1000, 732),
}


@dataclass(frozen=True)
class PrintedResult:
    """Printed numbers.

    Args:
        table: where they stand. measure: what they are, with the unit. values: method to number.
        given: settings that these numbers need besides the recipe's.
    """

    table: str
    measure: str
    values: Mapping[str, float]
    given: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """One protocol.

    Args:
        name, title, source: what it is called, what it is, where it is from.
        reports: which epoch's number the source prints, a key of `REPORTS`.
        settings: of the run, by the names of `Settings`; milestones are shares of the run.
        methods: settings of methods, by name; "all" holds for every one.
        special: rules with `settings` for some `methods`, or `when` other settings have these
            values.
        targets: the numbers it aims at.
        conflicts: what sources contradict each other in, or leave open. differs: what is not as in
            the source.
    """

    name: str
    title: str
    source: str
    reports: str
    settings: Mapping
    methods: Mapping[str, Mapping]
    special: Sequence[Mapping]
    targets: Sequence[PrintedResult]
    conflicts: Sequence[str]
    differs: Sequence[str]


@cache
def load() -> dict[str, Recipe]:
    """All recipes by name, in the order of `recipes.toml`."""
    return {
        name: _recipe(name, row)
        for name, row in tomllib.loads(
            files(__package__).joinpath("recipes.toml").read_text(encoding="utf-8")
        ).items()
    }


def named(name: str) -> Recipe:
    """The recipe called `name`; ValueError with the nearest and all names if there is none."""
    return load()[pick("recipe", name, load())]


def settings_of(
    name: str, method: str | None = None, scale: str | float | None = None, **given: Any
) -> Settings:
    """The settings of a run by a recipe.

    Args:
        name: of the recipe.
        method: whose settings under the recipe are filled in; None leaves method and its settings
            at their defaults.
        scale: "full" or None, "small", "tiny" (see `SCALES`), or a share in (0, 1] of the epochs
            and of each class's images.
        given: settings that go before the recipe's; the scale leaves them alone. `method_settings`
            are merged with the recipe's for the method.
    Raises:
        ValueError: for an unknown recipe, method, scale or setting, or settings that do not fit
            together.
    """
    recipe, known = named(name), [field.name for field in fields(Settings)]
    for key in given:
        pick("setting", key, known)
    # which the papers mean where they say nothing
    values = {"precision": "fp32", **recipe.settings, **given}
    if method is not None:
        pick("method", method, MIXERS)
        own = {
            **recipe.methods.get("all", {}),
            **recipe.methods.get(method, {}),
            **given.get("method_settings", {}),
        }
        values |= {"method": method, "method_settings": own}
    for rule in recipe.special:
        if (
            method in rule.get("methods", [method])
            and rule.get("when", {}).items() <= values.items()
        ):
            values |= {key: value for key, value in rule["settings"].items() if key not in given}
    scaled = _scaled({**_DEFAULTS, **values}, scale, frozenset(given))
    return Settings(
        **{
            **values,
            **scaled,
            "recipe": name,
            "scale": None if scale in (None, "full") else str(scale),
        }
    )


def changes(full: Settings, scaled: Settings) -> list[str]:
    """What the scale changed, a phrase each: "epochs 400 → 30"."""
    before, after = (
        {**vars(one), "width": one.width or models.full_width(one.model)} for one in (full, scaled)
    )
    return [
        f"{key} {_worded(key, before[key])} → {_worded(key, after[key])}"
        for key in before
        if before[key] != after[key] and key not in WITHOUT_EFFECT
    ]


def announcement(settings: Settings) -> str:
    """What a run by a recipe is about to do: its title, what the scale changed, and what else is
    not as in the recipe.

    Args:
        settings: of the run; `recipe` is set.
    """
    one, method = named(settings.recipe or ""), settings.method
    full, scaled = (settings_of(one.name, method, scale) for scale in (None, settings.scale))
    said = [f"recipe {one.name}: {one.title}; its source prints {REPORTS[one.reports]}"]
    said += (
        [f"scale {settings.scale}: {', '.join(changes(full, scaled))}"] if settings.scale else []
    )
    other = changes(
        scaled, replace(settings, **{key: getattr(scaled, key) for key in OF_NO_RECIPE})
    )
    return "\n".join(said + ([f"other than the recipe: {', '.join(other)}"] if other else []))


def label_of(name: str | None, label: str, preset: str | None = None) -> str:
    """A method as `catchup compare` names it, with its settings written out.

    Args:
        name: of a recipe; None for none. label: "cutmix", or "cutmix:prob=0.5"; what it sets goes
            before everything else.
        preset: a data set: with the settings that the method was published with on it, which go
            before the recipe's.
    Returns:
        "cutmix:alpha=0.2"; settings that the method has by default are not written.
    Raises:
        ValueError: for an unknown recipe or data set, or a label that is not written so.
    """
    method, own = parse_spec(label)
    usual, under = make(method, seed=0), {} if name is None else named(name).methods
    chosen = {**under.get("all", {}), **under.get(method, {})}
    if preset is not None:
        chosen |= published_settings(type(usual).__name__, preset)
    parts = [
        f"{key}={_spelled(value)}"
        for key, value in {**chosen, **own}.items()
        if key in own or getattr(usual, key, None) != value
    ]
    return f"{method}:{','.join(parts)}" if parts else method


def left_out(name: str, methods: Sequence[str], settings: Settings) -> list[str]:
    """What a comparison cannot follow, because its runs share their settings: "cutmix: weight_decay
    0.0005".

    Args:
        name: of the recipe. methods: as for `label_of`. settings: of all the runs.
    """

    def under(method: str | None) -> Settings:
        return settings_of(name, method, model=settings.model, data=settings.data)

    keys = {key for rule in named(name).special for key in rule["settings"]}
    bare = dict.fromkeys(parse_spec(label)[0] for label in methods)
    return [
        f"{method}: {key} {getattr(under(method), key)}"
        for method in bare
        for key in sorted(keys)
        if getattr(under(method), key) not in (getattr(under(None), key), getattr(settings, key))
    ]


def rows() -> list[dict]:
    """One row per recipe for the list: name, title, source, epochs, reports, and its targets, as
    plain values.
    """
    return [
        {
            "name": one.name,
            "title": one.title,
            "source": one.source,
            "epochs": one.settings["epochs"],
            "reports": one.reports,
            "targets": [vars(target) for target in one.targets],
        }
        for one in load().values()
    ]


def listing() -> str:
    """All recipes as text: name, epochs, what is printed, title; source; the tables aimed at."""
    said = []
    for one in load().values():
        aims = "; ".join(
            dict.fromkeys(", ".join(target.table.split(", ")[:2]) for target in one.targets)
        )
        said += [
            (
                f"{one.name:14}{one.settings['epochs']:5} epochs,"
                f" {one.reports or 'epoch not said':14}  {one.title}"
            ),
            f"{'':16}source: {one.source}",
            *([f"{'':16}aims at: {aims}"] if aims else []),
        ]
    return "\n".join(said)


def page(name: str) -> str:
    """A recipe whole, as text."""
    one = named(name)
    said = [
        f"{one.name}: {one.title}",
        f"source: {one.source}",
        f"prints: {REPORTS[one.reports]}",
        "",
        "settings: " + _phrase({**one.settings, **_in_epochs(one.settings)}),
    ]
    said += [
        f"  {'every method' if method == 'all' else method}: {_phrase(own)}"
        for method, own in one.methods.items()
        if own
    ]
    said += [f"  {_phrase(rule['settings'])}: {_whom(rule)}" for rule in one.special]
    for title, sentences in (("conflicts", one.conflicts), ("differs here", one.differs)):
        said += (
            ["", f"{title}:", *(f"  - {sentence}" for sentence in sentences)] if sentences else []
        )
    for target in one.targets:
        given = f" (with {_phrase(target.given)})" if target.given else ""
        said += [
            "",
            f"aims at: {target.table}, {target.measure}{given}",
            "  " + "  ".join(f"{method} {value:.2f}" for method, value in target.values.items()),
        ]
    return "\n".join(said)


def _recipe(name: str, row: Mapping) -> Recipe:
    """A table of recipes.toml, its milestones made shares of the run, its lists tuples."""
    settings = as_tuples(row["settings"])
    if "milestones" in settings:
        settings["milestones"] = tuple(
            epoch / settings["epochs"] for epoch in settings["milestones"]
        )
    methods = {method: as_tuples(own) for method, own in row["methods"].items()}
    return Recipe(
        name,
        row["title"],
        row["source"],
        row["reports"],
        settings,
        methods,
        row.get("special", []),
        [PrintedResult(**target) for target in row.get("targets", [])],
        row["conflicts"],
        row["differs"],
    )


def _scaled(now: Mapping, scale: str | float | None, fixed: frozenset[str]) -> dict:
    """What a scale puts in the place of some of the settings `now`; those that are `fixed` stay."""
    limit = SCALES[scale] if scale in SCALES else None
    if scale is None or scale == "full":
        return {}
    if limit is None:
        share = _share(scale)
        changed = _shorter(now, max(1, round(share * now["epochs"])), fixed) | _fewer(
            now["subset"], share
        )
    else:
        changed = _shorter(now, min(now["epochs"], limit.epochs), fixed) | _smaller(
            now, limit.pixels, fixed
        )
        changed |= (
            _part(now, limit.images)
            | _lighter(now, limit.batch_size, fixed)
            | {"precision": "fp32"}
        )
        if (width := now["width"] or models.full_width(now["model"])) and not now["pretrained"]:
            changed["width"] = max(1, width // limit.divided)
    return {key: value for key, value in changed.items() if key not in fixed}


def _share(scale: str | float) -> float:
    """A scale that is a number; ValueError if it is none in (0, 1]."""
    try:
        share = float(scale)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ValueError(
            f"a scale is one of {', '.join(SCALES)}, or a share of the epochs and images in (0, 1],"
            f" got {scale!r}"
        )
    return share


def _shorter(now: Mapping, epochs: int, fixed: frozenset[str]) -> dict:
    """Fewer epochs, and a warm-up of the same share."""
    if "epochs" in fixed:
        return {}
    return {"epochs": epochs, "warmup_epochs": now["warmup_epochs"] * epochs / now["epochs"]}


def _fewer(subset: int | float | None, share: float) -> dict:
    """A share of the images that there were; an integer is images per class."""
    if isinstance(subset, int):
        return {"subset": max(1, round(subset * share))}
    return {"subset": share * (1.0 if subset is None else subset)}


def _part(now: Mapping, images: int) -> dict:
    """So many images of each class that they are about `images` in all, where the data set is
    known.
    """
    if now["data"] not in CLASSES or now["subset"] is not None:
        return {}
    classes, fewest = CLASSES[now["data"]]
    return {"subset": min(fewest, max(1, round(images / classes)))}


def _lighter(now: Mapping, batch_size: int, fixed: frozenset[str]) -> dict:
    """A smaller batch and rates in proportion."""
    if "batch_size" in fixed or now["batch_size"] <= batch_size:
        return {}
    part = batch_size / now["batch_size"]
    return {"batch_size": batch_size, "lr": now["lr"] * part, "min_lr": now["min_lr"] * part}


def _smaller(now: Mapping, pixels: int, fixed: frozenset[str]) -> dict:
    """Image size and window, both halved until what the network sees has at most so many pixels a
    side.
    """
    seen, halved = now["window"] or now["image_size"], 1
    if seen is None or fixed & {"window", "image_size"}:
        return {}
    while seen // halved > pixels:
        halved *= 2
    return {key: now[key] // halved for key in ("image_size", "window") if now[key] is not None}


def _worded(key: str, value: Any) -> str:
    """A setting in words."""
    if value is None:
        return "all" if key == "subset" else "its own"
    if key == "subset":
        return f"{value} per class" if isinstance(value, int) else f"{value:.4g} of each class"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _in_epochs(settings: Mapping) -> dict:
    """The milestones as the source writes them."""
    shares, epochs = settings.get("milestones"), settings["epochs"]
    return {} if shares is None else {"milestones": [round(share * epochs) for share in shares]}


def _phrase(values: Mapping) -> str:
    """Settings in one line."""
    return ", ".join(f"{key} {_spelled(value)}" for key, value in values.items())


def _spelled(value: Any) -> str:
    """A value as `catchup.utils.choices.parse_spec` reads it back."""
    if isinstance(value, (tuple, list)):
        return f"[{','.join(map(_spelled, value))}]"
    return str(value)


def _whom(rule: Mapping) -> str:
    """For whom a special rule holds."""
    when = f"with {_phrase(rule['when'])}" if "when" in rule else ""
    return ", ".join(filter(None, [" ".join(rule.get("methods", [])), when]))
