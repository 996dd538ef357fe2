"""The regularisers that compose with any method, by the name the command line knows them by."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ...utils.choices import build, pick
from .augmix import AugMix
from .base import Regulariser
from .cutout import Cutout
from .dropblock import DropBlock
from .labelsmoothing import LabelSmoothing
from .shakedrop import ShakeDrop
from .stochdepth import StochDepth

REGULARISERS: dict[str, type[Regulariser]] = {
    "cutout": Cutout,
    "labelsmoothing": LabelSmoothing,
    "dropblock": DropBlock,
    "stochdepth": StochDepth,
    "shakedrop": ShakeDrop,
    "augmix": AugMix,
}


def parse(spec: str) -> Regulariser:
    """The regulariser that a text like "cutout" or "cutout:size=8" names (see
    `catchup.utils.choices.parse_spec`).

    Raises:
        ValueError: if there is none of that name, it has no such setting, or a value does not fit.
    """
    return build(_make, spec, "regulariser")


def parse_all(specs: Sequence[str | Regulariser]) -> tuple[Regulariser, ...]:
    """The regularisers of these texts, in their order; ValueError also if one is named twice."""
    if isinstance(specs, str):
        raise ValueError(f"regularisers must be a sequence of names, got the text {specs!r}")
    found = tuple(spec if isinstance(spec, Regulariser) else parse(spec) for spec in specs)
    kinds = [type(one) for one in found]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"a regulariser may be named once, got {', '.join(map(str, specs))}")
    return found


def _make(name: str, **settings: Any) -> Regulariser:
    kind = REGULARISERS[pick("regulariser", name, REGULARISERS)]
    for setting in settings:
        pick(f"setting of {name}", setting, [field.name for field in fields(kind)])
    return kind(**settings)


__all__ = ["REGULARISERS", "Regulariser", "parse", "parse_all"]
