"""Catch-up Mix (Kang, Kang & Kim, AAAI 2024) on any CNN, with the methods and analyses it stands beside.

Importing downloads nothing, seeds nothing and picks no device.
"""

__version__ = "0.1.0"

from . import data, models
from .blocks import find_blocks
from .hooks import captured, compile_blocks, count_hooks, edited
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
from .recorder import Record, recording
from .regularisers import REGULARISERS
from .settings import Settings
from .snapshots import Snapshots
from .tables import accuracy_without, as_markdown, as_text, comparison
from .target import Target
from .training import fit, train

__all__ = [
    "AlignMixup", "AutoMix", "Baseline", "CatchUpMix", "CoMixup", "CutMix", "Draw", "FMix", "GuidedMixup",
    "InputMixup", "ManifoldMixup", "Mixer", "MIXERS", "MoEx", "PuzzleMix", "RandomChannelMix", "Record",
    "RecursiveMix", "REGULARISERS", "ResizeMix", "SaliencyMix", "Settings", "SnapMix", "Snapshots", "Step",
    "Target", "accuracy_without", "as_markdown", "as_text", "captured", "comparison", "compile_blocks",
    "count_hooks", "data", "edited", "filter_influence", "find_blocks", "fit", "keep_mask", "mix_channels",
    "models", "recording", "relative_filter_influence", "train",
]
