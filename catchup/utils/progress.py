"""Progress bars, all made here: on standard error, in a notebook as a widget.

Where none is shown there is no tqdm at all: it has a lock that forked processes share, and one of
them that is killed while it holds the lock would stop all the others for ever.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def bar(
    items: Iterable[Item], desc: str | None, unit: str, shown: bool, **options
) -> Iterable[Item]:
    """`items`, with a bar that follows them if it is `shown`.

    Args:
        items: anything to go through once.
        desc: in front of the bar.
        unit: what is counted, singular.
        options: of `tqdm`: `total` where `items` have no length, `leave=False` to clear the bar
            away at the end; and `terminal=True`, to show it where standard error is a terminal
            alone, and never as a widget.
    """
    return _make_bar(items, desc=desc, unit=unit, **options) if shown else items


@contextmanager
def counter(
    total: int | None, desc: str, unit: str, shown: bool, **options
) -> Iterator[Callable[..., object]]:
    """Inside the block a function of n that moves the bar on by so many, by 1 if not told.

    Args:
        total: None if it is not known. Else as `bar`.
    """
    if not shown:
        yield lambda n=1: None
        return
    with _make_bar(total=total, desc=desc, unit=unit, **options) as moved:
        yield moved.update


def say(text: str, shown: bool) -> None:
    """Writes a line to standard error, above the bars if any is `shown`."""
    if not shown:
        print(text, file=sys.stderr)
        return
    from tqdm.auto import tqdm

    tqdm.write(text, file=sys.stderr)


def _make_bar(items: Iterable | None = None, terminal: bool = False, **options):
    """A bar of tqdm; the options are those of `bar`."""
    if terminal:
        from tqdm.std import tqdm

        return tqdm(items, disable=None, **options)
    from tqdm.auto import tqdm

    return tqdm(items, **options)
