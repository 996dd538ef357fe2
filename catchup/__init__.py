"""Catch-up Mix (Kang, Kang & Kim, AAAI 2024) on any CNN, with the methods and analyses it stands
beside.

Importing downloads nothing, seeds nothing and picks no device.
"""

__version__ = "0.1.0"

from . import data, models
from .hooks.blocks import find_blocks
from .hooks.compiled import compile_blocks
from .hooks.layers import captured, count_hooks, edited
from .inspection.recorder import Record, recording
from .inspection.snapshots import Snapshots
from .measures.statistics import accuracy_without, comparison
from .mixers import (
    MIXERS,
    AlignMixup,
    AutoMix,
    Baseline,
    CatchUpMix,
    CoMixup,
    CutMix,
    Draw,
    FMix,
    GuidedMixup,
    InputMixup,
    ManifoldMixup,
    Mixer,
    MoEx,
    PuzzleMix,
    RandomChannelMix,
    RecursiveMix,
    ResizeMix,
    SaliencyMix,
    SnapMix,
    Step,
)
from .mixers.catchup import filter_influence, keep_mask, mix_channels, relative_filter_influence
from .mixers.regularisers import REGULARISERS
from .mixers.target import Target
from .training.settings import Settings
from .training.trainer import fit, train
from .utils.text import as_markdown, as_text

__all__ = [
    "AlignMixup",
    "AutoMix",
    "Baseline",
    "CatchUpMix",
    "CoMixup",
    "CutMix",
    "Draw",
    "FMix",
    "GuidedMixup",
    "InputMixup",
    "ManifoldMixup",
    "Mixer",
    "MIXERS",
    "MoEx",
    "PuzzleMix",
    "RandomChannelMix",
    "Record",
    "RecursiveMix",
    "REGULARISERS",
    "ResizeMix",
    "SaliencyMix",
    "Settings",
    "SnapMix",
    "Snapshots",
    "Step",
    "Target",
    "accuracy_without",
    "as_markdown",
    "as_text",
    "captured",
    "comparison",
    "compile_blocks",
    "count_hooks",
    "data",
    "edited",
    "filter_influence",
    "find_blocks",
    "fit",
    "keep_mask",
    "mix_channels",
    "models",
    "recording",
    "relative_filter_influence",
    "train",
]
