"""The settings that the methods were published with, by data set: `published.toml`, read."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from ..utils.choices import pick
from ..utils.files import as_tuples


@cache
def load() -> dict[str, dict[str, dict[str, Any]]]:
    """{class name of a method: {data set: its settings}}, lists made tuples."""
    text = files(__package__).joinpath("published.toml").read_text(encoding="utf-8")
    return {
        method: {data: as_tuples(settings) for data, settings in sets.items()}
        for method, sets in tomllib.loads(text).items()
    }


def published_settings(method: str, data: str) -> dict[str, Any]:
    """The settings that a method was published with; those at their defaults may be left out.

    Args:
        method: name of its class.
        data: name of a data set; a folder behind a colon is not looked at ("imagenet:/data").
    Raises:
        ValueError: if nothing was published of the method on that data set, naming those there are.
    """
    sets = load().get(method, {})
    return dict(sets[pick(f"published data set of {method}", data.partition(":")[0], sets)])
