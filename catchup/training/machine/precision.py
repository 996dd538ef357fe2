"""In which precision a run computes: bfloat16 where the processor has it in hardware, float32
elsewhere.

Mixed precision as torch.autocast has it: weights, their gradients, batch norm's statistics and the
loss stay float32. Emulated bfloat16 is many times slower than float32, so what counts is the
hardware and not what runs somehow.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from ...utils.files import read_json
from .. import checkpoint
from ..folder import CHECKPOINT, RUN
from ..groups import PRECISIONS
from ..settings import Settings

# what a precision's passes are autocast to
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def has_bfloat16(device: torch.device) -> bool:
    """Does the device multiply matrices of bfloat16 in hardware?

    On a GPU as PyTorch reports it, emulation not counted; on a CPU those with AMX or AVX-512's
    bfloat16 (x86), or ARM's; False where nobody can tell.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(
        found.get(name, False)
        for name in ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16", "sve_bf16")
    )


def choose_precision(precision: str, device: torch.device) -> str:
    """`precision` itself, or for "auto" what the device is best at: "bf16" or "fp32"."""
    if precision != "auto":
        return precision
    return "bf16" if has_bfloat16(device) else "fp32"


def resolve_precision(settings: Settings, begun: Iterable[Path] = ()) -> Settings:
    """The settings with their precision decided, so that records and resumed runs say what was
    computed.

    Args:
        settings: where they say "auto", it is decided here.
        begun: folders of runs that are to be continued, or joined. The first that holds one decides
            instead of the machine, which may be another one now: a run keeps its precision.
    Raises:
        CheckpointError: if all that one of them holds is a damaged checkpoint.
    """
    if settings.precision != "auto":
        return settings
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    found = next(filter(None, map(_begun_in, begun)), None)
    return replace(
        settings,
        precision=found or choose_precision("auto", torch.device("cuda" if on_gpu else "cpu")),  # type: ignore[arg-type]
    )


def _begun_in(folder: Path) -> str | None:
    """The precision of the run in `folder`, by its record or its checkpoint; None if it tells of
    none.
    """
    if (folder / RUN).is_file():
        record = read_json(folder / RUN)
        told = record.get("settings") if isinstance(record, dict) else None
    elif (folder / CHECKPOINT).is_file():
        told = checkpoint.load(folder / CHECKPOINT).get("run")
    else:
        return None
    value = told.get("precision") if isinstance(told, dict) else None
    return value if value in PRECISIONS and value != "auto" else None
