"""Names chosen from a list, alone or with settings: one place for the sentence a misspelt one
gets.
"""

import re
from ast import literal_eval
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TypeVar

Made = TypeVar("Made")

# needs no quotes: ap, layer1.0, dropblock:block=5
_WORD = re.compile(r"[A-Za-z_][^\s,()\[\]{}'\"]*")
_SWITCHES = {"true": True, "false": False}


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
    near = get_close_matches(str(name)[:100].lower(), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {_short(name)}.{hint} Choose one of: {', '.join(choices)}"


def _short(value) -> str:
    """A value as it is written in Python, cut where it is too long for a sentence."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:90]} … ({len(text)} characters)"


def parse_spec(text: str, kind: str = "method") -> tuple[str, dict]:
    """What a text like "cutmix" or "cutmix:alpha=0.2,prob=0.5" names: ("cutmix", {"alpha": 0.2,
    "prob": 0.5}).

    Values are numbers, True, False, None, quoted texts, words as they stand
    ("guidedmixup:saliency=ap"), and lists of these in round or square brackets
    ("catchup:layers=[0,1],blocks=[stem,layer1]"), which become tuples. Neither the
    name nor the settings are looked up: whatever is made of them does that.

    Args:
        text: as above.
        kind: what is being named, for the message.
    Raises:
        ValueError: if the text is not written so, or sets something twice.
    """
    form = (
        f"{_with_article(kind)} is written name or name:setting=value,… (a number, a word, or a"
        f" list in brackets), got {_short(text)}"
    )
    name, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    try:
        parts = [part.partition("=") for part in _parts(rest)] if colon else []
        pairs = [(_name(key), _value(value)) for key, _, value in parts]
        _name(name)
    except (SyntaxError, RecursionError):  # the latter from brackets in brackets, hundreds deep
        raise ValueError(form) from None
    settings = dict(pairs)
    if len(settings) < len(pairs):
        raise ValueError(f"a setting stands twice in {_short(text)}")
    return name, settings


def build(make: Callable[..., Made], text: str, kind: str = "method", **more) -> Made:
    """`make(name, **settings, **more)` of what `text` names (see `parse_spec`).

    Raises:
        ValueError: as `parse_spec` and `make`; if the text sets something of `more`; if a value
            is of a type that its setting cannot take (a TypeError of `make`).
    """
    name, settings = parse_spec(text, kind)
    for key in settings:
        if key in more:
            raise ValueError(f"{key} cannot be set in {_short(text)}: it is given apart")
    try:
        return make(name, **settings, **more)
    except TypeError as error:
        raise ValueError(f"a value in {_short(text)} does not fit its setting: {error}") from error


def _with_article(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def _parts(text: str) -> list[str]:
    """The text cut at its commas, but for those in brackets or quotes; SyntaxError if one of these
    is left open.
    """
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        else:
            depth += (sign in "([") - (sign in ")]")
        if depth < 0:
            raise SyntaxError(text)
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    if depth or quote:
        raise SyntaxError(text)
    return parts


def _name(text: str) -> str:
    """The text, if it can be the name of something or of a setting; SyntaxError if not."""
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", text.strip()):
        raise SyntaxError(text)
    return text.strip()


def _value(text: str):
    """The value written in `text`; SyntaxError if there is none."""
    text = text.strip()
    if text[:1] + text[-1:] in ("()", "[]"):
        inner = text[1:-1].strip()
        return tuple(_value(part) for part in _parts(inner.removesuffix(","))) if inner else ()
    if text in _SWITCHES or _WORD.fullmatch(text) and text not in ("True", "False", "None"):
        return _SWITCHES.get(text, text)
    try:
        value = literal_eval(text)
    except (ValueError, TypeError, RecursionError, MemoryError):
        # no literal; a key that is a list; thousands of signs
        raise SyntaxError(text) from None
    if not isinstance(value, (bool, int, float, str, type(None))):
        raise SyntaxError(text)
    return value


def check_whole(least: int = 1, /, **numbers: int) -> None:
    """Raises ValueError for the first of the numbers that is no whole number of at least
    `least`.
    """
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {number!r}")


def check_index(kind: str, index: int, count: int, where: str = "") -> None:
    """Raises ValueError unless `index` counts one of `count` things, the first as 0."""
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
        raise ValueError(f"{kind} must be a number from 0 to {count - 1}{where}, got {index!r}")


def check_least(values: object, **least: int) -> None:
    """Raises ValueError if an attribute of `values` is below its least value, given by its name."""
    for name, bound in least.items():
        if getattr(values, name) < bound:
            raise ValueError(f"{name} must be at least {bound}, got {getattr(values, name)}")
