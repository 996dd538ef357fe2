"""Everything that decides a training run, as one value: what the command line fills in and
`run.json` records.

The five groups of settings and their checks stand in `groups.py`.
"""

from dataclasses import asdict, dataclass, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .groups import (
    AugmentationSettings,
    DataSettings,
    ModelSettings,
    OptimiserSettings,
    RunSettings,
)

# Decide nothing about the result: two runs that differ in these alone are the same run.
WITHOUT_EFFECT = ("recipe", "scale", "save_every_s", "loader", "workers")
# Where and how a run is carried out: part of no published protocol.
PLACE = ("data_dir", "device", "skip_unreadable", "validate_every")


@dataclass(frozen=True, kw_only=True)
class Settings(  # the last base's fields come first, on the command line too
    RunSettings, AugmentationSettings, OptimiserSettings, ModelSettings, DataSettings
):
    """The settings of one run: those of its data, model, optimiser, augmentation and run, flat.

    `Settings(data="cifar10", epochs=200)` sets two of them; the groups document each.

    Raises:
        ValueError: for a value out of range, or two that do not fit together.
    """

    def __post_init__(self) -> None:
        for group in (DataSettings, ModelSettings, OptimiserSettings, RunSettings):
            group.__post_init__(self)

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, ready for JSON; `from_dict` gives them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Settings":
        """The settings that a `run.json` records, all of them.

        Raises:
            TypeError: for a name that is no setting or one that is missing, or a value of another
                type than its setting has.
            ValueError: for a value out of range.
        """
        if missing := [one.name for one in fields(cls) if one.name not in values]:
            raise TypeError(f"the settings lack {', '.join(missing)}")
        pairs = ("milestones", "resized_scale", "resized_ratio")  # JSON has made lists of them
        chosen: dict[str, Any] = {
            key: tuple(value) if key in pairs and value is not None else value
            for key, value in values.items()
        }
        settings = cls(**chosen)
        for name, kind in get_type_hints(cls).items():
            if not _is_a(getattr(settings, name), kind):
                raise TypeError(f"{name} cannot be {str(getattr(settings, name))[:50]!r}")
        return settings


def _is_a(value: Any, kind: Any) -> bool:
    """Is `value` of the annotated type, where an integer may stand for a float?"""
    of, parts = get_origin(kind), get_args(kind)
    if of in (Union, UnionType):
        return any(_is_a(value, part) for part in parts)
    if of is Literal:
        return value in parts
    if of is tuple:
        kinds = parts[:1] * len(value) if isinstance(value, tuple) and parts[-1] is ... else parts
        return (
            isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_a, value, kinds))
        )
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else of or kind)
