"""The `train` command: the settings of a run and of its method, and what it prints."""

import json as json_format
import os
import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..mixers import MIXERS, Mixer
from ..mixers.regularisers import Regulariser
from ..training.settings import Settings
from ..utils.choices import pick
from .options import Leading, options_of

if TYPE_CHECKING:
    from ..training.trainer import Result


def make_command(leading: Leading):
    """The command for tyro, with the settings of the named method among its options; a named recipe
    sets defaults.
    """
    method = pick("method", leading.method or Settings.method, MIXERS)
    recipe, data = (next(iter(named), None) for named in (leading.recipe, leading.data))
    kind, usual = MIXERS[method], leading.defaults(recipe, method, data)
    run_options = options_of(
        "run",
        [field for field in fields(Settings) if field.name != "method_settings"],
        Settings,
        usual,
    )
    method_options = options_of(
        f"method {method}", own_settings(kind), kind, usual.get("method_settings")
    )

    def train(
        out: Path,
        run: run_options,
        method_settings: method_options,
        preset: Literal["published"] | None = None,
        resume: bool = False,
        json: bool = False,
    ) -> None:
        """Train one model with one method; `--method NAME --help` shows that method's settings too.

        Args:
            out: Folder of the run: run.json, metrics.jsonl and the checkpoint go there.
            preset: published: the settings that the method's authors published for the data set,
                before the recipe's.
            resume: Go on after the last finished epoch of the run in that folder.
            json: Print the result as JSON.
        """
        from ..training.recipes import announcement
        from ..training.trainer import train as train_run

        settings = Settings(**vars(run), method_settings=vars(method_settings))
        if settings.recipe:
            print(announcement(settings), file=sys.stderr)
        result = train_run(settings, out, resume=resume)
        if int(os.environ.get("RANK", 0)):  # under torchrun one process speaks for all
            return
        if json:
            learning = result.learning._asdict()
            return print(
                json_format.dumps({"out": str(out), **result.summary, "learning": learning})
            )
        print(_as_lines(result), f"next: catchup evaluate {out}", sep="\n")

    return train


def _as_lines(result: "Result") -> str:
    """What a run came to, and whether its network is still learning."""
    s = result.summary
    errors = (
        f"top-1 error: last {s['last_error_percent']:.2f} %, best {s['best_error_percent']:.2f} %,"
        f" median of the last ten epochs {s['median10_error_percent']:.2f} % "
        f" ({s['time_s']:.0f} s)"
    )
    if result.learning.trained or not result.finished:
        return errors
    reason = result.learning.reason
    return f"{errors}\nstill learning: {reason}; too short to tell anything of the method"


def own_settings(kind: type[Mixer] | type[Regulariser]) -> list[Field]:
    """The settings of a method that the command line offers; its seed is the run's."""
    return [field for field in fields(kind) if field.name != "seed"]
