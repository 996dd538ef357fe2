"""The command line: thin. Every command calls one function of the package and prints what it
returns.
"""

import json as json_format
import select
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, asdict
from pathlib import Path
from typing import Literal, TextIO

import tyro

from .. import __version__
from ..mixers import MIXERS, Mixer
from ..mixers.regularisers import REGULARISERS, Regulariser
from ..utils.console import make_printable
from ..utils.text import as_text
from . import background as cli_background
from . import budget as cli_budget
from . import compare as cli_compare
from . import evaluate as cli_evaluate
from . import train as cli_train
from .notebooks import notebooks
from .options import Leading, read_leading
from .spelling import respell
from .train import own_settings

COMMANDS = (
    *("demo", "train", "evaluate", "compare", "budget", "methods", "datasets", "background"),
    *("recipes", "report", "notebooks"),
)
# commands whose options depend on others
LEADING = (["train"], ["compare"], ["budget"])

# PyTorch's words, off the GPU
OUT_OF_MEMORY = ("can't allocate memory", "Storage size calculation overflowed")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0, 1 for a run that failed, 2 for bad input, 141 for
    an unread end.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    make_printable(sys.stdout)
    make_printable(sys.stderr)
    if argv == ["--version"]:
        print(__version__)
        return 0
    try:
        argv = respell(argv, COMMANDS)
        code = _compare(argv) if argv[:1] == ["compare"] else _call(argv)
        if sys.stdout is not None:  # closed by who started this
            sys.stdout.flush()
    except BrokenPipeError as error:
        # as a shell calls the end by SIGPIPE
        return 141 if unread(sys.stdout) else _failed(error, 2)
    except (ValueError, OSError, ImportError) as error:
        return _failed(error, 2)
    except (FloatingPointError, MemoryError) as error:
        return _failed(error, 1)
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        return _failed(
            "there is not enough memory for this: take a smaller width, image size, pad or batch"
            " size",
            1,
        )
    except KeyboardInterrupt:
        return _failed(
            "stopped; what was finished is kept: give the command again, `train` with --resume", 130
        )
    return code or 0


def _compare(argv: list[str]) -> int:
    """Several comparisons in one call: the arguments are read once for each, as its recipe gives
    the defaults.
    """
    leading = read_leading(argv)
    calls = {
        name: _call(argv, comparison=one) for name, one in cli_compare.combinations(leading).items()
    }
    return cli_compare.run_calls(calls)


def _call(argv: list[str], comparison: tuple[str | None, str | None] = (None, None)):
    """Calls the command that the arguments name; what it returned.

    Args:
        argv: of any command.
        comparison: of `compare`: the recipe and the data set.
    """
    leading = read_leading(argv) if argv[:1] in LEADING else Leading()
    return tyro.extras.subcommand_cli_from_dict(
        {
            "demo": demo,
            "train": cli_train.make_command(leading if argv[:1] == ["train"] else Leading()),
            "evaluate": cli_evaluate.make_command(),
            "compare": cli_compare.make_command(leading, *comparison),
            "budget": cli_budget.make_command(leading),
            "methods": methods,
            "datasets": datasets,
            "background": cli_background.make_command(),
            "recipes": recipes,
            "report": show_report,
            "notebooks": notebooks,
        },
        args=argv,
        prog="catchup",
        description="Catch-up Mix (AAAI 2024) on any CNN, and what it is compared with.",
        config=(tyro.conf.OmitArgPrefixes,),
    )


def demo(out: Path = Path("runs/demo"), json: bool = False) -> None:
    """Train the baseline and Catch-up Mix on few digits, three paired seeds, and compare them.
    About a minute.

    Args:
        out: Folder for the figures and results.json; files of an earlier demo there are replaced.
        json: Print the results as JSON instead of a table.
    """
    from ..experiments.demo import describe_demo, run_demo

    results = run_demo(out)
    print(json_format.dumps(results) if json else describe_demo(results, out))


