"""A run's folder: what it holds and who may write to it.

DIR/run.json        all settings, seed, versions, hardware, commit; at the end the result
DIR/metrics.jsonl   one line per epoch
DIR/checkpoint.pt   everything needed to go on (see `catchup.training.checkpoint`)
DIR/.lock           while a process works there (see `catchup.training.lock`)
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

from ..data.identity import check_same_data
from ..utils.files import check_folder_place, read_json, read_lines, write_atomically, write_json
from ..utils.provenance import surroundings
from .lock import is_vacant
from .settings import WITHOUT_EFFECT

RUN, METRICS, CHECKPOINT, EVALUATION = (
    "run.json",
    "metrics.jsonl",
    "checkpoint.pt",
    "evaluation.json",
)


def claim(out: Path, settings: Mapping, data: Mapping, resume: bool) -> None:
    """Takes `out` for a run of these settings and data, or refuses it before anything is written.

    Args:
        out: the folder; made if it does not exist.
        settings: plain values (see `plain`).
        data: likewise, as `catchup.data.identity.DataIdentity.as_dict` makes them.
        resume: whether an interrupted run of the same settings is to be continued.
    Raises:
        ValueError: if the folder holds another run or something else, or if there is nothing to
            resume.
    """
    if check_claim(out, settings, data, resume):
        Path(out).mkdir(parents=True, exist_ok=True)
        write_json(
            Path(out) / RUN, {"settings": dict(settings), "data": dict(data), **surroundings()}
        )


def check_claim(out: Path, settings: Mapping, data: Mapping | None, resume: bool) -> bool:
    """What `claim` refuses, and nothing is written: True for a new run, False for one to be
    continued.
    """
    out = Path(out)
    check_folder_place(out, "the run")
    found = out / RUN
    if not found.is_file():
        if resume:
            raise ValueError(f"nothing to resume: {out} holds no {RUN}")
        if out.is_dir() and not is_vacant(out):
            raise ValueError(f"{out} is not empty and holds no run; give a new or an empty folder")
        return True
    if not resume:
        raise ValueError(
            f"{out} already holds a run; continue it with --resume, or give another folder"
        )
    record = read_json(found)
    before = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(before, dict):
        raise ValueError(f"{found} does not hold the settings of a run; give another folder")
    changed = [
        f"{key} was {before.get(key)!r}, now {settings.get(key)!r}"
        for key in sorted({*before, *settings}.difference(WITHOUT_EFFECT))
        if before.get(key) != settings.get(key)
    ]
    if changed:
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        said = "; ".join(one[:90] for one in changed[:3]) + more
        raise ValueError(f"{out} holds a run with other settings ({said}); give another folder")
    check_same_data(record.get("data"), data, f"{out} holds a run")
    return False


def find_checkpoint(out: Path, resume: bool) -> bool:
    """Is there a checkpoint in `out` to go on from?

    Raises:
        ValueError: if there is one and the run is not to be resumed, or if it is missing though the
            metrics tell of epochs that it held.
    """
    if (out / CHECKPOINT).exists():
        if not resume:
            raise ValueError(f"{out} holds a checkpoint already; resume it, or give another folder")
        return True
    if resume and (out / METRICS).is_file():
        if rows := read_metrics(out):
            raise ValueError(
                f"{out} has lost its {CHECKPOINT}: {len(rows)} epochs were finished, and nothing is"
                " left to resume; restore a copy, or train it again in another folder"
            )
        warnings.warn(f"{out} holds no checkpoint yet: its run begins anew", stacklevel=4)
    return False


def write_metrics(out: Path, rows: list[dict]) -> None:
    """All rows so far, one per line; anew after every epoch, as a line cut in half by a kill would
    spoil the file.
    """
    write_atomically(Path(out) / METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())


def read_metrics(out: Path) -> list[dict]:
    """The rows of a run, one per epoch. Raises ValueError as `read_lines`."""
    return read_lines(Path(out) / METRICS)
