"""The regularisers that compose with any method, by the name the command line knows them by."""

from ast import literal_eval
from collections.abc import Sequence
from dataclasses import fields

from ..choices import pick
from .base import Regulariser

REGULARISERS: dict[str, type[Regulariser]] = {
}


def parse(spec: str) -> Regulariser:
    """The regulariser that a text like "cutout" or "cutout:size=8" names, several settings separated by commas.

    Raises:
        ValueError: if there is none of that name, it has no such setting, or a value does not fit.
    """
    name, _, rest = spec.partition(":")
    kind = REGULARISERS[pick("regulariser", name, REGULARISERS)]
    settings = {}
    for part in rest.split(",") if rest else ():
        key, sign, value = part.partition("=")
        pick(f"setting of {name}", key, [field.name for field in fields(kind)])
        try:
            settings[key] = literal_eval(value)
        except (ValueError, SyntaxError):
            raise ValueError(f"a regulariser is written name:setting=number,…, got {spec!r}") from None
    return kind(**settings)


def parsed(specs: Sequence[str | Regulariser]) -> tuple[Regulariser, ...]:
    """The regularisers of these texts, in their order; ValueError also if one is named twice."""
    if isinstance(specs, str):
        raise ValueError(f"regularisers must be a sequence of names, got the text {specs!r}")
    found = tuple(spec if isinstance(spec, Regulariser) else parse(spec) for spec in specs)
    kinds = [type(one) for one in found]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"a regulariser may be named once, got {', '.join(map(str, specs))}")
    return found


__all__ = ["REGULARISERS", "Regulariser", "parse", "parsed"]
