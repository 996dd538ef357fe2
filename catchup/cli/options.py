"""The options of the commands: dataclasses for tyro from those of the package, and what it needs
before it reads.

The settings of a method can only be offered once the method is known, and a recipe is where the
other options' defaults come from; so these two are looked for among the arguments first.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import Field, field, make_dataclass
from typing import Annotated, Literal

import tyro

from ..mixers import make
from ..mixers.target import CRITERIA
from ..training.settings import Settings


def options_of(
    title: str, chosen: list[Field], documented: type, usual: Mapping | None = None
) -> type:
    """A dataclass of these fields for tyro, with the help from the docstrings of the class and its
    bases.

    Values in `usual` go before the fields' own defaults.
    """
    from docstring_parser import parse

    helps = {
        param.arg_name: param.description
        for base in reversed(documented.__mro__)
        if base.__doc__
        for param in parse(base.__doc__).params
    }
    types = {"criterion": Literal[CRITERIA]}

    def documented_type(field: Field):
        return Annotated[
            types.get(field.name, field.type), tyro.conf.arg(help=helps.get(field.name))
        ]

    return make_dataclass(
        title,
        [
            (
                one.name,
                documented_type(one),
                field(default=usual[one.name]) if usual and one.name in usual else one,
            )
            for one in chosen
        ],
        kw_only=True,
    )


def _named(argv: Sequence[str], option: str) -> str | None:
    """What stands behind "--option" among the arguments, before tyro reads them; the last, if there
    are several.
    """
    found = None
    for here, following in zip(argv, [*argv[1:], None]):
        flag, equals, value = here.partition("=")
        if flag.replace("_", "-") == f"--{option}":
            found = value if equals else following
    return found


def named_method(argv: Sequence[str]) -> str:
    """The method that the arguments of `train` name, so that its settings can be offered; unknown
    names are refused.
    """
    name = _named(argv, "method")
    if name is None:
        return Settings().method
    make(name)
    return name


def by_recipe(argv: Sequence[str], method: str | None) -> dict:
    """The settings of the recipe that the arguments of `train` or `compare` name, which become the
    options' defaults.

    The scale has to know what it must leave alone; a value that is none is left to tyro, which will
    refuse it.
    """
    name = _named(argv, "recipe") if argv[:1] in (["train"], ["compare"]) else None
    if name is None:
        return {}
    from ..training.recipes import settings_of

    given = {}
    for key, kind in {
        "data": str,
        "model": str,
        "epochs": int,
        "batch_size": int,
        "image_size": int,
        "window": int,
    }.items():
        with suppress(TypeError, ValueError):
            given[key] = kind(_named(argv, key.replace("_", "-")) or "")
    given = {key: value for key, value in given.items() if value}
    return vars(settings_of(name, method, _named(argv, "scale"), **given))


def under_recipe(methods: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """The methods with their settings under the recipe, if there is one; what cannot be followed is
    said.
    """
    if not settings.recipe:
        return tuple(methods)
    from ..training.recipes import announcement, label_of, left_out

    print(announcement(settings), file=sys.stderr)
    for text in left_out(settings.recipe, methods, settings):
        print(
            f"left out, because all runs of a comparison share their settings: {text}",
            file=sys.stderr,
        )
    return tuple(label_of(settings.recipe, label) for label in methods)
