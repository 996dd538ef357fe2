"""A benchmark as a command: `python -m benchmarks.NAME`, its options read by tyro."""

import sys
from collections.abc import Callable, Sequence

import tyro


def call(main: Callable[..., None], name: str, argv: Sequence[str] | None = None) -> int:
    """Calls `main` with the options of the command line.

    Args:
        main: whose arguments are the options.
        name: of the module, for the help.
        argv: the options; None takes those of this process.
    Returns:
        The exit code: 0, or 2 for what does not fit, with a sentence on standard error.
    """
    try:
        tyro.cli(
            main,
            prog=f"python -m benchmarks.{name}",
            args=argv,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0
