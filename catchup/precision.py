"""In which precision a run computes: bfloat16 where the processor has it in hardware, float32 elsewhere.

Mixed precision as torch.autocast has it: weights, their gradients, batch norm's statistics and the loss stay float32.
Emulated bfloat16 is many times slower than float32, so what counts is the hardware and not what runs somehow.
"""

from dataclasses import replace

import torch

from .settings import Settings


def has_bfloat16(device: torch.device) -> bool:
    """Does the device multiply matrices of bfloat16 in hardware?

    On a GPU as PyTorch reports it, emulation not counted; on a CPU those with AMX or AVX-512's bfloat16 (x86), or
    ARM's; False where nobody can tell.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(found.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16", "sve_bf16"))


def chosen(precision: str, device: torch.device) -> str:
    """`precision` itself, or for "auto" what the device is best at: "bf16" or "fp32"."""
    if precision != "auto":
        return precision
    return "bf16" if has_bfloat16(device) else "fp32"


def with_precision(settings: Settings) -> Settings:
    """The settings with their precision decided, so that records and resumed runs say what was computed."""
    if settings.precision != "auto":
        return settings
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    return replace(settings, precision=chosen("auto", torch.device("cuda" if on_gpu else "cpu")))
