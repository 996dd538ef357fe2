"""What was meant by words that the parser would not take: lists written the other way, a command or
an option misspelt.

A list stands behind its option with spaces (`--methods baseline catchup --seeds 0 1`), but for
`--tests clean,fgsm`; the other way is understood everywhere.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from ..mixers import MIXERS
from ..training.settings import Settings
from ..utils.choices import pick
from .train import own_settings

SPACED = ("--methods", "--seeds", "--layers", "--regularisers", "--budgets", "--rhos")
JOINED = ("--tests",)
TEST = re.compile(r"[a-z][a-z-]*")
# commands whose words are all options
WITHOUT_WORDS = ("train", "compare", "budget", "background", "demo", "methods", "datasets")


def respell(argv: Sequence[str], commands: Sequence[str]) -> list[str]:
    """The arguments with lists written the way the parser reads them.

    Args:
        argv: of any command. commands: names of all.
    Raises:
        ValueError: for a command that there is not, a word without an option where a command takes
            none, or a setting that the method named beside it has not; with what to write.
    """
    if not argv or argv[0].startswith("-"):
        return list(argv)
    pick("command", argv[0], commands)
    found = [argv[0]]
    for option, words in _options(argv[1:]):
        if option in SPACED:
            words = [item for word in words for item in split_list(word)]
        elif option in JOINED:
            words = _joined(words)
        elif option is None and argv[0] in WITHOUT_WORDS and words:
            raise ValueError(
                f"`catchup {argv[0]}` takes no word without an option, got {words[0]!r}: write for"
                f" example --data {words[0]}"
            )
        found += [*([] if option is None else [option]), *words]
    if argv[0] == "train":
        _check_settings(found)
    return found


def split_list(word: str) -> list[str]:
    """The items of a list with commas: "0,1", "mixup,cutmix:alpha=1,prob=0.5". A comma inside
    brackets, or before a further setting of the same item, parts nothing.
    """
    items: list[str] = []
    for part in re.split(r",(?![^\[\]()]*[\])])", word):
        setting = items and ":" in items[-1] and re.match(r"[a-z_]+=", part)
        if setting:
            items[-1] += f",{part}"
        elif part:
            items.append(part)
    return items


def _options(words: Sequence[str]) -> Iterator[tuple[str | None, list[str]]]:
    """(option, what stands behind it), None for what stands before the first."""
    option: str | None = None
    values: list[str] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            if option is not None or values:
                yield option, values
            name, given, value = word.partition("=")
            option, values = (name, [value]) if given and name in SPACED else (word, [])
        else:
            values.append(word)
    if option is not None or values:
        yield option, values


def _joined(words: Sequence[str]) -> list[str]:
    """["clean", "fgsm", "runs/a"] as ["clean,fgsm", "runs/a"]: names of tests alone are joined."""
    count = 0
    for word in words:
        named = all(TEST.fullmatch(part) for part in word.split(",") if part)
        if not named or (count and Path(word).exists()):
            break
        count += 1
    return [",".join(words[:count]), *words[count:]] if count else list(words)


def _check_settings(words: Sequence[str]) -> None:
    """ValueError for an option that is a setting of other methods than the one named."""
    given = dict(word.partition("=")[::2] for word in words if word.startswith("--"))
    chosen = {option: values for option, values in _options(words[1:]) if option}
    method = given.get("--method") or next(iter(chosen.get("--method", [])), None)
    if method not in MIXERS or "--help" in words:
        return
    of_runs = {field.name for field in fields(Settings)}
    owners = {name: {field.name for field in own_settings(MIXERS[name])} for name in MIXERS}
    for option in given:
        name = option.removeprefix("--").removeprefix("no-").replace("-", "_")
        have = [other for other, names in owners.items() if name in names]
        if have and method not in have and name not in of_runs:
            raise ValueError(
                f"{method} has no setting {option}; of the methods, these have it:"
                f" {', '.join(have)} (`catchup train --method {method} --help` lists its own)"
            )