def show_report(
    runs: tyro.conf.Positional[tuple[Path, ...]] = (),
    table: tuple[int, ...] = (),
    figure: tuple[int, ...] = (),
    paper: Literal["both", "catchup", "automix"] = "both",
    html: Path | None = None,
    json: bool = False,
) -> None:
    """Put our records beside the papers' printed numbers: differences, intervals, and a verdict for
    every cell.

    Args:
        runs: Folders of `catchup compare`, run folders, or records; none: data/results.
        table: Only these tables, with all their cells; else all tables and figures, with the cells
            that were run.
        figure: Only these figures.
        paper: Only this paper: catchup (Tables 1-13, Figures 1-8) or automix (Tables 1-4).
        html: Also write the report to this file, with every cell; one that is there is replaced.
        json: Print the report as JSON instead of tables.
    """
    from ..experiments.report.cells import make_report
    from ..experiments.report.html import check_html, write_html
    from ..experiments.report.text import as_report, as_values

    if html is not None:
        check_html(html)
    results = make_report(runs, tables=table, figures=figure, which=paper)
    if html is not None:
        write_html(results, html)
    if json:
        return print(json_format.dumps(as_values(results)))
    print(as_report(results, everything=bool(table or figure)))
    if html is not None:
        print(f"\nall of it: {html}")


def methods(json: bool = False) -> None:
    """List the training methods and the regularisers, with their settings and the passes a step
    makes.

    Args:
        json: Print JSON instead of a table.
    """
    listed = {
        "methods": [_listed("method", name, kind) for name, kind in MIXERS.items()],
        "regularisers": [_listed("regulariser", name, kind) for name, kind in REGULARISERS.items()],
    }
    if json:
        return print(json_format.dumps(listed, default=str))
    print("methods (and the forward/backward passes of the model in a step that mixes)\n")
    for row in listed["methods"]:
        print(f"{row['method']:14} {row['about']} ({'{}/{}'.format(*row['passes'])})")
        print(
            " " * 15
            + "  ".join(
                f"--{key.replace('_', '-')} {value}" for key, value in row["settings"].items()
            )
        )
    print(
        "\nregularisers, with any method: --regularisers NAME NAME:SETTING=VALUE,… (and the passes"
        " they add)\n"
    )
    for row in listed["regularisers"]:
        print(f"{row['regulariser']:14} {row['about']} ({'{}/{}'.format(*row['passes'])})")
        print(
            (
                " " * 15 + "  ".join(f"{key}={value}" for key, value in row["settings"].items())
            ).rstrip()
        )


def recipes(name: tyro.conf.Positional[str | None] = None, json: bool = False) -> None:
    """List the papers' training protocols, which `train` and `compare` take as --recipe; or show
    one whole.

    Args:
        name: The recipe to show, with its conflicts and the numbers it aims at.
        json: Print JSON instead of text.
    """
    from ..training.recipes import listing, named, page, rows

    if json:
        return print(json_format.dumps(rows() if name is None else asdict(named(name))))
    print(listing() if name is None else page(name))


def datasets(data_dir: str = "data", fetch: str | None = None, json: bool = False) -> None:
    """List the data sets, where they come from, and which are there already.

    Args:
        data_dir: Where data sets are kept.
        fetch: Download this one first, such as cifar100-c; what `train` needs it fetches by itself.
        json: Print JSON instead of a table.
    """
    from ..data import describe
    from ..data import fetch as fetched

    if fetch is not None:
        fetched(fetch, data_dir)
    rows = [row._asdict() for row in describe(data_dir)]
    if json:
        return print(json_format.dumps(rows))
    table = [[str(value) for value in row.values()] for row in rows]
    print(as_text([[name for name in rows[0]], *table]))


def _listed(what: str, name: str, kind: type[Mixer] | type[Regulariser]) -> dict:
    """A line of `catchup methods`."""
    settings = {field.name: _default(field) for field in own_settings(kind)}
    return {what: name, "about": kind.about, "passes": kind.passes, "settings": settings}


def _default(field: Field):
    return field.default_factory() if field.default is MISSING else field.default


def _failed(error: object, code: int) -> int:
    print(f"catchup: {error}", file=sys.stderr)
    return code


def unread(output: TextIO | None) -> bool:
    """Has the reader of a pipe gone?

    False where nobody can tell: if `output` is None or no file of the system, or the system has no
        `poll`.
    """
    try:
        number, watch = output.fileno(), select.poll()
    except (AttributeError, OSError):
        return False
    watch.register(number, 0)  # errors are told of without being asked for
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))
