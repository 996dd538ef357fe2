"""Names chosen from a list: one place for the sentence a misspelt name gets."""

from collections.abc import Iterable
from difflib import get_close_matches


def pick(kind: str, name: str, choices: Iterable[str]) -> str:
    """`name` itself, if it is one of `choices`.

    Args:
        kind: what is being chosen, for the message ("method", "data set", …).
        name: the name received.
        choices: the names that exist.
    Returns:
        `name`, unchanged.
    Raises:
        ValueError: if it is not among them; the message lists them all and suggests the nearest.
    """
    choices = list(choices)
    if name not in choices:
        raise ValueError(misfit(kind, name, choices))
    return name


def misfit(kind: str, name: str, choices: list[str]) -> str:
    """The sentence itself: what was received, the nearest choice, all choices."""
    near = get_close_matches(str(name).lower(), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Choose one of: {', '.join(choices)}"
