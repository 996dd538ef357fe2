"""A benchmark as a command: `python -m benchmarks.NAME`, its options read by tyro."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from catchup.utils.files import read_json


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


def check_results_file(path: Path, mark: str, name: str) -> None:
    """Makes the folder of `path`; ValueError where something else than results of the benchmark
    `name` would be overwritten, which are known by their field `mark`.
    """
    held = read_json(path) if path.is_file() else {mark: None}
    if path.is_dir() or not isinstance(held, dict) or mark not in held:
        raise ValueError(
            f"{path} holds something else than the results of `python -m benchmarks.{name}`;"
            " give another file"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
