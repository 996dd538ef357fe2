"""The methods, by the name the command line knows them by."""

from dataclasses import fields
from typing import Any

from ..utils.choices import pick
from .alignmixup import AlignMixup
from .automix import AutoMix
from .base import Mixer
from .baseline import Baseline
from .catchup import CatchUpMix
from .comixup import CoMixup
from .cutmix import CutMix
from .draw import Draw, Mixed, Step
from .fmix import FMix
from .guidedmixup import GuidedMixup
from .manifoldmixup import ManifoldMixup
from .mixup import InputMixup
from .moex import MoEx
from .puzzlemix import PuzzleMix
from .randomchannel import RandomChannelMix
from .recursivemix import RecursiveMix
from .resizemix import ResizeMix
from .saliencymix import SaliencyMix
from .snapmix import SnapMix

MIXERS: dict[str, type[Mixer]] = {
    "baseline": Baseline,
    "mixup": InputMixup,
    "cutmix": CutMix,
    "catchup": CatchUpMix,
    "randomchannel": RandomChannelMix,
    "snapmix": SnapMix,
    "guidedmixup": GuidedMixup,
    "automix": AutoMix,
    "fmix": FMix,
    "resizemix": ResizeMix,
    "saliencymix": SaliencyMix,
    "recursivemix": RecursiveMix,
    "puzzlemix": PuzzleMix,
    "manifoldmixup": ManifoldMixup,
    "moex": MoEx,
    "alignmixup": AlignMixup,
    "comixup": CoMixup,
}


def make(name: str, **settings: Any) -> Mixer:
    """The method called `name` with these settings.

    Raises:
        ValueError: if there is no such method, it has no such setting, or a value does not fit.
    """
    kind = MIXERS[pick("method", name, MIXERS)]
    for setting in settings:
        pick(f"setting of {name}", setting, [field.name for field in fields(kind)])
    return kind(**settings)


__all__ = [
    "MIXERS",
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
    "Mixed",
    "Mixer",
    "MoEx",
    "PuzzleMix",
    "RandomChannelMix",
    "RecursiveMix",
    "ResizeMix",
    "SaliencyMix",
    "SnapMix",
    "Step",
    "make",
]
