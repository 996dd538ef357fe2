"""The options of the commands: dataclasses for tyro from those of the package.

The settings of a method can only be offered once the method is known, and a recipe is where the
other options' defaults come from; so tyro reads these two first (`Leading`), then all.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, make_dataclass
from typing import Annotated, Literal

import tyro

from ..mixers import MIXERS
from ..mixers.published import published_settings
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


@dataclass(frozen=True, kw_only=True)
class ManyRuns:
    """What the commands that train many runs are told alike.

    Args:
        methods: Methods with their settings: cutmix, cutmix:alpha=0.2,prob=0.5. The first is what
            the others are compared with. A recipe adds its own settings of each method.
        preset: published: every method with the settings that its authors published for the data
            set, before the recipe's.
        seeds: Paired over the methods: same subset, initial weights, order of the images.
        engine: Where the runs are done: local (one after the other), pool:jobs=4 (processes of this
            machine), slurm:partition=gpu,hours=2,gpus=1,jobs=20 or ray:address=auto (a cluster).
            auto: a process of one thread for each processor; local where there is a GPU.
        plan: Only print the runs, which are missing, and about how long they take; nothing is
            trained.
        json: Print the results as JSON instead of a table.
    """

    methods: tuple[str, ...] = ("baseline", "catchup")
    preset: Literal["published"] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    engine: str = "auto"
    plan: bool = False
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Leading:
    """The options from which the defaults of the others follow; None where they are not given."""

    method: str | None = None
    recipe: tuple[str, ...] = ()
    preset: Literal["published"] | None = None
    scale: str | None = None
    data: tuple[str, ...] = ()
    model: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    window: int | None = None

    def defaults(self, recipe: str | None, method: str | None, data: str | None) -> dict:
        """The settings of a recipe as defaults, none without one, and with a preset those that the
        method was published with; the scale leaves alone what is given.
        """
        usual: dict = {}
        if recipe is not None:
            from ..training.recipes import settings_of

            keys = ("model", "epochs", "batch_size", "image_size", "window")
            given = {"data": data, **{key: getattr(self, key) for key in keys}}
            given = {key: value for key, value in given.items() if value is not None}
            usual = vars(settings_of(recipe, method, self.scale, **given))
        if self.preset and method:
            own = published_settings(
                MIXERS[method].__name__, data or usual.get("data", Settings.data)
            )
            usual = {**usual, "method_settings": {**usual.get("method_settings", {}), **own}}
        return usual


def read_leading(argv: Sequence[str]) -> Leading:
    """The leading options of a command that trains, read before the others."""
    command = f"catchup {argv[0]}"
    leading, _ = tyro.cli(
        Leading, prog=command, args=argv[1:], return_unknown_args=True, add_help=False
    )
    return leading


def write_out(
    methods: Sequence[str], settings: Settings, preset: str | None = None
) -> tuple[str, ...]:
    """The methods with their settings under the recipe and the preset, if there are; what cannot be
    followed is said.
    """
    from ..training.recipes import announcement, label_of, left_out

    if settings.recipe:
        print(announcement(settings), file=sys.stderr)
        for text in left_out(settings.recipe, methods, settings):
            print(
                f"left out, because all runs of a comparison share their settings: {text}",
                file=sys.stderr,
            )
    elif preset is None:
        return tuple(methods)
    data = settings.data if preset else None
    return tuple(label_of(settings.recipe, label, data) for label in methods)
